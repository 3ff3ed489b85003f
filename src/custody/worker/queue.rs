//! The bounded queue between connections and sessions.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::connection::Connection;
use super::state::locked;
use crate::custody::wire::KeyHandle;

/// A request that needs the device.
#[derive(Debug)]
pub(super) struct Job {
    /// Who asked.
    pub(super) connection: Arc<Connection>,
    /// Which of their requests it is.
    pub(super) id: u64,
    /// After it the answer is of no use.
    pub(super) deadline: Instant,
    /// A session was lost over it once already.
    pub(super) retried: bool,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    Sign { handle: KeyHandle, digest: [u8; 32] },
    Open { uri: String },
}

/// First in, first out, for as many waiting jobs as the configuration allows.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    ready: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self { inner: Mutex::default(), ready: Condvar::new(), capacity }
    }

    /// Puts in what fits, in order, and leaves the rest in `jobs`: all of it once the queue is closed.
    pub(super) fn push(&self, jobs: &mut Vec<Job>) {
        let mut inner = locked(&self.inner);
        let room = if inner.closed { 0 } else { self.capacity.saturating_sub(inner.jobs.len()).min(jobs.len()) };
        inner.jobs.extend(jobs.drain(..room));
        // Waking costs a system call; a session that is not asleep looks again by itself.
        let wake = inner.idle.min(room);
        drop(inner);
        for _ in 0..wake {
            self.ready.notify_one();
        }
    }

    /// Puts a job back to where it came from. It had a place, so the bound is not checked again.
    pub(super) fn put_back(&self, job: Job) {
        let mut inner = locked(&self.inner);
        inner.jobs.push_front(job);
        drop(inner);
        self.ready.notify_one();
    }

    /// The next job; waits for one. `None` once the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut inner = locked(&self.inner);
        loop {
            if let Some(job) = inner.jobs.pop_front() {
                return Some(job);
            }
            if inner.closed {
                return None;
            }
            inner.idle += 1;
            inner = self.ready.wait(inner).unwrap_or_else(std::sync::PoisonError::into_inner);
            inner.idle -= 1;
        }
    }

    /// Everything that waits, for when nobody is left to work on it.
    pub(super) fn drain(&self) -> Vec<Job> {
        locked(&self.inner).jobs.drain(..).collect()
    }

    /// Takes no more jobs; sessions leave when they have worked off what is there.
    pub(super) fn close(&self) {
        locked(&self.inner).closed = true;
        self.ready.notify_all();
    }

    pub(super) fn depth(&self) -> usize {
        locked(&self.inner).jobs.len()
    }
}
