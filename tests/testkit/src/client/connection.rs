//! One connection: TLS as asked for, HTTP/1.1 or HTTP/2, opened when needed and kept.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::Answer;
use crate::pki::Identity;
use crate::{Context, Result};

/// A connection that is opened at the first request and again when the server closed it.
pub struct Connection {
    addr: SocketAddr,
    tls: TlsOptions,
    protocol: Protocol,
    open: Mutex<Option<Sender>>,
}

/// How to speak TLS.
#[derive(Clone)]
pub struct TlsOptions {
    /// What the server's certificate must chain to.
    pub roots: Arc<RootCertStore>,
    /// The certificate to show.
    pub identity: Option<Identity>,
    /// Protocol versions to offer.
    pub versions: TlsVersions,
    /// The name to ask for and to check.
    pub server_name: String,
    /// ALPN instead of what the protocol would offer.
    pub alpn: Option<Vec<Vec<u8>>>,
}

/// TLS versions that a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.3 and 1.2.
    All,
    /// 1.3 alone.
    Only13,
    /// 1.2 alone.
    Only12,
}

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl TlsOptions {
    /// For `localhost`, all versions.
    #[must_use]
    pub fn new(roots: Arc<RootCertStore>, identity: Option<Identity>) -> Self {
        Self { roots, identity, versions: TlsVersions::All, server_name: "localhost".to_owned(), alpn: None }
    }

    /// As rustls wants it.
    ///
    /// # Errors
    /// When the certificate is unusable.
    pub fn config(&self) -> Result<ClientConfig> {
        let versions: &[&rustls::SupportedProtocolVersion] = match self.versions {
            TlsVersions::All => rustls::ALL_VERSIONS,
            TlsVersions::Only13 => &[&rustls::version::TLS13],
            TlsVersions::Only12 => &[&rustls::version::TLS12],
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .context("choose TLS versions")?
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain(), identity.key()).context("use a client certificate")?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.clone().unwrap_or_default();
        // Every connection shows its certificate anew: a resumed session would hide who is asking.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// The name to ask for, as rustls wants it.
    ///
    /// # Errors
    /// When it is none.
    pub fn server_name(&self) -> Result<ServerName<'static>> {
        ServerName::try_from(self.server_name.clone()).context("use this server name")
    }
}

impl Connection {
    /// To this address, not opened yet.
    #[must_use]
    pub fn new(addr: SocketAddr, tls: TlsOptions, protocol: Protocol) -> Self {
        Self { addr, tls, protocol, open: Mutex::new(None) }
    }

    /// Sends a request in origin form and reads the whole answer. Over HTTP/1.1 one request waits for another. What the
    /// server says it has not taken, because it closes the connection, is sent again over another, as clients do (RFC 9113,
    /// section 6.8).
    ///
    /// # Errors
    /// When there is no connection to be had or it breaks.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        for _ in 0..RETRIES {
            if let Some(outcome) = self.attempt(request.clone()).await.transpose() {
                return outcome;
            }
        }
        Err(crate::Error::new("the server goes on closing connections without taking the request"))
    }

    /// `None` when the server has not taken it.
    async fn attempt(&self, request: Request<Full<Bytes>>) -> Result<Option<Answer>> {
        let mut open = self.open.lock().await;
        if open.as_mut().is_none_or(Sender::is_closed) {
            *open = Some(self.connect().await?);
        }
        let response = match open.as_mut().expect("it was just opened") {
            Sender::Http1(sender) => {
                if sender.ready().await.is_err() {
                    return Ok(None);
                }
                sender.send_request(self.in_origin_form(request)?).await
            }
            Sender::Http2(sender) => {
                let mut sender = sender.clone();
                drop(open);
                if sender.ready().await.is_err() {
                    return Ok(None);
                }
                sender.send_request(self.in_absolute_form(request)?).await
            }
        };
        let (head, body) = match response {
            Ok(response) => response.into_parts(),
            Err(error) if was_not_taken(&error) => return Ok(None),
            Err(error) => return Err(crate::Error(with_causes(&error))),
        };
        let body = body.collect().await.map_err(|error| crate::Error(with_causes(&error)))?.to_bytes();
        Ok(Some(Answer { status: head.status.as_u16(), version: head.version, headers: head.headers, body }))
    }

    async fn connect(&self) -> Result<Sender> {
        let mut config = self.tls.config()?;
        if self.tls.alpn.is_none() {
            config.alpn_protocols = match self.protocol {
                Protocol::Http1 => vec![b"http/1.1".to_vec()],
                Protocol::Http2 => vec![b"h2".to_vec()],
            };
        }
        let tcp = TcpStream::connect(self.addr).await.context(format!("connect to {}", self.addr))?;
        tcp.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(self.tls.server_name()?, tcp)
            .await
            .context("finish the TLS handshake")?;
        // The tasks end with the connection.
        Ok(match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("speak HTTP/1.1")?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.context("speak HTTP/2")?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        })
    }

    fn in_origin_form(&self, mut request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>> {
        if !request.headers().contains_key("host") {
            let host = HeaderValue::try_from(self.authority()).context("name the host")?;
            request.headers_mut().insert("host", host);
        }
        Ok(request)
    }

    fn in_absolute_form(&self, mut request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>> {
        let uri = format!("https://{}{}", self.authority(), request.uri());
        *request.uri_mut() = uri.parse().context("name the resource")?;
        Ok(request)
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.tls.server_name, self.addr.port())
    }
}

impl Sender {
    fn is_closed(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |words, cause| format!("{words}: {cause}"))
}

/// Whether it never left, or came after the last request that the server took.
fn was_not_taken(error: &hyper::Error) -> bool {
    let went_away = |h2: &h2::Error| h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR);
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    error.is_canceled() || cause.is_some_and(went_away)
}

const RETRIES: usize = 3;
