//! What the worker's threads share.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Plan;
use super::ailing::Ailing;
use super::connection::Connections;
use super::device::Device;
use super::gate::Gate;
use super::ladder::{Ladder, Outage};
use super::pins::{PinMemory, PinMemoryError};
use super::queue::{Job, Queue, Work};
use crate::custody::PublicKey;
use crate::custody::token::{Token, TokenFacts};
use crate::custody::uri::KeyUri;
use crate::custody::wire::{self, FailureCode, KeyHandle, StatusReport, WorkerState};
use crate::telemetry::alert;

pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) device: Device,
    pub(super) gate: Gate,
    pub(super) ladder: Ladder,
    pub(super) queue: Queue,
    /// What each session is at, by its number. Whoever takes a job out of here answers it.
    pub(super) in_hand: Vec<Mutex<Option<Job>>>,
    pub(super) connections: Connections,
    pub(super) keys: Keys,
    pub(super) ailing: Ailing,
    pub(super) state: State,
    pub(super) counters: Counters,
}

impl Shared {
    /// # Errors
    /// When the state directory cannot be used.
    pub(super) fn new(plan: Plan, token: Box<dyn Token>) -> Result<Self, PinMemoryError> {
        let pins = PinMemory::open(&plan.state_dir, &plan.name, plan.pin_warns)?;
        Ok(Self {
            device: Device::new(token, plan.pin_file.clone(), pins),
            gate: Gate::default(),
            ladder: Ladder::new(Outage::at(plan.state_dir.join(format!("{}.outage", plan.name)))),
            queue: Queue::new(plan.max_queue),
            in_hand: (0..plan.sessions).map(|_| Mutex::default()).collect(),
            connections: Connections::default(),
            keys: Keys::default(),
            ailing: Ailing::default(),
            state: State::default(),
            counters: Counters::new(),
            plan,
        })
    }

    pub(super) fn stop(&self) {
        self.state.stop();
        self.connections.say_goodbye();
        self.queue.close();
    }

    /// Answers what waits in the queue when no session is left to take it.
    pub(super) fn answer_orphans(&self) {
        if let Some((code, detail)) = self.state.unavailable() {
            for job in self.queue.drain() {
                self.counters.failed.fetch_add(1, Relaxed);
                job.connection.fail(job.id, code, &detail);
            }
        }
    }

    /// Answers everything that waits or is under way: the process ends, and a call into the module does not. What is
    /// under way may be signed by the device all the same, so the front must not have it signed elsewhere.
    pub(super) fn answer_all(&self, detail: &str) {
        let in_hand = self.in_hand.iter().filter_map(|job| locked(job).take()).map(|job| match job.work {
            Work::Sign { .. } => (job, FailureCode::Unclear),
            Work::Open { .. } => (job, FailureCode::TokenUnavailable),
        });
        let waiting = self.queue.drain().into_iter().map(|job| (job, FailureCode::TokenUnavailable));
        for (job, code) in in_hand.chain(waiting) {
            self.counters.failed.fetch_add(1, Relaxed);
            job.connection.fail(job.id, code, detail);
        }
        self.connections.written(LAST_WORDS);
    }

    /// Returns only while no thread hangs with one of the locks that all work needs.
    pub(super) fn pulse(&self) {
        drop(locked(&self.state.inner));
        self.queue.depth();
        self.connections.count();
        self.in_hand.iter().for_each(|job| drop(locked(job)));
    }

