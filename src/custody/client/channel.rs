//! One connection at work: many requests in flight, answers in any order, writes gathered.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use super::{LinkError, locked};
use crate::custody::Lane;
use crate::custody::wire::{
    Inbox, KeyHandle, OpenedKey, Reply, Request, StatusReport, WireError, decode_reply, encode_request,
};

/// A connection that has exchanged hellos. Ends when its socket, its runtime or this handle does; whoever waits then
/// hears of it.
#[derive(Debug)]
pub(in crate::custody) struct Channel {
    shared: Arc<Shared>,
    task: AbortHandle,
    /// Handles of the keys opened over this connection, by the key's place in the registry.
    handles: Mutex<HashMap<usize, KeyHandle>>,
}

#[derive(Debug)]
struct Shared {
    token: Arc<str>,
    state: Mutex<State>,
    flush: Notify,
}

#[derive(Debug)]
struct State {
    next_id: u64,
    /// Requests below this id were handed to the kernel.
    sent_below: u64,
    out: Vec<u8>,
    waiting: HashMap<u64, Waiter>,
    unanswered: u32,
    /// The worker has said goodbye: what waits is answered, and nothing more is asked.
    leaving: bool,
    ended: Option<Arc<str>>,
}

type Answer<T> = oneshot::Sender<Result<T, LinkError>>;

/// Who waits for an answer, and of which kind it must be.
#[derive(Debug)]
enum Waiter {
    Signature(Answer<[u8; 64]>),
    Key(Answer<OpenedKey>),
    Status(Answer<StatusReport>),
}

impl Channel {
    /// Takes over a connection after its hellos; `inbox` may hold bytes that came behind the hello.
    pub(super) fn start(token: Arc<str>, stream: UnixStream, inbox: Inbox) -> Self {
        let state = State {
            next_id: 1,
            sent_below: 1,
            out: Vec::new(),
            waiting: HashMap::new(),
            unanswered: 0,
            leaving: false,
            ended: None,
        };
        let shared = Arc::new(Shared { token, state: Mutex::new(state), flush: Notify::new() });
        let task = tokio::spawn(run(EndOnDrop(Arc::clone(&shared)), stream, inbox)).abort_handle();
        Self { shared, task, handles: Mutex::default() }
    }

    pub(in crate::custody) fn is_live(&self) -> bool {
        let state = locked(&self.shared.state);
        state.ended.is_none() && !state.leaving
    }

    pub(in crate::custody) fn handle(&self, key: usize) -> Option<KeyHandle> {
        locked(&self.handles).get(&key).copied()
    }

    pub(in crate::custody) fn set_handle(&self, key: usize, handle: Option<KeyHandle>) {
        let mut handles = locked(&self.handles);
        match handle {
            Some(handle) => handles.insert(key, handle),
            None => handles.remove(&key),
        };
    }

    pub(in crate::custody) async fn sign(
        &self,
        handle: KeyHandle,
        lane: Lane,
        digest: &[u8; 32],
        deadline: Instant,
    ) -> Result<[u8; 64], LinkError> {
        let budget = deadline.saturating_duration_since(Instant::now());
        let budget_ms = u32::try_from(budget.as_millis()).unwrap_or(u32::MAX);
        let request = Request::Sign { handle, lane: lane.number(), budget_ms, digest: *digest };
        self.ask(&request, Waiter::Signature, deadline).await
    }

    pub(in crate::custody) async fn open_key(&self, uri: &str, deadline: Instant) -> Result<OpenedKey, LinkError> {
        self.ask(&Request::OpenKey { uri: uri.to_owned() }, Waiter::Key, deadline).await
    }

    pub(in crate::custody) async fn status(&self, deadline: Instant) -> Result<StatusReport, LinkError> {
        self.ask(&Request::Status, Waiter::Status, deadline).await
    }

