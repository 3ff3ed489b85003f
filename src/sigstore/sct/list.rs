//! The two encodings of a signed certificate timestamp: TLS structures in a certificate, JSON beside it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::sigstore::der;
use crate::sigstore::x509::KeyKind;

/// One `SignedCertificateTimestamp` of version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sct {
    pub(super) log_id: [u8; 32],
    pub(super) milliseconds: u64,
    extensions: Vec<u8>,
    algorithm: [u8; 2],
    pub(super) signature: Vec<u8>,
}

impl Sct {
    /// What the log signs: the head of the timestamp and the entry (RFC 6962, section 3.2).
    pub(super) fn signed_over(&self, entry: &[u8]) -> Vec<u8> {
        let length = u16::try_from(self.extensions.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&[V1, CERTIFICATE_TIMESTAMP][..], &self.milliseconds.to_be_bytes(), entry, &length, &self.extensions].concat()
    }

    /// Whether it says that it was signed as such a key signs: SHA-256 with ECDSA or RSA, or Ed25519.
    pub(super) fn fits(&self, kind: KeyKind) -> bool {
        let expected = match kind {
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => [4, 3],
            KeyKind::Rsa { .. } => [4, 1],
            // `intrinsic` and `ed25519` (RFC 8422, section 5.1.3).
            KeyKind::Ed25519 => [8, 7],
        };
        self.algorithm == expected
    }
}

/// The extension's value: an OCTET STRING around `SignedCertificateTimestampList` (RFC 6962, section 3.3). Timestamps of
/// other versions are left out, as section 3.3 demands of clients.
pub(super) fn embedded(value: &[u8]) -> Option<Vec<Sct>> {
    let list = der::whole(value, der::OCTET_STRING).ok()?.value;
    let (mut list, rest) = vector(list)?;
    if !rest.is_empty() || list.is_empty() {
        return None;
    }
    let mut scts = Vec::new();
    while !list.is_empty() {
        let (one, rest) = vector(list)?;
        if one.first()? == &V1 {
            scts.push(structure(one)?);
        }
        list = rest;
        if scts.len() > MAX_SCTS {
            return None;
        }
    }
    Some(scts)
}

/// The answer to `add-chain` (RFC 6962, section 4.1).
pub(super) fn detached(json: &[u8]) -> Option<Sct> {
    let answer: Answer = serde_json::from_slice(json).ok()?;
    let decoded = |text: &str| BASE64_STANDARD.decode(text).ok();
    let signature = decoded(&answer.signature)?;
    let (algorithm, signature) = digitally_signed(&signature)?;
    let extensions = decoded(&answer.extensions).filter(|extensions| extensions.len() <= usize::from(u16::MAX))?;
    (answer.sct_version == V1).then_some(Sct {
        log_id: decoded(&answer.id)?.try_into().ok()?,
        milliseconds: answer.timestamp,
        extensions,
        algorithm,
        signature,
    })
}

fn structure(bytes: &[u8]) -> Option<Sct> {
    let (_version, rest) = bytes.split_first()?;
    let (log_id, rest) = rest.split_first_chunk::<32>()?;
    let (milliseconds, rest) = rest.split_first_chunk::<8>()?;
    let (extensions, rest) = vector(rest)?;
    let (algorithm, signature) = digitally_signed(rest)?;
    Some(Sct {
        log_id: *log_id,
        milliseconds: u64::from_be_bytes(*milliseconds),
        extensions: extensions.to_vec(),
        algorithm,
        signature,
    })
}

/// `DigitallySigned` (RFC 5246, section 4.7), nothing behind it.
fn digitally_signed(bytes: &[u8]) -> Option<([u8; 2], Vec<u8>)> {
    let (algorithm, rest) = bytes.split_first_chunk::<2>()?;
    let (signature, rest) = vector(rest)?;
    rest.is_empty().then(|| (*algorithm, signature.to_vec()))
}

/// An `opaque<0..2^16-1>`, and what follows it.
fn vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    sct_version: u8,
    id: String,
    timestamp: u64,
    #[serde(default)]
    extensions: String,
    signature: String,
}

const V1: u8 = 0;
const CERTIFICATE_TIMESTAMP: u8 = 0;

/// Fulcio embeds one.
const MAX_SCTS: usize = 16;
