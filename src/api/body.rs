//! Reads a request body: bounded in size, in time, and in what all bodies together may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout};

use super::problem::{Code, Problem};
use crate::config::Limits;

/// Memory that request bodies may hold together.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    held: AtomicU64,
    limit: AtomicU64,
}

/// A share of the budget, given back on drop: it goes wherever the bytes go.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<BodyBudget>,
    bytes: u64,
}

impl BodyBudget {
    pub(crate) const fn new(limit: u64) -> Self {
        Self { held: AtomicU64::new(0), limit: AtomicU64::new(limit) }
    }

    /// From now on; what is held already stays.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn hold(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Held {
    /// Counts what the bytes have become, without asking whether there is room: they are there.
    pub(crate) fn now_holds(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.budget.held.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::Relaxed);
    }

    fn grow_to(&mut self, bytes: u64) -> Result<(), Problem> {
        let more = bytes.saturating_sub(self.bytes);
        let before = self.budget.held.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        if before + more > self.budget.limit.load(Ordering::Relaxed) {
            let problem = Problem::new(Code::Overloaded).reason("bodies_in_flight").retry_after(Duration::from_secs(1));
            return Err(problem);
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads the whole body of a JSON request. What it leaves unread when it refuses stays in `incoming`, to be
/// [`discard`]ed after the answer.
///
/// # Errors
/// A [`Problem`]: 400 for another content type or a body that breaks off or trickles, 413 for one that is larger
/// than `limits.max_body_bytes`, 503 when all bodies together hold what they may.
pub(crate) async fn take(
    headers: &HeaderMap,
    incoming: &mut Option<Incoming>,
    limits: &Limits,
    budget: &Arc<BodyBudget>,
) -> Result<(Bytes, Held), Problem> {
    require_json(headers)?;
    let Some(body) = incoming.as_mut() else { return Ok((Bytes::new(), budget.hold())) };
    let limit = limits.max_body_bytes.get();
    let announced = body.size_hint().exact();
    if announced.is_some_and(|bytes| bytes > limit) {
        return Err(too_large(limit));
    }
    // What is announced costs nothing; what has come does.
    let mut held = budget.hold();
    let started = Instant::now();
    let mut first = Bytes::new();
    let mut buffer = BytesMut::new();
    let mut length: u64 = 0;
    loop {
        let Ok(frame) = timeout(limits.body_timeout.get(), body.frame()).await else {
            return Err(too_slow());
        };
        let frame = match frame {
            None => break,
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                return Err(Problem::new(Code::InvalidRequest)
                    .reason("body_broken_off")
                    .detail("the body ended before it was complete"));
            }
        };
        // Trailers carry nothing that this API reads.
        let Ok(data) = frame.into_data() else { continue };
        length += data.len() as u64;
        if length > limit {
            return Err(too_large(limit));
        }
        held.grow_to(length)?;
        let expected = Duration::from_secs(length / MIN_BYTES_PER_SECOND) + limits.body_timeout.get();
        if started.elapsed() > expected {
            return Err(too_slow());
        }
        // Most bodies are one frame, which is used as it is. Otherwise there is one buffer, of the announced size once a
        // part of it has come.
        if first.is_empty() && buffer.is_empty() {
            first = data;
            continue;
        }
        if buffer.is_empty() {
            buffer.reserve(first.len() + data.len());
            buffer.extend_from_slice(&std::mem::take(&mut first));
        }
        if buffer.len() + data.len() > buffer.capacity() && buffer.len() >= CREDIBLE {
            let announced = announced.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
            buffer.reserve(announced.saturating_sub(buffer.len()).max(data.len()));
        }
        buffer.extend_from_slice(&data);
    }
    *incoming = None;
    let bytes = if buffer.is_empty() { first } else { buffer.freeze() };
    if bytes.is_empty() {
        return Err(Problem::new(Code::InvalidRequest).reason("body_empty").detail("the body must be a JSON object"));
    }
    Ok((bytes, held))
}

/// Reads and drops what is left of a refused request's body, within bounds: closing a socket with unread bytes
/// resets the connection, and the client would lose the answer that explains the refusal.
pub(crate) async fn discard(mut body: Incoming) {
    let drain = async {
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > MAX_DISCARD {
                break;
            }
        }
    };
    // A client that goes on slowly does not deserve more patience than this.
    let _ = timeout(Duration::from_millis(500), drain).await;
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let wrong = |reason, detail| Err(Problem::new(Code::InvalidRequest).reason(reason).detail(detail));
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let essence = types
        .next()
        .filter(|_| types.next().is_none())
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim());
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return wrong("content_type", "the body must be sent once as `Content-Type: application/json`");
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return wrong("content_encoding", "the body must be sent without Content-Encoding");
    }
    Ok(())
}

fn too_large(limit: u64) -> Problem {
    Problem::new(Code::ArtifactTooLarge)
        .reason("body_too_large")
        .detail(format!("the body is larger than {limit} bytes, the most this appliance reads"))
}

fn too_slow() -> Problem {
    Problem::new(Code::InvalidRequest).reason("body_too_slow").detail("the body did not come in time; send it faster")
}

/// From so many bytes on the announced length is believed.
const CREDIBLE: usize = 256 * 1024;
const MIN_BYTES_PER_SECOND: u64 = 16 * 1024;
const MAX_DISCARD: usize = 256 * 1024;
