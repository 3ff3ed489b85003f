//! Speaks to a token worker directly, as the front does, and keeps the times.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use stellaops_signer::custody::wire::{
    FailureCode, Hello, Inbox, KeyHandle, Reply, Request, decode_reply, encode_request,
};

/// One connection to the worker with one key opened.
pub(crate) struct WireClient {
    stream: UnixStream,
    inbox: Inbox,
    handle: KeyHandle,
}

/// Requests of which a number is always in progress.
pub(crate) struct Load {
    pub(crate) lane: u64,
    /// How many.
    pub(crate) window: usize,
    /// What each may take.
    pub(crate) budget: Duration,
    /// How long answers are left to gather before they are read.
    pub(crate) gather: Duration,
}

/// What came of the requests of one lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Moments at which signatures arrived, since the start of the run.
    pub(crate) signed: Vec<Duration>,
    /// From sent to signed.
    pub(crate) latencies: Vec<Duration>,
    /// Refused because too many were waiting, or too late.
    pub(crate) refused: u64,
    /// The longest that any answer took, refusals included.
    pub(crate) longest: Duration,
}

impl Outcome {
    /// Signatures per second between two moments of the run.
    pub(crate) fn rate(&self, from: Duration, to: Duration) -> f64 {
        let count = self.signed.iter().filter(|at| (from..to).contains(*at)).count();
        count as f64 / (to - from).as_secs_f64()
    }

    /// The median latency.
    pub(crate) fn median(&mut self) -> Duration {
        self.latencies.sort_unstable();
        self.latencies.get(self.latencies.len() / 2).copied().unwrap_or_default()
    }
}

impl WireClient {
    /// Connects and opens the key that `uri` names.
    pub(crate) fn connect(socket: &Path, uri: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let mut inbox = Inbox::new();
        let mut out = Vec::new();
        encode_request(0, &Request::Hello(Hello::new("signerd")), &mut out);
        stream.write_all(&out)?;
        match next(&mut stream, &mut inbox)? {
            (0, Reply::Hello(_)) => inbox.lift_limit(),
            other => return Err(io::Error::other(format!("no hello but {other:?}"))),
        }
        out.clear();
        encode_request(1, &Request::OpenKey { uri: uri.to_owned() }, &mut out);
        stream.write_all(&out)?;
        match next(&mut stream, &mut inbox)? {
            (1, Reply::KeyOpened(opened)) => Ok(Self { stream, inbox, handle: opened.handle }),
            other => Err(io::Error::other(format!("the key was not opened: {other:?}"))),
        }
    }

    /// Opens these keys, many at a time; how long until the last was open.
    pub(crate) fn open_all(&mut self, uris: impl Iterator<Item = String>) -> io::Result<Duration> {
        let started = Instant::now();
        let (mut uris, mut id, mut under_way) = (uris.peekable(), 1, 0);
        let mut out = Vec::new();
        while uris.peek().is_some() || under_way > 0 {
            out.clear();
            while under_way < OPENED_AT_ONCE
                && let Some(uri) = uris.next()
            {
                id += 1;
                under_way += 1;
                encode_request(id, &Request::OpenKey { uri }, &mut out);
            }
            self.stream.write_all(&out)?;
            match next(&mut self.stream, &mut self.inbox)? {
                (_, Reply::KeyOpened(_)) => under_way -= 1,
                other => return Err(io::Error::other(format!("a key was not opened: {other:?}"))),
            }
        }
        Ok(started.elapsed())
    }

    /// Keeps as many requests in progress as the load says, for `time`.
    pub(crate) fn saturate(mut self, load: &Load, time: Duration) -> io::Result<Outcome> {
        let started = Instant::now();
        let mut outcome = Outcome::default();
        // A request's number says where in this list it was sent; those below are taken.
        let mut sent = vec![started; load.window];
        let mut free: Vec<usize> = (0..load.window).collect();
        let mut out = Vec::new();
        loop {
            // Looked at once a turn: were the time up between two looks, an answer would be awaited that nobody owes.
            let now = Instant::now();
            let goes_on = now - started < time;
            if !goes_on && free.len() == load.window {
                return Ok(outcome);
            }
            out.clear();
            for place in free.drain(..if goes_on { free.len() } else { 0 }) {
                sent[place] = now;
                let id = place as u64 + FIRST;
                encode_request(id, &self.sign(load.lane, id, load.budget), &mut out);
            }
            self.stream.write_all(&out)?;
            std::thread::sleep(load.gather);
            let mut answer = Some(next(&mut self.stream, &mut self.inbox)?);
            let now = Instant::now();
            while let Some((id, reply)) = answer {
                let place = usize::try_from(id - FIRST).map_err(io::Error::other)?;
                outcome.note(reply, now - sent[place], now - started)?;
                free.push(place);
                answer = following(&mut self.inbox)?;
            }
        }
    }

