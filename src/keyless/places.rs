//! How many flows are in progress, and whose.
//!
//! So many may be at once, and so many requests may wait for one to end. Where more than one tenant signs keyless, each
//! has its own bounds besides, three quarters of the whole: whatever happens to one tenant's requests, something is left
//! for the others.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{FlowStep, KeylessError};

/// The places of all, or of one tenant.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) free: Semaphore,
    most: u32,
    pub(super) waiting: AtomicU32,
    max_waiting: u32,
    /// Milliseconds that a flow had its place, of late.
    pace: AtomicU64,
}

/// The right to have a flow in progress.
pub(super) struct Place<'a> {
    _own: SemaphorePermit<'a>,
    _common: SemaphorePermit<'a>,
    of: &'a Places,
    since: Instant,
}

impl Places {
    pub(super) fn new(most: u32, max_waiting: u32) -> Self {
        let free = Semaphore::new(most as usize);
        Self { free, most, waiting: AtomicU32::new(0), max_waiting, pace: AtomicU64::new(0) }
    }

    /// What one tenant of so many may have of this.
    pub(super) fn share(most: u32, max_waiting: u32, tenants: usize) -> Self {
        let share = |whole: u32| if tenants > 1 { (whole - whole.div_ceil(4)).max(1) } else { whole };
        Self::new(share(most), share(max_waiting))
    }

    /// A place among all, and among the tenant's `own`.
    pub(super) async fn enter<'a>(&'a self, own: &'a Self, deadline: Instant) -> Result<Place<'a>, KeylessError> {
        let place = |own, common| Place { _own: own, _common: common, of: self, since: Instant::now() };
        if let (Ok(own), Ok(common)) = (own.free.try_acquire(), self.free.try_acquire()) {
            return Ok(place(own, common));
        }
        let (waiting, own_waiting) = (self.waiting.fetch_add(1, Relaxed), own.waiting.fetch_add(1, Relaxed));
        let _leave = (Leave(&self.waiting), Leave(&own.waiting));
        if waiting >= self.max_waiting || own_waiting >= own.max_waiting {
            let retry_after = self.clears_in(waiting).max(own.scaled(self, own_waiting));
            return Err(KeylessError::QueueFull { waiting, retry_after });
        }
        // The tenant's own first: who waits for that holds nothing that another tenant needs.
        let both = async {
            let own = own.free.acquire().await.ok()?;
            Some(place(own, self.free.acquire().await.ok()?))
        };
        match tokio::time::timeout_at(deadline.into(), both).await {
            Ok(Some(place)) => Ok(place),
            _ => Err(KeylessError::Late { step: FlowStep::Begun, fulcios: false }),
        }
    }

    /// How long so many take who wait, at the pace of late.
    fn clears_in(&self, waiting: u32) -> Duration {
        self.scaled(self, waiting)
    }

    fn scaled(&self, measured: &Self, waiting: u32) -> Duration {
        let rounds = u64::from(waiting / self.most) + 1;
        Duration::from_millis(measured.pace.load(Relaxed).saturating_mul(rounds)).clamp(SHORTEST, LONGEST)
    }

    fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        // Two that note at once lose one of them, which an average can bear.
        let before = self.pace.load(Relaxed);
        let pace = if before == 0 { took } else { (before.saturating_mul(7).saturating_add(took)) / 8 };
        self.pace.store(pace, Relaxed);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.note(self.since.elapsed());
    }
}

/// One that waited waits no more.
struct Leave<'a>(&'a AtomicU32);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_to_wait_is_measured() {
        let places = Places::new(4, 100);
        assert_eq!(places.clears_in(100), SHORTEST, "nothing was measured");
        for _ in 0..100 {
            places.note(Duration::from_secs(2));
        }
        assert_eq!(places.clears_in(0), Duration::from_secs(2));
        assert_eq!(places.clears_in(16), Duration::from_secs(10));
        assert_eq!(places.clears_in(100_000), LONGEST);
    }

    #[test]
    fn one_of_several_has_three_quarters_and_one_alone_all() {
        let most = |most, tenants| Places::share(most, 8, tenants).most;
        assert_eq!([most(1, 3), most(2, 3), most(4, 3), most(32, 2), most(32, 1)], [1, 1, 3, 24, 32]);
        assert_eq!(Places::share(1, 256, 2).max_waiting, 192);
    }
}
