//! The one place that reads the wall clock, so that a check says which time it judged by.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment in whole seconds since 1970-01-01T00:00:00Z: the `NumericDate` of RFC 7519, section 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// The current time. A clock before 1970 reads as 1970, which fails every freshness check.
    #[must_use]
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX))
    }

    /// This moment moved forward, saturating at the end of time.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add_unsigned(by.as_secs()))
    }

    /// This moment moved back, saturating at the beginning of time.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub_unsigned(by.as_secs()))
    }

    /// How long after `earlier` this moment lies; zero when it does not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As RFC 3339 writes it, in UTC.
    #[must_use]
    pub fn rfc3339(self) -> String {
        match jiff::Timestamp::from_second(self.0) {
            Ok(moment) => moment.to_string(),
            // Beyond the year 9999 there is no such text.
            Err(_) => format!("{} seconds since 1970", self.0),
        }
    }
}

/// The present by two clocks. The steady one never jumps, and stands still while the machine is suspended; the wall's goes
/// on, and may be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    steady: Instant,
    wall: UnixTime,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { steady: Instant::now(), wall: UnixTime::now() }
    }

    /// The end of a time that starts now: past as soon as one of the clocks says so.
    pub(crate) fn plus(self, by: Duration) -> Self {
        // The wall's clock is read in whole seconds; what is cut off is the other one's to measure.
        Self { steady: self.steady + by, wall: self.wall.plus(by.saturating_add(Duration::from_secs(1))) }
    }

    /// Whether `end`, made by [`plus`](Self::plus), has come.
    pub(crate) fn is_past(self, end: Self) -> bool {
        self.steady >= end.steady || self.wall >= end.wall
    }

    #[cfg(test)]
    pub(crate) fn ago(by: Duration) -> Self {
        let now = Self::read();
        Self { steady: now.steady.checked_sub(by).expect("the machine has run for as long"), wall: now.wall.minus(by) }
    }

    /// How long ago this was, by the steady clock.
    pub(crate) fn elapsed(self) -> Duration {
        self.steady.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ends_when_either_clock_says_so() {
        let now = Now::read();
        let end = now.plus(Duration::from_secs(10));
        let at = |steady: u64, wall: u64| Now {
            steady: now.steady + Duration::from_millis(steady),
            wall: now.wall.plus(Duration::from_secs(wall)),
        };
        assert!(!at(9_999, 10).is_past(end));
        assert!(at(10_000, 0).is_past(end), "a wall clock that was put back prolongs nothing");
        assert!(at(0, 11).is_past(end), "nor does a night in suspend");
    }
}
