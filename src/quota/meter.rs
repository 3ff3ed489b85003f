//! The Generic Cell Rate Algorithm, measured in requests instead of time.

use std::time::{Duration, Instant};

/// One account's use of its rate.
///
/// GCRA (ITU-T I.371, annex A) in its leaky-bucket form. The theoretical arrival time of the other form is
/// `at + level / qps`. Counting in billionths of a request makes every step exact in integers, whatever the rate:
/// one nanosecond drains exactly `qps` of them. And it keeps its meaning when the rate changes, which a time does not.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    /// What was used and not yet drained, in billionths of a request.
    level: u128,
    /// The moment that `level` holds for.
    at: Instant,
    /// The rate that drains it from `at` on.
    qps: u32,
}

impl Meter {
    pub(super) fn new(qps: u32, now: Instant) -> Self {
        Self { level: 0, at: now, qps }
    }

    /// Moves to `now`, which drains what the rate known so far allows; from here on `qps` holds. A `now` before the
    /// last one (another thread read its clock earlier and came later) changes the rate alone.
    pub(super) fn advance(&mut self, qps: u32, now: Instant) {
        self.level = self.level_at(now);
        self.at = self.at.max(now);
        self.qps = qps;
    }

    /// Uses one request.
    pub(super) fn charge(&mut self) {
        self.level += REQUEST;
    }

    /// How long until one more request conforms, exact to the nanosecond; zero when it does now.
    pub(super) fn wait(&self, burst: u32) -> Duration {
        self.time_until(self.level + REQUEST, burst)
    }

    /// Requests that conform now, one after the other.
    pub(super) fn remaining(&self, burst: u32) -> u32 {
        u32::try_from(capacity(burst).saturating_sub(self.level) / REQUEST).unwrap_or(u32::MAX)
    }

    /// How long until [`remaining`](Self::remaining) grows; zero when it cannot.
    pub(super) fn until_next(&self, burst: u32) -> Duration {
        let next = u128::from(self.remaining(burst)) + 1;
        if self.level == 0 { Duration::ZERO } else { self.time_until(self.level + next * REQUEST, burst) }
    }

    /// Has everything drained?
    pub(super) fn is_empty(&self, now: Instant) -> bool {
        self.level_at(now) == 0
    }

    fn level_at(&self, now: Instant) -> u128 {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        self.level.saturating_sub(elapsed.saturating_mul(u128::from(self.qps)))
    }

    /// How long until `level` has sunk to what `burst` holds. A rate of zero counts as one per second here: nothing
    /// drains, so the answer will be the same next time.
    fn time_until(&self, level: u128, burst: u32) -> Duration {
        let excess = level.saturating_sub(capacity(burst));
        let nanos = excess.div_ceil(u128::from(self.qps.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn capacity(burst: u32) -> u128 {
    u128::from(burst) * REQUEST
}

/// One request, and the nanoseconds of a second: that they are the same number is what makes it exact.
const REQUEST: u128 = 1_000_000_000;
