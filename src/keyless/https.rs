//! One HTTPS request whose answer is a secret: every buffer that the answer passes on its way out of TLS is ours, of a
//! fixed size, and wiped ([`super::tap`]). A connection per request; no redirects; TLS 1.3, HTTP/1.1.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::resolver::Resolver;
use super::tap::Tap;

/// Whom to ask, and how they prove who they are.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Where to connect to.
    pub(super) to: Resolver,
    /// `Host` of the request.
    pub(super) authority: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) name: ServerName<'static>,
    pub(super) tls: Arc<ClientConfig>,
    /// Where what `tls` decrypts runs to.
    pub(super) tap: &'static Tap,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
    #[error("the connection broke off: {0}")]
    Broken(io::Error),
    #[error("the answer is larger than 64 KiB")]
    TooLarge,
    #[error("what came back is no whole HTTP/1.1 answer: {0}")]
    Malformed(&'static str),
}

impl Exchange {
    /// `POST`s `body` and reads the whole answer, whatever its status. The caller bounds the time, by `until` as well, and
    /// makes one call at a time.
    pub(super) async fn post(&self, content_type: &str, body: &[u8], until: Instant) -> Result<Answer, ExchangeError> {
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.target,
            self.authority,
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        let stream = self.to.connect(until).await.map_err(ExchangeError::Connect)?;
        stream.set_nodelay(true).map_err(ExchangeError::Connect)?;
        let listening = self.tap.listen();
        Conversation::new(stream, self)?.ask(&request).await?;
        answer(listening.heard())
    }
}

/// One TLS connection. rustls keeps no buffers here: they are handed to it for each step.
struct Conversation {
    stream: TcpStream,
    tls: UnbufferedClientConnection,
    incoming: Zeroizing<Vec<u8>>,
    received: usize,
    outgoing: Vec<u8>,
}

/// What the connection needs next.
enum Next {
    Step,
    Send,
    Write,
    Read,
    End,
}

impl Conversation {
    fn new(stream: TcpStream, exchange: &Exchange) -> Result<Self, ExchangeError> {
        let tls = UnbufferedClientConnection::new(Arc::clone(&exchange.tls), exchange.name.clone())
            .map_err(ExchangeError::Tls)?;
        Ok(Self {
            stream,
            tls,
            incoming: Zeroizing::new(vec![0; MAX_INCOMING]),
            received: 0,
            outgoing: Vec::with_capacity(MAX_RECORD),
        })
    }

    /// Sends the request and reads until the other side closes.
    async fn ask(mut self, request: &[u8]) -> Result<(), ExchangeError> {
        let mut asked = false;
        loop {
            match self.step()? {
                Next::Step => {}
                Next::Send => self.flush().await?,
                Next::Write if !asked => {
                    asked = true;
                    self.write(request)?;
                    self.flush().await?;
                }
                Next::Write | Next::Read => {
                    // A record that does not fit is none that TLS allows.
                    let room = &mut self.incoming[self.received..];
                    if room.is_empty() {
                        return Err(ExchangeError::TooLarge);
                    }
                    match self.stream.read(room).await.map_err(ExchangeError::Broken)? {
                        // Whether the answer was whole is told by its length.
                        0 if asked => return Ok(()),
                        0 => return Err(ExchangeError::Broken(io::ErrorKind::UnexpectedEof.into())),
                        count => self.received += count,
                    }
                }
                Next::End => return Ok(()),
            }
        }
    }

    fn step(&mut self) -> Result<Next, ExchangeError> {
        let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut self.incoming[..self.received]);
        let next = match state.map_err(ExchangeError::Tls)? {
            ConnectionState::ReadTraffic(mut traffic) => {
                // The tap has had what was in it.
                while let Some(record) = traffic.next_record() {
                    discard += record.map_err(ExchangeError::Tls)?.discard;
                }
                Next::Step
            }
            ConnectionState::EncodeTlsData(mut data) => {
                let start = self.outgoing.len();
                self.outgoing.resize(start + MAX_RECORD, 0);
                let count = match data.encode(&mut self.outgoing[start..]) {
                    Ok(count) => count,
                    Err(EncodeError::InsufficientSize(size)) => {
                        self.outgoing.resize(start + size.required_size, 0);
                        data.encode(&mut self.outgoing[start..]).map_err(|_| ExchangeError::TooLarge)?
                    }
                    Err(EncodeError::AlreadyEncoded) => 0,
                };
                self.outgoing.truncate(start + count);
                Next::Step
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Next::Send
            }
            ConnectionState::BlockedHandshake => Next::Read,
            ConnectionState::WriteTraffic(_) => Next::Write,
            _ => Next::End,
        };
        self.incoming.copy_within(discard..self.received, 0);
        self.received -= discard;
        Ok(next)
    }

    fn write(&mut self, request: &[u8]) -> Result<(), ExchangeError> {
        let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incoming[..self.received]);
        debug_assert_eq!(discard, 0, "nothing is read between two looks at the same bytes");
        let ConnectionState::WriteTraffic(mut traffic) = state.map_err(ExchangeError::Tls)? else {
            return Err(ExchangeError::Malformed("the connection was closed before the request"));
        };
        self.outgoing.resize(MAX_RECORD, 0);
        let count = match traffic.encrypt(request, &mut self.outgoing) {
            Ok(count) => count,
            Err(EncryptError::InsufficientSize(size)) => {
                self.outgoing.resize(size.required_size, 0);
                traffic.encrypt(request, &mut self.outgoing).map_err(|_| ExchangeError::TooLarge)?
            }
            Err(EncryptError::EncryptExhausted) => return Err(ExchangeError::TooLarge),
        };
        self.outgoing.truncate(count);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ExchangeError> {
        self.stream.write_all(&self.outgoing).await.map_err(ExchangeError::Broken)?;
        self.outgoing.clear();
        Ok(())
    }
}

