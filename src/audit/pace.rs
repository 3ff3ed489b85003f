//! How far apart syncs are.

use std::time::Duration;

/// A sync costs the same CPU whatever it carries, so under load syncs are held apart and carry more. A caller among few
/// does not wait for others that never come: below a certain rate there is no pause at all, and a sync begins as soon as
/// the one before it has ended.
#[derive(Debug)]
pub(super) struct Pace {
    group_commit: Duration,
    /// Records a second. An average over [`MEMORY`]: two records that happen to come together are no load.
    rate: f64,
}

impl Pace {
    pub(super) fn new(group_commit: Duration) -> Self {
        Self { group_commit, rate: 0.0 }
    }

    /// How long after the beginning of a sync that took `records` the next one may begin, when the one before it began
    /// `time` earlier.
    pub(super) fn after(&mut self, records: u32, time: Duration) -> Duration {
        let span = time.as_secs_f64() + MEMORY.as_secs_f64();
        self.rate = self.rate * MEMORY.as_secs_f64() / span + f64::from(records) / span;
        let crowd = self.rate * self.group_commit.as_secs_f64();
        self.group_commit.mul_f64(((crowd - CALM) * STEEPNESS).clamp(0.0, MOST))
    }
}

const MEMORY: Duration = Duration::from_millis(20);

/// Up to so many records within `group_commit`, nobody is held up.
const CALM: f64 = 1.5;

/// How many times `group_commit` the pause may grow; it is that from four records within `group_commit` on.
const MOST: f64 = 4.0;
const STEEPNESS: f64 = MOST / (4.0 - CALM);

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP_COMMIT: Duration = Duration::from_micros(500);

    /// The pauses while syncs carry `records` each, `apart` from each other.
    fn pauses(pace: &mut Pace, syncs: usize, records: u32, apart: Duration) -> Vec<Duration> {
        (0..syncs).map(|_| pace.after(records, apart)).collect()
    }

    #[test]
    fn records_that_come_together_now_and_then_wait_for_nobody() {
        let mut pace = Pace::new(GROUP_COMMIT);
        for _ in 0..1_000 {
            // A burst of syncs in quick succession, then a rest: 1,500 records a second in all.
            for pause in pauses(&mut pace, 3, 4, Duration::from_micros(300)) {
                assert_eq!(pause, Duration::ZERO);
            }
            assert_eq!(pace.after(1, Duration::from_micros(7_700)), Duration::ZERO);
        }
    }

    #[test]
    fn under_load_syncs_are_held_apart_and_not_further_than_four_times() {
        let mut pace = Pace::new(GROUP_COMMIT);
        // 6,000 records a second, 20,000, and a thousand times that.
        let middle = *pauses(&mut pace, 200, 6, Duration::from_millis(1)).last().expect("200 of them");
        assert!((Duration::from_micros(1_100)..Duration::from_micros(1_300)).contains(&middle), "{middle:?}");
        let full = *pauses(&mut pace, 200, 40, Duration::from_millis(2)).last().expect("200 of them");
        assert_eq!(full, GROUP_COMMIT * 4);
        assert_eq!(pace.after(u32::MAX, Duration::ZERO), GROUP_COMMIT * 4);
    }

    #[test]
    fn load_is_forgotten_soon_after_it_has_ended() {
        let mut pace = Pace::new(GROUP_COMMIT);
        pauses(&mut pace, 200, 40, Duration::from_millis(2));
        assert_eq!(pace.after(1, Duration::from_millis(200)), Duration::ZERO);
    }
}
