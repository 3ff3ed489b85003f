//! Records that become durable together, and those who wait for them.
//!
//! Waking a task from another thread costs a system call each time. The waiters of one batch are therefore kept by
//! their thread: the writer wakes one of each thread, and that one, once it runs, wakes its neighbours from within
//! their event loop, where it costs next to nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;

use super::{AuditError, Failure};

/// Lines that wait for the disk, in the order of their `seq`.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) lines: Vec<u8>,
    groups: Vec<(ThreadId, Arc<Group>)>,
}

impl Batch {
    /// An answer to whoever entered the last line, on the thread `thread`.
    pub(super) fn answer(&mut self, thread: ThreadId) -> Append {
        let known = self.groups.iter().find(|(of, _)| *of == thread).map(|(_, group)| Arc::clone(group));
        let group = known.unwrap_or_else(|| {
            let group = Arc::new(Group::default());
            self.groups.push((thread, Arc::clone(&group)));
            group
        });
        Append(State::Waiting { group, slot: None })
    }

    /// Tells everyone who waits, and leaves the batch empty with its memory kept.
    pub(super) fn complete(&mut self, outcome: &Result<(), Arc<Failure>>) {
        self.lines.clear();
        for (_, group) in self.groups.drain(..) {
            let mut state = group.lock();
            state.outcome = Some(outcome.clone());
            let first = state.sleepers.iter_mut().find_map(Option::take);
            drop(state);
            if let Some(first) = first {
                first.wake();
            }
        }
    }
}

/// Resolves when a record is durable, or known not to be.
#[must_use = "the record is durable only when this says so"]
#[derive(Debug)]
pub struct Append(State);

#[derive(Debug)]
enum State {
    Waiting { group: Arc<Group>, slot: Option<usize> },
    Settled(Option<Result<(), AuditError>>),
}

impl Append {
    pub(super) fn settled(outcome: Result<(), AuditError>) -> Self {
        Self(State::Settled(Some(outcome)))
    }

    /// The record stays entered; nobody waits for it.
    pub(crate) fn forget(self) {}
}

impl Future for Append {
    type Output = Result<(), AuditError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (outcome, neighbours) = match &mut self.0 {
            // The answer is given once.
            State::Settled(outcome) => return outcome.take().map_or(Poll::Pending, Poll::Ready),
            State::Waiting { group, slot } => {
                let mut state = group.lock();
                let Some(outcome) = state.outcome.clone() else {
                    let slot = *slot.get_or_insert_with(|| {
                        state.sleepers.push(None);
                        state.sleepers.len() - 1
                    });
                    if !state.sleepers[slot].as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                        state.sleepers[slot] = Some(context.waker().clone());
                    }
                    return Poll::Pending;
                };
                (outcome, std::mem::take(&mut state.sleepers))
            }
        };
        self.0 = State::Settled(None);
        wake(neighbours);
        Poll::Ready(outcome.map_err(AuditError::Failed))
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        let State::Waiting { group, slot: Some(slot) } = &self.0 else { return };
        let mut state = group.lock();
        if state.outcome.is_some() {
            // This may be the one that was to wake its neighbours.
            let neighbours = std::mem::take(&mut state.sleepers);
            drop(state);
            wake(neighbours);
        } else {
            state.sleepers[*slot] = None;
        }
    }
}

fn wake(sleepers: Vec<Option<Waker>>) {
    for sleeper in sleepers.into_iter().flatten() {
        sleeper.wake();
    }
}

/// The waiters of one batch on one thread.
#[derive(Debug, Default)]
struct Group(Mutex<GroupState>);

#[derive(Debug, Default)]
struct GroupState {
    outcome: Option<Result<(), Arc<Failure>>>,
    sleepers: Vec<Option<Waker>>,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, GroupState> {
        // Every change of the state is a single assignment: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Waiter {
        append: Option<Append>,
        woken: Arc<Counted>,
    }

    impl Waiter {
        fn poll(&mut self) -> Poll<Result<(), AuditError>> {
            let waker = Waker::from(Arc::clone(&self.woken));
            Pin::new(self.append.as_mut().unwrap()).poll(&mut Context::from_waker(&waker))
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    fn waiting(batch: &mut Batch, count: usize) -> Vec<Waiter> {
        let thread = std::thread::current().id();
        let mut waiters: Vec<Waiter> =
            (0..count).map(|_| Waiter { append: Some(batch.answer(thread)), woken: Arc::default() }).collect();
        for waiter in &mut waiters {
            assert!(waiter.poll().is_pending());
            assert!(waiter.poll().is_pending(), "asked twice, it waits once");
        }
        waiters
    }

    fn woken(waiters: &[Waiter]) -> Vec<usize> {
        waiters.iter().map(Waiter::woken).collect()
    }

    #[test]
    fn the_writer_wakes_one_of_a_thread_and_that_one_its_neighbours() {
        let mut batch = Batch::default();
        let mut waiters = waiting(&mut batch, 4);
        batch.complete(&Ok(()));
        assert_eq!(woken(&waiters), [1, 0, 0, 0]);
        assert!(matches!(waiters[0].poll(), Poll::Ready(Ok(()))));
        assert_eq!(woken(&waiters), [1, 1, 1, 1]);
        for waiter in &mut waiters[1..] {
            assert!(matches!(waiter.poll(), Poll::Ready(Ok(()))));
        }
    }

    #[test]
    fn neighbours_are_woken_even_if_the_first_gives_up() {
        let mut batch = Batch::default();
        let mut waiters = waiting(&mut batch, 4);
        waiters[0].append = None;
        batch.complete(&Ok(()));
        assert_eq!(woken(&waiters), [0, 1, 0, 0], "one that gave up before is passed over");
        waiters[1].append = None;
        assert_eq!(woken(&waiters), [0, 1, 1, 1], "one that gives up after it was woken passes it on");
        assert!(matches!(waiters[3].poll(), Poll::Ready(Ok(()))));
    }

    #[test]
    fn threads_are_woken_apart_and_hear_of_failure_too() {
        let mut batch = Batch::default();
        let other = std::thread::spawn(|| std::thread::current().id()).join().unwrap();
        let mut here = waiting(&mut batch, 2);
        let mut there = Waiter { append: Some(batch.answer(other)), woken: Arc::default() };
        assert!(there.poll().is_pending());
        batch.complete(&Err(Arc::new(Failure::example())));
        assert_eq!((woken(&here), there.woken()), (vec![1, 0], 1));
        assert!(matches!(there.poll(), Poll::Ready(Err(AuditError::Failed(_)))));
        assert!(matches!(here[0].poll(), Poll::Ready(Err(AuditError::Failed(_)))));
    }

    #[test]
    fn who_asks_only_after_the_answer_gets_it_at_once() {
        let mut batch = Batch::default();
        let mut late = Waiter { append: Some(batch.answer(std::thread::current().id())), woken: Arc::default() };
        batch.complete(&Ok(()));
        assert!(matches!(late.poll(), Poll::Ready(Ok(()))));
    }
}