    async fn ask<T>(
        &self,
        request: &Request,
        waiter: fn(Answer<T>) -> Waiter,
        deadline: Instant,
    ) -> Result<T, LinkError> {
        let (answer, answered) = oneshot::channel();
        self.shared.submit(request, waiter(answer))?;
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(LinkError::Lost("its task ended".into())),
            Err(_) => {
                self.shared.unanswered();
                Err(LinkError::Timeout)
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Puts a request into the outgoing buffer. The writing task is woken once for all requests of this turn of the
    /// event loop, so that they leave in one system call.
    fn submit(&self, request: &Request, waiter: Waiter) -> Result<(), LinkError> {
        let mut state = locked(&self.state);
        if let Some(why) = &state.ended {
            return Err(LinkError::Unsent(Arc::clone(why)));
        }
        if state.leaving {
            return Err(LinkError::Unsent(GOODBYE.into()));
        }
        if state.waiting.len() >= MAX_WAITING {
            return Err(LinkError::Overloaded);
        }
        let id = state.next_id;
        state.next_id += 1;
        encode_request(id, request, &mut state.out);
        state.waiting.insert(id, waiter);
        drop(state);
        self.flush.notify_one();
        Ok(())
    }

    fn deliver(&self, id: u64, reply: Reply) -> Result<(), WireError> {
        if reply == Reply::Goodbye {
            locked(&self.state).leaving = true;
            return Ok(());
        }
        let waiter = {
            let mut state = locked(&self.state);
            state.unanswered = 0;
            state.waiting.remove(&id).ok_or(WireError::UnknownRequest(id))?
        };
        // Whoever stopped waiting does not hear it; the answer was due all the same.
        match (waiter, reply) {
            (Waiter::Signature(answer), Reply::Signed(signature)) => drop(answer.send(Ok(signature))),
            (Waiter::Key(answer), Reply::KeyOpened(key)) => drop(answer.send(Ok(key))),
            (Waiter::Status(answer), Reply::Status(report)) => drop(answer.send(Ok(*report))),
            (waiter, Reply::Failed(failure)) => waiter.fail(LinkError::Refused(failure)),
            (waiter, _) => {
                waiter.fail(LinkError::Protocol(WireError::WrongReply(id)));
                return Err(WireError::WrongReply(id));
            }
        }
        Ok(())
    }

    /// A worker that never answers is a worker whose process hangs: a new connection will say so.
    fn unanswered(&self) {
        let mut state = locked(&self.state);
        state.unanswered += 1;
        if state.unanswered == MAX_UNANSWERED {
            drop(state);
            self.end("it answers nothing");
            self.flush.notify_one();
        }
    }

    /// The worker has said goodbye, and has answered everything.
    fn is_over(&self) -> bool {
        let state = locked(&self.state);
        state.leaving && state.waiting.is_empty()
    }

    /// The first reason stays. Everybody who waits hears it, and whether their request may have been seen.
    fn end(&self, why: &str) {
        let (waiting, sent_below, why) = {
            let mut state = locked(&self.state);
            if state.ended.is_some() {
                return;
            }
            let why: Arc<str> = why.into();
            state.ended = Some(Arc::clone(&why));
            (std::mem::take(&mut state.waiting), state.sent_below, why)
        };
        let lost = waiting.len();
        match &*why {
            GOODBYE if lost == 0 => {
                tracing::info!(token = %self.token, "{why}; the next connection is to the next one");
            }
            RELEASED if lost == 0 => tracing::debug!(token = %self.token, "connection to the worker ended: {why}"),
            _ => tracing::warn!(token = %self.token, waiting = lost, "connection to the worker ended: {why}"),
        }
        for (id, waiter) in waiting {
            let why = Arc::clone(&why);
            waiter.fail(if id < sent_below { LinkError::Lost(why) } else { LinkError::Unsent(why) });
        }
    }

    /// What is to be written, and what `sent_below` was before; `None` when the connection has ended.
    fn batch(&self, mut spare: Vec<u8>) -> Option<(Vec<u8>, u64)> {
        spare.clear();
        let mut state = locked(&self.state);
        if state.ended.is_some() {
            return None;
        }
        let next_id = state.next_id;
        let before = std::mem::replace(&mut state.sent_below, next_id);
        Some((std::mem::replace(&mut state.out, spare), before))
    }

    /// The kernel took nothing of the last batch.
    fn not_sent_after_all(&self, sent_below: u64) {
        locked(&self.state).sent_below = sent_below;
    }
}

impl Waiter {
    fn fail(self, error: LinkError) {
        match self {
            Self::Signature(answer) => drop(answer.send(Err(error))),
            Self::Key(answer) => drop(answer.send(Err(error))),
            Self::Status(answer) => drop(answer.send(Err(error))),
        }
    }
}

/// Dropped with the task, also when the runtime is shut down under it.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(RELEASED);
    }
}

async fn run(guard: EndOnDrop, stream: UnixStream, inbox: Inbox) {
    let shared = &guard.0;
    let (read, write) = stream.into_split();
    let why = tokio::select! {
        why = receive(shared, read, inbox) => why,
        why = send(shared, write) => why,
    };
    shared.end(&why);
}

async fn receive(shared: &Shared, mut stream: OwnedReadHalf, mut inbox: Inbox) -> String {
    loop {
        if let Err(error) = deliver_all(shared, &mut inbox) {
            tracing::error!(token = %shared.token, "connection closed: the worker sent {error}");
            return format!("the worker sent {error}");
        }
        if shared.is_over() {
            return GOODBYE.to_owned();
        }
        match stream.read(inbox.space()).await {
            Ok(0) => return "the worker closed it".to_owned(),
            Ok(count) => inbox.filled(count),
            Err(error) => return unusable(&error),
        }
    }
}

fn deliver_all(shared: &Shared, inbox: &mut Inbox) -> Result<(), WireError> {
    while let Some(frame) = inbox.next_frame()? {
        let (id, reply) = decode_reply(frame)?;
        shared.deliver(id, reply)?;
    }
    Ok(())
}

async fn send(shared: &Shared, mut stream: OwnedWriteHalf) -> String {
    let mut spare = Vec::new();
    loop {
        shared.flush.notified().await;
        loop {
            let Some((batch, sent_below)) = shared.batch(spare) else { return String::new() };
            spare = batch;
            if spare.is_empty() {
                break;
            }
            let mut written = 0;
            while written < spare.len() {
                match stream.write(&spare[written..]).await {
                    Ok(count) => written += count,
                    Err(error) => {
                        if written == 0 {
                            shared.not_sent_after_all(sent_below);
                        }
                        return unusable(&error);
                    }
                }
            }
        }
    }
}

fn unusable(error: &io::Error) -> String {
    format!("the socket failed: {error}")
}

const GOODBYE: &str = "the worker stops";
const RELEASED: &str = "nobody uses it any more, or its event loop has stopped";

/// Requests without an answer on one connection; far more than any queue that the worker is configured with.
const MAX_WAITING: usize = 64 * 1024;

/// Requests in a row whose deadline passed without any answer from the worker at all.
const MAX_UNANSWERED: u32 = 64;

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
