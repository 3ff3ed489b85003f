//! A certificate transparency log (RFC 6962) that signs what it is told.

use super::der;
use super::x509::{Issuer, SigningKey, Template, extension};
use crate::{base64, sha256};

/// A log.
pub struct CtLog {
    /// P-256, as most logs.
    pub key: SigningKey,
}

/// A signed certificate timestamp.
#[derive(Clone, Debug)]
pub struct Sct {
    /// SHA-256 of the log's key.
    pub log_id: [u8; 32],
    /// Milliseconds since 1970.
    pub milliseconds: u64,
    /// Hash and signature algorithm.
    pub algorithm: [u8; 2],
    /// DER.
    pub signature: Vec<u8>,
}

impl CtLog {
    /// With a fresh key.
    #[must_use]
    pub fn new() -> Self {
        Self { key: SigningKey::p256() }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        sha256(self.key.spki())
    }

    /// Over a certificate that is yet to be issued.
    #[must_use]
    pub fn sct_of_precertificate(&self, template: &Template, issuer: &Issuer, milliseconds: i64) -> Sct {
        let tbs = template.tbs(&issuer.name, &issuer.key.algorithm());
        self.sct(&[&[0, 1][..], &sha256(issuer.key.spki()), &length24(&tbs), &tbs].concat(), milliseconds)
    }

    /// Over a certificate as it is.
    #[must_use]
    pub fn sct_of_certificate(&self, certificate: &[u8], milliseconds: i64) -> Sct {
        self.sct(&[&[0, 0][..], &length24(certificate), certificate].concat(), milliseconds)
    }

    fn sct(&self, entry: &[u8], milliseconds: i64) -> Sct {
        let milliseconds = u64::try_from(milliseconds).expect("a time after 1970");
        let signed = [&[0, 0][..], &milliseconds.to_be_bytes(), entry, &[0, 0]].concat();
        Sct { log_id: self.id(), milliseconds, algorithm: [4, 3], signature: self.key.sign(&signed) }
    }
}

impl Default for CtLog {
    fn default() -> Self {
        Self::new()
    }
}

impl Sct {
    /// The TLS structure.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let signature = vector(&self.signature);
        [&[0][..], &self.log_id, &self.milliseconds.to_be_bytes(), &[0, 0], &self.algorithm, &signature].concat()
    }

    /// The answer to `add-chain`, as Fulcio passes it on.
    #[must_use]
    pub fn to_json(&self) -> String {
        let signature = [&self.algorithm[..], &vector(&self.signature)].concat();
        let (id, signature) = (base64(self.log_id), base64(signature));
        let timestamp = self.milliseconds;
        serde_json::json!({ "sct_version": 0, "id": id, "timestamp": timestamp, "extensions": "", "signature": signature })
            .to_string()
    }
}

/// The extension that carries these.
#[must_use]
pub fn list_extension(scts: &[Sct]) -> Vec<u8> {
    let list: Vec<u8> = scts.iter().flat_map(|sct| vector(&sct.to_bytes())).collect();
    extension(LIST, false, &der::octets(&vector(&list)))
}

fn vector(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("test values are short").to_be_bytes()[..], bytes].concat()
}

fn length24(bytes: &[u8]) -> [u8; 3] {
    let [_, high, middle, low] = u32::try_from(bytes.len()).expect("test values are short").to_be_bytes();
    [high, middle, low]
}

/// The extension of embedded timestamps.
pub const LIST: &str = "1.3.6.1.4.1.11129.2.4.2";
