//! The one place that reads the wall clock, so that a check says which time it judged by.

#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