    pub(super) fn report(&self) -> StatusReport {
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (state, detail, facts, sessions_open) = self.state.snapshot();
        StatusReport {
            state,
            detail,
            label: facts.label,
            serial: facts.serial,
            manufacturer: facts.manufacturer,
            model: facts.model,
            firmware: facts.firmware,
            sessions_open,
            sessions_configured: self.plan.sessions,
            queue_depth: small(self.queue.depth()),
            max_queue: small(self.plan.max_queue),
            connections: small(self.connections.count()),
            counters: self.counters.read(),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// See [`State::reopening`].
pub(super) struct Reopening<'a>(&'a State);

impl Drop for Reopening<'_> {
    fn drop(&mut self) {
        locked(&self.0.inner).reopening -= 1;
    }
}

/// Can the worker sign, and if not, what does the front hear?
#[derive(Default)]
pub(super) struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    sessions: u32,
    /// Sessions that are opened anew at once.
    reopening: u32,
    opened_once: bool,
    stopping: bool,
    trouble: Option<(WorkerState, String)>,
    facts: TokenFacts,
    beyond_repair: Option<Box<dyn Fn() + Send + Sync>>,
}

impl State {
    pub(super) fn session_opened(&self, facts: TokenFacts) {
        let mut inner = locked(&self.inner);
        inner.sessions += 1;
        if inner.sessions == 1 && !inner.stopping {
            tracing::info!(name: alert::TOKEN_READY, "token {facts} is ready");
            super::journal::ready(&facts);
        }
        inner.facts = facts;
        inner.opened_once = true;
        inner.trouble = None;
        self.changed.notify_all();
    }

    pub(super) fn session_closed(&self) {
        let mut inner = locked(&self.inner);
        inner.sessions = inner.sessions.saturating_sub(1);
    }

