//! How a key is in a token: grades with hysteresis, and what took it out of service.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::OutOfService;
use super::evidence::Evidence;

/// How a key is in one of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyHealth {
    /// It signs.
    Live,
    /// It signs, though something is not as it should be: asked last.
    Degraded,
    /// It is not asked.
    OutOfService,
    /// An operator has taken the token off: it is not asked.
    Drained,
}

impl KeyHealth {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Live, Self::Degraded, Self::OutOfService, Self::Drained];

    /// As in `/readyz`, metrics and audit records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Degraded => "degraded",
            Self::OutOfService => "out_of_service",
            Self::Drained => "drained",
        }
    }
}

/// What is known about a key in a token at this moment; shared by everyone who holds the key.
#[derive(Debug, Default)]
pub(super) struct Health {
    trouble: ArcSwapOption<OutOfService>,
    pub(super) evidence: ArcSwapOption<Evidence>,
    canary: Mutex<Canaries>,
    /// What the audit log was last told.
    told: Mutex<Option<KeyHealth>>,
}

/// What the test signatures say.
#[derive(Clone, Debug, Default)]
pub(super) struct Canaries {
    /// `None`: none has come back yet.
    pub(super) grade: Option<KeyHealth>,
    /// Why the grade is not `Live`; empty when it is.
    pub(super) why: Arc<str>,
    /// When the last one was made, good or bad.
    pub(super) last: Option<Instant>,
    /// How long the last good one took, and when it came.
    pub(super) good: Option<(Duration, Timestamp)>,
    /// Those that failed, since the start.
    pub(super) failures: u64,
    turn: Turn,
}

/// Observations in a row that speak for another grade than the present one.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    toward_worse: u32,
    toward_better: u32,
}

impl Health {
    pub(super) fn trouble(&self) -> Option<OutOfService> {
        self.trouble.load().as_deref().cloned()
    }

    pub(super) fn in_trouble(&self) -> bool {
        self.trouble.load().is_some()
    }

    /// A bad signature outlives everything said later. Returns whether it is news.
    pub(super) fn take_out(&self, why: OutOfService) -> bool {
        let why = Arc::new(why);
        let before = self.trouble.rcu(|before| match before {
            Some(lasting) if **lasting == OutOfService::BadSignature => Some(Arc::clone(lasting)),
            _ => Some(Arc::clone(&why)),
        });
        before.as_deref().is_none_or(|before| *before != *why && *before != OutOfService::BadSignature)
    }

    /// Returns whether that is news.
    pub(super) fn restore(&self) -> bool {
        let before = self.trouble.rcu(|before| match before {
            Some(lasting) if **lasting == OutOfService::BadSignature => Some(Arc::clone(lasting)),
            _ => None,
        });
        before.as_deref().is_some_and(|why| *why != OutOfService::BadSignature)
    }

    pub(super) fn canaries(&self) -> MutexGuard<'_, Canaries> {
        // Plain values: a panic elsewhere cannot have left them half-changed.
        self.canary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the audit log is told now. Returns whether that is news.
    pub(super) fn tell(&self, state: KeyHealth) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).replace(state) != Some(state)
    }

    /// The key by itself, whatever its token is like: how it is, and why it is not live.
    pub(super) fn of_key(&self) -> (KeyHealth, String) {
        if let Some(why) = self.trouble() {
            return (KeyHealth::OutOfService, why.to_string());
        }
        let canaries = self.canaries();
        (canaries.grade.unwrap_or(KeyHealth::Live), canaries.why.to_string())
    }
}

impl Canaries {
    /// Takes one observation. The first one decides at once; after it a grade changes only when several in a row say
    /// so, and an observation in between starts the count again.
    pub(super) fn observe(&mut self, seen: KeyHealth, why: &str) {
        self.last = Some(Instant::now());
        if seen == KeyHealth::OutOfService {
            self.failures += 1;
        }
        let Some(grade) = self.grade else {
            (self.grade, self.why) = (Some(seen), why.into());
            return;
        };
        self.turn = Turn {
            toward_worse: if seen > grade { self.turn.toward_worse + 1 } else { 0 },
            toward_better: if seen < grade { self.turn.toward_better + 1 } else { 0 },
        };
        if self.turn.toward_worse >= WORSE_AFTER || self.turn.toward_better >= BETTER_AFTER {
            self.turn = Turn::default();
            self.grade = Some(seen);
        }
        // A live key has no reason; one that is not keeps the latest.
        if self.grade == Some(KeyHealth::Live) {
            self.why = Arc::default();
        } else if seen != KeyHealth::Live {
            self.why = why.into();
        }
    }

    /// How long after `last` the next one is due.
    pub(super) fn pause(&self, interval: Duration) -> Duration {
        let settled = self.turn.toward_worse == 0 && self.grade.is_some_and(|grade| grade < KeyHealth::OutOfService);
        if settled { interval } else { EAGER.min(interval) }
    }

    /// The token was away: what it can do now is not known.
    pub(super) fn due_now(&mut self) {
        self.last = None;
    }
}

/// Bad observations in a row before a grade goes down.
const WORSE_AFTER: u32 = 2;

/// Good observations in a row before it goes up again.
const BETTER_AFTER: u32 = 2;

/// While a key may be leaving service, or is to come back.
const EAGER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::KeyHealth::{Degraded, Live, OutOfService as Out};
    use super::*;

    fn after(observations: &[KeyHealth]) -> Option<KeyHealth> {
        let mut canaries = Canaries::default();
        for seen in observations {
            canaries.observe(*seen, "why");
        }
        canaries.grade
    }

    #[test]
    fn the_first_observation_decides_and_later_ones_need_company() {
        for (observations, grade) in [
            (&[][..], None),
            (&[Live], Some(Live)),
            (&[Out], Some(Out)),
            (&[Live, Out], Some(Live)),
            (&[Live, Out, Out], Some(Out)),
            (&[Live, Out, Live, Out, Live], Some(Live)),
            (&[Live, Degraded, Out], Some(Out)),
            (&[Live, Degraded, Degraded], Some(Degraded)),
            (&[Out, Live], Some(Out)),
            (&[Out, Live, Live], Some(Live)),
            (&[Out, Live, Out, Live], Some(Out)),
            (&[Degraded, Out, Live, Live], Some(Live)),
        ] {
            assert_eq!(after(observations), grade, "{observations:?}");
        }
    }

    #[test]
    fn a_key_that_is_leaving_or_coming_back_is_looked_at_often() {
        let minute = Duration::from_secs(60);
        let mut canaries = Canaries::default();
        canaries.observe(Live, "");
        assert_eq!(canaries.pause(minute), minute);
        canaries.observe(Out, "no answer");
        assert_eq!(canaries.pause(minute), EAGER, "one failure");
        canaries.observe(Out, "no answer");
        assert_eq!((canaries.pause(minute), &*canaries.why), (EAGER, "no answer"));
        canaries.observe(Live, "");
        assert_eq!((canaries.pause(minute), &*canaries.why), (EAGER, "no answer"), "one success");
        canaries.observe(Live, "");
        assert_eq!((canaries.pause(minute), &*canaries.why), (minute, ""));
    }
}
