//! Helpers that hold a certificate and may sign again under it, for the one tenant that it was issued for.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;

use super::conversation::Helper;
use super::issued::Issued;
use crate::clock::UnixTime;
use crate::config::Reuse;

/// A helper between two signatures.
#[derive(Debug)]
pub(super) struct KeptHelper {
    pub(super) helper: Helper,
    pub(super) issued: Arc<Issued>,
    /// Signatures that it may still make.
    pub(super) left: u32,
    /// Until when the policy lets it sign.
    pub(super) until: Instant,
}

/// All of them, by tenant.
#[derive(Debug)]
pub(super) struct KeptHelpers {
    margin: Duration,
    most: usize,
    count: Gauge,
    waiting: Mutex<HashMap<Arc<str>, Vec<KeptHelper>>>,
}

impl KeptHelpers {
    pub(super) fn new(reuse: &Reuse, most: usize, count: Gauge) -> Self {
        Self { margin: reuse.margin.get(), most, count, waiting: Mutex::default() }
    }

    /// A helper of this tenant whose certificate lives at least `life` longer, and the configured margin.
    pub(super) fn take(&self, tenant: &str, life: Duration) -> Option<KeptHelper> {
        let mut waiting = self.lock();
        let mine = waiting.get_mut(tenant)?;
        let now = UnixTime::now();
        while let Some(at) = mine.iter().position(|kept| kept.lives_until(now) >= life.max(self.margin)) {
            let kept = mine.swap_remove(at);
            self.count.dec();
            // Dropped, and so killed, when it is no longer what it was or says what it was not asked.
            if kept.may_sign(now, self.margin) && kept.helper.is_waiting() {
                return Some(kept);
            }
        }
        None
    }

    /// Keeps a helper for its tenant, if it may still sign; lets it end otherwise.
    pub(super) fn put(&self, tenant: &Arc<str>, kept: KeptHelper) {
        let mut waiting = self.lock();
        let all: usize = waiting.values().map(Vec::len).sum();
        if all >= self.most || !kept.may_sign(UnixTime::now(), self.margin) {
            return kept.helper.dismiss();
        }
        waiting.entry(Arc::clone(tenant)).or_default().push(kept);
        self.count.inc();
    }

    /// Lets those end that may sign no more.
    pub(super) fn tend(&self) {
        let mut waiting = self.lock();
        let now = UnixTime::now();
        for mine in waiting.values_mut() {
            let (stay, go): (Vec<_>, Vec<_>) =
                mine.drain(..).partition(|kept| kept.may_sign(now, self.margin) && kept.helper.is_waiting());
            *mine = stay;
            go.into_iter().for_each(|kept| {
                self.count.dec();
                kept.helper.dismiss();
            });
        }
        waiting.retain(|_, mine| !mine.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<KeptHelper>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptHelper {
    fn may_sign(&self, now: UnixTime, margin: Duration) -> bool {
        self.left > 0 && Instant::now() < self.until && self.lives_until(now) > margin
    }

    fn lives_until(&self, now: UnixTime) -> Duration {
        self.issued.not_after.since(now)
    }
}
