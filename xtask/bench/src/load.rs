//! A load generator that costs little beside the server: HTTP/1.1 over kept-alive TLS connections, requests made
//! before the clock starts, latencies counted from when a request was due, not from when it could be sent.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::measure;

/// Whom to load, and with which TLS.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

/// A request ready to be written: its own head, and a body that all share.
pub(crate) struct Prepared {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Arc<[u8]>,
}

/// What a run saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// From due to answered, of the requests that were answered 200.
    pub(crate) latencies: Vec<Duration>,
    /// Answers of other statuses, and broken connections as 0.
    pub(crate) failures: Vec<u16>,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

impl Seen {
    /// Answered requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// Latency that `share` of the answers stayed within.
    pub(crate) fn percentile(&mut self, share: f64) -> Duration {
        self.latencies.sort_unstable();
        measure::percentile(&self.latencies, share)
    }
}

/// Sends `requests` as fast as `connections` connections take them, each waiting for its answer.
pub(crate) fn saturate(target: &Target, connections: usize, requests: Vec<Prepared>) -> io::Result<Seen> {
    run(target, connections, requests, None)
}

/// Sends `requests` at a constant rate. A request that finds no free connection waits, and its wait counts.
pub(crate) fn constant_rate(
    target: &Target,
    connections: usize,
    requests: Vec<Prepared>,
    per_second: f64,
) -> io::Result<Seen> {
    run(target, connections, requests, Some(Duration::from_secs_f64(1.0 / per_second)))
}

/// Opens and closes connections with full handshakes for `time`, on `threads` threads, and returns how many.
pub(crate) fn handshakes(target: &Target, threads: usize, time: Duration) -> io::Result<u64> {
    let mut total = 0;
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let target = target.clone();
            std::thread::spawn(move || -> io::Result<u64> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let until = Instant::now() + time;
                let one = async || -> io::Result<u64> {
                    let mut done = 0;
                    while Instant::now() < until {
                        let mut stream = connect(&target).await?;
                        // The server's verdict on the client certificate comes after the client is done: only an
                        // answer proves the handshake whole.
                        stream.write_all(PROBE).await?;
                        read_answer(&mut stream, &mut Vec::new()).await?;
                        done += 1;
                    }
                    Ok(done)
                };
                runtime.block_on(async {
                    let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
                    Ok(a? + b? + c? + d?)
                })
            })
        })
        .collect();
    for worker in workers {
        total += worker.join().map_err(|_| io::Error::other("a load thread panicked"))??;
    }
    Ok(total)
}

/// Opens `count` connections, each proven by an answer, and keeps them until the returned value is dropped.
pub(crate) fn hold_open(target: &Target, count: usize) -> io::Result<HeldOpen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let streams = runtime.block_on(async {
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            let mut stream = connect(target).await?;
            stream.write_all(PROBE_KEPT).await?;
            read_answer(&mut stream, &mut Vec::new()).await?;
            streams.push(stream);
        }
        Ok::<_, io::Error>(streams)
    })?;
    Ok(HeldOpen { _streams: streams, _runtime: runtime })
}

/// Connections that are open and idle.
pub(crate) struct HeldOpen {
    _streams: Vec<TlsStream<TcpStream>>,
    _runtime: tokio::runtime::Runtime,
}

fn run(target: &Target, connections: usize, requests: Vec<Prepared>, pace: Option<Duration>) -> io::Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut streams = Vec::with_capacity(connections);
        for _ in 0..connections {
            streams.push(connect(target).await?);
        }
        let due = Rc::new(Due::default());
        let started = Instant::now();
        if pace.is_none() {
            due.extend(requests.into_iter().map(|request| (None, request)));
        } else {
            tokio::task::spawn_local(due.clone().feed(requests, started, pace.unwrap_or_default()));
        }
        let tasks: Vec<_> = streams
            .into_iter()
            .map(|stream| tokio::task::spawn_local(call(target.clone(), stream, due.clone())))
            .collect();
        let mut all = Seen::default();
        for task in tasks {
            let seen = task.await.map_err(io::Error::other)?;
            all.latencies.extend(seen.latencies);
            all.failures.extend(seen.failures);
        }
        all.took = started.elapsed();
        Ok(all)
    })
}

