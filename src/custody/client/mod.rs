//! The front's side of the worker protocol: one connection for each event loop and token.
//!
//! The front runs several single-threaded runtimes, and a connection's task must be polled by the runtime that asks
//! over it: a signature then wakes the thread that waits for it and no other. So a [`Link`] keeps a seat per runtime,
//! found by the runtime's id; a request never crosses threads on this side of the socket.

#![forbid(unsafe_code)]

mod channel;
mod error;
mod handshake;
mod peer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{self, Handle};

pub(super) use self::channel::Channel;
pub(super) use self::error::LinkError;

/// The way to one token's worker.
#[derive(Debug)]
pub(super) struct Link {
    /// The token's name in the configuration.
    pub(super) name: Arc<str>,
    pub(super) socket: PathBuf,
    /// Who must serve the socket.
    pub(super) worker_uid: u32,
    seats: Mutex<Vec<(runtime::Id, Arc<Seat>)>>,
    /// Of all runtimes together: what one has found out about the worker, the others need not find out again.
    attempts: Mutex<Attempts>,
}

/// One runtime's connection.
#[derive(Debug, Default)]
struct Seat {
    current: Mutex<Option<Arc<Channel>>>,
    /// Held while connecting, so that those who ask at the same time share one attempt.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Attempts {
    failed: u32,
    /// When the first of these was.
    since: Option<Instant>,
    last: Option<(Instant, LinkError)>,
}

impl Link {
    pub(super) fn new(name: Arc<str>, socket: PathBuf, worker_uid: u32) -> Self {
        Self { name, socket, worker_uid, seats: Mutex::default(), attempts: Mutex::default() }
    }

    /// This runtime's connection, made now if there is none. After a failed attempt the next one waits a little; until
    /// then the last failure is the answer.
    pub(super) async fn channel(&self, deadline: Instant) -> Result<Arc<Channel>, LinkError> {
        let seat = self.seat();
        match seat.live() {
            Some(channel) => Ok(channel),
            None => {
                tokio::time::timeout_at(deadline.into(), self.connect(&seat)).await.unwrap_or(Err(LinkError::Timeout))
            }
        }
    }

    async fn connect(&self, seat: &Seat) -> Result<Arc<Channel>, LinkError> {
        let _one_at_a_time = seat.connecting.lock().await;
        if let Some(channel) = seat.live() {
            return Ok(channel);
        }
        if let Some(error) = locked(&self.attempts).pausing() {
            return Err(error);
        }
        match handshake::connect(self).await {
            Ok(channel) => {
                *locked(&self.attempts) = Attempts::default();
                let channel = Arc::new(channel);
                *locked(&seat.current) = Some(Arc::clone(&channel));
                Ok(channel)
            }
            Err(error) => {
                locked(&self.attempts).note(&error);
                Err(error)
            }
        }
    }

    /// Was the worker reached a moment ago, or not tried yet? A worker that is restarted is worth waiting for,
    /// one that is away for longer is not.
    pub(super) fn may_be_restarting(&self) -> bool {
        locked(&self.attempts).since.is_none_or(|since| since.elapsed() < RESTART)
    }

    fn seat(&self) -> Arc<Seat> {
        let id = Handle::current().id();
        let mut seats = locked(&self.seats);
        if let Some((_, seat)) = seats.iter().find(|(of, _)| *of == id) {
            return Arc::clone(seat);
        }
        let seat = Arc::<Seat>::default();
        seats.push((id, Arc::clone(&seat)));
        seat
    }
}

impl Attempts {
    /// The last failure, while it is too early for another attempt.
    fn pausing(&self) -> Option<LinkError> {
        let (at, error) = self.last.as_ref()?;
        (at.elapsed() < pause(self.failed)).then(|| error.clone())
    }

    fn note(&mut self, error: &LinkError) {
        self.failed = self.failed.saturating_add(1);
        self.since.get_or_insert_with(Instant::now);
        self.last = Some((Instant::now(), error.clone()));
    }
}

impl Seat {
    fn live(&self) -> Option<Arc<Channel>> {
        locked(&self.current).as_ref().filter(|channel| channel.is_live()).cloned()
    }
}

/// Longer than a restart of the worker takes, with the initialisation of a slow module and its login.
const RESTART: Duration = Duration::from_secs(15);

/// 20 ms after the first failure, doubling up to a second: a Unix socket costs little to try.
fn pause(failed: u32) -> Duration {
    Duration::from_millis(10 << failed.min(7)).min(Duration::from_secs(1))
}

/// A panic of another thread leaves nothing half-done behind any of these locks.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
