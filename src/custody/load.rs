//! How busy a token is, as the front sees it: what load spreading and `Retry-After` are computed from.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Requests under way in one token, how long one takes, and how fast they come back. A few relaxed atomics: two event
/// loops that write at once lose one sample of an average.
#[derive(Debug)]
pub(super) struct Load {
    outstanding: AtomicUsize,
    /// Moving average of the time from asking to the signature, queueing included, in microseconds; 0: never asked.
    latency: AtomicU64,
    /// Moving average of the time between two signatures while requests were under way, in microseconds.
    pace: AtomicU64,
    /// When the last signature came, in microseconds since `origin`.
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
        Self {
            outstanding: AtomicUsize::new(0),
            latency: zero(),
            pace: zero(),
            last: zero(),
            completed: zero(),
            origin: Instant::now(),
        }
    }

    pub(super) fn begin(&self) -> InFlight<'_> {
        self.outstanding.fetch_add(1, Relaxed);
        InFlight { load: self, began: Instant::now() }
    }

    /// What one more request would wait for: least outstanding × latency is asked first.
    pub(super) fn cost(&self) -> u64 {
        let after = u64::try_from(self.outstanding() + 1).unwrap_or(u64::MAX);
        after.saturating_mul(self.latency.load(Relaxed).max(1))
    }

    /// Requests that wait for this token now, canaries included.
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

    fn completed_at(&self, began: Instant, now: Instant) {
        let since = |moment: Instant| micros(moment.saturating_duration_since(self.origin));
        let last = self.last.swap(since(now), Relaxed);
        average(&self.latency, micros(now.saturating_duration_since(began)));
        // The token was idle until this request came, or has worked since the last signature.
        average(&self.pace, since(now).saturating_sub(last.max(since(began))));
        self.completed.fetch_add(1, Relaxed);
    }
}

impl InFlight<'_> {
    /// A signature came back. Returns how long it took.
    pub(super) fn done(self) -> Duration {
        let now = Instant::now();
        self.load.completed_at(self.began, now);
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
    let new = if old == 0 { sample } else { (old * 7 + sample).div_ceil(8) };
    kept.store(new.max(1), Relaxed);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 16).min(u64::MAX / 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_or_busy_token_costs_more() {
        let (fast, slow) = (Load::new(), Load::new());
        let now = Instant::now();
        fast.completed_at(now, now + Duration::from_millis(1));
        slow.completed_at(now, now + Duration::from_millis(10));
        assert!(fast.cost() < slow.cost());
        let flights: Vec<_> = (0..20).map(|_| fast.begin()).collect();
        assert!(fast.cost() > slow.cost(), "twenty requests of 1 ms are more than one of 10 ms");
        drop(flights);
        assert!(fast.cost() < slow.cost());
    }

    #[test]
    fn the_backlog_is_what_waits_times_the_time_of_one() {
        let load = Load::new();
        let began = Instant::now();
        // Four requests asked at once, one session of 100 ms.
        for n in 1..=4 {
            load.completed_at(began, began + Duration::from_millis(100 * n));
        }
        let _waiting: Vec<_> = (0..30).map(|_| load.begin()).collect();
        let backlog = load.backlog();
        assert!((Duration::from_millis(2_900)..Duration::from_millis(3_100)).contains(&backlog), "{backlog:?}");
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
