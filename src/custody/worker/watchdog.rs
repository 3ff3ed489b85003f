//! A call into the module that never returns cannot be interrupted, only ended with its process.

#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::state::{Shared, locked};
use super::thread;
use crate::custody::token::watch;

/// Watches the calls of this process, from before the module is loaded.
#[derive(Clone, Default)]
pub(super) struct Watchdog {
    worker: Arc<Mutex<Weak<Shared>>>,
}

impl Watchdog {
    /// Starts to watch: a call may take `limit`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(limit: Duration) -> io::Result<Self> {
        let watchdog = Self::default();
        let watching = watchdog.clone();
        let look = (limit / 20).clamp(Duration::from_millis(5), Duration::from_millis(250));
        thread("watchdog", move || {
            loop {
                std::thread::sleep(look);
                if let Some(call) = watch::longest().filter(|call| call.takes >= limit) {
                    watching.end_process(call);
                }
            }
        })?;
        Ok(watchdog)
    }

    /// Whose requests are answered before the process ends.
    pub(super) fn attend(&self, worker: &Arc<Shared>) {
        *locked(&self.worker) = Arc::downgrade(worker);
    }

    fn end_process(&self, call: watch::Pending) {
        let detail = format!("{} did not return within {} ms", call.name, call.takes.as_millis());
        tracing::error!("{detail}; the process is killed, so that the service manager starts it anew");
        let worker = locked(&self.worker).upgrade();
        // On a thread of its own: a front that does not read must not be a second thing to wait for.
        let (answered, all) = mpsc::channel::<()>();
        let answering = thread("last answers", move || {
            if let Some(worker) = worker {
                worker.answer_all(&detail);
            }
            drop(answered);
        });
        if answering.is_ok() {
            let _ = all.recv_timeout(ANSWER_PATIENCE);
        }
        // Leaving in good order would run the module's exit handlers under a call that is still in it.
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}

const ANSWER_PATIENCE: Duration = Duration::from_millis(200);
