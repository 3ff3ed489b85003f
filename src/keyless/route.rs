//! The way to Fulcio: its name resolved, a TCP connection made, through a proxy where one is configured. To no other
//! host, ever: the helper gets the connected socket and cannot make another.

#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use signer_keyless::wire::{MAX_CERTIFICATE, MAX_ROOTS, MAX_TO_HELPER, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::resolver::Resolver;
use crate::config;
use crate::outbound::{OutboundError, OutboundTls};

/// Where Fulcio is and how it is reached.
#[derive(Debug)]
pub(super) struct Route {
    host: String,
    port: u16,
    /// `Host` of the request.
    authority: String,
    /// Whether it is a proxy that is connected to.
    proxied: bool,
    /// The host that is connected to: Fulcio's or the proxy's.
    first: Resolver,
    /// Whom its TLS certificate must chain to; none: plain HTTP on loopback.
    roots: Option<Vec<CertificateDer<'static>>>,
    connect_timeout: Duration,
    silence: Duration,
}

/// Why Fulcio cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No address, or none that lets us in.
    #[error("no connection to {place}: {source}")]
    Connect {
        /// Fulcio or the proxy.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// None in time.
    #[error("no connection to {place} in time")]
    Late {
        /// Fulcio or the proxy.
        place: String,
    },
    /// The request's own time was up before Fulcio had had its `connect_timeout`.
    #[error("too little time was left to connect to {place}")]
    OutOfTime {
        /// Fulcio or the proxy.
        place: String,
    },
    /// The proxy does not let us through.
    #[error("the proxy {place} does not connect to Fulcio: {why}")]
    Proxy {
        /// The proxy.
        place: String,
        /// What it said.
        why: String,
    },
    /// Plain HTTP leaves this machine.
    #[error("{place} is not on this machine: plain http is spoken to loopback only; write https in `fulcio_url`")]
    NotLoopback {
        /// Where it led.
        place: String,
    },
}

/// Why the configured way is none.
#[derive(Debug, thiserror::Error)]
pub enum RouteSetupError {
    /// Not a URL of a host.
    #[error("keyless.fulcio_url or keyless.proxy is no URL of a host")]
    Url,
    /// The CA cannot be read.
    #[error("keyless.ca")]
    Ca(#[source] OutboundError),
    /// The CA bundle is not what the helper takes.
    #[error(
        "keyless.ca: {path} has more than {MAX_ROOTS} certificates, one of more than {MAX_CERTIFICATE} bytes, or more than a job takes; keep the one that vouches for Fulcio"
    )]
    TooMany {
        /// The file.
        path: PathBuf,
    },
}

impl Route {
    pub(super) fn new(config: &config::Keyless) -> Result<Self, RouteSetupError> {
        let uri: http::Uri = config.fulcio_url.parse().map_err(|_| RouteSetupError::Url)?;
        let tls = uri.scheme_str() != Some("http");
        let authority = uri.authority().ok_or(RouteSetupError::Url)?;
        let proxy = match &config.proxy {
            None => None,
            Some(proxy) => {
                let uri: http::Uri = proxy.parse().map_err(|_| RouteSetupError::Url)?;
                let authority = uri.authority().ok_or(RouteSetupError::Url)?;
                Some((bare(authority.host()), authority.port_u16().unwrap_or(80)))
            }
        };
        let roots = match &config.ca {
            Some(path) if tls => {
                let roots = OutboundTls::load(Some(path), None).map_err(RouteSetupError::Ca)?.roots;
                let whole: usize = roots.iter().map(|root| root.len() + LENGTH).sum();
                if roots.len() > MAX_ROOTS
                    || roots.iter().any(|root| root.len() > MAX_CERTIFICATE)
                    || whole > MAX_TO_HELPER - REST_OF_JOB
                {
                    return Err(RouteSetupError::TooMany { path: path.clone() });
                }
                Some(roots)
            }
            _ if tls => return Err(RouteSetupError::Url),
            _ => None,
        };
        let (host, port) = (bare(authority.host()), authority.port_u16().unwrap_or(if tls { 443 } else { 80 }));
        let proxied = proxy.is_some();
        let (first, its_port) = proxy.unwrap_or_else(|| (host.clone(), port));
        Ok(Self {
            host,
            port,
            authority: authority.as_str().to_owned(),
            proxied,
            first: Resolver::new(&first, its_port),
            roots,
            connect_timeout: config.connect_timeout.get(),
            silence: config.step_timeout.get(),
        })
    }

