//! Cuts off clients that are slow, silent or do not read: one watch per connection, no timer per request.

use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::resets::{Reset, Resets};
use crate::config::Limits;

/// A connection's stream that notes when bytes move.
pub(super) struct Guarded<S> {
    stream: S,
    watch: Arc<Watch>,
    /// What is sent, where it is HTTP/2, and who wants to hear of streams that are reset in it.
    resets: Option<(Resets, OnReset)>,
}

type OnReset = Box<dyn FnMut(Reset) + Send>;

/// What is known of one connection's progress.
pub(super) struct Watch {
    state: Mutex<State>,
    header_timeout: Duration,
    stall_timeout: Duration,
    idle_timeout: Duration,
    request_limit: Duration,
    /// HTTP/2 sends bytes (settings, pings) that begin no request, so only silence counts there.
    heads_are_bytes: bool,
}

struct State {
    /// Requests whose answers are not yet on their way, oldest first.
    requests: Vec<(u64, Instant)>,
    next_request: u64,
    quiet_since: Instant,
    head_since: Option<Instant>,
    write_blocked_since: Option<Instant>,
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// No request for as long as the connection may idle: closed in good order.
    Idle,
    /// A request's headers take too long.
    SlowHead,
    /// The client does not read its answer.
    NotReading,
}

/// Counts a request as in progress until dropped.
pub(super) struct InProgress {
    watch: Arc<Watch>,
    request: u64,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, limits: &Limits, heads_are_bytes: bool) -> Self {
        let state = State {
            requests: Vec::new(),
            next_request: 0,
            quiet_since: Instant::now(),
            head_since: None,
            write_blocked_since: None,
        };
        let watch = Watch {
            state: Mutex::new(state),
            header_timeout: limits.header_timeout.get(),
            stall_timeout: limits.body_timeout.get(),
            idle_timeout: limits.idle_timeout.get(),
            // As long again as the answer may take to make, to be taken.
            request_limit: limits.request_timeout.get() * 2,
            heads_are_bytes,
        };
        Self { stream, watch: Arc::new(watch), resets: None }
    }

    /// Calls `found` for every stream that the HTTP/2 library resets for the client's fault.
    pub(super) fn on_reset(mut self, found: impl FnMut(Reset) + Send + 'static) -> Self {
        self.resets = Some((Resets::default(), Box::new(found)));
        self
    }

    /// The stream took the first `count` of these bytes.
    fn sent<'b>(&mut self, pieces: impl IntoIterator<Item = &'b [u8]>, mut count: usize) {
        let Some((resets, found)) = &mut self.resets else { return };
        for piece in pieces {
            let part = &piece[..count.min(piece.len())];
            count -= part.len();
            resets.sent(part, &mut *found);
        }
    }

    pub(super) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }
}

impl Watch {
    /// Notes that a request's headers are complete.
    pub(super) fn begin(self: &Arc<Self>) -> InProgress {
        let mut state = self.state();
        let request = state.next_request;
        state.next_request += 1;
        state.requests.push((request, Instant::now()));
        state.head_since = None;
        InProgress { watch: Arc::clone(self), request }
    }

    /// Resolves when the connection must be cut. Looks a few times per timeout rather than re-arming a timer at
    /// every byte, so a cut comes up to a quarter of the shortest timeout late.
    pub(super) async fn cut(&self) -> Cut {
        let pace = self.header_timeout.min(self.stall_timeout).min(self.idle_timeout) / 4;
        loop {
            tokio::time::sleep(pace).await;
            if let Some(cut) = self.overdue(Instant::now()) {
                return cut;
            }
        }
    }

    /// Whether a request has begun to come whose headers are not complete.
    pub(super) fn reads_head(&self) -> bool {
        self.state().head_since.is_some()
    }

    fn overdue(&self, now: Instant) -> Option<Cut> {
        let state = self.state();
        let over = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if state.write_blocked_since.is_some_and(|since| over(since, self.stall_timeout)) {
            return Some(Cut::NotReading);
        }
        // An HTTP/2 client can leave an answer untaken without blocking the socket.
        if state.requests.first().is_some_and(|(_, since)| over(*since, self.request_limit)) {
            return Some(Cut::NotReading);
        }
        if state.head_since.is_some_and(|since| over(since, self.header_timeout)) {
            return Some(Cut::SlowHead);
        }
        (state.requests.is_empty() && over(state.quiet_since, self.idle_timeout)).then_some(Cut::Idle)
    }

    fn bytes_came(&self) {
        let mut state = self.state();
        if self.heads_are_bytes && state.requests.is_empty() && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    fn write_progress(&self, blocked: bool, wrote: bool) {
        let mut state = self.state();
        if wrote {
            // A client that reads its answer, however slowly, is not idle.
            state.quiet_since = Instant::now();
        }
        if !blocked {
            state.write_blocked_since = None;
        } else if state.write_blocked_since.is_none() {
            state.write_blocked_since = Some(Instant::now());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is plain numbers: a panic elsewhere cannot have left it half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut state = self.watch.state();
        state.requests.retain(|(request, _)| *request != self.request);
        state.quiet_since = Instant::now();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.watch.bytes_came();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = result {
            self.sent([bytes], count);
        }
        self.watch.write_progress(result.is_pending(), matches!(result, Poll::Ready(Ok(1..))));
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        if let Poll::Ready(Ok(count)) = result {
            self.sent(bytes.iter().map(|piece| &**piece), count);
        }
        self.watch.write_progress(result.is_pending(), matches!(result, Poll::Ready(Ok(1..))));
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch.write_progress(result.is_pending(), false);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    fn limits() -> Limits {
        Limits {
            header_timeout: Span::seconds(10),
            body_timeout: Span::seconds(20),
            idle_timeout: Span::seconds(120),
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_idle_until_its_time_is_up() {
        let (stream, _client) = duplex(64);
        let guarded = Guarded::new(stream, &limits(), true);
        let opened = Instant::now();
        assert_eq!(guarded.watch().cut().await, Cut::Idle);
        assert!(opened.elapsed() >= Duration::from_secs(120) && opened.elapsed() < Duration::from_secs(123));
    }

    #[tokio::test(start_paused = true)]
    async fn headers_that_trickle_are_cut_although_bytes_keep_coming() {
        let (stream, mut client) = duplex(64);
        let mut guarded = Guarded::new(stream, &limits(), true);
        let watch = guarded.watch();
        client.write_all(b"P").await.expect("room");
        assert_eq!(guarded.read_u8().await.expect("a byte"), b'P');
        let first = Instant::now();
        assert_eq!(watch.cut().await, Cut::SlowHead);
        assert!(first.elapsed() < Duration::from_secs(13));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut() {
        let (stream, _client) = duplex(4);
        let mut guarded = Guarded::new(stream, &limits(), true);
        let watch = guarded.watch();
        let request = watch.begin();
        let cut = tokio::select! {
            cut = watch.cut() => cut,
            _ = guarded.write_all(b"more than four bytes") => unreachable!("nobody reads"),
        };
        assert_eq!(cut, Cut::NotReading);
        drop(request);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_progress_is_not_idle() {
        let (stream, _client) = duplex(64);
        let watch = Guarded::new(stream, &limits(), true).watch();
        let request = watch.begin();
        assert_eq!(watch.overdue(Instant::now() + Duration::from_secs(119)), None);
        assert_eq!(
            watch.overdue(Instant::now() + Duration::from_secs(121)),
            Some(Cut::NotReading),
            "an answer untaken"
        );
        drop(request);
        assert_eq!(watch.overdue(Instant::now() + Duration::from_secs(3600)), Some(Cut::Idle));
    }
}
