//! One connection of the front: the writing half, shared by every thread that answers.
//!
//! A session that has nothing else to do writes its answer itself, which is quickest. While requests wait, its time is
//! the device's: then it leaves the answer with the connection's writer, a thread that writes for all and gathers what
//! comes meanwhile, and takes up the next request.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::state::locked;
use crate::custody::wire::{Failure, FailureCode, Reply, encode_reply};

/// The peer's end may be slow or dead; whoever writes is never held up for longer than [`WRITE_TIMEOUT`].
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    stream: UnixStream,
    out: Mutex<Out>,
    /// There is something to write, or nothing will be any more.
    due: Condvar,
    /// Something was written.
    gone: Condvar,
}

#[derive(Debug, Default)]
struct Out {
    waiting: Vec<u8>,
    spare: Vec<u8>,
    writing: bool,
    /// What waits is for the writer, who has been told.
    handed_over: bool,
    dead: bool,
}

impl Out {
    fn is_busy(&self) -> bool {
        !self.dead && (self.writing || self.handed_over)
    }
}

impl Connection {
    fn new(number: u64, stream: UnixStream) -> std::io::Result<Self> {
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self { number, stream, out: Mutex::default(), due: Condvar::new(), gone: Condvar::new() })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn fail(&self, id: u64, code: FailureCode, detail: impl AsRef<str>) {
        self.reply(id, &Reply::Failed(Failure::new(code, detail)));
    }

    /// Sends an answer. Of the threads that answer at the same time one writes: the others leave their frames with it
    /// and go on, and what has gathered meanwhile is the writer's.
    pub(super) fn reply(&self, id: u64, reply: &Reply) {
        if let Some(out) = self.put(id, reply)
            && !out.writing
            && !out.handed_over
        {
            self.write(out, false);
        }
    }

    /// Leaves an answer to the writer.
    pub(super) fn leave(&self, id: u64, reply: &Reply) {
        if let Some(out) = self.put(id, reply) {
            self.hand_over(out);
        }
    }

    /// Waits while more answers are left than the front reads: who asks faster than it reads is asked to wait, and not
    /// taken for deaf.
    pub(super) fn settle(&self) {
        let out = locked(&self.out);
        if out.waiting.len() > MUCH {
            let patience = WRITE_TIMEOUT * 2;
            drop(self.gone.wait_timeout_while(out, patience, |out| out.waiting.len() > MUCH && !out.dead));
        }
    }

    /// Puts an answer to those that wait to be written. `None` when nobody reads them any more.
    fn put(&self, id: u64, reply: &Reply) -> Option<MutexGuard<'_, Out>> {
        let mut out = locked(&self.out);
        if out.dead {
            return None;
        }
        encode_reply(id, reply, &mut out.waiting);
        if out.waiting.len() > MAX_WAITING {
            out.dead = true;
            drop(out);
            self.drop_peer("the front does not read its answers");
            return None;
        }
        Some(out)
    }

    fn hand_over(&self, mut out: MutexGuard<'_, Out>) {
        // Whoever writes now hands over what it finds then.
        if !out.writing && !out.handed_over {
            out.handed_over = true;
            drop(out);
            self.due.notify_one();
        }
    }

    /// Writes what waits; `all` that comes meanwhile, too, or leaves that to the writer.
    fn write<'a>(&'a self, mut out: MutexGuard<'a, Out>, all: bool) {
        out.writing = true;
        out.handed_over = false;
        loop {
            let spare = std::mem::take(&mut out.spare);
            let mut batch = std::mem::replace(&mut out.waiting, spare);
            drop(out);
            let written = (&self.stream).write_all(&batch);
            batch.clear();
            out = locked(&self.out);
            out.spare = batch;
            self.gone.notify_all();
            if let Err(error) = written {
                (out.dead, out.writing) = (true, false);
                drop(out);
                self.drop_peer(&format!("cannot write to the front: {error}"));
                return;
            }
            if out.waiting.is_empty() {
                out.writing = false;
                return;
            }
            if !all {
                out.writing = false;
                self.hand_over(out);
                return;
            }
        }
    }

    /// The writer: writes what is left to it until the connection ends.
    pub(super) fn write_for_all(&self) {
        loop {
            let out = self.due.wait_while(locked(&self.out), |out| !out.handed_over && !out.dead);
            let out = out.unwrap_or_else(PoisonError::into_inner);
            if out.dead {
                return;
            }
            if out.waiting.is_empty() {
                let mut out = out;
                out.handed_over = false;
                continue;
            }
            self.write(out, true);
        }
    }

    /// Ends the connection and says why in the log.
    pub(super) fn drop_peer(&self, why: &str) {
        tracing::warn!(connection = self.number, "connection closed: {why}");
        self.close();
    }

    /// Wakes its reader with an end of stream.
    pub(super) fn close(&self) {
        locked(&self.out).dead = true;
        self.due.notify_all();
        self.gone.notify_all();
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Those that are open, up to a bound.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    last: AtomicU64,
}

impl Connections {
    /// `None` when there are too many already.
    pub(super) fn admit(&self, stream: UnixStream) -> std::io::Result<Option<Arc<Connection>>> {
        let mut open = locked(&self.open);
        if open.len() >= MAX_CONNECTIONS {
            return Ok(None);
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Arc::new(Connection::new(number, stream)?);
        open.insert(number, Arc::clone(&connection));
        Ok(Some(connection))
    }

    pub(super) fn forget(&self, connection: &Connection) {
        locked(&self.open).remove(&connection.number);
    }

    pub(super) fn count(&self) -> usize {
        locked(&self.open).len()
    }

    /// Tells every front that its next request belongs to the next worker.
    pub(super) fn say_goodbye(&self) {
        for connection in locked(&self.open).values() {
            connection.leave(0, &Reply::Goodbye);
        }
    }

    /// Waits until the fronts have closed what is open, this long at most. They do when they wait for nothing more; were
    /// it closed here, a request on its way would be lost, and nobody could tell whether it was signed.
    pub(super) fn await_end(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.count() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Closes what is open, when what was answered has gone out.
    pub(super) fn close_all(&self) {
        for connection in self.written(WRITE_TIMEOUT) {
            connection.close();
        }
    }

    /// Waits until what was answered has gone out, this long at most. Returns what is open.
    pub(super) fn written(&self, patience: Duration) -> Vec<Arc<Connection>> {
        let open: Vec<_> = locked(&self.open).values().cloned().collect();
        let deadline = Instant::now() + patience;
        for connection in &open {
            while locked(&connection.out).is_busy() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        open
    }
}

/// The front has one connection for each of its event loops and one for its background work.
const MAX_CONNECTIONS: usize = 256;

/// Longer than any pause of an event loop that is alive.
const WRITE_TIMEOUT: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(5) };

/// A reader goes on reading while no more than this waits to be written.
const MUCH: usize = MAX_WAITING / 4;

/// Answers left waiting behind a write that does not finish: ten thousand signatures.
const MAX_WAITING: usize = 1024 * 1024;
