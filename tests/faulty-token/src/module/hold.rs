//! Calls that do not return.

#![forbid(unsafe_code)]

use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;

/// Where calls hang.
#[derive(Default)]
pub(super) struct Hold {
    inner: Mutex<Inner>,
    released: Condvar,
}

impl Hold {
    /// Hangs until the next release.
    pub(super) fn wait(&self) {
        let mut inner = lock(&self.inner);
        let round = inner.round;
        inner.hanging += 1;
        inner = self.released.wait_while(inner, |inner| inner.round == round).unwrap_or_else(PoisonError::into_inner);
        inner.hanging -= 1;
    }

    /// Lets all go that hang.
    pub(super) fn release(&self) {
        lock(&self.inner).round += 1;
        self.released.notify_all();
    }

    pub(super) fn hanging(&self) -> u64 {
        lock(&self.inner).hanging
    }
}

#[derive(Default)]
struct Inner {
    round: u64,
    hanging: u64,
}