    /// `Host` of the request.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// How the helper is to speak on the socket.
    pub(super) fn transport(&self) -> Transport<'_> {
        match &self.roots {
            Some(roots) => {
                Transport::Tls { server_name: &self.host, roots: roots.iter().map(|root| &root[..]).collect() }
            }
            None => Transport::PlainLoopback,
        }
    }

    /// A connected socket, ready for the helper: blocking, without delay, with time-outs that the helper cannot set.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<OwnedFd, RouteError> {
        let whole = Instant::now() + self.connect_timeout;
        let until = deadline.min(whole);
        match tokio::time::timeout_at(until.into(), self.reach(until)).await {
            Ok(reached) => reached,
            // That the request came late with it says nothing about Fulcio.
            Err(_) if deadline < whole => Err(RouteError::OutOfTime { place: self.place() }),
            Err(_) => Err(RouteError::Late { place: self.place() }),
        }
    }

    /// Keeps the addresses fresh, off the event loops.
    pub(super) fn refresh(&self) {
        self.first.refresh();
    }

    async fn reach(&self, until: Instant) -> Result<OwnedFd, RouteError> {
        let failed = |source| RouteError::Connect { place: self.place(), source };
        let mut stream = self.first.connect(until).await.map_err(failed)?;
        if self.roots.is_none() {
            // Be it Fulcio or a proxy: the identity token would leave this machine in clear.
            loopback(stream.peer_addr().map_err(failed)?)?;
        }
        if self.proxied {
            self.pass_proxy(&mut stream).await?;
        }
        self.prepare(stream).map_err(failed)
    }

    fn prepare(&self, stream: TcpStream) -> io::Result<OwnedFd> {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        // Without it a flow takes 40 ms longer.
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.silence))?;
        stream.set_write_timeout(Some(self.silence))?;
        Ok(stream.into())
    }

    /// `CONNECT` (RFC 9110, section 9.3.6).
    async fn pass_proxy(&self, stream: &mut TcpStream) -> Result<(), RouteError> {
        let refused = |why: String| RouteError::Proxy { place: self.place(), why };
        let broken = |error: io::Error| refused(error.to_string());
        let target = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut head = Vec::with_capacity(MAX_PROXY_HEAD);
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= MAX_PROXY_HEAD {
                return Err(refused("its answer is too long".to_owned()));
            }
            // Byte by byte, so that nothing of what follows is taken from the helper. It is one short answer.
            head.push(stream.read_u8().await.map_err(broken)?);
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(&head).map(|_| answer.code) {
            Ok(Some(200..=299)) => Ok(()),
            Ok(Some(status)) => Err(refused(format!("it answered {status}"))),
            _ => Err(refused("its answer is no HTTP".to_owned())),
        }
    }

    fn place(&self) -> String {
        if self.proxied { self.first.place() } else { self.authority.clone() }
    }
}

fn loopback(peer: SocketAddr) -> Result<(), RouteError> {
    if peer.ip().is_loopback() { Ok(()) } else { Err(RouteError::NotLoopback { place: peer.to_string() }) }
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Of each root in a job.
const LENGTH: usize = 4;
/// What a job has besides: the identity token of up to 16 KiB, and names.
const REST_OF_JOB: usize = 32 << 10;
const MAX_PROXY_HEAD: usize = 8 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "route_tests.rs"]
mod tests;
