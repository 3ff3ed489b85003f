//! What goes wrong in a call.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Ckr, Event, Function};

/// One thing that goes wrong, in the calls of one function or of any.
///
/// Of the faults that fall on a call, delays add up; of the others the one injected first wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The function; absent for any (see [`Function::is_any`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Function>,
    /// What happens.
    pub effect: Effect,
    /// How many calls it falls on.
    #[serde(default)]
    pub times: Times,
    /// How many calls go by before the first one.
    #[serde(default)]
    pub skip: u64,
    /// The chance that it falls on a call; absent for each one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<Chance>,
    /// Time that passes before the effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Kept in the state file, with the times that are left, for the processes to come.
    #[serde(default)]
    pub persist: bool,
}

impl Fault {
    /// A fault in every call of `function`, which does nothing yet.
    #[must_use]
    pub fn on(function: Function) -> Self {
        Self { function: Some(function), ..Self::on_any() }
    }

    /// A fault in every call of any function, which does nothing yet.
    #[must_use]
    pub fn on_any() -> Self {
        Self {
            function: None,
            effect: Effect::Proceed,
            times: Times::Forever,
            skip: 0,
            chance: None,
            delay: None,
            persist: false,
        }
    }

    /// The call returns `code` and does nothing. An operation that it would have ended is over.
    #[must_use]
    pub fn returns(self, code: Ckr) -> Self {
        self.does(Effect::Return { code })
    }

    /// The call does not return until released.
    #[must_use]
    pub fn hangs(self) -> Self {
        self.does(Effect::Hang)
    }

    /// The process dies in the call.
    #[must_use]
    pub fn crashes(self, how: Crash) -> Self {
        self.does(Effect::Crash { how })
    }

    /// The signature is spoilt.
    #[must_use]
    pub fn corrupts(self, how: Corruption) -> Self {
        self.does(Effect::Corrupt { how })
    }

    /// The device suffers `event` as the call begins; the call finds the device as it is then.
    #[must_use]
    pub fn strikes(self, event: Event) -> Self {
        self.does(Effect::Strike { event })
    }

    /// The call has this effect.
    #[must_use]
    pub fn does(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    /// Falls on `times` calls and is spent.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times: Times::Count(times), ..self }
    }

    /// Falls on one call and is spent.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Lets `calls` calls go by first.
    #[must_use]
    pub fn after(self, calls: u64) -> Self {
        Self { skip: calls, ..self }
    }

    /// Falls on a call with this probability, 0 to 1; the same seed gives the same sequence.
    #[must_use]
    pub fn with_chance(self, probability: f64, seed: u64) -> Self {
        Self { chance: Some(Chance { probability, seed }), ..self }
    }

    /// Takes this much longer.
    #[must_use]
    pub fn delayed(self, fixed: Duration) -> Self {
        self.delayed_between(fixed, fixed)
    }

    /// Takes longer by a time drawn evenly between two.
    #[must_use]
    pub fn delayed_between(self, least: Duration, most: Duration) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let delay = Delay { fixed_us: micros(least), jitter_us: micros(most.saturating_sub(least)) };
        Self { delay: Some(delay), ..self }
    }

    /// Outlives the process, in the state file.
    #[must_use]
    pub fn persistent(self) -> Self {
        Self { persist: true, ..self }
    }
}

/// What happens in the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// Nothing: for a fault that is only a delay.
    Proceed,
    /// The call returns this.
    Return {
        /// Any return value.
        code: Ckr,
    },
    /// The call waits until it is released or the faults are cleared, then goes on.
    Hang,
    /// The process dies.
    Crash {
        /// By which death.
        how: Crash,
    },
    /// `C_Sign` answers `CKR_OK` and something wrong; nothing in other functions.
    Corrupt {
        /// What is wrong with it.
        how: Corruption,
    },
    /// Something happens to the device.
    Strike {
        /// What.
        event: Event,
    },
}

/// How often a fault falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    /// On every call until it is cleared.
    #[default]
    Forever,
    /// On so many calls.
    #[serde(untagged)]
    Count(u64),
}

/// A chance, from a generator of its own so that a run can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// 0 to 1.
    pub probability: f64,
    /// Start of the generator.
    #[serde(default)]
    pub seed: u64,
}

/// Added time, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// At least this long.
    pub fixed_us: u64,
    /// And up to this much longer, evenly drawn.
    #[serde(default)]
    pub jitter_us: u64,
}

/// A death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crash {
    /// SIGSEGV, whatever handler the application has.
    Segv,
    /// SIGABRT, as from a failed assertion.
    Abort,
    /// SIGKILL, as from the kernel's memory killer.
    Kill,
}

/// What is wrong with a signature. All but the last two leave one that does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Corruption {
    /// One bit of it is flipped.
    FlipBit,
    /// It has this length, cut off or filled with zeros.
    Resize(usize),
    /// It is over another digest, with the right key.
    OtherDigest,
    /// It is over the right digest, with another key of the token, or a new one where the token has no other.
    OtherKey,
    /// It is the one given out before, to whomever; a flipped bit where there is none.
    Previous,
    /// r and s are zero.
    AllZero,
    /// r is the order of P-256.
    ROutOfRange,
    /// s is the order of P-256.
    SOutOfRange,
    /// Good: r and s both have their highest bit set, so that DER needs a zero before each.
    HighBits,
    /// Good: r starts with a zero byte, so that DER needs one byte fewer.
    ShortR,
}
