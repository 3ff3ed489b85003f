//! What `signerd` and the sealed helper of one keyless flow say to each other.
//!
//! The helper is started with an empty environment, [`arguments`] as its arguments, one end of a `SOCK_STREAM` Unix
//! socket pair as descriptor 0, and `/dev/null` as 1 and 2. Then, in this order:
//!
//! | from | message | when |
//! |---|---|---|
//! | helper | [`FromHelper::Sealed`] | the sandbox is closed; nothing was read before |
//! | parent | [`ToHelper::Job`] | once; the connected Fulcio socket is attached to its first byte (`SCM_RIGHTS`) |
//! | helper | [`FromHelper::Signed`] | the certificate and the first signature |
//! | parent | [`ToHelper::Digest`] | any number up to [`Bounds::signatures`] less one, one at a time |
//! | helper | [`FromHelper::Signature`] | once for each |
//!
//! At any point the helper may say [`FromHelper::Failed`] instead; it is the last that it says. It exits when the
//! bound is reached or when the parent closes its end. A helper that ends without a word (killed, or out of memory)
//! has released nothing.
//!
//! The parent makes the socket blocking, sets `SO_RCVTIMEO` and `SO_SNDTIMEO` on it (the helper cannot), sets
//! `TCP_NODELAY`, has done a proxy's `CONNECT` on it, and kills the helper when the flow's time is over.
//!
//! A frame is a big-endian `u32` length and that many bytes, the first of which says what kind it is. Both ends take
//! the other for hostile: whatever does not decode exactly ends the conversation.

#![forbid(unsafe_code)]

mod bytes;
mod codec;
mod failure;
mod layer;
#[cfg(test)]
mod tests;

use std::fmt;

pub use codec::{decode_from_helper, decode_to_helper, encode_from_helper, encode_to_helper};
pub use failure::{Failed, FailureKind, Step};
pub use layer::{Layer, Layers, arguments, exceptions};

/// The version both sides must speak; there is no negotiation, because both come from one package.
pub const VERSION: u16 = 1;

/// Bytes of a frame before its body.
pub const HEADER: usize = 4;

/// Longest body that the helper accepts, in bytes; a system's whole store of roots fits.
pub const MAX_TO_HELPER: usize = 384 * 1024;

/// Longest body that the parent accepts, in bytes.
pub const MAX_FROM_HELPER: usize = 64 * 1024;

/// Most TLS roots in a [`Job`].
pub const MAX_ROOTS: usize = 256;

/// Longest certificate, in bytes of DER, root or answer.
pub const MAX_CERTIFICATE: usize = 8 * 1024;

/// Most certificates in [`Signed`]: a leaf and what stands between it and a root.
pub const MAX_CERTIFICATES: usize = 6;

/// Longest identity token, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Longest name, authority or path, in bytes.
pub const MAX_NAME: usize = 512;

/// Longest detached SCT, in bytes as Fulcio sent them.
pub const MAX_SCT: usize = 4 * 1024;

/// Longest [`Failed::detail`], in bytes of UTF-8.
pub const MAX_DETAIL: usize = 512;

/// Longest answer of Fulcio that a [`Job`] may allow, in bytes of HTTP body.
pub const MAX_ANSWER: u32 = 256 * 1024;

/// Longest ECDSA P-256 signature in ASN.1 DER, in bytes.
pub const MAX_SIGNATURE: usize = 72;

/// What the parent says.
#[derive(Debug, PartialEq, Eq)]
pub enum ToHelper<'a> {
    /// What to do. Once.
    Job(Job<'a>),
    /// Sign this SHA-256 digest with the same key. Only after [`FromHelper::Signed`], within [`Bounds::signatures`].
    Digest([u8; 32]),
}

/// What the helper says.
#[derive(Debug, PartialEq, Eq)]
pub enum FromHelper {
    /// The sandbox is closed, and nothing was read before it was.
    Sealed(Sealed),
    /// Fulcio issued a certificate and the job's digest is signed.
    Signed(Signed),
    /// Answer to [`ToHelper::Digest`]: an ECDSA signature in ASN.1 DER.
    Signature(Vec<u8>),
    /// There is no answer and there will be none.
    Failed(Failed),
}

