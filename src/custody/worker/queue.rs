//! The bounded queue between connections and sessions: fair between lanes, and honest about deadlines.
//!
//! A lane is a tenant, or the appliance itself. Lanes with something waiting take turns, one job a turn: deficit round
//! robin where every job is of one size. When there is no room, the longest lane gives way, so that a burst is refused
//! to the one who made it. A job that could not be done before its deadline is refused at once, and one whose deadline
//! passes while it waits is answered at that moment, however busy the sessions are.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    /// On whose behalf.
    pub(super) lane: u64,
    /// After it the answer is of no use.
    pub(super) deadline: Instant,
    /// A session was lost over it once already.
    pub(super) retried: bool,
    pub(super) work: Work,
}

#[derive(Clone, Debug)]
pub(super) enum Work {
    Sign { handle: KeyHandle, digest: [u8; 32] },
    Open { uri: String },
}

/// What a session is to do next.
#[derive(Debug)]
pub(super) enum Next {
    Work(Job),
    /// Nothing came for as long as it was willing to wait.
    Idle,
    /// Its session is to be closed; there will be another.
    Leave,
    /// The queue is closed and empty.
    End,
}

/// Why a job was not taken, or not kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// As many wait as are allowed to.
    Full,
    /// Its turn would come after its deadline.
    TooLate { ahead: usize, wait: Duration },
    /// The worker stops.
    Closed,
}

#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    ready: Condvar,
    expiry: Condvar,
    capacity: usize,
    /// Microseconds that a job takes on a session: a moving average. Zero until one was done.
    pace: AtomicU64,
    /// `waiting`, to be read without the lock.
    depth: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    lanes: HashMap<u64, VecDeque<Job>>,
    /// The lanes with jobs, in the order of their turns.
    turns: VecDeque<u64>,
    waiting: usize,
    /// Sessions that wait for a job, and all that are there.
    idle: usize,
    sessions: usize,
    recalled: bool,
    closed: bool,
    /// No waiting job has an earlier deadline; some may have been taken since.
    next_expiry: Option<Instant>,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        let (ready, expiry) = (Condvar::new(), Condvar::new());
        Self { inner: Mutex::default(), ready, expiry, capacity, pace: AtomicU64::new(0), depth: AtomicUsize::new(0) }
    }

    /// Puts in what can be done in time and gives back the rest, which may hold jobs of other lanes that had to give
    /// way.
    pub(super) fn push(&self, jobs: impl Iterator<Item = Job>) -> Vec<(Job, Refusal)> {
        let mut refused = Vec::new();
        let mut inner = locked(&self.inner);
        let (before, now) = (inner.waiting, Instant::now());
        let expiry = inner.next_expiry;
        for job in jobs {
            if let Err(refusal) = self.admit(&inner, &job, now) {
                refused.push((job, refusal));
                continue;
            }
            if inner.waiting >= self.capacity
                && let Some(last) = inner.make_room(job.lane)
            {
                refused.push((last, Refusal::Full));
            }
            if inner.waiting >= self.capacity {
                refused.push((job, Refusal::Full));
            } else {
                inner.append(job);
            }
        }
        // Waking costs a system call; a session that is not asleep looks again by itself.
        let wake = inner.idle.min(inner.waiting.saturating_sub(before));
        let sooner = inner.next_expiry != expiry;
        self.depth.store(inner.waiting, Relaxed);
        drop(inner);
        for _ in 0..wake {
            self.ready.notify_one();
        }
        if sooner {
            self.expiry.notify_one();
        }
        refused
    }

    fn admit(&self, inner: &Inner, job: &Job, now: Instant) -> Result<(), Refusal> {
        if inner.closed {
            return Err(Refusal::Closed);
        }
        let pace = Duration::from_micros(self.pace.load(Relaxed));
        let sessions = inner.sessions.max(1);
        let left = job.deadline.saturating_duration_since(now);
        // Those ahead and one in each session, and then itself.
        let wait = |ahead: usize| pace.mul_f64((ahead + 1) as f64 / sessions as f64) + pace;
        // With nobody ahead it is let through whatever the average says: the average learns from what is done only.
        if inner.waiting == 0 || wait(inner.waiting) <= left {
            return Ok(());
        }
        match inner.ahead_of(job.lane) {
            0 => Ok(()),
            ahead if wait(ahead) <= left => Ok(()),
            ahead => Err(Refusal::TooLate { ahead, wait: wait(ahead) }),
        }
    }

    /// Puts a job back to where it came from. It had a place, so the bound is not checked again.
    pub(super) fn put_back(&self, job: Job) {
        let mut inner = locked(&self.inner);
        inner.prepend(job);
        self.depth.store(inner.waiting, Relaxed);
        drop(inner);
        self.ready.notify_one();
        self.expiry.notify_one();
    }

    /// The next job; waits for one until `patience`, for ever without one.
    pub(super) fn pop(&self, patience: Option<Instant>) -> Next {
        let mut inner = locked(&self.inner);
        loop {
            if inner.recalled {
                return Next::Leave;
            }
            if let Some(job) = inner.take() {
                self.depth.store(inner.waiting, Relaxed);
                return Next::Work(job);
            }
            if inner.closed {
                self.expiry.notify_one();
                return Next::End;
            }
            let left = patience.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Next::Idle;
            }
            inner.idle += 1;
            inner = match left {
                None => self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.ready.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            inner.idle -= 1;
        }
    }

    /// Waits until deadlines pass and gives the jobs that had them. `None` once the queue is closed and empty.
    pub(super) fn expired(&self) -> Option<Vec<Job>> {
        let mut inner = locked(&self.inner);
        loop {
            if inner.closed && inner.waiting == 0 {
                return None;
            }
            let now = Instant::now();
            inner = match inner.next_expiry {
                Some(at) if at <= now => {
                    let expired = inner.remove_expired(now);
                    self.depth.store(inner.waiting, Relaxed);
                    if !expired.is_empty() {
                        return Some(expired);
                    }
                    inner
                }
                // Not sooner, so that a stream of deadlines does not make this a busy loop.
                Some(at) => {
                    let pause = (at - now).max(SHORTEST_LOOK);
                    self.expiry.wait_timeout(inner, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.expiry.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// A session is there to work, until what is returned is dropped.
    pub(super) fn joined(&self) -> Joined<'_> {
        locked(&self.inner).sessions += 1;
        Joined(self)
    }

    /// Says how long a job took on its session.
    pub(super) fn took(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let before = self.pace.load(Relaxed);
        // Lost updates between sessions do not matter to an average.
        let pace = if before == 0 { time } else { before - before / SMOOTH + time / SMOOTH };
        self.pace.store(pace.max(1), Relaxed);
    }

    /// Would a job that is begun now most likely end after its deadline, while others wait that may do better? The last
    /// one is begun whatever the average says: the average learns from what is done only.
    pub(super) fn is_hopeless(&self, job: &Job) -> bool {
        let pace = Duration::from_micros(self.pace.load(Relaxed));
        self.is_waiting() && Instant::now() + pace > job.deadline
    }

    /// Has the sessions closed, until it is called with `false`; jobs go on waiting.
    pub(super) fn recall(&self, recalled: bool) {
        locked(&self.inner).recalled = recalled;
        self.ready.notify_all();
    }

    /// Everything that waits, for when nobody is left to work on it.
    pub(super) fn drain(&self) -> Vec<Job> {
        let mut inner = locked(&self.inner);
        inner.turns.clear();
        (inner.waiting, inner.next_expiry) = (0, None);
        self.depth.store(0, Relaxed);
        let jobs = inner.lanes.drain().flat_map(|(_, jobs)| jobs).collect();
        drop(inner);
        self.expiry.notify_one();
        jobs
    }

    /// Takes no more jobs; sessions leave when they have worked off what is there.
    pub(super) fn close(&self) {
        locked(&self.inner).closed = true;
        self.ready.notify_all();
        self.expiry.notify_all();
    }

    pub(super) fn depth(&self) -> usize {
        locked(&self.inner).waiting
    }

    /// Does something wait, as far as can be told without the lock?
    pub(super) fn is_waiting(&self) -> bool {
        self.depth.load(Relaxed) > 0
    }
}

/// See [`Queue::joined`].
#[derive(Debug)]
pub(super) struct Joined<'a>(&'a Queue);

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        locked(&self.0.inner).sessions -= 1;
    }
}

