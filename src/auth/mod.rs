//! Who is calling: the OpTok, and the proof that it belongs to the one who presents it.

#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::clock::UnixTime;

/// An authenticated caller. Only [`auth`](self) makes one, after every check of the OpTok and its sender
/// constraint has passed.
#[derive(Debug)]
pub struct Caller {
    pub(crate) tenant: Arc<str>,
    pub(crate) subject: Arc<str>,
    pub(crate) client_id: Option<Arc<str>>,
    pub(crate) token_id: Arc<str>,
    pub(crate) installation: Option<Arc<str>>,
    pub(crate) sender: SenderKey,
    pub(crate) expires_at: UnixTime,
}

/// The key that the caller proved to hold: what the OpTok's `cnf` named and the request was bound by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SenderKey {
    /// JWK SHA-256 thumbprint of the DPoP key (RFC 7638, RFC 9449 section 6.1).
    Dpop([u8; 32]),
    /// SHA-256 of the DER client certificate (RFC 8705, section 3.1).
    Certificate([u8; 32]),
}

/// What TLS says of the peer of one connection.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// SHA-256 of the DER leaf certificate: `x5t#S256` before base64url.
    pub thumbprint: [u8; 32],
    /// Subject distinguished name in RFC 4514 form, for the audit record.
    pub subject: Arc<str>,
}
