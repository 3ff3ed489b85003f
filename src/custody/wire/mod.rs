//! What the front and a token worker say to each other over the worker's Unix socket.
//!
//! A frame is a big-endian `u32` length and that many bytes: one byte of kind, a big-endian `u64` request id, the
//! body. Both sides begin with [`Hello`]; after it the front sends requests and the worker answers each once, in
//! any order. Whatever does not decode exactly ends the connection: there is no resynchronising with a peer that
//! breaks the protocol.

#![forbid(unsafe_code)]

mod codec;
mod inbox;
mod report;

pub use codec::{decode_reply, decode_request, encode_reply, encode_request};
pub use inbox::Inbox;
pub use report::{Counters, StatusReport, WorkerState};

use std::borrow::Cow;

use super::{KeyAttributes, PublicKey};

/// The version both sides must speak; there is no negotiation, because both come from one package.
pub const VERSION: u16 = 4;

/// First bytes of every [`Hello`].
pub const MAGIC: [u8; 8] = *b"SOSIGNTK";

/// Longest frame accepted, its length prefix not included.
pub const MAX_FRAME: usize = 64 * 1024;

/// Longest text in a frame, in bytes of UTF-8.
pub const MAX_TEXT: usize = 1024;

/// Most certificates of one attestation; a device's chain has two or three.
pub const MAX_CERTIFICATES: usize = 6;

/// Longest certificate of an attestation, in bytes of DER; with [`MAX_CERTIFICATES`] they fit a frame.
pub const MAX_CERTIFICATE: usize = 8 * 1024;

/// Who speaks, and which version of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Must equal [`VERSION`].
    pub version: u16,
    /// The worker says the token's name in the configuration, the front says `signerd`.
    pub name: String,
}

/// A key that this worker has opened; it means nothing to another worker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHandle(pub u32);

/// What the front asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// First frame of a connection.
    Hello(Hello),
    /// Find the key that an RFC 7512 URI names. Answered by [`Reply::KeyOpened`].
    OpenKey {
        /// The URI as the configuration has it.
        uri: String,
    },
    /// Sign a SHA-256 digest. Answered by [`Reply::Signed`].
    Sign {
        /// Which key.
        handle: KeyHandle,
        /// On whose behalf: 0 is the appliance itself, any other number a tenant's. Lanes take turns at the sessions,
        /// so that what one has queued does not hold up the others.
        lane: u64,
        /// How long the answer is of use, from the moment the worker reads this, in milliseconds.
        budget_ms: u32,
        /// What to sign.
        digest: [u8; 32],
    },
    /// How the worker and its token are. Answered by [`Reply::Status`] without touching the device.
    Status,
    /// Answered by [`Reply::Pong`] without touching the device.
    Ping,
}

/// What the worker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// First frame of a connection.
    Hello(Hello),
    /// The key was found and may sign.
    KeyOpened(OpenedKey),
    /// Raw r ‖ s, 32 bytes each.
    Signed([u8; 64]),
    /// State and counters.
    Status(Box<StatusReport>),
    /// The reader thread is alive.
    Pong,
    /// The worker stops in good order. The answer to nothing, with request id 0: what it has taken is still answered,
    /// what comes from now on is answered with [`FailureCode::Stopping`], and the front closes the connection when it
    /// waits for nothing more.
    Goodbye,
    /// There is no answer to the request. Nothing was signed, but for [`FailureCode::Unclear`] and
    /// [`FailureCode::BadSignature`].
    Failed(Failure),
}

/// A key as the device describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedKey {
    /// To sign with.
    pub handle: KeyHandle,
    /// P-256 public key.
    pub public_key: PublicKey,
    /// What the device says about the private key.
    pub attributes: KeyAttributes,
    /// The device's own word for it, as DER certificates, leaf first; empty where the device attests nothing. At most
    /// [`MAX_CERTIFICATES`] of at most [`MAX_CERTIFICATE`] bytes.
    pub attestation: Vec<Vec<u8>>,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the front acts on.
    pub code: FailureCode,
    /// Plain words for the front's log; no secret, at most [`MAX_TEXT`] bytes.
    pub detail: String,
}

/// The situations that the front tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FailureCode {
    /// No such key, several such keys, or a handle that was never given out.
    UnknownKey = 1,
    /// The key exists and must not be used: wrong curve, extractable, not sensitive.
    KeyUnsuitable = 2,
    /// The token is absent, or every session with it was lost.
    TokenUnavailable = 3,
    /// The token refused the PIN, or its state forbids an attempt.
    PinRefused = 4,
    /// More requests wait than the configuration allows, or more than can be signed before this one's deadline.
    QueueFull = 5,
    /// The budget ran out while the request waited.
    DeadlineExceeded = 6,
    /// The device failed at this request.
    DeviceError = 7,
    /// The request makes no sense.
    BadRequest = 8,
    /// The request was at the device when its worker had to end: it may have signed.
    Unclear = 9,
    /// The device says that it signed, and what it returned is no signature.
    BadSignature = 10,
    /// The worker stops; nothing was signed, and the next process takes over the socket.
    Stopping = 11,
}

/// What a peer did wrong; the connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A length beyond the limit in force.
    #[error("a frame of {length} bytes, where at most {limit} are allowed")]
    TooLong {
        /// Announced.
        length: u32,
        /// Allowed.
        limit: usize,
    },
    /// Too short for its kind.
    #[error("a frame that ends too early")]
    Truncated,
    /// Longer than its kind.
    #[error("a frame with {0} bytes too many")]
    Trailing(usize),
    /// A kind that this side does not receive.
    #[error("a frame of unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// Text too long, not UTF-8, or with control characters.
    #[error("a text that is too long, not UTF-8, or has control characters")]
    BadText,
    /// A value outside its range.
    #[error("an undefined value for {0}")]
    BadValue(&'static str),
    /// The first frame is no hello of this protocol.
    #[error("not this protocol: the first frame is not a hello with the right magic")]
    NotHello,
    /// A hello after the first frame.
    #[error("a second hello")]
    SecondHello,
    /// The other side comes from another package.
    #[error(
        "the peer speaks version {theirs} of the worker protocol, this side {VERSION}; install the same release on both sides"
    )]
    Version {
        /// What the peer speaks.
        theirs: u16,
    },
    /// The socket belongs to the worker of another token.
    #[error("the worker serves token `{theirs}`, not `{expected}`; check `socket` in the configuration")]
    WrongToken {
        /// What it says it serves.
        theirs: String,
        /// What the configuration says.
        expected: String,
    },
    /// An answer to nothing.
    #[error("an answer to request {0}, which is not waiting for one")]
    UnknownRequest(u64),
    /// An answer of another kind than its request asks for.
    #[error("an answer of the wrong kind to request {0}")]
    WrongReply(u64),
}

impl Hello {
    /// A hello of this version.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { version: VERSION, name: name.into() }
    }

    /// # Errors
    /// [`WireError::Version`] when the peer speaks another version.
    pub fn check_version(&self) -> Result<(), WireError> {
        if self.version == VERSION { Ok(()) } else { Err(WireError::Version { theirs: self.version }) }
    }
}

impl Failure {
    /// A failure with its words made fit for the wire: bounded, no control characters.
    #[must_use]
    pub fn new(code: FailureCode, detail: impl AsRef<str>) -> Self {
        Self { code, detail: fit(detail.as_ref()).into_owned() }
    }
}

/// Cuts at [`MAX_TEXT`] bytes and replaces control characters, so that what we send always decodes.
#[must_use]
pub fn fit(text: &str) -> Cow<'_, str> {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests;
