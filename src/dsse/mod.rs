//! The envelope and the bundle around a signature (DSSE v1, Sigstore bundle v0.3).

#![forbid(unsafe_code)]

mod base64;
mod bundle;
mod ecdsa;
mod envelope;
mod key;
mod pae;

pub use bundle::{Bundle, Form, RereadError, SignedBy};
pub use ecdsa::{DerSignature, Signature, SignatureError};
pub use envelope::Envelope;
pub use key::{PublicKey, PublicKeyError, keyid, verify_digest};
pub use pae::{pae, pae_digest};

/// The one `payloadType` of this appliance (in-toto attestation framework, envelope layer).
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