/// Requests that are due, and since when; without a moment, since they are taken.
#[derive(Default)]
struct Due {
    queue: RefCell<VecDeque<(Option<Instant>, Prepared)>>,
    more: Notify,
    complete: Cell<bool>,
}

impl Due {
    fn extend(&self, requests: impl Iterator<Item = (Option<Instant>, Prepared)>) {
        self.queue.borrow_mut().extend(requests);
        self.complete.set(true);
    }

    /// Puts the requests in, each at its moment, whether the earlier ones were answered or not. A thread of its own keeps
    /// the time: tokio's timer has a resolution of a millisecond, which would be half of what is measured.
    async fn feed(self: Rc<Self>, requests: Vec<Prepared>, started: Instant, pace: Duration) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let clock = std::thread::spawn(move || {
            for (index, request) in (0..).zip(requests) {
                let due = started + pace * index;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if sender.send((Some(due), request)).is_err() {
                    break;
                }
            }
        });
        while let Some(next) = receiver.recv().await {
            self.queue.borrow_mut().push_back(next);
            self.more.notify_one();
        }
        drop(clock);
        self.complete.set(true);
        self.more.notify_waiters();
    }

    async fn next(&self) -> Option<(Instant, Prepared)> {
        loop {
            let more = self.more.notified();
            if let Some((due, request)) = self.queue.borrow_mut().pop_front() {
                return Some((due.unwrap_or_else(Instant::now), request));
            }
            if self.complete.get() {
                return None;
            }
            more.await;
        }
    }
}

/// One connection's share of the load.
async fn call(target: Target, mut stream: TlsStream<TcpStream>, due: Rc<Due>) -> Seen {
    let mut seen = Seen::default();
    let mut buffer = Vec::with_capacity(16 * 1024);
    while let Some((due, request)) = due.next().await {
        match exchange(&mut stream, &request, &mut buffer).await {
            Ok(200) => seen.latencies.push(due.elapsed()),
            Ok(status) => seen.failures.push(status),
            Err(_) => {
                seen.failures.push(0);
                match connect(&target).await {
                    Ok(fresh) => stream = fresh,
                    Err(_) => break,
                }
            }
        }
    }
    seen
}

async fn connect(target: &Target) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a valid name");
    TlsConnector::from(Arc::clone(&target.tls)).connect(name, stream).await
}

async fn exchange(stream: &mut TlsStream<TcpStream>, request: &Prepared, buffer: &mut Vec<u8>) -> io::Result<u16> {
    if request.body.len() <= 16 * 1024 {
        let mut whole = Vec::with_capacity(request.head.len() + request.body.len());
        whole.extend_from_slice(&request.head);
        whole.extend_from_slice(&request.body);
        stream.write_all(&whole).await?;
    } else {
        stream.write_all(&request.head).await?;
        stream.write_all(&request.body).await?;
    }
    stream.flush().await?;
    read_answer(stream, buffer).await
}

async fn read_answer(stream: &mut TlsStream<TcpStream>, buffer: &mut Vec<u8>) -> io::Result<u16> {
    buffer.clear();
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (head, length) = loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = std::str::from_utf8(&buffer[..end]).map_err(|_| broken("the head is not ASCII"))?;
            let length = text
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().to_owned()))
                .and_then(|n| n.parse::<usize>().ok())
                .ok_or_else(|| broken("no Content-Length"))?;
            break (end + 4, length);
        }
    };
    let status =
        std::str::from_utf8(&buffer[9..12]).ok().and_then(|s| s.parse().ok()).ok_or_else(|| broken("no status"))?;
    while buffer.len() < head + length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(status)
}

const PROBE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const PROBE_KEPT: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