    /// Sends `per_second` requests a second for `time`, answered or not.
    pub(crate) fn offer(self, lane: u64, per_second: f64, budget: Duration, time: Duration) -> io::Result<Outcome> {
        let started = Instant::now();
        let sent = Arc::new(Mutex::new(HashMap::new()));
        let total = (per_second * time.as_secs_f64()) as u64;
        let mut writer = self.stream.try_clone()?;
        let request = self.sign(lane, 0, budget);
        let sending = {
            let sent = Arc::clone(&sent);
            std::thread::spawn(move || -> io::Result<()> {
                let mut out = Vec::new();
                let mut next = 0;
                while next < total {
                    let due = ((started.elapsed().as_secs_f64() * per_second) as u64 + 1).min(total);
                    out.clear();
                    let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                    for number in next..due {
                        encode_request(number + 2, &request, &mut out);
                        sent.insert(number + 2, Instant::now());
                    }
                    drop(sent);
                    next = due;
                    writer.write_all(&out)?;
                    std::thread::sleep(Duration::from_micros(500));
                }
                Ok(())
            })
        };
        let (mut stream, mut inbox) = (self.stream, self.inbox);
        let mut outcome = Outcome::default();
        let mut owed = total;
        while owed > 0 {
            std::thread::sleep(GATHER);
            let mut answer = Some(next(&mut stream, &mut inbox)?);
            let now = Instant::now();
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some((id, reply)) = answer {
                let began = sent.remove(&id).ok_or_else(|| io::Error::other("an answer to nothing"))?;
                outcome.note(reply, now - began, now - started)?;
                owed -= 1;
                answer = following(&mut inbox)?;
            }
        }
        sending.join().map_err(|_| io::Error::other("a load thread panicked"))??;
        Ok(outcome)
    }

    fn sign(&self, lane: u64, number: u64, budget: Duration) -> Request {
        // Few digests, so that a device that answers from memory can keep up.
        let mut digest = [0x5a; 32];
        digest[0] = (number % 16) as u8;
        let budget_ms = u32::try_from(budget.as_millis()).unwrap_or(u32::MAX);
        Request::Sign { handle: self.handle, lane, budget_ms, digest }
    }
}

impl Outcome {
    fn note(&mut self, reply: Reply, took: Duration, at: Duration) -> io::Result<()> {
        self.longest = self.longest.max(took);
        match reply {
            Reply::Signed(_) => {
                self.signed.push(at);
                self.latencies.push(took);
                Ok(())
            }
            Reply::Failed(failure)
                if matches!(failure.code, FailureCode::QueueFull | FailureCode::DeadlineExceeded) =>
            {
                self.refused += 1;
                Ok(())
            }
            other => Err(io::Error::other(format!("not a signature but {other:?}"))),
        }
    }
}

fn next(stream: &mut UnixStream, inbox: &mut Inbox) -> io::Result<(u64, Reply)> {
    loop {
        if let Some(answer) = following(inbox)? {
            return Ok(answer);
        }
        let count = stream.read(inbox.space())?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the worker closed the connection"));
        }
        inbox.filled(count);
    }
}

/// One that was read already.
fn following(inbox: &mut Inbox) -> io::Result<Option<(u64, Reply)>> {
    let frame = inbox.next_frame().map_err(io::Error::other)?;
    frame.map(decode_reply).transpose().map_err(io::Error::other)
}

/// How long answers are left to gather before they are read: a client that is woken for each takes a good part of the
/// cores that it measures.
pub(crate) const GATHER: Duration = Duration::from_micros(500);

const OPENED_AT_ONCE: usize = 64;

/// Zero and one were the hello and the key.
const FIRST: u64 = 2;
