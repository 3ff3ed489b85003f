//! A small HTTPS server for the development services, with failures at the turn of a switch.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::pki::Identity;
use crate::{Context, Result, runtime};

/// A running server; it stops when dropped.
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it does instead of answering.
    pub mode: ModeSwitch,
    calls: Calls,
    task: tokio::task::JoinHandle<()>,
}

/// How a server behaves, changed while it runs.
#[derive(Clone, Default)]
pub struct ModeSwitch(Arc<Mutex<Mode>>);

/// What a server does with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Answers.
    #[default]
    Up,
    /// Closes every new connection before TLS.
    Down,
    /// Answers after this long.
    Slow(Duration),
    /// Answers this status with an empty body.
    Status(u16),
    /// Answers 200 with these bytes.
    Garbage(Vec<u8>),
}

/// Whom a server lets in.
pub enum Clients {
    /// Everyone.
    Any,
    /// Everyone; a certificate, when shown, must chain to these roots.
    MayShow(Arc<RootCertStore>),
    /// Those with a certificate that chains to these roots.
    MustShow(Arc<RootCertStore>),
}

/// A request as a handler sees it.
pub struct Asked {
    /// GET, POST, …
    pub method: Method,
    /// Path without the query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The client's leaf certificate.
    pub certificate: Option<CertificateDer<'static>>,
}

/// What a handler answers.
pub struct Reply {
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

type Handler = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;
type Calls = Arc<Mutex<BTreeMap<String, u64>>>;

impl Server {
    /// Listens on a free loopback port and answers by `handler`.
    ///
    /// # Errors
    /// When no port can be bound or the certificate is unusable.
    pub fn start(
        identity: &Identity,
        clients: Clients,
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(tls_config(identity, clients)?));
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).context("listen on loopback")?;
        let addr = listener.local_addr()?;
        let (mode, calls): (ModeSwitch, Calls) = Default::default();
        let service = Service { handler: Arc::new(handler), mode: mode.clone(), calls: calls.clone() };
        let task = runtime().spawn(accept(listener, acceptor, service));
        Ok(Self { addr, mode, calls, task })
    }

    /// Requests received for `path` so far, answered or not.
    #[must_use]
    pub fn calls(&self, path: &str) -> u64 {
        self.calls.lock().expect("no holder panics").get(path).copied().unwrap_or(0)
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ModeSwitch {
    /// From now on.
    pub fn set(&self, mode: Mode) {
        *self.0.lock().expect("no holder panics") = mode;
    }

    fn get(&self) -> Mode {
        self.0.lock().expect("no holder panics").clone()
    }
}

impl Asked {
    /// The fields of a form-encoded body.
    #[must_use]
    pub fn form(&self) -> BTreeMap<String, String> {
        String::from_utf8_lossy(&self.body)
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (percent_decode(name), percent_decode(value)))
            .collect()
    }
}

impl Reply {
    /// JSON.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: vec![], body: Bytes::from(body.to_string()) }.header("content-type", "application/json")
    }

    /// No body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, headers: vec![], body: Bytes::new() }
    }

    /// With one header more.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("replies have printable headers");
        self.headers.push((HeaderName::from_static(name), value));
        self
    }
}

#[derive(Clone)]
struct Service {
    handler: Handler,
    mode: ModeSwitch,
    calls: Calls,
}

impl Service {
    async fn answer(
        &self,
        request: Request<Incoming>,
        certificate: Option<CertificateDer<'static>>,
    ) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        *self.calls.lock().expect("no holder panics").entry(head.uri.path().to_owned()).or_default() += 1;
        let reply = match self.mode.get() {
            Mode::Status(status) => Reply::empty(status),
            Mode::Garbage(body) => {
                Reply { body: body.into(), ..Reply::empty(200).header("content-type", "application/json") }
            }
            mode => {
                if let Mode::Slow(pause) = mode {
                    tokio::time::sleep(pause).await;
                }
                match Limited::new(body, MAX_BODY_BYTES).collect().await {
                    Err(_) => Reply::empty(413),
                    Ok(body) => (self.handler)(&Asked {
                        method: head.method,
                        path: head.uri.path().to_owned(),
                        headers: head.headers,
                        body: body.to_bytes(),
                        certificate,
                    }),
                }
            }
        };
        let mut response = Response::new(Full::new(reply.body));
        *response.status_mut() = reply.status.try_into().expect("replies have valid status codes");
        response.headers_mut().extend(reply.headers);
        response
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, service: Service) {
    while let Ok((stream, _)) = listener.accept().await {
        if service.mode.get() == Mode::Down {
            continue;
        }
        tokio::spawn(serve(stream, acceptor.clone(), service.clone()));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, service: Service) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let certificate =
        stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
    let respond = service_fn(move |request| {
        let (service, certificate) = (service.clone(), certificate.clone());
        async move { Ok::<_, Infallible>(service.answer(request, certificate).await) }
    });
    // A client that goes away mid-request is its own affair.
    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), respond)
        .await;
}

pub(crate) fn tls_config(identity: &Identity, clients: Clients) -> Result<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?;
    let verifier = |roots| WebPkiClientVerifier::builder_with_provider(roots, provider);
    let builder = match clients {
        Clients::Any => builder.with_no_client_auth(),
        Clients::MayShow(roots) => builder
            .with_client_cert_verifier(verifier(roots).allow_unauthenticated().build().context("trust the client CA")?),
        Clients::MustShow(roots) => {
            builder.with_client_cert_verifier(verifier(roots).build().context("trust the client CA")?)
        }
    };
    let mut config = builder.with_single_cert(identity.chain(), identity.key()).context("use a server certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()))
            .flatten();
        match escaped {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(if byte == b'+' { b' ' } else { byte });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const MAX_BODY_BYTES: usize = 1 << 20;
