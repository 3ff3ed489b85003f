//! Accepts connections and serves them: one acceptor, and an event loop per core.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::guard::{Cut, Guarded, Watch};
use super::live_tls::LiveTls;
use super::peers::Peers;
use super::sending::keeping;
use super::{routes, tls};
use crate::auth::PeerCertificate;
use crate::config::Limits;
use crate::pipeline::Appliance;

/// Starts the event loops; the acceptor hands each connection to the one that has the fewest.
pub(crate) struct EventLoops {
    loops: Vec<EventLoop>,
    limits: Limits,
}

struct EventLoop {
    connections: mpsc::UnboundedSender<(TcpStream, SocketAddr)>,
    open: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl EventLoops {
    /// Starts `count` event loops on threads of their own. They stop, in good order, after `stop` turns true.
    ///
    /// # Errors
    /// When a thread or its event loop cannot be made.
    pub(crate) fn start(
        count: usize,
        appliance: &Arc<Appliance>,
        tls: &Arc<LiveTls>,
        stop: &watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let limits = appliance.config.server.limits.clone();
        let peers = Arc::new(Peers::default());
        let mut loops = Vec::with_capacity(count);
        for index in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(1)
                .thread_keep_alive(Duration::from_secs(10))
                .build()?;
            let (sender, receiver) = mpsc::unbounded_channel();
            let open = Arc::new(AtomicUsize::new(0));
            let front = Front {
                appliance: Arc::clone(appliance),
                tls: Arc::clone(tls),
                open: Arc::clone(&open),
                peers: Arc::clone(&peers),
                stop: stop.clone(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("api-{index}"))
                .spawn(move || runtime.block_on(front.run(receiver)))?;
            loops.push(EventLoop { connections: sender, open, thread });
        }
        Ok(Self { loops, limits })
    }

    /// Accepts until `stop` turns true, then waits for the event loops to finish what they have.
    pub(crate) async fn accept(self, listener: TcpListener, appliance: &Appliance, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, address)) => self.hand_on(stream, address, appliance),
                Err(error) => {
                    // Out of descriptors, usually. The pending connection stays in the backlog, so accepting again
                    // at once would spin.
                    tracing::error!(%error, "a connection could not be accepted; trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        let threads: Vec<_> = self.loops.into_iter().map(|event_loop| event_loop.thread).collect();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("an event loop ended by a panic");
                }
            }
        });
        if joined.await.is_err() {
            tracing::error!("the event loops could not be waited for");
        }
    }

    fn hand_on(&self, stream: TcpStream, address: SocketAddr, appliance: &Appliance) {
        let open: usize = self.loops.iter().map(|event_loop| event_loop.open.load(Ordering::Relaxed)).sum();
        if open >= self.limits.max_connections.get() as usize {
            appliance.refused_connection(
                address,
                None,
                "too_many_connections",
                "the limit of open connections is reached",
            );
            return;
        }
        let Some(calmest) = self.loops.iter().min_by_key(|event_loop| event_loop.open.load(Ordering::Relaxed)) else {
            return;
        };
        // The stream is bound to the acceptor's reactor; it is taken off here and registered where it is served.
        calmest.open.fetch_add(1, Ordering::Relaxed);
        if calmest.connections.send((stream, address)).is_err() {
            calmest.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One event loop's share of the front.
#[derive(Clone)]
struct Front {
    appliance: Arc<Appliance>,
    tls: Arc<LiveTls>,
    open: Arc<AtomicUsize>,
    peers: Arc<Peers>,
    stop: watch::Receiver<bool>,
}

impl Front {
    async fn run(self, mut connections: mpsc::UnboundedReceiver<(TcpStream, SocketAddr)>) {
        // Each connection's task holds a clone of `alive`; when the last is dropped, everything is finished.
        let (alive, mut finished) = mpsc::channel::<()>(1);
        // The acceptor drops its end when it stops; what it accepted before is still served.
        while let Some((stream, address)) = connections.recv().await {
            match stream.into_std().and_then(TcpStream::from_std) {
                Ok(stream) => {
                    let (front, alive) = (self.clone(), alive.clone());
                    tokio::spawn(async move {
                        let open = Open(Arc::clone(&front.open));
                        front.serve(stream, address).await;
                        drop((open, alive));
                    });
                }
                Err(error) => {
                    self.open.fetch_sub(1, Ordering::Relaxed);
                    tracing::warn!(%error, %address, "a connection could not be taken over");
                }
            }
        }
        drop(alive);
        let patience = self.appliance.config.server.limits.request_timeout.get();
        if timeout(patience, finished.recv()).await.is_err() {
            tracing::warn!("connections were still open when the time to finish was up");
        }
    }

    async fn serve(self, stream: TcpStream, address: SocketAddr) {
        let limits = &self.appliance.config.server.limits;
        // Answers are written whole; waiting for more to send only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %address, "TCP_NODELAY could not be set");
        }
        let trust = self.tls.trust();
        let acceptor = TlsAcceptor::from(self.tls.config());
        let handshake = timeout(limits.handshake_timeout.get(), acceptor.accept(stream)).await;
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let reason = handshake_reason(&error);
                self.appliance.metrics.tls_handshake_failure(reason);
                return self.appliance.refused_connection(address, None, reason, &error.to_string());
            }
            Err(_) => {
                self.appliance.metrics.tls_handshake_failure("handshake_timeout");
                let detail = "the TLS handshake was not finished in time";
                return self.appliance.refused_connection(address, None, "handshake_timeout", detail);
            }
        };
        let session = stream.get_ref().1;
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let Some(peer) = leaf.and_then(tls::peer_certificate) else {
            let detail = "the client certificate cannot be read";
            return self.appliance.refused_connection(address, None, "client_certificate_unreadable", detail);
        };
        let Some(_place) = self.peers.enter(peer.thumbprint, limits.max_connections.get() as usize) else {
            let detail = "this client holds more than half of all connections, and what is left is for others";
            return self.appliance.refused_connection(address, Some(&peer), "too_many_connections_of_one", detail);
        };
        let speaks_h2 = session.alpn_protocol() == Some(b"h2");
        let _counted = Counted::new(&self.appliance.metrics.connections);

        let peer = Arc::new(peer);
        let mut guarded = Guarded::new(stream, limits, !speaks_h2);
        if speaks_h2 {
            let (appliance, peer) = (Arc::clone(&self.appliance), Arc::clone(&peer));
            guarded = guarded.on_reset(move |reset| {
                let detail = format!("HTTP/2 stream {}: {}", reset.stream, reset.name());
                appliance.refused_connection(address, Some(&peer), "http2_stream_reset", &detail);
            });
        }
        let watch = guarded.watch();
        let io = TokioIo::new(guarded);
        let ended = if speaks_h2 {
            self.serve_h2(io, &watch, &peer, address, trust).await
        } else {
            self.serve_h1(io, &watch, &peer, address, trust).await
        };
        match ended {
            Ended::Well => {}
            Ended::Cut(Cut::Idle) => tracing::debug!(%address, "an idle connection was closed"),
            Ended::Cut(cut) => {
                let (reason, detail) = match cut {
                    Cut::SlowHead => ("headers_too_slow", "the headers of a request did not come in time"),
                    _ => ("answer_not_read", "the client did not read its answer"),
                };
                self.appliance.refused_connection(address, Some(&peer), reason, detail);
            }
            Ended::Badly(error) if is_protocol_error(&error) => {
                self.appliance.refused_connection(address, Some(&peer), "http_malformed", &error.to_string());
            }
            Ended::Badly(error) => tracing::debug!(%error, %address, "a connection broke"),
        }
    }

    async fn serve_h1(
        &self,
        io: Io,
        watch: &Arc<Watch>,
        peer: &Arc<PeerCertificate>,
        address: SocketAddr,
        trust: Trust,
    ) -> Ended {
        let limits = &self.appliance.config.server.limits;
        let service = service_fn(|request| {
            let (appliance, peer, progress) = (Arc::clone(&self.appliance), Arc::clone(peer), watch.begin());
            async move {
                let response = routes::dispatch(&appliance, &peer, address, request).await;
                Ok::<_, std::convert::Infallible>(keeping(response, progress))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // The guard times headers: hyper's own timer cannot tell an idle connection from a slow one.
            .header_read_timeout(None)
            .max_buf_size(limits.max_header_bytes.as_usize().max(8192))
            .pipeline_flush(false)
            .serve_connection(io, service);
        self.until_ended(connection, watch, trust).await
    }

    async fn serve_h2(
        &self,
        io: Io,
        watch: &Arc<Watch>,
        peer: &Arc<PeerCertificate>,
        address: SocketAddr,
        trust: Trust,
    ) -> Ended {
        let limits = &self.appliance.config.server.limits;
        let (appliance, peer, progress) = (Arc::clone(&self.appliance), Arc::clone(peer), Arc::clone(watch));
        let service = service_fn(move |request| {
            let (appliance, peer, progress) = (Arc::clone(&appliance), Arc::clone(&peer), progress.begin());
            async move {
                let response = routes::dispatch(&appliance, &peer, address, request).await;
                Ok::<_, std::convert::Infallible>(keeping(response, progress))
            }
        });
        let max_header_list = u32::try_from(limits.max_header_bytes.get()).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(max_header_list)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .serve_connection(io, service);
        self.until_ended(connection, watch, trust).await
    }

    /// Serves until the connection ends, by itself, by being cut off, or in good order because the front stops or because
    /// other clients are trusted now than when this one was let in.
    async fn until_ended<C>(&self, connection: C, watch: &Watch, mut trust: Trust) -> Ended
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        tokio::pin!(connection);
        let mut stop = self.stop.clone();
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = &mut connection => return ended.map_or_else(Ended::Badly, |()| Ended::Well),
                cut = watch.cut() => match cut {
                    // Said before it is done, so that a client who asks just now knows that nothing came of it.
                    Cut::Idle if !stopping => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    cut => return Ended::Cut(cut),
                },
                _ = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                Ok(()) = trust.changed(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Changes when other clients are trusted.
type Trust = watch::Receiver<()>;

type Io = TokioIo<Guarded<tokio_rustls::server::TlsStream<TcpStream>>>;

enum Ended {
    Well,
    Cut(Cut),
    Badly(hyper::Error),
}

/// Gives a connection's place back, however its task ends.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts an open connection until it is dropped.
struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Whether the client broke the protocol, as opposed to going away or saying itself that it gives up.
fn is_protocol_error(error: &hyper::Error) -> bool {
    use std::error::Error;
    if error.is_parse() || error.is_parse_too_large() {
        return true;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.is_library();
        }
        cause = error.source();
    }
    false
}

/// A bounded set of words for why a handshake failed, for the metric and the audit record.
fn handshake_reason(error: &io::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    let Some(tls) = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) else {
        return "connection_lost";
    };
    match tls {
        Error::NoCertificatesPresented => "no_client_certificate",
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "client_certificate_expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "client_certificate_not_yet_valid"
            }
            CertificateError::Revoked => "client_certificate_revoked",
            CertificateError::UnknownIssuer => "client_certificate_unknown_issuer",
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => "client_certificate_revocation_unknown",
            _ => "client_certificate_invalid",
        },
        Error::PeerIncompatible(_) => "tls_incompatible",
        Error::AlertReceived(_) => "client_alert",
        Error::InvalidMessage(_) | Error::PeerMisbehaved(_) | Error::InappropriateMessage { .. } => "tls_malformed",
        Error::NoApplicationProtocol => "no_common_alpn",
        _ => "tls_failed",
    }
}

const MAX_STREAMS: u32 = 128;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
