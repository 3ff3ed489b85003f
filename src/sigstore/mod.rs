//! What Fulcio, a CT log and a timestamp authority sign, verified against roots that the operator pinned.
//!
//! Nothing here speaks to a network and nothing reads a clock: every check is told the bytes, the [`TrustedRoot`] and
//! the time to judge by. [`verify::verify`] is the whole of an offline verification, top to bottom; each step is one
//! module:
//!
//! | module | what it answers |
//! |---|---|
//! | [`trusted_root`] | whom do we trust: `trusted_root.json`, read and written |
//! | [`certificate`] | did the pinned Fulcio issue this certificate, to whom, and is it what Fulcio issues |
//! | [`sct`] | did a pinned CT log promise to show it to the world |
//! | [`timestamp`] | when at the latest did the signature exist, says a pinned TSA (RFC 3161) |
//! | [`log`] | when at the latest did the signature exist, says a pinned transparency log |
//! | [`bundle`] | what does a Sigstore bundle v0.3 claim |
//!
//! Certificates and tokens are read by a small DER reader of our own, because these checks need the bytes as they were
//! signed: a signature covers the encoding, and so does the hash of a precertificate. Paths are built by `webpki`.

#![forbid(unsafe_code)]

pub mod bundle;
pub mod certificate;
pub(crate) mod der;
pub mod log;
mod path;
pub mod sct;
pub mod timestamp;
pub mod trusted_root;
pub mod verify;
pub(crate) mod x509;

pub use bundle::Bundle;
pub(crate) use x509::VerifyingKey;

pub use certificate::{CertificateError, CertificatePolicy, FulcioCertificate, Identity};
pub use sct::{SctError, SctPolicy};
pub use timestamp::{Timestamp, TimestampError};
pub use trusted_root::{TrustedRoot, TrustedRootError};

/// `notBefore` of a certificate, by its own word; `None` when it cannot be read.
pub(crate) fn not_before(certificate: &[u8]) -> Option<crate::clock::UnixTime> {
    x509::Certificate::parse(certificate).ok().map(|certificate| certificate.not_before)
}

/// The uncompressed point of the P-256 key that a DER certificate is for; none where it is for another kind of key, or
/// no certificate. Nothing else about it is checked.
#[must_use]
pub fn certificate_key(certificate: &[u8]) -> Option<[u8; 65]> {
    let certificate = x509::Certificate::parse(certificate).ok()?;
    x509::p256_point(certificate.spki)?.try_into().ok()
}
