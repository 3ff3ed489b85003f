//! How a key is in a token: grades with hysteresis, and what took it out of service.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KeyAttributes;
use super::error::OutOfService;
use super::evidence::Evidence;
use super::told::Told;

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
    openings: Mutex<Openings>,
    /// What the audit log was last told.
    pub(super) told: Mutex<Told<KeyHealth>>,
    pub(super) attributes_told: Mutex<Told<KeyAttributes>>,
}

/// Attempts in a row to have the device read the key that came to nothing.
#[derive(Debug, Default)]
struct Openings {
    failed: u32,
    last: Option<Instant>,
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
    /// Those that failed since the last good one.
    in_a_row: u32,
    /// How many signatures the token had made when the first of these failed: keys that failed in the same silence of
    /// their token failed with it.
    silence: Option<u64>,
    turn: Turn,
}

/// Observations in a row that speak for another grade than the present one.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    toward_worse: u32,
    toward_better: u32,
}

impl Turn {
    fn is_over(self) -> bool {
        self.toward_worse == 0 && self.toward_better == 0
    }
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

    /// Notes whether the device described the key.
    pub(super) fn was_opened(&self, well: bool) {
        let mut openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        openings.failed = if well { 0 } else { openings.failed.saturating_add(1) };
        openings.last = Some(Instant::now());
    }

    /// Was the last attempt to have the device describe the key a good one, if there was any?
    pub(super) fn opened_well(&self) -> bool {
        self.openings.lock().unwrap_or_else(PoisonError::into_inner).failed == 0
    }

    /// Has a key that could not be opened waited for long enough to be tried again?
    pub(super) fn opening_due(&self) -> bool {
        let openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        openings.last.is_none_or(|last| last.elapsed() >= backoff(openings.failed, LONGEST_RETRY))
    }

