//! Messages to bytes and back.

use super::{
    Counters, Failure, FailureCode, Hello, KeyHandle, MAGIC, MAX_CERTIFICATE, MAX_CERTIFICATES, MAX_TEXT, OpenedKey,
    Reply, Request, StatusReport, WireError, WorkerState,
};
use crate::custody::{KeyAttributes, PublicKey};

/// Appends one request frame.
pub fn encode_request(id: u64, request: &Request, out: &mut Vec<u8>) {
    match request {
        Request::Hello(hello) => frame(out, HELLO, id, |w| w.hello(hello)),
        Request::OpenKey { uri } => frame(out, OPEN_KEY, id, |w| w.text(uri)),
        Request::Sign { handle, lane, budget_ms, digest } => frame(out, SIGN, id, |w| {
            w.u32(handle.0);
            w.u64(*lane);
            w.u32(*budget_ms);
            w.bytes(digest);
        }),
        Request::Status => frame(out, STATUS, id, |_| ()),
        Request::Ping => frame(out, PING, id, |_| ()),
    }
}

/// Reads one request frame, its length already taken off.
///
/// # Errors
/// Whatever is not exactly one request.
pub fn decode_request(frame: &[u8]) -> Result<(u64, Request), WireError> {
    let mut r = Reader(frame);
    let (kind, id) = (r.u8()?, r.u64()?);
    let request = match kind {
        HELLO => Request::Hello(r.hello()?),
        OPEN_KEY => Request::OpenKey { uri: r.text()? },
        SIGN => Request::Sign { handle: KeyHandle(r.u32()?), lane: r.u64()?, budget_ms: r.u32()?, digest: r.array()? },
        STATUS => Request::Status,
        PING => Request::Ping,
        other => return Err(WireError::UnknownKind(other)),
    };
    r.end()?;
    Ok((id, request))
}

/// Appends one reply frame.
pub fn encode_reply(id: u64, reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Hello(hello) => frame(out, HELLO | REPLY, id, |w| w.hello(hello)),
        Reply::KeyOpened(key) => frame(out, OPEN_KEY | REPLY, id, |w| {
            w.u32(key.handle.0);
            w.bytes(key.public_key.sec1());
            w.u16(key.attributes.bits());
            w.certificates(&key.attestation);
        }),
        Reply::Signed(signature) => frame(out, SIGN | REPLY, id, |w| w.bytes(signature)),
        Reply::Status(report) => frame(out, STATUS | REPLY, id, |w| w.report(report)),
        Reply::Pong => frame(out, PING | REPLY, id, |_| ()),
        Reply::Goodbye => frame(out, GOODBYE, id, |_| ()),
        Reply::Failed(failure) => frame(out, FAILED, id, |w| {
            w.u8(failure.code as u8);
            w.text(&failure.detail);
        }),
    }
}

/// Reads one reply frame, its length already taken off.
///
/// # Errors
/// Whatever is not exactly one reply.
pub fn decode_reply(frame: &[u8]) -> Result<(u64, Reply), WireError> {
    let mut r = Reader(frame);
    let (kind, id) = (r.u8()?, r.u64()?);
    let reply = match kind {
        k if k == HELLO | REPLY => Reply::Hello(r.hello()?),
        k if k == OPEN_KEY | REPLY => Reply::KeyOpened(OpenedKey {
            handle: KeyHandle(r.u32()?),
            public_key: PublicKey::from_sec1(&r.array::<65>()?).map_err(|_| WireError::BadValue("public key"))?,
            attributes: KeyAttributes::from_bits(r.u16()?).ok_or(WireError::BadValue("key attributes"))?,
            attestation: r.certificates()?,
        }),
        k if k == SIGN | REPLY => Reply::Signed(r.array()?),
        k if k == STATUS | REPLY => Reply::Status(Box::new(r.report()?)),
        k if k == PING | REPLY => Reply::Pong,
        GOODBYE => Reply::Goodbye,
        FAILED => Reply::Failed(Failure { code: failure_code(r.u8()?)?, detail: r.text()? }),
        other => return Err(WireError::UnknownKind(other)),
    };
    r.end()?;
    Ok((id, reply))
}

