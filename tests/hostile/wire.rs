//! Raw exchanges: what is sent below an HTTP client, and what comes back.

#![forbid(unsafe_code)]

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use testkit::client::{Answer, TlsOptions};
use testkit::raw::{End, Raw, Received, parse_answers};
use testkit::{Context as _, Result};

use crate::world::World;

/// What came of a raw exchange.
pub(crate) struct Wire {
    /// The client's end of the connection: how the audit log calls it.
    pub(crate) from: SocketAddr,
    /// What came, and how it ended.
    pub(crate) received: Received,
}

impl Wire {
    /// All complete HTTP/1.1 answers.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        parse_answers(&self.received.bytes)
    }
}

/// How long to wait for the appliance to answer or to end a connection: longer than any of its limits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A TCP connection to the Signer API.
pub(crate) fn tcp(world: &World) -> Result<TcpStream> {
    let addr = world.fixture.appliance.addr();
    TcpStream::connect(addr).context(format!("connect to {addr}"))
}

/// An HTTP/1.1 connection with tenant acme's certificate.
pub(crate) fn http1(world: &World) -> Result<Raw> {
    over_tls(world, b"http/1.1")
}

/// An HTTP/2 connection with tenant acme's certificate, on which nothing has been said.
pub(crate) fn http2(world: &World) -> Result<Raw> {
    over_tls(world, b"h2")
}

fn over_tls(world: &World, protocol: &[u8]) -> Result<Raw> {
    let options = TlsOptions { alpn: Some(vec![protocol.to_vec()]), ..world.client().tls().clone() };
    Raw::tls_over(tcp(world)?, options.config()?, &options)
}

/// Sends bytes over a connection of its own and reads until the appliance ends it or has answered `answers` times.
pub(crate) fn exchange(world: &World, bytes: &[u8], answers: usize) -> Result<Wire> {
    let mut raw = http1(world)?;
    // Who refuses early may close while this is still being sent; what it said before is there to be read.
    let _ = raw.send(bytes);
    finish(&mut raw, answers)
}

/// Reads until the appliance ends the connection or has answered `answers` times.
pub(crate) fn finish(raw: &mut Raw, answers: usize) -> Result<Wire> {
    let from = raw.local_addr()?;
    let received = raw.receive_until(PATIENCE, |bytes| parse_answers(bytes).len() >= answers);
    Ok(Wire { from, received })
}

/// A handshake that failed on the client's side, as an exchange without bytes.
pub(crate) fn failed(from: SocketAddr, error: &testkit::Error) -> Wire {
    Wire { from, received: Received { bytes: Vec::new(), end: End::Broken(error.to_string()) } }
}

/// An HTTP/1.1 request as text, right in every way until it is changed: `POST /sign/dsse` with a certificate-bound
/// token and its PoE.
#[derive(Clone)]
pub(crate) struct Request {
    /// The request line.
    pub(crate) line: String,
    /// Header lines.
    pub(crate) headers: Vec<String>,
    /// Whatever follows the headers.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A request that is answered 200.
    pub(crate) fn good(world: &World) -> Self {
        let client = world.bound_by_certificate();
        let body = client.sign(&testkit::sample::request()).body_bytes().to_vec();
        Self {
            line: format!("POST {SIGN} HTTP/1.1"),
            headers: vec![
                format!("Host: {}", world.host()),
                format!("Authorization: Bearer {}", client.token().encode()),
                "Content-Type: application/json".to_owned(),
                format!("Content-Length: {}", body.len()),
            ],
            body,
        }
    }

    /// The same without a token: nothing behind authentication may be reached.
    pub(crate) fn stranger(world: &World) -> Self {
        Self::good(world).without("Authorization")
    }

    /// Another request line.
    pub(crate) fn line(mut self, line: &str) -> Self {
        line.clone_into(&mut self.line);
        self
    }

    /// One header line more.
    pub(crate) fn header(mut self, line: impl Into<String>) -> Self {
        self.headers.push(line.into());
        self
    }

    /// Without the headers of this name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        let prefix = format!("{}:", name.to_lowercase());
        self.headers.retain(|line| !line.to_lowercase().starts_with(&prefix));
        self
    }

    /// Another body, with the headers as they are.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The same body in one chunk (RFC 9112, section 7.1), followed by these trailer lines.
    pub(crate) fn chunked(mut self, trailers: &[&str]) -> Self {
        let mut body = format!("{:x}\r\n", self.body.len()).into_bytes();
        body.extend(&self.body);
        body.extend(b"\r\n0\r\n");
        trailers.iter().for_each(|line| body.extend(format!("{line}\r\n").bytes()));
        body.extend(b"\r\n");
        self.body = body;
        self.without("Content-Length").header("Transfer-Encoding: chunked")
    }

    /// Request line and headers.
    pub(crate) fn head(&self) -> Vec<u8> {
        format!("{}\r\n{}\r\n\r\n", self.line, self.headers.join("\r\n")).into_bytes()
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}

/// Where signatures are made.
pub(crate) const SIGN: &str = "/api/v1/signer/sign/dsse";
