//! JSON Web Signatures as this appliance accepts them: compact form, a short list of algorithms, nothing else.
//!
//! [`Jws::parse`] reads a token's header and judges nothing; [`Jws::verify`] proves the signature and only then hands
//! out the payload's bytes. [`JwkSet`] holds the keys that an issuer publishes, [`Jwk`] one public key of anybody's.
//!
//! Deliberately absent: `none`, HMAC, encryption, JSON serialisation, detached payloads, `crit` extensions, and keys
//! fetched from where a token says (`jku`, `x5u`, `x5c` are ignored).

#![forbid(unsafe_code)]

mod algorithm;
mod header;
mod jwk;
mod jws;
mod key;
mod numeric_date;
mod set;

pub use algorithm::Algorithm;
pub use header::Header;
pub use jwk::{Jwk, KeyUse};
pub use jws::{Compact, Jws};
pub use key::VerifyingKey;
pub use numeric_date::NumericDate;
pub use set::JwkSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// `bytes` in unpadded base64url (RFC 7515, section 2).
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes behind `text`, which must be unpadded base64url in its one canonical spelling: padding, whitespace and
/// non-zero trailing bits are refused, because each would be a second spelling of the same bytes.
///
/// # Errors
/// [`JoseError::Base64`], naming `part`.
pub fn base64url_decode(text: &str, part: &'static str) -> Result<Vec<u8>, JoseError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|source| JoseError::Base64 { part, source })
}

/// Why a token, a key or a key set was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoseError {
    /// Longer than the caller lets it be.
    #[error("the JWT has {bytes} bytes, at most {limit} are accepted")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// What is accepted.
        limit: usize,
    },
    /// Not three parts separated by dots.
    #[error("not a JWS in compact form, which is three base64url parts separated by two dots")]
    NotCompact,
    /// A part or member is not canonical base64url.
    #[error("the {part} is not unpadded base64url")]
    Base64 {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        source: base64::DecodeError,
    },
    /// A part is not the JSON that it should be.
    #[error("the {part} is not the JSON object that it should be")]
    Json {
        /// Which part.
        part: &'static str,
        /// What is wrong with it. It may quote a value of the wrong type, so it is for logs, and never a secret one:
        /// the private members of a JWK are skipped unread.
        source: serde_json::Error,
    },
    /// A header member occurs twice.
    #[error("the header has the member `{name}` twice")]
    DuplicateMember {
        /// Which member, shortened and escaped.
        name: String,
    },
    /// The header names no algorithm.
    #[error("the header has no `alg`")]
    AlgorithmMissing,
    /// The header names an algorithm that is never accepted.
    #[error("the algorithm `{name}` is not accepted; ES256, PS256, RS256 and EdDSA are")]
    AlgorithmUnknown {
        /// What the header says, shortened and escaped.
        name: String,
    },
    /// The header demands an extension.
    #[error("the header has `{member}`, an extension that is not supported")]
    Critical {
        /// `crit` or `b64`.
        member: &'static str,
    },
    /// A JWK carries private key material.
    #[error("the JWK has the private member `{member}`; only public keys may be shown")]
    PrivateKey {
        /// The first private member found.
        member: &'static str,
    },
    /// A JWK is a symmetric key.
    #[error("the JWK is a symmetric key; only public keys are accepted")]
    SymmetricKey,
    /// A JWK is of a kind that none of the four algorithms uses.
    #[error("the JWK is not one of EC P-256, RSA with 2,048 to 8,192 bits, OKP Ed25519: {what}")]
    KeyUnsupported {
        /// What it is instead.
        what: &'static str,
    },
    /// A JWK's numbers are no valid key of its kind.
    #[error("the JWK is not a valid public key: {what}")]
    KeyInvalid {
        /// Which member, or which property.
        what: &'static str,
    },
    /// The key is not for this algorithm, or not for verifying signatures.
    #[error("the key does not fit the algorithm {}", algorithm.name())]
    KeyMismatch {
        /// The token's algorithm.
        algorithm: Algorithm,
    },
    /// The key set holds more keys than are accepted.
    #[error("the key set has {keys} keys, at most {limit} are accepted")]
    TooManyKeys {
        /// What came.
        keys: usize,
        /// What is accepted.
        limit: usize,
    },
    /// The signature does not verify.
    #[error("the signature does not verify")]
    Signature,
}

/// Text from outside, fit for a log line: escaped, and no longer than a name needs to be.
fn quoted(text: &str) -> String {
    text.chars().take(32).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
