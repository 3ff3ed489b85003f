//! What a client is told about its quota.

use std::time::Duration;

use http::HeaderValue;

use super::meter::Meter;
use crate::entitlement::Limits;

/// An account's standing, as the header fields of draft-ietf-httpapi-ratelimit-headers-11 say it.
///
/// A meter has no windows, so the two values that the draft calls windows are the true statements nearest to them:
/// `w` is the time in which the whole quota `q` comes back, `t` the time until more than `r` is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    quota: u32,
    window_seconds: u64,
    remaining: u32,
    reset: Duration,
}

impl RateLimit {
    pub(super) fn new(limits: &Limits, meter: &Meter) -> Self {
        let (qps, burst) = (limits.qps, limits.burst);
        Self {
            // A burst below the rate does not lessen what may come in a second, only what may come at once.
            quota: burst.max(qps),
            window_seconds: u64::from(burst.div_ceil(qps.max(1))).max(1),
            remaining: meter.remaining(burst),
            reset: meter.until_next(burst),
        }
    }

    /// Requests per [`window_seconds`](Self::window_seconds).
    #[must_use]
    pub fn quota(&self) -> u32 {
        self.quota
    }

    /// In how many seconds the whole quota comes back.
    #[must_use]
    pub fn window_seconds(&self) -> u64 {
        self.window_seconds
    }

    /// Requests that may come at once, now.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// How long until there is one more.
    #[must_use]
    pub fn reset(&self) -> Duration {
        self.reset
    }

    /// `RateLimit-Policy`, as in `"default";q=100;w=1`.
    #[must_use]
    pub fn policy_value(&self) -> HeaderValue {
        visible(&format!(r#""default";q={};w={}"#, self.quota, self.window_seconds))
    }

    /// `RateLimit`, as in `"default";r=97;t=1`.
    #[must_use]
    pub fn value(&self) -> HeaderValue {
        visible(&format!(r#""default";r={};t={}"#, self.remaining, whole_seconds(self.reset)))
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3): whole seconds, rounded up, at least one.
#[must_use]
pub fn retry_after(wait: Duration) -> HeaderValue {
    HeaderValue::from(whole_seconds(wait).max(1))
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

fn visible(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("quotes, letters, digits, `=` and `;` are visible ASCII")
}