impl Inner {
    /// How many jobs are done before the next one of this lane: those of its own, and of every other lane as many as
    /// it has turns until then.
    fn ahead_of(&self, lane: u64) -> usize {
        let own = self.lanes.get(&lane).map_or(0, VecDeque::len);
        let others = self.lanes.iter().filter(|(other, _)| **other != lane);
        own + others.map(|(_, jobs)| jobs.len().min(own + 1)).sum::<usize>()
    }

    /// Takes the last job out of the longest lane, if that is longer than this one will be.
    fn make_room(&mut self, lane: u64) -> Option<Job> {
        let own = self.lanes.get(&lane).map_or(0, VecDeque::len);
        let (&longest, _) =
            self.lanes.iter().max_by_key(|(_, jobs)| jobs.len()).filter(|(_, jobs)| jobs.len() > own + 1)?;
        let last = self.lanes.get_mut(&longest)?.pop_back()?;
        self.waiting -= 1;
        Some(last)
    }

    fn append(&mut self, job: Job) {
        self.note(&job);
        let lane = self.lanes.entry(job.lane).or_default();
        if lane.is_empty() {
            self.turns.push_back(job.lane);
        }
        lane.push_back(job);
    }

    fn prepend(&mut self, job: Job) {
        self.note(&job);
        let lane = self.lanes.entry(job.lane).or_default();
        if lane.is_empty() {
            self.turns.push_front(job.lane);
        }
        lane.push_front(job);
    }

    fn note(&mut self, job: &Job) {
        self.waiting += 1;
        self.next_expiry = Some(self.next_expiry.map_or(job.deadline, |at| at.min(job.deadline)));
    }

    fn take(&mut self) -> Option<Job> {
        let turn = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&turn)?;
        let job = lane.pop_front()?;
        if lane.is_empty() {
            self.lanes.remove(&turn);
        } else {
            self.turns.push_back(turn);
        }
        self.waiting -= 1;
        Some(job)
    }

    fn remove_expired(&mut self, now: Instant) -> Vec<Job> {
        let mut expired = Vec::new();
        let mut next = None::<Instant>;
        for jobs in self.lanes.values_mut() {
            let (over, waiting): (VecDeque<_>, VecDeque<_>) = jobs.drain(..).partition(|job| job.deadline <= now);
            *jobs = waiting;
            expired.extend(over);
            let first = jobs.iter().map(|job| job.deadline).min();
            next = next.into_iter().chain(first).min();
        }
        self.lanes.retain(|_, jobs| !jobs.is_empty());
        self.turns.retain(|lane| self.lanes.contains_key(lane));
        self.waiting -= expired.len();
        self.next_expiry = next;
        expired
    }
}

/// Jobs over which the pace is averaged.
const SMOOTH: u64 = 16;

const SHORTEST_LOOK: Duration = Duration::from_millis(1);

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
