//! Who is calling: the OpTok, and the proof that it belongs to the one who presents it.
//!
//! [`Authenticator::authenticate`] takes what a request presents and returns a [`Caller`] or an [`AuthError`] with one
//! of the [`Reason`]s. An OpTok is a JWT access token (RFC 9068) that is bound to its sender, by a key (DPoP,
//! RFC 9449), by a client certificate (RFC 8705) or by both; one that is bound to nothing is refused.
//!
//! A token is verified once and remembered until it expires or its signing key leaves the Authority's key set. What
//! remains for every request is one hash of the token, and the proof: one signature verification.

#![forbid(unsafe_code)]

mod authenticator;
mod authority_keys;
mod credentials;
mod dpop;
mod error;
mod htu;
mod key_source;
mod nonce;
mod optok;
mod reason;
mod replay;
mod token_cache;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use crate::clock::UnixTime;

pub use authenticator::{AuthSetupError, Authenticator};
pub use authority_keys::KeyStatus;
pub use error::AuthError;
pub use key_source::KeySourceError;
pub use reason::{Class, Reason};

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
    /// JWK SHA-256 thumbprint of the DPoP key (RFC 7638, RFC 9449 section 6.1). A token bound to both is counted here,
    /// because its proof is the fresher of the two.
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

/// What a request presents.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its method: what `htm` of the proof must name.
    pub method: &'a Method,
    /// The path of its target, as it came and without the query. With the public URL it is what `htu` must name.
    pub path: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The peer of its connection.
    pub peer: &'a PeerCertificate,
    /// Scopes of which its route needs one; the first is named to a caller who has none.
    pub any_scope: &'a [&'a str],
}

impl<'a> Presented<'a> {
    /// What the head of a request presents, on a connection with `peer`.
    #[must_use]
    pub fn of(head: &'a Parts, peer: &'a PeerCertificate, any_scope: &'a [&'a str]) -> Self {
        Self { method: &head.method, path: head.uri.path(), headers: &head.headers, peer, any_scope }
    }
}

/// What authentication leaves behind.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// Who is calling.
    pub caller: Arc<Caller>,
    /// A nonce to send with the answer (`DPoP-Nonce`), because the one presented will soon be too old (RFC 9449,
    /// section 8.2).
    pub dpop_nonce: Option<HeaderValue>,
}

#[cfg(test)]
mod tests;