    /// The key by itself, whatever its token is like.
    pub(super) fn grade(&self) -> KeyHealth {
        if self.in_trouble() { KeyHealth::OutOfService } else { self.canaries().grade.unwrap_or(KeyHealth::Live) }
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
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            self.in_a_row = 0;
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

    /// As [`Self::observe`], of a test that failed when the token had made `completed` signatures.
    pub(super) fn failed(&mut self, seen: KeyHealth, why: &str, completed: u64) {
        if seen == KeyHealth::OutOfService && (self.in_a_row == 0 || self.silence.is_none()) {
            self.silence = Some(completed);
        }
        self.observe(seen, why);
    }

    /// Others failed in this silence of the token, one after the other, and none signed: this key need not be tried to
    /// be known as out of service, too.
    pub(super) fn condemn(&mut self, why: &str, completed: u64) {
        if self.grade.is_some_and(|grade| grade < KeyHealth::OutOfService) {
            (self.grade, self.why) = (Some(KeyHealth::OutOfService), why.into());
            (self.turn, self.silence) = (Turn::default(), Some(completed));
        }
    }

    /// A key that failed in the same silence of the token signs again: so, most likely, does this one. It may be asked,
    /// and one more failure takes it out. Returns whether that is news.
    pub(super) fn pardon(&mut self, silence: u64) -> bool {
        let failed_with_it = self.grade == Some(KeyHealth::OutOfService) && self.silence == Some(silence);
        if failed_with_it {
            self.grade = Some(KeyHealth::Degraded);
            self.why = "the whole token failed and is back; the key was not tested since".into();
            self.turn = Turn { toward_worse: WORSE_AFTER - 1, toward_better: 0 };
            (self.in_a_row, self.last) = (0, None);
        }
        failed_with_it
    }

    /// In which silence of the token the key left service; `None` while it is in service.
    pub(super) fn left_in(&self) -> Option<u64> {
        self.silence.filter(|_| self.grade == Some(KeyHealth::OutOfService))
    }

    /// How long after `last` the next one is due, when the token has made `completed` signatures.
    pub(super) fn pause(&self, interval: Duration, completed: u64) -> Duration {
        // While the token signs nothing at all, each key is a way to find out that it is back.
        let longest = if self.silence == Some(completed) { LONGEST_RETRY.min(interval) } else { interval };
        match self.grade {
            _ if self.in_a_row > 0 => backoff(self.in_a_row, longest).min(interval),
            Some(grade) if grade < KeyHealth::OutOfService && self.turn.is_over() => interval,
            _ => EAGER.min(interval),
        }
    }

    /// Is it known how the key is, so that the next test is one of many?
    pub(super) fn is_routine(&self) -> bool {
        let serves = self.grade.is_some_and(|grade| grade < KeyHealth::OutOfService);
        self.last.is_some() && self.in_a_row == 0 && serves && self.turn.is_over()
    }

    /// Is it on its way back, so that the next test decides?
    pub(super) fn is_returning(&self) -> bool {
        self.turn.toward_better > 0
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

/// A quarter of a second after the first failure, doubling.
fn backoff(failed: u32, longest: Duration) -> Duration {
    let doubled = failed.saturating_sub(1).min(20);
    if failed == 0 { Duration::ZERO } else { (EAGER * (1 << doubled)).min(longest) }
}

/// While it may be the token that is away: it must sign again within two seconds of its return.
const LONGEST_RETRY: Duration = Duration::from_secs(1);

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

    fn fail(canaries: &mut Canaries, completed: u64) {
        canaries.failed(Out, "no answer", completed);
    }

    #[test]
    fn a_key_that_is_leaving_or_coming_back_is_looked_at_often() {
        let minute = Duration::from_secs(60);
        let mut canaries = Canaries::default();
        canaries.observe(Live, "");
        assert_eq!(canaries.pause(minute, 1), minute);
        fail(&mut canaries, 1);
        assert_eq!(canaries.pause(minute, 1), EAGER, "one failure");
        fail(&mut canaries, 1);
        canaries.observe(Live, "");
        assert_eq!((canaries.pause(minute, 2), &*canaries.why), (EAGER, "no answer"), "one success");
        canaries.observe(Live, "");
        assert_eq!((canaries.pause(minute, 3), &*canaries.why), (minute, ""));
    }

    #[test]
    fn a_key_that_goes_on_failing_is_tested_less_and_less_often() {
        let minute = Duration::from_secs(60);
        let mut canaries = Canaries::default();
        canaries.observe(Live, "");
        let mut pauses = |completed: u64| {
            let pause = |canaries: &mut Canaries| {
                fail(canaries, 7);
                canaries.pause(minute, completed).as_millis()
            };
            (0..6).map(|_| pause(&mut canaries)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(7), [250, 500, 1000, 1000, 1000, 1000], "the token signs nothing: it may be back any moment");
        assert_eq!(pauses(8), [16_000, 32_000, 60_000, 60_000, 60_000, 60_000], "others sign: it is this key");
    }

    #[test]
    fn keys_that_failed_with_their_token_come_back_with_it_on_trust_and_others_do_not() {
        let live = |failed_in: Option<u64>| {
            let mut canaries = Canaries::default();
            canaries.observe(Live, "");
            for silence in failed_in.into_iter().flat_map(|silence| [silence; 2]) {
                fail(&mut canaries, silence);
            }
            canaries
        };
        let (mut with_it, mut before_it, mut untested) = (live(Some(9)), live(Some(5)), live(None));
        untested.condemn("the token", 9);
        assert_eq!(untested.grade, Some(Out));
        assert!(with_it.pardon(9) && untested.pardon(9) && !before_it.pardon(9));
        assert_eq!((with_it.grade, untested.grade, before_it.grade), (Some(Degraded), Some(Degraded), Some(Out)));
        assert!(with_it.last.is_none() && !with_it.is_routine(), "it is tested at once");
        fail(&mut with_it, 10);
        assert_eq!(with_it.grade, Some(Out), "one failure is enough");
        untested.observe(Live, "");
        untested.observe(Live, "");
        assert_eq!(untested.grade, Some(Live));
        let mut never_seen = Canaries::default();
        never_seen.condemn("the token", 9);
        assert_eq!(never_seen.grade, None, "how it would be is not known");
    }
}