fn failure_code(byte: u8) -> Result<FailureCode, WireError> {
    use FailureCode as C;
    let known = [
        C::UnknownKey,
        C::KeyUnsuitable,
        C::TokenUnavailable,
        C::PinRefused,
        C::QueueFull,
        C::DeadlineExceeded,
        C::DeviceError,
        C::BadRequest,
        C::Unclear,
        C::BadSignature,
        C::Stopping,
    ];
    known.into_iter().find(|code| *code as u8 == byte).ok_or(WireError::BadValue("failure code"))
}

fn frame(out: &mut Vec<u8>, kind: u8, id: u64, body: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    out.extend_from_slice(&id.to_be_bytes());
    body(&mut Writer(out));
    // Every message is bounded by construction: texts are cut at MAX_TEXT and there are at most a dozen of them, and a
    // chain of certificates has bounds of its own.
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        let text = super::fit(text);
        self.u16(u16::try_from(text.len()).unwrap_or(0));
        self.bytes(text.as_bytes());
    }

    /// A chain beyond the bounds is left out as a whole: part of a chain would prove nothing.
    fn certificates(&mut self, chain: &[Vec<u8>]) {
        let fits = chain.len() <= MAX_CERTIFICATES && chain.iter().all(|der| der.len() <= MAX_CERTIFICATE);
        let chain = if fits { chain } else { &[] };
        self.u8(u8::try_from(chain.len()).unwrap_or(0));
        for der in chain {
            self.u16(u16::try_from(der.len()).unwrap_or(0));
            self.bytes(der);
        }
    }

    fn hello(&mut self, hello: &Hello) {
        self.bytes(&MAGIC);
        self.u16(hello.version);
        self.text(&hello.name);
    }

    fn report(&mut self, report: &StatusReport) {
        self.u8(report.state as u8);
        for text in report.texts() {
            self.text(text);
        }
        for number in report.gauges() {
            self.u32(number);
        }
        for number in report.counters.all() {
            self.u64(number);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<String, WireError> {
        let length = usize::from(self.u16()?);
        if length > MAX_TEXT {
            return Err(WireError::BadText);
        }
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| WireError::BadText)?;
        // Texts of a peer end up in logs: no line feeds, no terminal escapes.
        if text.chars().any(char::is_control) { Err(WireError::BadText) } else { Ok(text.to_owned()) }
    }

    fn certificates(&mut self) -> Result<Vec<Vec<u8>>, WireError> {
        let count = usize::from(self.u8()?);
        if count > MAX_CERTIFICATES {
            return Err(WireError::BadValue("the number of certificates"));
        }
        (0..count)
            .map(|_| {
                let length = usize::from(self.u16()?);
                if length > MAX_CERTIFICATE {
                    return Err(WireError::BadValue("the length of a certificate"));
                }
                Ok(self.take(length)?.to_vec())
            })
            .collect()
    }

    fn hello(&mut self) -> Result<Hello, WireError> {
        if self.array::<8>()? != MAGIC {
            return Err(WireError::NotHello);
        }
        Ok(Hello { version: self.u16()?, name: self.text()? })
    }

    fn report(&mut self) -> Result<StatusReport, WireError> {
        let state = WorkerState::from_byte(self.u8()?).ok_or(WireError::BadValue("worker state"))?;
        Ok(StatusReport {
            state,
            detail: self.text()?,
            label: self.text()?,
            serial: self.text()?,
            manufacturer: self.text()?,
            model: self.text()?,
            firmware: self.text()?,
            sessions_open: self.u32()?,
            sessions_configured: self.u32()?,
            queue_depth: self.u32()?,
            max_queue: self.u32()?,
            connections: self.u32()?,
            counters: Counters {
                sign_requests: self.u64()?,
                signatures: self.u64()?,
                failed: self.u64()?,
                expired: self.u64()?,
                refused_full: self.u64()?,
                logins: self.u64()?,
                sessions_opened: self.u64()?,
                sessions_lost: self.u64()?,
                refused_peers: self.u64()?,
                reinitialized: self.u64()?,
                kept_alive: self.u64()?,
                uptime_ms: self.u64()?,
            },
        })
    }

    fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }
}

const HELLO: u8 = 0x01;
const OPEN_KEY: u8 = 0x02;
const SIGN: u8 = 0x03;
const STATUS: u8 = 0x04;
const PING: u8 = 0x05;
const REPLY: u8 = 0x80;
const GOODBYE: u8 = 0xfe;
const FAILED: u8 = 0xff;
