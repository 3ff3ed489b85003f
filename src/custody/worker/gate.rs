//! Who may be in the module: any number of sessions, or one thread alone that finalises and initialises it.

#![forbid(unsafe_code)]

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::state::locked;

#[derive(Debug, Default)]
pub(super) struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    inside: usize,
    /// Somebody is alone inside, or waits to be.
    shut: bool,
}

/// In the module until it is dropped.
#[derive(Debug)]
pub(super) struct Inside<'a>(&'a Gate);

impl Gate {
    /// Waits while somebody is alone inside, or about to be.
    pub(super) fn enter(&self) -> Inside<'_> {
        let inner = locked(&self.inner);
        let mut inner = self.changed.wait_while(inner, |inner| inner.shut).unwrap_or_else(PoisonError::into_inner);
        inner.inside += 1;
        Inside(self)
    }

    /// Acts when everybody has left, and lets nobody in meanwhile. `None` when they do not leave within `patience`, or
    /// somebody else is alone inside.
    pub(super) fn alone<T>(&self, patience: Duration, act: impl FnOnce() -> T) -> Option<T> {
        let mut inner = locked(&self.inner);
        if inner.shut {
            return None;
        }
        inner.shut = true;
        let deadline = Instant::now() + patience;
        while inner.inside > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let empty = inner.inside == 0;
        drop(inner);
        let open = Open(self);
        let done = empty.then(act);
        drop(open);
        done
    }
}

/// Opens the gate again, whatever happened behind it.
struct Open<'a>(&'a Gate);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        locked(&self.0.inner).shut = false;
        self.0.changed.notify_all();
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        locked(&self.0.inner).inside -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;

    #[test]
    fn nobody_is_alone_while_a_call_may_be_pending() {
        let gate = Gate::default();
        let inside = gate.enter();
        assert_eq!(gate.alone(Duration::from_millis(20), || ()), None);
        drop(inside);
        assert_eq!(gate.alone(Duration::from_secs(10), || 7), Some(7));
        drop(gate.enter());
    }

    #[test]
    fn nobody_enters_while_somebody_is_alone() {
        let (gate, entered) = (Gate::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let alone = gate.alone(Duration::from_secs(10), || {
                scope.spawn(|| {
                    let _inside = gate.enter();
                    entered.store(true, SeqCst);
                });
                assert_eq!(gate.alone(Duration::from_secs(10), || ()), None, "one at a time");
                // However long it takes the thread to come to the gate, it must not be through it.
                std::thread::yield_now();
                entered.load(SeqCst)
            });
            assert_eq!(alone, Some(false));
        });
        assert!(entered.load(SeqCst), "and then it does");
    }
}
