//! The local listener: `/livez`, `/readyz` and `/metrics`, without TLS, on loopback or a Unix socket; on the latter
//! also what an operator may do ([`super::operator`]).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use super::operator::Order;
use super::stage::Stage;
use crate::config::{KeyState, LocalListen};
use crate::custody::{KeyHealth, KeyListing, TokenStatus};
use crate::keyless::{CircuitState, KeylessStatus};
use crate::pipeline::{Appliance, Live};
use crate::telemetry::CONTENT_TYPE as METRICS_TYPE;
use crate::timestamp::AuthorityHealth;

/// A bound local listener.
pub(crate) enum LocalListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl From<TcpListener> for LocalListener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for LocalListener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl LocalListener {
    /// Binds. A Unix socket left over by an earlier process is removed, one that is in use is not; the new one is
    /// for the group as well, so that monitoring needs no root.
    ///
    /// # Errors
    /// What the kernel says, with the address.
    pub(crate) async fn bind(listen: &LocalListen) -> io::Result<Self> {
        match listen {
            LocalListen::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            LocalListen::Unix(path) => {
                use std::os::unix::fs::{FileTypeExt, PermissionsExt};
                if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
                    if tokio::net::UnixStream::connect(path).await.is_ok() {
                        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket"));
                    }
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                Ok(Self::Unix(listener))
            }
        }
    }

