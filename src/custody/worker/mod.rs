//! The token worker: one token, one PIN, one socket. Threads only, no async runtime: a call into a vendor's module
//! blocks for as long as it likes, and a thread is what can be blocked.
//!
//! One thread accepts, one reads each connection and puts requests into a bounded queue, one per session takes them
//! out, has the device sign, and writes the answer. One answers what waited too long, one watches for calls into the
//! module that do not return. The main thread waits for the signal to stop.

#![forbid(unsafe_code)]

mod ailing;
mod ask;
mod backend;
mod bench;
mod cli;
mod connection;
mod device;
mod gate;
pub(super) mod harden;
mod journal;
mod ladder;
pub(super) mod pins;
mod queue;
mod reader;
mod session;
pub(super) mod settings;
mod socket;
mod state;
mod watchdog;

pub use cli::main;

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::state::Shared;
use self::watchdog::Watchdog;
use super::GateAttributes;
use super::token::Token;
use super::uri::KeyUri;
use super::wire::WorkerState;

/// What the worker needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The token's name in the configuration.
    pub name: String,
    /// Who may connect.
    pub front_uid: u32,
    /// Sessions, each with a thread of its own.
    pub sessions: u32,
    /// Requests that may wait.
    pub max_queue: usize,
    /// Where the PIN is.
    pub pin_file: PathBuf,
    /// The token's flags can be trusted to tell of wrong PINs before it locks, as far as its profile knows.
    pub pin_warns: bool,
    /// Where the worker keeps what must outlive it.
    pub state_dir: PathBuf,
    /// A session that is idle for so long is used once, to keep its connection alive. `None`: never.
    pub keep_alive: Option<Duration>,
    /// What the configuration lets pass at the custody gate, by key. A key that is not here has no exception.
    pub exceptions: Vec<(KeyUri, GateAttributes)>,
}

/// A worker at work. Dropping it without [`Self::stop`] leaves its threads running.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    sessions: Vec<JoinHandle<()>>,
    accept: JoinHandle<()>,
    expiry: JoinHandle<()>,
    /// Closed, it wakes the thread that accepts. A socket that the service manager holds must neither be shut down, since
    /// the next worker listens on it, nor connected to, since that connection might wait for the next worker.
    awake: UnixStream,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything in flight was answered and every session closed.
    Clean,
    /// A call into the module did not return in time; its thread was left behind.
    CallPending,
}

impl Worker {
    /// Starts the threads and returns; the token is logged in to by them.
    ///
    /// # Errors
    /// When the state directory cannot be used, or a thread cannot be started.
    pub fn start(plan: Plan, token: Box<dyn Token>, listener: UnixListener) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(plan, token).map_err(io::Error::other)?);
        let mut sessions = Vec::new();
        for number in 0..shared.in_hand.len() {
            let shared = Arc::clone(&shared);
            sessions.push(thread(&format!("session-{number}"), move || session::run(&shared, number))?);
        }
        let expiring = Arc::clone(&shared);
        let expiry = thread("expiry", move || {
            while let Some(jobs) = expiring.queue.expired() {
                jobs.iter().for_each(|job| session::expire(&expiring, job));
            }
        })?;
        let accepting = Arc::clone(&shared);
        let (awake, stopped) = UnixStream::pair()?;
        let accept = thread("accept", move || reader::accept(&accepting, &listener, &stopped))?;
        Ok(Self { shared, sessions, accept, expiry, awake })
    }

    /// State and counters.
    #[must_use]
    pub fn status(&self) -> super::wire::StatusReport {
        self.shared.report()
    }

    /// Blocks until the worker has settled: it can sign, or an operator is needed. `None` when it was told to stop.
    #[must_use]
    pub fn settled(&self) -> Option<WorkerState> {
        self.shared.state.settled()
    }

    /// Takes no more requests, answers those it has, closes every session. Waits `patience` for calls into the module
    /// that do not return.
    pub fn stop(self, patience: Duration) -> Stopped {
        self.shared.stop();
        drop(self.awake);
        let deadline = Instant::now() + patience;
        for session in self.sessions {
            while !session.is_finished() {
                if Instant::now() >= deadline {
                    return Stopped::CallPending;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let _ = self.expiry.join();
        self.shared.connections.await_end(FAREWELL);
        self.shared.connections.close_all();
        let _ = self.accept.join();
        finalize(self.shared);
        Stopped::Clean
    }

    /// As a kill looks from outside: every connection ends, nothing more is answered.
    #[cfg(test)]
    pub(in crate::custody) fn sever(&self) {
        self.shared.connections.close_all();
    }

    /// Has everything answered that waits here, should the watchdog end the process.
    fn watched_by(&self, watchdog: &Watchdog) {
        watchdog.attend(&self.shared);
    }

    /// Called from a session thread when only a new process helps.
    fn on_beyond_repair(&self, act: Box<dyn Fn() + Send + Sync>) {
        self.shared.state.on_beyond_repair(act);
    }
}

/// Drops the token, and so finalises the module, on this thread: were the last reader to do it while the process exits,
/// it would meet the module's own exit handlers.
fn finalize(mut shared: Arc<Shared>) {
    let deadline = Instant::now() + Duration::from_secs(1);
    while let Err(still_shared) = Arc::try_unwrap(shared) {
        if Instant::now() >= deadline {
            std::mem::forget(still_shared);
            return;
        }
        shared = still_shared;
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(run)
}

/// For the fronts to close their connections, once everything is answered. One that runs does so at once.
const FAREWELL: Duration = Duration::from_secs(1);

/// Vendor modules are known to keep large buffers on the stack.
const STACK: usize = 1024 * 1024;

#[cfg(test)]
mod fake_front;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod tests;
