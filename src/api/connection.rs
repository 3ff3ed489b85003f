//! Serves one connection, from its TLS handshake to its end.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::guard::{Cut, Guarded, Watch};
use super::peers::Peers;
use super::sending::keeping;
use super::stage::Stage;
use super::{routes, tls};
use crate::auth::PeerCertificate;
use crate::config::Limits;
use crate::pipeline::Live;

/// One event loop's share of the front.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) live: Arc<Live>,
    pub(super) open: Arc<AtomicUsize>,
    pub(super) peers: Arc<Peers>,
    pub(super) stage: watch::Receiver<Stage>,
}

/// A connection that nobody serves yet.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) remote: SocketAddr,
    /// From which stage of the front on it ends.
    pub(super) ends: Stage,
    /// Counts the connections that were accepted in the same stage, while it lives.
    pub(super) _era: Arc<()>,
}

/// Who is at the other end.
struct Client<'a> {
    watch: &'a Arc<Watch>,
    peer: &'a Arc<PeerCertificate>,
    address: SocketAddr,
    trust: Trust,
    ends: Stage,
}

impl Front {
    pub(super) async fn serve(self, accepted: Accepted) {
        let Accepted { stream, remote: address, ends, _era } = accepted;
        // Not kept: a connection may outlive many reloads, and would have every appliance that was in force at its beginning
        // watch its tokens to its end.
        let (limits, trust, acceptor, metrics) = {
            let appliance = self.live.now();
            let acceptor = TlsAcceptor::from(appliance.tls.config());
            let limits = appliance.config.server.limits.clone();
            (limits, appliance.tls.trust(), acceptor, Arc::clone(&appliance.metrics))
        };
        let refuse = |peer: Option<&PeerCertificate>, reason, detail: &str| {
            self.live.now().refused_connection(address, peer, reason, detail);
        };
        // Answers are written whole; waiting for more to send only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %address, "TCP_NODELAY could not be set");
        }
        let handshake = timeout(limits.handshake_timeout.get(), acceptor.accept(stream)).await;
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let reason = handshake_reason(&error);
                metrics.tls_handshake_failure(reason);
                return refuse(None, reason, &error.to_string());
            }
            Err(_) => {
                metrics.tls_handshake_failure("handshake_timeout");
                return refuse(None, "handshake_timeout", "the TLS handshake was not finished in time");
            }
        };
        let session = stream.get_ref().1;
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let Some(peer) = leaf.and_then(tls::peer_certificate) else {
            return refuse(None, "client_certificate_unreadable", "the client certificate cannot be read");
        };
        let Some(_place) = self.peers.enter(peer.thumbprint, limits.max_connections.get() as usize) else {
            let detail = "this client holds more than half of all connections, and what is left is for others";
            return refuse(Some(&peer), "too_many_connections_of_one", detail);
        };
        let speaks_h2 = session.alpn_protocol() == Some(b"h2");
        let _counted = Counted::new(&metrics.connections);

        let peer = Arc::new(peer);
        let mut guarded = Guarded::new(stream, &limits, !speaks_h2);
        if speaks_h2 {
            let (live, peer) = (Arc::clone(&self.live), Arc::clone(&peer));
            guarded = guarded.on_reset(move |reset| {
                let detail = format!("HTTP/2 stream {}: {}", reset.stream, reset.name());
                live.now().refused_connection(address, Some(&peer), "http2_stream_reset", &detail);
            });
        }
        let watch = guarded.watch();
        let io = TokioIo::new(guarded);
        let client = Client { watch: &watch, peer: &peer, address, trust, ends };
        let ended =
            if speaks_h2 { self.serve_h2(io, &limits, client).await } else { self.serve_h1(io, &limits, client).await };
        match ended {
            Ended::Well => {}
            Ended::Cut(Cut::Idle) => tracing::debug!(%address, "an idle connection was closed"),
            Ended::Cut(cut) => {
                let (reason, detail) = match cut {
                    Cut::SlowHead => ("headers_too_slow", "the headers of a request did not come in time"),
                    _ => ("answer_not_read", "the client did not read its answer"),
                };
                refuse(Some(&peer), reason, detail);
            }
            Ended::Badly(error) if is_protocol_error(&error) => {
                refuse(Some(&peer), "http_malformed", &error.to_string());
            }
            Ended::Badly(error) => tracing::debug!(%error, %address, "a connection broke"),
        }
    }

    async fn serve_h1(&self, io: Io, limits: &Limits, client: Client<'_>) -> Ended {
        let closing = AtomicBool::new(false);
        let Client { watch, peer, address, .. } = client;
        let service = service_fn(|request| {
            let (appliance, peer, progress) = (self.live.now(), Arc::clone(peer), watch.begin());
            let closing = &closing;
            async move {
                let mut response = routes::dispatch(&appliance, &peer, address, request).await;
                if closing.load(Ordering::Relaxed) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
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
        self.until_ended(connection, client, Some(&closing)).await
    }

    async fn serve_h2(&self, io: Io, limits: &Limits, client: Client<'_>) -> Ended {
        let (live, peer, progress) = (Arc::clone(&self.live), Arc::clone(client.peer), Arc::clone(client.watch));
        let address = client.address;
        let service = service_fn(move |request| {
            let (appliance, peer, progress) = (live.now(), Arc::clone(&peer), progress.begin());
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
        self.until_ended(connection, client, None).await
    }

    /// Serves until the connection ends, by itself, by being cut off, or in good order because the front stops, because
    /// other clients are trusted now than when this one was let in, or because the settings that it was let in by are no
    /// longer in force.
    ///
    /// HTTP/2 says that it ends (GOAWAY), and which requests it still takes. HTTP/1.1 cannot: were an idle connection
    /// closed at once, a request on its way would be lost, and its client could not tell whether it was carried out. So it
    /// lingers, and the answer to the next request says that the connection is closed; `closing` has it say so.
    async fn until_ended<C>(&self, connection: C, client: Client<'_>, closing: Option<&AtomicBool>) -> Ended
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let Client { watch, mut trust, ends, .. } = client;
        tokio::pin!(connection);
        // Outlives the turns of the loop: each would begin its waiting anew.
        let mut cut = pin!(watch.cut());
        let mut stage = self.stage.clone();
        let mut stopping = false;
        let mut lingers: Option<Instant> = None;
        // The front stops, or a reload has replaced the settings of TLS under which this connection was made.
        let (mut leaving, mut replaced) = (false, false);
        loop {
            if leaving && !stopping && lingers.is_none() {
                match closing {
                    Some(closing) => {
                        closing.store(true, Ordering::Relaxed);
                        lingers = Some(Instant::now() + LINGER);
                    }
                    None => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
            tokio::select! {
                ended = &mut connection => return ended.map_or_else(Ended::Badly, |()| Ended::Well),
                why = cut.as_mut() => match why {
                    // Said before it is done, so that a client who asks just now knows that nothing came of it.
                    Cut::Idle if !stopping => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                        cut.set(watch.cut());
                    }
                    why => return Ended::Cut(why),
                },
                _ = stage.wait_for(|stage| *stage >= ends), if !leaving => leaving = true,
                () = sleep_until(lingers.unwrap_or_else(Instant::now)), if !stopping && lingers.is_some() => {
                    if watch.reads_head() {
                        // What has begun to come is waited for, as long as headers may take.
                        lingers = Some(Instant::now() + MOMENT);
                    } else {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
                changed = trust.changed(), if !stopping && !replaced => match changed {
                    Ok(()) => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    // Nobody is distrusted, but who will be is told to connections under the new settings alone.
                    Err(_) => (replaced, leaving) = (true, true),
                },
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

/// How long an idle connection of HTTP/1.1 is kept when the front stops. A client that goes on sending has sent by then.
const LINGER: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(50);