    /// Serves until the front leaves.
    pub(crate) async fn serve(self, live: Arc<Live>, mut stage: watch::Receiver<Stage>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                _ = stage.wait_for(|stage| *stage == Stage::Leaving) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let live = Arc::clone(&live);
                    tokio::spawn(async move {
                        let service = service_fn(move |request| {
                            let live = Arc::clone(&live);
                            async move { Ok::<_, Infallible>(answer(&live, &request, peer).await) }
                        });
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(IDLE)
                            .max_buf_size(8192)
                            .serve_connection(TokioIo::new(stream), service);
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a local connection broke");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "a local connection could not be accepted; trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, LocalPeer)> {
        Ok(match self {
            Self::Tcp(listener) => (Box::new(listener.accept().await?.0), LocalPeer::Unknown),
            Self::Unix(listener) => {
                let stream = listener.accept().await?.0;
                let peer = stream.peer_cred().map_or(LocalPeer::Unknown, |peer| LocalPeer::User(peer.uid()));
                (Box::new(stream), peer)
            }
        })
    }
}

/// Who is at the other end of a local connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalPeer {
    /// By TCP, anybody on this machine.
    Unknown,
    /// By the Unix socket: the kernel says who (`SO_PEERCRED`, unix(7)).
    User(u32),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// `/readyz`: whether requests can be served now, and if not, what is in the way.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Readiness {
    /// Every tenant can sign, OpToks can be validated, and the audit log can be written.
    pub(crate) ready: bool,
    /// The audit log: `ok` or `failed`.
    pub(crate) audit: &'static str,
    /// The Authority's key set: `ok` or `unavailable`.
    pub(crate) authority: &'static str,
    /// The licensing revocation list: `ok` or `stale`.
    pub(crate) revocations: &'static str,
    /// The tokens.
    pub(crate) tokens: Vec<TokenReadiness>,
    /// The keys.
    pub(crate) keys: Vec<KeyReadiness>,
    /// How each key is in each of its tokens.
    pub(crate) custody: Vec<CustodyReadiness>,
    /// Keyless signing, where it is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keyless: Option<KeylessReadiness>,
    /// The timestamp authorities, where any is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestamps: Option<Vec<TimestampReadiness>>,
}

/// Keyless signing: whether it is usable now. Ready does not depend on it but for tenants that have nothing else.
#[derive(Serialize)]
pub(crate) struct KeylessReadiness {
    usable: bool,
    /// `closed`, `open` or `half_open`.
    circuit: &'static str,
    identities: Vec<IdentityReadiness>,
}

/// One identity.
#[derive(Serialize)]
struct IdentityReadiness {
    name: Arc<str>,
    /// When the token that is held ends, in Unix time.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
    /// Why no new token can be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// One timestamp authority.
#[derive(Serialize)]
pub(crate) struct TimestampReadiness {
    name: String,
    usable: bool,
    /// Failures since it last answered rightly.
    failures: u32,
}

impl Readiness {
    /// In one line, for `systemctl status`.
    pub(crate) fn in_words(&self) -> String {
        let ready = self.tokens.iter().filter(|token| token.ready).count();
        let mut words = format!("{} of {} tokens ready", ready, self.tokens.len());
        for token in self.tokens.iter().filter(|token| !token.ready) {
            words.push_str(&format!("; token {}: {}", token.name, token.state));
        }
        for (what, state) in
            [("audit log", self.audit), ("authority", self.authority), ("revocation list", self.revocations)]
        {
            if state != "ok" {
                words.push_str(&format!("; {what} {state}"));
            }
        }
        if self.keyless.as_ref().is_some_and(|keyless| !keyless.usable) {
            words.push_str("; keyless signing unusable");
        }
        format!("{}: {words}", if self.ready { "serving" } else { "serving, not ready" })
    }
}

impl KeylessReadiness {
    /// What is known now.
    pub(crate) fn of(status: &KeylessStatus) -> Self {
        let identities: Vec<IdentityReadiness> = status
            .identities
            .iter()
            .map(|identity| IdentityReadiness {
                name: Arc::clone(&identity.name),
                expires: identity.expires,
                detail: identity.trouble.clone(),
            })
            .collect();
        let usable = status.circuit != CircuitState::Open && identities.iter().all(|one| one.expires.is_some());
        Self { usable, circuit: status.circuit.name(), identities }
    }
}

impl TimestampReadiness {
    /// What is known now.
    pub(crate) fn of(health: &AuthorityHealth) -> Self {
        Self { name: health.name.clone(), usable: health.paused.is_none(), failures: health.failures }
    }
}

/// One key in one token.
#[derive(Serialize)]
pub(crate) struct CustodyReadiness {
    key: Arc<str>,
    token: String,
    state: KeyHealth,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

impl CustodyReadiness {
    /// Each token's share of one key.
    pub(crate) fn of(key: &KeyListing) -> impl Iterator<Item = Self> {
        key.custody.iter().zip(&key.details).map(|(custody, detail)| Self {
            key: Arc::clone(&key.name),
            token: custody.token.clone(),
            state: custody.state,
            detail: detail.clone(),
        })
    }
}

/// One token.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenReadiness {
    name: Arc<str>,
    ready: bool,
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// One key.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyReadiness {
    name: Arc<str>,
    tokens: Arc<str>,
    state: KeyState,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyid: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out_of_service: Option<String>,
}

impl From<TokenStatus> for TokenReadiness {
    fn from(token: TokenStatus) -> Self {
        Self { name: token.name, ready: token.ready, state: token.state, detail: token.detail }
    }
}

impl From<KeyListing> for KeyReadiness {
    fn from(key: KeyListing) -> Self {
        Self {
            name: key.name,
            tokens: key.tokens,
            state: key.state,
            keyid: key.public.map(|(_, keyid)| keyid),
            out_of_service: key.out_of_service.map(|why| why.to_string()),
        }
    }
}

async fn answer(live: &Arc<Live>, request: &Request<Incoming>, peer: LocalPeer) -> Response<Full<Bytes>> {
    if let Some(order) = Order::of(request.method(), request.uri().path()) {
        return order.carry_out(live, peer).await;
    }
    let appliance: &Appliance = &live.now();
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "live\n"),
        "/readyz" => {
            let readiness = appliance.readiness();
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let body = serde_json::to_vec(&readiness).expect("strings and numbers always serialize");
            respond(status, "application/json", body.into())
        }
        "/metrics" => match appliance.render_metrics() {
            Ok(metrics) => respond(StatusCode::OK, METRICS_TYPE, metrics.into()),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
        },
        _ => text(StatusCode::NOT_FOUND, "/livez, /readyz or /metrics\n"),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const MAX_CONNECTIONS: usize = 64;
const IDLE: Duration = Duration::from_secs(30);
