//! Which calls into the device are under way, so that one that never returns is noticed.
//!
//! A vendor's module blocks for as long as it likes, and no signal gets a thread out of it. Whoever calls one says so
//! first, with [`call`]; the worker's watchdog looks at [`pending`] and ends the process when a call takes too long.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A call under way. Dropped when it has returned.
#[derive(Debug)]
pub struct Call {
    slot: Arc<Slot>,
    before: Option<Entered>,
}

/// A call as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Of the function, as its standard spells it: `C_Sign`.
    pub name: &'static str,
    /// So far.
    pub takes: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Entered {
    name: &'static str,
    at: Instant,
}

/// One for each thread; its lock is contended by the watchdog alone.
type Slot = Mutex<Option<Entered>>;

static THREADS: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());

thread_local! {
    static MINE: Arc<Slot> = {
        let slot = Arc::<Slot>::default();
        locked(&THREADS).push(Arc::downgrade(&slot));
        slot
    };
}

/// The function that logs in, which may have a limit of its own.
pub const LOGIN: &str = "C_Login";

/// This thread goes into a function of the device's library, until what is returned is dropped.
#[must_use = "the call counts as over when this is dropped"]
pub fn call(name: &'static str) -> Call {
    let slot = MINE.with(Arc::clone);
    let before = locked(&slot).replace(Entered { name, at: Instant::now() });
    Call { slot, before }
}

/// The calls of this process that are under way, one a thread.
#[must_use]
pub fn pending() -> Vec<Pending> {
    let mut threads = locked(&THREADS);
    threads.retain(|thread| thread.strong_count() > 0);
    let entered = threads.iter().filter_map(Weak::upgrade).filter_map(|slot| *locked(&slot));
    entered.map(|entered| Pending { name: entered.name, takes: entered.at.elapsed() }).collect()
}

impl Drop for Call {
    fn drop(&mut self) {
        *locked(&self.slot) = self.before.take();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_seen_by_other_threads_until_it_has_returned() {
        let seen = |name| {
            std::thread::scope(|scope| {
                let look = || locked(&THREADS).iter().filter_map(Weak::upgrade).any(|s| holds(&s, name));
                scope.spawn(look).join().unwrap_or(false)
            })
        };
        let outer = call("C_Outer");
        assert!(seen("C_Outer") && pending().iter().any(|call| call.name == "C_Outer"));
        let inner = call("C_Inner");
        assert!(seen("C_Inner"));
        drop(inner);
        assert!(seen("C_Outer") && !seen("C_Inner"), "the call around it goes on");
        drop(outer);
        assert!(!seen("C_Outer"));
    }

    fn holds(slot: &Slot, name: &str) -> bool {
        locked(slot).is_some_and(|entered| entered.name == name)
    }
}