/// The first thing that the helper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The layers that are in force.
    pub layers: Layers,
    /// The Landlock ABI that is in force: 0 for none, 4 and above denies TCP, 6 and above signals and abstract
    /// sockets as well.
    pub landlock_abi: u8,
    /// The user that the helper runs as.
    pub uid: u32,
}

/// One flow: whom to ask, in whose name, and what to sign. It borrows, so that the token is not copied on either side.
#[derive(Debug, PartialEq, Eq)]
pub struct Job<'a> {
    /// How to speak on the socket that comes with it.
    pub transport: Transport<'a>,
    /// The `Host` of the request: a host, and a port where it is not the default.
    pub authority: &'a str,
    /// The path of the request, `/api/v2/signingCert` on a Fulcio.
    pub path: &'a str,
    /// The OIDC token that Fulcio will certify.
    pub token: Token<'a>,
    /// SHA-256 of the pre-authentication encoding: what is signed first.
    pub digest: [u8; 32],
    /// What the helper holds itself to.
    pub bounds: Bounds,
}

/// How to speak to Fulcio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport<'a> {
    /// TLS 1.3; the server's certificate must lead to one of these roots and carry this name.
    Tls {
        /// The DNS name or IP address that must be in the server's certificate.
        server_name: &'a str,
        /// The trusted roots, as DER; at least one.
        roots: Vec<&'a [u8]>,
    },
    /// No TLS. The parent sends this for a loopback address and for nothing else; the helper cannot see where the
    /// socket leads.
    PlainLoopback,
}

/// An identity token: base64url and dots, as every compact JWS is. Prints nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token<'a>(&'a str);

/// What the helper holds itself to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Longest answer of Fulcio, in bytes of HTTP body; at most [`MAX_ANSWER`].
    pub answer: u32,
    /// Signatures under the one certificate, the first included; at least 1.
    pub signatures: u32,
}

/// The result of a flow. Nothing in it is believed by the parent before it has checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// ECDSA P-256 over the job's digest, ASN.1 DER; at most [`MAX_SIGNATURE`] bytes.
    pub signature: Vec<u8>,
    /// What Fulcio returned, as DER, leaf first; at least one.
    pub certificates: Vec<Vec<u8>>,
    /// The detached SCT as Fulcio sent it, base64 taken off; absent where it is embedded or where there is none.
    pub sct: Option<Vec<u8>>,
    /// The ephemeral public key, SEC 1 uncompressed.
    pub public_key: [u8; 65],
}

/// Why a frame is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The frame says it is longer than its bound, or is empty.
    Length(usize),
    /// It ends before the message does.
    Truncated,
    /// Bytes are left behind the message.
    Trailing(usize),
    /// No message begins with this byte.
    UnknownKind(u8),
    /// The other side speaks another version.
    Version(u16),
    /// A field holds what it must not.
    Value(&'static str),
}

impl<'a> Token<'a> {
    /// Takes a compact JWS.
    ///
    /// # Errors
    /// When it is empty, longer than [`MAX_TOKEN`] or has a character that base64url and dots do not have.
    pub fn new(token: &'a str) -> Result<Self, WireError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(allowed) {
            return Err(WireError::Value("identity token"));
        }
        Ok(Self(token))
    }

    /// The token itself: a secret.
    pub fn expose(&self) -> &'a str {
        self.0
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(f, "a frame of {length} bytes is none of ours"),
            Self::Truncated => f.write_str("the frame ends too early"),
            Self::Trailing(count) => write!(f, "{count} bytes too many in the frame"),
            Self::UnknownKind(kind) => write!(f, "no message is of kind {kind:#04x}"),
            Self::Version(version) => {
                write!(f, "the other side speaks version {version}, not {VERSION}; both come from one package")
            }
            Self::Value(field) => write!(f, "bad value in the frame: {field}"),
        }
    }
}

impl std::error::Error for WireError {}

/// How long the body is that follows this header, where at most `bound` is allowed.
///
/// # Errors
/// When it is empty or longer.
pub fn body_length(header: [u8; HEADER], bound: usize) -> Result<usize, WireError> {
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if (1..=bound).contains(&length) { Ok(length) } else { Err(WireError::Length(length)) }
}
