//! RFC 3161 timestamps (with RFC 5816): when a signature existed at the latest, said by a pinned authority.
//!
//! A timestamp in a Sigstore bundle is over the raw DER of the envelope's signature. Both ends are here: the request
//! that is sent, and the verification of what comes back, now or years later. Who sends it is not: see
//! [`crate::timestamp`].

mod error;
mod request;
mod response;
mod signed_data;
mod verification;

use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::clock::UnixTime;

pub use error::TimestampError;
pub use request::Request;
pub(crate) use verification::verify_token;
pub use verification::{verify, verify_answer};

/// A timestamp that a pinned authority made over the expected bytes. Only [`verify`] and [`verify_answer`] make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// When, to the second; a fraction is cut off.
    pub time: UnixTime,
    /// When at the latest, to the second: `time`, or the second after it where a fraction was stated. What ends with a
    /// second has ended before a fraction of it.
    pub latest: UnixTime,
    /// By how much the authority says that `time` may be off, whole seconds, rounded up. Sigstore does not look at it.
    pub accuracy: Duration,
    /// `uri` of the authority in the trusted root.
    pub authority: String,
    /// The certificate that signed it.
    pub signer: CertificateDer<'static>,
    /// The certificates that lead from it to the pinned anchor, that one included.
    pub issuers: Vec<CertificateDer<'static>>,
    /// Contents of the serial number's INTEGER: the authority never uses one twice.
    pub serial: Vec<u8>,
}

#[cfg(test)]
mod openssl_tests;
#[cfg(test)]
mod tests;
