//! An OCI registry that says whatever a test wants it to: honest content, and every lie that a registry can tell.
//!
//! HTTP/1.1 without TLS, written by hand, so that it can trickle, never end, and answer what no server library would.

#![forbid(unsafe_code)]

mod content;
mod real;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{Context, Result, runtime};

pub use content::{BUNDLE, Descriptor, INDEX, MANIFEST, SIMPLE_SIGNING, descriptor, index, manifest};
pub use real::{Distribution, GoRegistry, USER, Zot};

/// The registry, on loopback until dropped.
pub struct Registry {
    /// Where it listens.
    pub addr: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

/// What is answered to a request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Headers, but for the length.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Body,
}

/// What follows the head.
#[derive(Clone, Debug)]
pub enum Body {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, one after each pause.
    Drip(Vec<u8>, Duration),
    /// Zeros without end, and no length.
    Endless,
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Path and query.
    pub target: String,
    /// `authorization` of the request.
    pub authorization: Option<String>,
    began: Instant,
    ended: Option<Instant>,
}

type Handler = Box<dyn Fn(&str, Option<&str>) -> Option<Reply> + Send + Sync>;

#[derive(Default)]
struct State {
    answers: Mutex<BTreeMap<String, Reply>>,
    handler: Mutex<Option<Handler>>,
    delay: Mutex<Duration>,
    exchanges: Mutex<Vec<Exchange>>,
}

impl Registry {
    /// Starts it with nothing in it: everything is answered 404.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start() -> Result<Self> {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).context("listen on loopback")?;
        let (addr, state) = (listener.local_addr()?, Arc::new(State::default()));
        let shared = Arc::clone(&state);
        let task = runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Ok(Self { addr, state, task })
    }

    /// `http://127.0.0.1:PORT/team/scanner`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("http://{}/{REPOSITORY}", self.addr)
    }

    /// Answers a path (and query) with this from now on.
    pub fn answer(&self, target: &str, reply: Reply) {
        self.state.answers.lock().expect("no holder panics").insert(target.to_owned(), reply);
    }

    /// Asks this first; what it leaves is answered as otherwise.
    pub fn answer_by(&self, handler: impl Fn(&str, Option<&str>) -> Option<Reply> + Send + Sync + 'static) {
        *self.state.handler.lock().expect("no holder panics") = Some(Box::new(handler));
    }

    /// Waits this long before each answer, so that requests made at once overlap.
    pub fn delay(&self, delay: Duration) {
        *self.state.delay.lock().expect("no holder panics") = delay;
    }

    /// Keeps a blob; returns its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = descriptor(media_type, bytes);
        let reply = Reply::ok("application/octet-stream", bytes);
        self.answer(&format!("/v2/{REPOSITORY}/blobs/{}", descriptor.digest()), reply);
        descriptor
    }

    /// Keeps a manifest; returns its descriptor.
    pub fn manifest(&self, bytes: &[u8]) -> Descriptor {
        let descriptor = descriptor(MANIFEST, bytes);
        self.answer(&format!("/v2/{REPOSITORY}/manifests/{}", descriptor.digest()), Reply::ok(MANIFEST, bytes));
        descriptor
    }

    /// Keeps a manifest under a tag, too.
    pub fn tag(&self, tag: &str, media_type: &str, bytes: &[u8]) {
        self.answer(&format!("/v2/{REPOSITORY}/manifests/{tag}"), Reply::ok(media_type, bytes));
    }

    /// The list of referrers of an image, `sha256:…`.
    pub fn referrers(&self, image: &str, manifests: &[Descriptor]) {
        self.answer(&referrers_path(image), Reply::ok(INDEX, index(manifests).as_bytes()));
    }

    /// What was asked so far.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.state.exchanges.lock().expect("no holder panics").clone()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.state.exchanges.lock().expect("no holder panics").clear();
    }

    /// Requests whose target contains this.
    #[must_use]
    pub fn count(&self, part: &str) -> usize {
        self.exchanges().iter().filter(|exchange| exchange.target.contains(part)).count()
    }

    /// The most requests of which each began after the one before had been answered. Give it a [`delay`](Self::delay)
    /// before.
    #[must_use]
    pub fn round_trips(&self) -> usize {
        let mut exchanges: Vec<(Instant, Instant)> = self
            .exchanges()
            .iter()
            .map(|exchange| (exchange.began, exchange.ended.unwrap_or_else(Instant::now)))
            .collect();
        exchanges.sort_by_key(|(_, ended)| *ended);
        let (mut trips, mut last) = (0, None);
        for (began, ended) in exchanges {
            if last.is_none_or(|last| began >= last) {
                trips += 1;
                last = Some(ended);
            }
        }
        trips
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reply {
    /// 200 with this.
    #[must_use]
    pub fn ok(media_type: &str, bytes: &[u8]) -> Self {
        Self::status(200).header("content-type", media_type).body(Body::Bytes(bytes.to_vec()))
    }

    /// Without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Bytes(Vec::new()) }
    }

    /// With another header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another body.
    #[must_use]
    pub fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }
}

/// The path of the list of referrers of an image, `sha256:…`.
#[must_use]
pub fn referrers_path(image: &str) -> String {
    format!("/v2/{REPOSITORY}/referrers/{image}")
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if read.len() > MAX_HEAD || !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        read.drain(..end);
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let authorization = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("authorization").then(|| value.trim().to_owned())
        });
        let place = {
            let mut exchanges = state.exchanges.lock().expect("no holder panics");
            let (target, authorization) = (target.clone(), authorization.clone());
            exchanges.push(Exchange { target, authorization, began: Instant::now(), ended: None });
            exchanges.len() - 1
        };
        let delay = *state.delay.lock().expect("no holder panics");
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let said = state
            .handler
            .lock()
            .expect("no holder panics")
            .as_ref()
            .and_then(|handler| handler(&target, authorization.as_deref()));
        let kept = || state.answers.lock().expect("no holder panics").get(&target).cloned();
        let reply = said.or_else(kept).unwrap_or_else(|| Reply::status(404));
        if let Some(exchange) = state.exchanges.lock().expect("no holder panics").get_mut(place) {
            exchange.ended = Some(Instant::now());
        }
        if write(&mut stream, &reply).await.is_none() {
            return;
        }
    }
}

/// `None` when the client went away, or the connection cannot be used again.
async fn write(stream: &mut TcpStream, reply: &Reply) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Body::Bytes(bytes) | Body::Drip(bytes, _) = &reply.body {
        head.push_str(&format!("content-length: {}\r\n", bytes.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    match &reply.body {
        Body::Bytes(bytes) => stream.write_all(bytes).await.ok(),
        Body::Drip(bytes, pause) => {
            for byte in bytes {
                tokio::time::sleep(*pause).await;
                stream.write_all(&[*byte]).await.ok()?;
            }
            Some(())
        }
        Body::Endless => loop {
            stream.write_all(&[b' '; 16 << 10]).await.ok()?;
        },
    }
}

/// The one repository.
pub const REPOSITORY: &str = "team/scanner";

const MAX_HEAD: usize = 64 << 10;
