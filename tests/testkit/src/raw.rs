//! Bytes over TCP or TLS, for what no HTTP client would send.

#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::client::{Answer, TlsOptions};
use crate::{Context, Result};

/// An open connection.
pub struct Raw {
    stream: Stream,
}

/// What was read, and why reading ended.
#[derive(Debug)]
pub struct Received {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// Why there were no more.
    pub end: End,
}

/// Why reading ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed in good order.
    Closed,
    /// The peer reset the connection or sent a TLS alert; the words are the error's.
    Broken(String),
    /// The time was up and the connection still open.
    Open,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Received {
    /// Whether the peer ended the connection, politely or not.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.end != End::Open
    }
}

impl Raw {
    /// TCP, no TLS.
    ///
    /// # Errors
    /// When the connection is refused.
    pub fn plain(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).context(format!("connect to {addr}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Stream::Plain(stream) })
    }

    /// TLS with these options, the handshake done as far as the client sees it (with TLS 1.3 a server may still refuse
    /// the certificate afterwards).
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn tls(addr: SocketAddr, options: &TlsOptions) -> Result<Self> {
        let tcp = TcpStream::connect(addr).context(format!("connect to {addr}"))?;
        Self::tls_over(tcp, options.config()?, options)
    }

    /// As [`tls`](Self::tls), over a connection that is already there, with any rustls configuration; of `options`
    /// only the server's name is used.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn tls_over(mut tcp: TcpStream, config: ClientConfig, options: &TlsOptions) -> Result<Self> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut connection =
            ClientConnection::new(Arc::new(config), options.server_name()?).context("begin the TLS handshake")?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp).context("finish the TLS handshake")?;
        }
        Ok(Self { stream: Stream::Tls(Box::new(StreamOwned::new(connection, tcp))) })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the peer has gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes.as_ref()),
            Stream::Tls(stream) => stream.write_all(bytes.as_ref()).and_then(|()| stream.flush()),
        }
    }

    /// Says that nothing more will be sent (a TLS `close_notify`, or a half-closed TCP connection) and goes on reading.
    ///
    /// # Errors
    /// When the peer has gone.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
        }
    }

    /// The client's end of the connection, as the server's audit log names it.
    ///
    /// # Errors
    /// When the socket does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    /// Sends bytes one by one with a pause after each, until the peer has gone; returns how many went out.
    pub fn trickle(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) -> usize {
        for (sent, byte) in bytes.as_ref().iter().enumerate() {
            if self.send([*byte]).is_err() {
                return sent;
            }
            std::thread::sleep(pause);
        }
        bytes.as_ref().len()
    }

    /// Reads until the peer closes or the time is up.
    pub fn receive(&mut self, patience: Duration) -> Received {
        self.receive_while(patience, |_| true)
    }

    /// Reads one HTTP/1.1 response with a `Content-Length`.
    ///
    /// # Errors
    /// When there is none within that time; the message shows what came instead.
    pub fn receive_answer(&mut self, patience: Duration) -> Result<Answer> {
        let received = self.receive_while(patience, |bytes| parse_answer(bytes).is_none());
        parse_answer(&received.bytes).context(format!(
            "find an HTTP response in {:?} ({:?})",
            String::from_utf8_lossy(&received.bytes),
            received.end
        ))
    }

    /// Reads until `enough` of what came, or until the peer closes or the time is up.
    pub fn receive_until(&mut self, patience: Duration, enough: impl Fn(&[u8]) -> bool) -> Received {
        self.receive_while(patience, |bytes| !enough(bytes))
    }

    fn receive_while(&mut self, patience: Duration, more: impl Fn(&[u8]) -> bool) -> Received {
        let deadline = Instant::now() + patience;
        let mut bytes = Vec::new();
        let mut chunk = [0; 16 * 1024];
        while more(&bytes) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Received { bytes, end: End::Open };
            }
            let read = self.set_timeout(left).and_then(|()| match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut chunk),
                Stream::Tls(stream) => read_tls(stream, &mut chunk),
            });
            match read {
                Ok(0) => return Received { bytes, end: End::Closed },
                Ok(count) => bytes.extend(&chunk[..count]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Received { bytes, end: End::Broken(error.to_string()) },
            }
        }
        Received { bytes, end: End::Open }
    }

    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(Some(timeout.max(Duration::from_millis(1))))
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
        }
    }
}

/// Reads without writing first, as rustls' own stream would: who was cut off while sending can still read why.
fn read_tls(stream: &mut StreamOwned<ClientConnection, TcpStream>, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.conn.reader().read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
        stream.conn.read_tls(&mut stream.sock)?;
        stream.conn.process_new_packets().map_err(io::Error::other)?;
    }
}

/// The complete HTTP/1.1 responses that these bytes begin with, in their order; interim ones (1xx) are left out.
#[must_use]
pub fn parse_answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((answer, length)) = parse_one(bytes) {
        bytes = &bytes[length..];
        if answer.status >= 200 {
            answers.push(answer);
        }
    }
    answers
}

/// A complete HTTP/1.1 response, if it is there.
fn parse_answer(bytes: &[u8]) -> Option<Answer> {
    parse_answers(bytes).into_iter().next()
}

fn parse_one(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.trim()).ok()?);
    }
    let length: usize = match headers.get("content-length") {
        Some(length) => length.to_str().ok()?.parse().ok()?,
        None => 0,
    };
    let body = bytes.get(end + 4..end + 4 + length)?;
    let answer = Answer { status, version: Version::HTTP_11, headers, body: Bytes::copy_from_slice(body) };
    Some((answer, end + 4 + length))
}
