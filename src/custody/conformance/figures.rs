//! How fast the device signs, on all sessions together.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Speed of a device, measured in a bare loop on every session at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Sessions that signed at the same time.
    pub sessions: u32,
    /// Signatures made.
    pub signatures: usize,
    /// Signatures per second, of all sessions together.
    pub per_second: f64,
    /// Half of the signatures took no longer than this, milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer than this, milliseconds.
    pub p99_ms: f64,
}

impl Figures {
    /// `None` when nothing was signed.
    #[must_use]
    pub fn of(sessions: u32, mut latencies: Vec<Duration>, elapsed: Duration) -> Option<Self> {
        latencies.sort_unstable();
        let (p50, p99) = (percentile(&latencies, 50)?, percentile(&latencies, 99)?);
        #[allow(clippy::cast_precision_loss, reason = "a rate, not an account")]
        let per_second = latencies.len() as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Some(Self { sessions, signatures: latencies.len(), per_second, p50_ms: ms(p50), p99_ms: ms(p99) })
    }
}

/// The smallest of the sorted values that `percent` of 100 are not above (nearest rank).
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let ms = Duration::from_millis;
        let hundred: Vec<_> = (1..=100).map(ms).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 99)), (Some(ms(50)), Some(ms(99))));
        assert_eq!((percentile(&[ms(7)], 50), percentile(&[ms(7)], 99)), (Some(ms(7)), Some(ms(7))));
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(Figures::of(1, Vec::new(), ms(1)), None);
        let two = Figures::of(2, vec![ms(4), ms(2)], ms(500)).map(|f| (f.signatures, f.per_second, f.p50_ms));
        assert_eq!(two, Some((2, 4.0, 2.0)));
    }
}
