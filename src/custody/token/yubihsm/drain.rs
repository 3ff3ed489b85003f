//! The thread that takes the device's log in time, beside the sessions that sign.

#![forbid(unsafe_code)]

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use yubihsm::authentication;

use super::Shared;
use crate::custody::token::explain;

/// What the sessions tell the thread.
#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The key that a session was opened with.
    key: Option<authentication::Key>,
    due: bool,
    stopping: bool,
}

/// The running thread; it is told to end, and waited for, on drop.
pub(super) struct Drain {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Signal {
    /// A session was opened with this key.
    pub(super) fn opened(&self, key: &authentication::Key) {
        self.change(|state| {
            let first = state.key.replace(key.clone()).is_none();
            state.due |= first;
        });
    }

    /// There is something to take.
    pub(super) fn due(&self) {
        self.change(|state| state.due = true);
    }

    /// The key is no longer the device's.
    fn forget(&self) {
        self.change(|state| state.key = None);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// The key to take the log with now; `None` when the time has passed; `Err` when it is over.
    fn wait(&self, pause: Duration) -> Result<Option<authentication::Key>, ()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |state: &mut State| !(state.stopping || (state.due && state.key.is_some()));
        let (mut state, _) =
            self.changed.wait_timeout_while(state, pause, idle).unwrap_or_else(PoisonError::into_inner);
        if state.stopping {
            return Err(());
        }
        let due = std::mem::take(&mut state.due);
        Ok(state.key.clone().filter(|_| due))
    }
}

impl Drain {
    pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let signal = Arc::clone(&shared.signal);
        let thread = std::thread::Builder::new().name("yubihsm-log".to_owned()).spawn(move || run(&shared))?;
        Ok(Self { signal, thread: Some(thread) })
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.signal.change(|state| state.stopping = true);
        let deadline = Instant::now() + PATIENCE;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn run(shared: &Shared) {
    let mut told = String::new();
    loop {
        let key = match shared.signal.wait(IDLE) {
            Err(()) => break,
            Ok(key) => key,
        };
        let key = match key {
            Some(key) => key,
            // Nothing was said for a while: what was signed since then is taken now.
            None if shared.ledger.waiting() > 0 => {
                shared.signal.due();
                continue;
            }
            None => continue,
        };
        let Err(error) = shared.drain_with(key) else {
            told.clear();
            continue;
        };
        let words = explain(&error);
        if told != words {
            tracing::warn!("{words}");
            told = words;
        }
        if error.is_wrong_password() {
            // Not presented again; the next session that is opened brings the right one.
            shared.signal.forget();
        }
        if error.is_forbidden() {
            tracing::warn!(
                "the authentication key {:#06x} lacks the capability get-log-entries: the device's log is not taken, \
                 and with force-audit the device stops when it is full",
                shared.auth_key
            );
            shared.ledger.turn_off();
            break;
        }
        // The device or the disk is not well; the next signature or the clock tries again.
    }
}

/// How long a signature waits at most for its entry.
const IDLE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// For a command that is under way.
const PATIENCE: Duration = Duration::from_secs(2);