/// Status and body of a whole answer. The body is moved within its buffer, not out of it.
fn answer(mut text: Zeroizing<Vec<u8>>) -> Result<Answer, ExchangeError> {
    let malformed = ExchangeError::Malformed;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(&text).map_err(|_| malformed("its head"))? else {
        return Err(malformed("its head ends too early"));
    };
    let status = head.code.ok_or(malformed("no status"))?;
    let named = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let chunked = named("transfer-encoding").map(|header| header.value.eq_ignore_ascii_case(b"chunked"));
    let length = named("content-length").map(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    let end = match (chunked, length) {
        (Some(true), None) => unchunk(&mut text, start)?,
        (None, Some(Some(length))) if text.len() - start >= length => start + length,
        (None, Some(Some(_))) => return Err(malformed("it ends too early")),
        _ => return Err(malformed("its length is not told in a way that is read here")),
    };
    text.copy_within(start..end, 0);
    text.truncate(end - start);
    Ok(Answer { status, body: text })
}

/// Joins the chunks (RFC 9112, section 7.1) where they lie, and returns the end of what they make.
fn unchunk(text: &mut [u8], start: usize) -> Result<usize, ExchangeError> {
    let malformed = || ExchangeError::Malformed("its chunks");
    let (mut read, mut end) = (start, start);
    loop {
        let httparse::Status::Complete((head, size)) =
            httparse::parse_chunk_size(&text[read..]).map_err(|_| malformed())?
        else {
            return Err(malformed());
        };
        read += head;
        let size = usize::try_from(size).map_err(|_| malformed())?;
        if size == 0 {
            return Ok(end);
        }
        let after = read.checked_add(size).filter(|after| *after <= text.len()).ok_or_else(malformed)?;
        text.copy_within(read..after, end);
        end += size;
        if text.get(after..after + 2) != Some(b"\r\n") {
            return Err(malformed());
        }
        read = after + 2;
    }
}

/// Two records of TLS at their largest.
const MAX_INCOMING: usize = 40 << 10;
const MAX_RECORD: usize = 18 << 10;
/// Of a whole answer.
pub(super) const MAX_ANSWER: usize = 64 << 10;
const MAX_HEADERS: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<(u16, Vec<u8>), ExchangeError> {
        answer(Zeroizing::new(text.to_vec())).map(|answer| (answer.status, answer.body.to_vec()))
    }

    #[test]
    fn both_ways_to_tell_a_length_are_read() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap(), (200, b"{}".to_vec()));
        let chunked = b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(read(chunked).unwrap(), (400, b"abcde".to_vec()));
    }

    fn soon() -> Instant {
        Instant::now() + std::time::Duration::from_secs(20)
    }

    /// A server that answers one request and closes.
    async fn served(answer: &'static [u8]) -> Exchange {
        use tokio_rustls::TlsAcceptor;
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::new(server)).accept(stream).await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"body=1") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let (provider, tap) = Tap::provider(MAX_ANSWER);
        let roots = crate::outbound::OutboundTls { roots: vec![own.cert.der().clone()], identity: None };
        let tls = roots.into_client_config_with(provider, &[&rustls::version::TLS13]).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let (to, authority, target) = (Resolver::new("127.0.0.1", port), "localhost".to_owned(), "/token".to_owned());
        Exchange { to, authority, target, name, tls: Arc::new(tls), tap }
    }

    #[tokio::test]
    async fn an_answer_comes_through_tls_whole() {
        let exchange = served(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\":\"b\"}").await;
        let answer = exchange.post("text/plain", b"body=1", soon()).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{\"a\":\"b\"}"[..]));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_or_a_server_that_nobody_vouches_for_is_none() {
        let short = served(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{").await;
        assert!(matches!(short.post("text/plain", b"body=1", soon()).await, Err(ExchangeError::Malformed(_))));
        let mut strange = served(b"").await;
        strange.name = ServerName::try_from("other.example").unwrap();
        assert!(matches!(strange.post("text/plain", b"body=1", soon()).await, Err(ExchangeError::Tls(_))));
    }

    #[test]
    fn half_an_answer_or_an_ambiguous_one_is_none() {
        for text in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
            b"hello\r\n\r\n",
        ] {
            assert!(read(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }
}
