//! How busy a token is, as the front sees it: what load spreading and `Retry-After` are computed from.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Requests under way in one token, and how fast they come back. A few relaxed atomics: two event loops that write at
/// once lose one sample of an average.
#[derive(Debug)]
pub(super) struct Load {
    outstanding: AtomicUsize,
    /// Moving average of the time that one signature takes the token, in microseconds; 0: it never made one. Between
    /// two signatures while requests wait, so that a token with several sessions counts as that much faster.
    pace: AtomicU64,
    /// When the last signature came, or the first request after none was under way; in microseconds since `origin`.
    last: AtomicU64,
    completed: AtomicU64,
    origin: Instant,
}

/// A request under way, until dropped.
#[derive(Debug)]
pub(super) struct InFlight<'a> {
    load: &'a Load,
    began: Instant,
}

impl Load {
    pub(super) fn new() -> Self {
        let zero = AtomicU64::default;
        Self { outstanding: AtomicUsize::new(0), pace: zero(), last: zero(), completed: zero(), origin: Instant::now() }
    }

    pub(super) fn begin(&self) -> InFlight<'_> {
        self.begin_at(Instant::now())
    }

    fn begin_at(&self, now: Instant) -> InFlight<'_> {
        if self.outstanding.fetch_add(1, Relaxed) == 0 {
            self.last.store(self.since_origin(now), Relaxed);
        }
        InFlight { load: self, began: now }
    }

    /// What one more request would wait for: the token where the requests under way × the time of one is least is asked
    /// first. A token that has returned nothing for a while takes at least that while.
    pub(super) fn cost(&self, now: Instant) -> u64 {
        let waiting = u64::try_from(self.outstanding()).unwrap_or(u64::MAX);
        let silent = if waiting > 0 { self.since_origin(now).saturating_sub(self.last.load(Relaxed)) } else { 0 };
        (waiting + 1).saturating_mul(self.pace.load(Relaxed).max(silent).max(1))
    }

    /// Requests that wait for this token now, test signatures included.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.load(Relaxed)
    }

    /// Signatures that came back, since the front started.
    pub(super) fn completed(&self) -> u64 {
        self.completed.load(Relaxed)
    }

    /// How long the requests under way will take to be worked off: their number × the measured time of one.
    pub(super) fn backlog(&self) -> Duration {
        let waiting = u64::try_from(self.outstanding()).unwrap_or(u64::MAX);
        Duration::from_micros(waiting.saturating_mul(self.pace.load(Relaxed)))
    }

    fn completed_at(&self, now: Instant) {
        let now = self.since_origin(now);
        average(&self.pace, now.saturating_sub(self.last.swap(now, Relaxed)));
        self.completed.fetch_add(1, Relaxed);
    }

    fn since_origin(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX)
    }
}

impl InFlight<'_> {
    /// A signature came back. Returns how long it took.
    pub(super) fn done(self) -> Duration {
        let now = Instant::now();
        self.load.completed_at(now);
        now.saturating_duration_since(self.began)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.load.outstanding.fetch_sub(1, Relaxed);
    }
}

/// Seven parts of the old and one of the new.
fn average(kept: &AtomicU64, sample: u64) {
    let old = kept.load(Relaxed);
    // Rounded up, so that it neither sticks below its samples nor becomes the 0 of "never".
    let new = if old == 0 { sample } else { (old.saturating_mul(7).saturating_add(sample)).div_ceil(8) };
    kept.store(new.max(1), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_or_busy_token_costs_more() {
        let (fast, slow, now) = (Load::new(), Load::new(), Instant::now());
        for (load, took) in [(&fast, MS), (&slow, 10 * MS)] {
            let flight = load.begin_at(now);
            load.completed_at(now + took);
            drop(flight);
        }
        let later = now + 20 * MS;
        assert!(fast.cost(later) < slow.cost(later));
        let flights: Vec<_> = (0..20).map(|_| fast.begin_at(later)).collect();
        assert!(fast.cost(later) > slow.cost(later), "twenty requests of 1 ms are more than one of 10 ms");
        drop(flights);
        assert!(fast.cost(later) < slow.cost(later));
    }

    #[test]
    fn a_token_that_returns_nothing_costs_more_and_more() {
        let (load, now) = (Load::new(), Instant::now());
        let _hanging = load.begin_at(now);
        assert!(load.cost(now + 500 * MS) >= 2 * 500_000);
        assert!(load.cost(now + 5000 * MS) >= 2 * 5_000_000);
    }

    #[test]
    fn the_backlog_is_what_waits_times_the_time_of_one() {
        let (load, began) = (Load::new(), Instant::now());
        // Asked at once; one session of 100 ms.
        let _waiting: Vec<_> = (0..30).map(|_| load.begin_at(began)).collect();
        for n in 1..=4 {
            load.completed_at(began + n * 100 * MS);
        }
        let backlog = load.backlog();
        assert!((2_900 * MS..3_100 * MS).contains(&backlog), "{backlog:?}");
    }

    #[test]
    fn an_average_follows_its_samples_down_again() {
        let kept = AtomicU64::new(0);
        for sample in [1_000_000].into_iter().chain([100; 200]) {
            average(&kept, sample);
        }
        assert!(kept.load(Relaxed) < 110, "{kept:?}");
    }
}
