//! Accepting the front's connections and reading their requests.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use super::connection::Connection;
use super::queue::{Job, Refusal, Work};
use super::state::{STOPPING, Shared};
use super::thread;
use crate::custody::wire::{Failure, FailureCode, Hello, Inbox, Reply, Request, WireError, decode_request};

/// Runs until the worker stops, which the other end of `stopped` tells by closing. Whoever connects after that waits for
/// the next worker, where the service manager holds the socket.
pub(super) fn accept(shared: &Arc<Shared>, listener: &UnixListener, stopped: &UnixStream) {
    // A `Worker` that was dropped, not stopped, runs on, and nobody is left to tell its end: looking there would spin.
    let mut abandoned = false;
    while !shared.state.stopping() {
        let mut watched = [listener.as_fd(), stopped.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let watched = &mut watched[..if abandoned { 1 } else { 2 }];
        let polled = poll(watched, PollTimeout::NONE);
        abandoned |= watched.get(1).is_some_and(|end| end.any().unwrap_or(false));
        match polled {
            Ok(_) if shared.state.stopping() => break,
            Ok(_) | Err(Errno::EINTR) if !watched[0].any().unwrap_or(false) => continue,
            _ => {}
        }
        match listener.accept() {
            Ok((stream, _)) => admit(shared, stream),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                // Out of descriptors, most likely; accepting again at once would only spin.
                tracing::error!(%error, "cannot accept a connection");
                shared.state.wait(ACCEPT_PAUSE);
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: UnixStream) {
    let peer = match getsockopt(&stream, sockopt::PeerCredentials) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::error!(%error, "connection refused: the peer's user cannot be read");
            return;
        }
    };
    if peer.uid() != shared.plan.front_uid {
        shared.counters.refused_peers.fetch_add(1, Relaxed);
        let (uid, pid, expected) = (peer.uid(), peer.pid(), shared.plan.front_uid);
        tracing::warn!(uid, pid, expected, "connection refused: only the front's user (`front_user`) may connect");
        return;
    }
    let connection = match shared.connections.admit(stream) {
        Ok(Some(connection)) => connection,
        Ok(None) => {
            tracing::warn!("connection refused: too many are open");
            return;
        }
        Err(error) => {
            tracing::error!(%error, "connection refused: its socket cannot be prepared");
            return;
        }
    };
    let (reading, kept, writing) = (Arc::clone(shared), Arc::clone(&connection), Arc::clone(&connection));
    let started = thread("connection", move || {
        serve(&reading, &kept);
        kept.close();
        reading.connections.forget(&kept);
    });
    // The one ends the other, whichever cannot be had.
    let started = started.and_then(|_| thread("answers", move || writing.write_for_all()));
    if let Err(error) = started {
        tracing::error!(%error, "connection refused: no thread for it");
        connection.close();
        shared.connections.forget(&connection);
    }
}

fn serve(shared: &Shared, connection: &Arc<Connection>) {
    match read(shared, connection) {
        Ok(()) => tracing::debug!(connection = connection.number, "the front has closed the connection"),
        Err(End::Wire(error)) => connection.drop_peer(&format!("the front sent {error}")),
        Err(End::Io(error)) => connection.drop_peer(&format!("cannot read from the front: {error}")),
    }
}

enum End {
    Wire(WireError),
    Io(io::Error),
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

fn read(shared: &Shared, connection: &Arc<Connection>) -> Result<(), End> {
    let mut inbox = Inbox::new();
    let mut stream = connection.stream();
    stream.set_read_timeout(Some(HELLO_TIMEOUT)).map_err(End::Io)?;
    let mut greeted = false;
    let mut jobs = Vec::new();
    loop {
        let count = match stream.read(inbox.space()) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(End::Io(error)),
        };
        inbox.filled(count);
        while let Some(frame) = inbox.next_frame()? {
            let (id, request) = decode_request(frame)?;
            if greeted {
                take(shared, connection, id, request, &mut jobs)?;
            } else {
                let Request::Hello(hello) = request else { return Err(WireError::NotHello.into()) };
                // Answered before the version is judged, so that the other side can say in its log what is wrong.
                connection.reply(id, &Reply::Hello(Hello::new(&shared.plan.name)));
                hello.check_version()?;
                inbox.lift_limit();
                stream.set_read_timeout(None).map_err(End::Io)?;
                greeted = true;
            }
        }
        if !jobs.is_empty() {
            submit(shared, &mut jobs);
            connection.settle();
        }
    }
}

fn take(
    shared: &Shared,
    connection: &Arc<Connection>,
    id: u64,
    request: Request,
    jobs: &mut Vec<Job>,
) -> Result<(), WireError> {
    let mut job = |lane: u64, budget: Duration, work| {
        let deadline = Instant::now() + budget;
        jobs.push(Job { connection: Arc::clone(connection), id, lane, deadline, retried: false, work });
    };
    match request {
        Request::Hello(_) => return Err(WireError::SecondHello),
        Request::Sign { handle, lane, budget_ms, digest } => {
            shared.counters.sign_requests.fetch_add(1, Relaxed);
            let budget = Duration::from_millis(budget_ms.into()).min(LONGEST_BUDGET);
            job(lane, budget, Work::Sign { handle, digest });
        }
        Request::OpenKey { uri } => job(APPLIANCE, OPEN_BUDGET, Work::Open { uri }),
        Request::Status => connection.reply(id, &Reply::Status(Box::new(shared.report()))),
        Request::Ping => connection.reply(id, &Reply::Pong),
    }
    Ok(())
}

/// Hands the jobs to the sessions, or answers them at once when there is no session or no room.
fn submit(shared: &Shared, jobs: &mut Vec<Job>) {
    if let Some((code, detail)) = shared.state.unavailable() {
        for job in jobs.drain(..) {
            job.connection.leave(job.id, &Reply::Failed(Failure::new(code, &detail)));
        }
        return;
    }
    for (job, refusal) in shared.queue.push(jobs.drain(..)) {
        let (code, detail) = match refusal {
            Refusal::Closed => (FailureCode::Stopping, STOPPING.to_owned()),
            Refusal::Full => (FailureCode::QueueFull, "too many requests wait for a session".to_owned()),
            Refusal::TooLate { ahead, wait } => {
                let left = job.deadline.saturating_duration_since(Instant::now());
                let detail = format!(
                    "{ahead} requests come before it, so that it would be signed in {} ms, and it has {} ms",
                    wait.as_millis(),
                    left.as_millis()
                );
                (FailureCode::QueueFull, detail)
            }
        };
        if code == FailureCode::QueueFull {
            shared.counters.refused_full.fetch_add(1, Relaxed);
        }
        // Refusals come in bursts, and gathered they cost one system call.
        job.connection.leave(job.id, &Reply::Failed(Failure::new(code, detail)));
    }
    // The last session may have been lost between the question and the push: nobody would take these jobs.
    shared.answer_orphans();
}

/// The lane of what nobody asked for but the appliance itself.
const APPLIANCE: u64 = 0;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
const OPEN_BUDGET: Duration = Duration::from_secs(10);
const LONGEST_BUDGET: Duration = Duration::from_secs(60);