    /// A session was lost and is opened anew at once. Until that has come to something, and what is returned is dropped,
    /// what waits may wait a moment longer, whatever became of other sessions.
    pub(super) fn reopening(&self) -> Reopening<'_> {
        locked(&self.inner).reopening += 1;
        Reopening(self)
    }

    /// Opening a session failed. Logged when it is news; with other sessions still open, the worker can sign.
    pub(super) fn trouble(&self, state: WorkerState, detail: String) {
        let mut inner = locked(&self.inner);
        if inner.stopping {
            return;
        }
        if inner.trouble.as_ref().is_none_or(|(_, known)| *known != detail) {
            if state == WorkerState::PinRefused {
                tracing::error!(name: alert::PIN_REFUSED, "no session with the token: {detail}");
            } else {
                tracing::error!(name: alert::TOKEN_LOST, "no session with the token: {detail}");
            }
            if inner.sessions == 0 {
                super::journal::trouble(state, &detail);
            }
        }
        inner.trouble = Some((state, detail));
        self.changed.notify_all();
    }

    /// `None` when there is a session, or when one is being opened, the first or the next after the last was lost: what
    /// waits then may wait a moment longer. A worker that was restarted so refuses nobody.
    pub(super) fn unavailable(&self) -> Option<(FailureCode, String)> {
        let inner = locked(&self.inner);
        if inner.sessions > 0 {
            return None;
        }
        match &inner.trouble {
            _ if inner.stopping => Some((FailureCode::Stopping, STOPPING.to_owned())),
            Some((WorkerState::PinRefused, detail)) => Some((FailureCode::PinRefused, detail.clone())),
            Some((_, detail)) if inner.reopening == 0 => Some((FailureCode::TokenUnavailable, detail.clone())),
            _ => None,
        }
    }

    /// Was there no session yet since the start?
    pub(super) fn starting(&self) -> bool {
        !locked(&self.inner).opened_once
    }

    fn snapshot(&self) -> (WorkerState, String, TokenFacts, u32) {
        let inner = locked(&self.inner);
        let (state, detail) = match &inner.trouble {
            _ if inner.stopping => (WorkerState::Stopping, String::new()),
            Some((_, detail)) if inner.sessions > 0 => (WorkerState::Ready, wire::fit(detail).into_owned()),
            Some((state, detail)) => (*state, wire::fit(detail).into_owned()),
            None if inner.sessions > 0 || inner.opened_once => (WorkerState::Ready, String::new()),
            None => (WorkerState::Starting, String::new()),
        };
        (state, detail, inner.facts.clone(), inner.sessions)
    }

    pub(super) fn settled(&self) -> Option<WorkerState> {
        let mut inner = locked(&self.inner);
        loop {
            match &inner.trouble {
                _ if inner.stopping => return None,
                _ if inner.sessions > 0 => return Some(WorkerState::Ready),
                Some((WorkerState::PinRefused, _)) => return Some(WorkerState::PinRefused),
                _ => inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    pub(super) fn sessions(&self) -> u32 {
        locked(&self.inner).sessions
    }

    pub(super) fn stopping(&self) -> bool {
        locked(&self.inner).stopping
    }

    fn stop(&self) {
        locked(&self.inner).stopping = true;
        self.changed.notify_all();
    }

    /// Waits this long, or until the worker is told to stop.
    pub(super) fn wait(&self, pause: Duration) {
        let guard = locked(&self.inner);
        let waited = self.changed.wait_timeout_while(guard, pause, |inner| !inner.stopping);
        drop(waited);
    }

    pub(super) fn on_beyond_repair(&self, act: Box<dyn Fn() + Send + Sync>) {
        locked(&self.inner).beyond_repair = Some(act);
    }

    /// Only a new process helps: has the main thread end this one.
    pub(super) fn beyond_repair(&self) {
        if let Some(act) = &locked(&self.inner).beyond_repair {
            act();
        }
    }
}

/// The keys that were opened, by handle. Sessions look them up again for themselves.
#[derive(Default)]
pub(super) struct Keys(Mutex<Opened>);

#[derive(Default)]
struct Opened {
    /// In the order of their handles.
    keys: Vec<Arc<KnownKey>>,
    /// The newest handle of each URI.
    places: HashMap<KeyUri, u32>,
}

#[derive(Debug)]
pub(super) struct KnownKey {
    pub(super) uri: KeyUri,
    pub(super) public_key: PublicKey,
}

impl Keys {
    /// The handle of this key under this URI; the same one each time, until there is another key under it. `None` when
    /// there are too many.
    pub(super) fn handle(&self, uri: &KeyUri, public_key: PublicKey) -> Option<KeyHandle> {
        let mut opened = locked(&self.0);
        let known = opened.places.get(uri).copied().map(KeyHandle);
        if known.is_some_and(|handle| opened.key(handle).is_some_and(|key| key.public_key == public_key)) {
            return known;
        }
        if opened.keys.len() >= MAX_KEYS {
            return None;
        }
        let place = u32::try_from(opened.keys.len()).ok()?;
        opened.keys.push(Arc::new(KnownKey { uri: uri.clone(), public_key }));
        opened.places.insert(uri.clone(), place);
        Some(KeyHandle(place))
    }

    pub(super) fn key(&self, handle: KeyHandle) -> Option<Arc<KnownKey>> {
        locked(&self.0).key(handle).cloned()
    }

    /// What the ladder knows a key by before it has a handle: the one that it had, else a number of its URI's own.
    pub(super) fn mark(&self, uri: &KeyUri) -> KeyHandle {
        let known = locked(&self.0).places.get(uri).copied();
        KeyHandle(known.unwrap_or_else(|| {
            let mut hasher = DefaultHasher::new();
            uri.hash(&mut hasher);
            // The lower half is as good as the whole.
            (hasher.finish() & u64::from(u32::MAX)) as u32
        }))
    }
}

impl Opened {
    fn key(&self, handle: KeyHandle) -> Option<&Arc<KnownKey>> {
        self.keys.get(usize::try_from(handle.0).ok()?)
    }
}

/// Counted since the start.
pub(super) struct Counters {
    started: Instant,
    pub(super) sign_requests: AtomicU64,
    pub(super) signatures: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) logins: AtomicU64,
    pub(super) sessions_opened: AtomicU64,
    pub(super) sessions_lost: AtomicU64,
    pub(super) refused_peers: AtomicU64,
    pub(super) reinitialized: AtomicU64,
    pub(super) kept_alive: AtomicU64,
}

impl Counters {
    fn new() -> Self {
        let zero = AtomicU64::default;
        Self {
            started: Instant::now(),
            sign_requests: zero(),
            signatures: zero(),
            failed: zero(),
            expired: zero(),
            refused_full: zero(),
            logins: zero(),
            sessions_opened: zero(),
            sessions_lost: zero(),
            refused_peers: zero(),
            reinitialized: zero(),
            kept_alive: zero(),
        }
    }

    fn read(&self) -> wire::Counters {
        wire::Counters {
            sign_requests: self.sign_requests.load(Relaxed),
            signatures: self.signatures.load(Relaxed),
            failed: self.failed.load(Relaxed),
            expired: self.expired.load(Relaxed),
            refused_full: self.refused_full.load(Relaxed),
            logins: self.logins.load(Relaxed),
            sessions_opened: self.sessions_opened.load(Relaxed),
            sessions_lost: self.sessions_lost.load(Relaxed),
            refused_peers: self.refused_peers.load(Relaxed),
            reinitialized: self.reinitialized.load(Relaxed),
            kept_alive: self.kept_alive.load(Relaxed),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// A panic of another thread leaves nothing half-done behind any of these locks.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is said to those who come too late.
pub(super) const STOPPING: &str = "the worker is stopping";

/// For the last answers to go out.
const LAST_WORDS: Duration = Duration::from_millis(150);

/// Ten thousand keys, and room for those that are replaced. At some 300 bytes each, twice for the name, and 16 bytes in
/// every session, that is 10 MB and 16 MB with 64 sessions; a front that opens more is broken.
const MAX_KEYS: usize = 16 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::custody::testing::key_pair;

    fn uri(number: usize) -> KeyUri {
        format!("pkcs11:object=key-{number}").parse().unwrap()
    }

    #[test]
    fn ten_thousand_keys_have_a_handle_each_and_there_is_an_end() {
        let (keys, (_, public_key)) = (Keys::default(), key_pair());
        let began = Instant::now();
        for number in 0..10_000 {
            assert_eq!(keys.handle(&uri(number), public_key), Some(KeyHandle(u32::try_from(number).unwrap())));
        }
        for number in 0..10_000 {
            assert_eq!(keys.handle(&uri(number), public_key), Some(KeyHandle(u32::try_from(number).unwrap())), "again");
        }
        // With a search through all of them for each it would be a minute here.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let given_out = (10_000..).take_while(|number| keys.handle(&uri(*number), public_key).is_some()).count();
        assert_eq!(given_out, MAX_KEYS - 10_000);
        assert_eq!(keys.handle(&uri(7), public_key), Some(KeyHandle(7)), "those that are known stay");
    }

    #[test]
    fn what_comes_before_the_first_session_waits_until_it_is_known_why_there_is_none() {
        let state = State::default();
        assert!(state.starting() && state.unavailable().is_none());
        state.trouble(WorkerState::TokenUnavailable, "no such token".to_owned());
        assert_eq!(state.unavailable(), Some((FailureCode::TokenUnavailable, "no such token".to_owned())));
        state.session_opened(TokenFacts::default());
        assert!(!state.starting() && state.unavailable().is_none());
        state.session_closed();
        assert!(state.unavailable().is_none(), "the next one is being opened");
        state.stop();
        assert_eq!(state.unavailable(), Some((FailureCode::Stopping, STOPPING.to_owned())));
    }

    #[test]
    fn another_key_under_the_same_uri_has_another_handle_and_the_old_one_still_means_the_old_key() {
        let (keys, (_, old), (_, new)) = (Keys::default(), key_pair(), key_pair());
        let first = keys.handle(&uri(0), old).unwrap();
        let second = keys.handle(&uri(0), new).unwrap();
        assert_ne!(first, second);
        assert_eq!((keys.key(first).unwrap().public_key, keys.key(second).unwrap().public_key), (old, new));
        assert_eq!(keys.mark(&uri(0)), second);
        assert_eq!(keys.mark(&uri(1)), keys.mark(&uri(1)), "a key without a handle is marked, too");
    }
}
