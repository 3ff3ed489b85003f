//! A key in one of its tokens.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::KeyAttributes;
use super::error::OutOfService;
use super::health::{Health, KeyHealth};

/// Where a key is, and how it is there.
#[derive(Debug)]
pub(super) struct Replica {
    /// The token's place among the links.
    pub(super) link: usize,
    /// The token's name.
    pub(super) token: Arc<str>,
    /// The object's URI within the token.
    pub(super) uri: String,
    pub(super) health: Health,
    /// Shared with the token: an operator has taken it off.
    pub(super) drained: Arc<AtomicBool>,
}

impl Replica {
    /// Why the token must not be asked for this key now; `None` when it may be.
    pub(super) fn barred(&self) -> Option<OutOfService> {
        if self.drained.load(Relaxed) {
            return Some(OutOfService::Drained(Arc::clone(&self.token)));
        }
        self.health.trouble().or_else(|| {
            let canaries = self.health.canaries();
            (canaries.grade == Some(KeyHealth::OutOfService)).then(|| OutOfService::Canary(Arc::clone(&canaries.why)))
        })
    }

    /// What the device says about the private half; `None` until it was asked.
    pub(super) fn attributes(&self) -> Option<KeyAttributes> {
        self.health.evidence.load().as_deref().map(|evidence| evidence.attributes)
    }

    /// Does service of the key depend on that the device is asked now?
    pub(super) fn is_urgent(&self) -> bool {
        self.attributes().is_none() || self.health.in_trouble()
    }

    /// Has the device told about the key, and not longer ago than this?
    pub(super) fn checked_within(&self, age: Duration) -> bool {
        self.health.evidence.load().as_deref().is_some_and(|evidence| evidence.read.elapsed() <= age)
    }

    /// Is it time for a test signature, of a token that has made so many?
    pub(super) fn test_due(&self, interval: Duration, completed: u64) -> bool {
        let canaries = self.health.canaries();
        canaries.last.is_none_or(|last| last.elapsed() >= canaries.pause(interval, completed))
    }
}
