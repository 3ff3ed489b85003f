//! Refusals that strangers can cause at will: so many a second are recorded, the rest is counted.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// How much of the noise has been let through, and what has been left out.
#[derive(Debug)]
pub(super) struct Noise {
    per_second: u32,
    window: Option<Instant>,
    used: u32,
    left_out: BTreeMap<&'static str, u64>,
    total: u64,
}

/// What was left out, to be told in one record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) total: u64,
    /// `reason=count`, in the order of the reasons.
    pub(super) reasons: String,
}

impl Noise {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        Self { per_second: per_second.get(), window: None, used: 0, left_out: BTreeMap::new(), total: 0 }
    }

    /// Whether a record with `reason` is written in full. One that is not is counted.
    pub(super) fn admit(&mut self, reason: &'static str, now: Instant) -> bool {
        if self.window.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            self.window = Some(now);
            self.used = 0;
        }
        if self.used < self.per_second {
            self.used += 1;
            return true;
        }
        *self.left_out.entry(reason).or_default() += 1;
        self.total += 1;
        false
    }

    /// Whether exactly one was left out since the last telling.
    pub(super) fn begins(&self) -> bool {
        self.total == 1
    }

    /// When there will be something to tell, if there will.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.total == 0 { None } else { self.window.map(|start| start + WINDOW) }
    }

    /// What was left out in a window that is over, or whenever `at_once`.
    pub(super) fn left_out(&mut self, now: Instant, at_once: bool) -> Option<LeftOut> {
        if !at_once && self.due().is_none_or(|due| now < due) || self.total == 0 {
            return None;
        }
        let reasons: Vec<String> = self.left_out.iter().map(|(reason, count)| format!("{reason}={count}")).collect();
        self.left_out.clear();
        Some(LeftOut { total: std::mem::take(&mut self.total), reasons: reasons.join(" ") })
    }
}

const WINDOW: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_budget_of_a_second_records_are_counted_and_told_when_it_is_over() {
        let mut noise = Noise::new(NonZeroU32::new(2).unwrap());
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert!(noise.admit("a", at(0)));
        assert!(noise.admit("a", at(1)));
        assert_eq!(noise.due(), None);
        assert!(!noise.admit("b", at(2)));
        assert!(!noise.admit("a", at(3)));
        assert!(!noise.admit("b", at(999)));
        assert_eq!(noise.due(), Some(at(1000)));
        assert_eq!(noise.left_out(at(999), false), None);
        assert_eq!(noise.left_out(at(1000), false), Some(LeftOut { total: 3, reasons: "a=1 b=2".to_owned() }));
        assert_eq!(noise.left_out(at(5000), true), None);
        assert!(noise.admit("a", at(1000)), "a new second has a new budget");
    }

    #[test]
    fn what_was_left_out_can_be_told_early_when_the_log_closes() {
        let mut noise = Noise::new(NonZeroU32::MIN);
        let now = Instant::now();
        assert!(noise.admit("a", now));
        assert!(!noise.admit("a", now));
        assert_eq!(noise.left_out(now, true).unwrap().total, 1);
    }
}
