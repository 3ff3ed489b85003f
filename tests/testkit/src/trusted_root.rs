//! Sigstore's `trusted_root.json`: what a verifier, and the signer itself, pin.

#![forbid(unsafe_code)]

use std::path::Path;

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::ct_log::LogKey;
use crate::{Context, Result, base64};

/// What is trusted.
#[derive(Default)]
pub struct TrustedRoot {
    certificate_authorities: Vec<Value>,
    timestamp_authorities: Vec<Value>,
    ctlogs: Vec<Value>,
}

impl TrustedRoot {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a Fulcio: the certificates that follow the leaf, root last.
    #[must_use]
    pub fn certificate_authority(mut self, chain: &[CertificateDer<'_>]) -> Self {
        self.certificate_authorities.push(authority("https://fulcio.test", chain));
        self
    }

    /// With a timestamp authority: its own certificate first, root last.
    #[must_use]
    pub fn timestamp_authority(mut self, chain: &[CertificateDer<'_>]) -> Self {
        self.timestamp_authorities.push(authority("https://tsa.test", chain));
        self
    }

    /// With a CT log.
    #[must_use]
    pub fn ct_log(mut self, key: &LogKey) -> Self {
        self.ctlogs.push(json!({
            "baseUrl": "https://ctlog.test",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": base64(key.public_key()),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": {"start": START},
            },
            "logId": {"keyId": base64(key.id())},
        }));
        self
    }

    /// The document.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [],
            "certificateAuthorities": self.certificate_authorities,
            "timestampAuthorities": self.timestamp_authorities,
            "ctlogs": self.ctlogs,
        })
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json()).context("write a trusted root")?;
        std::fs::write(path, text).context(format!("write {}", path.display()))
    }
}

fn authority(uri: &str, chain: &[CertificateDer<'_>]) -> Value {
    let certificates: Vec<Value> = chain.iter().map(|link| json!({"rawBytes": base64(link)})).collect();
    json!({
        "subject": {"organization": "stella-ops.test", "commonName": uri},
        "uri": uri,
        "certChain": {"certificates": certificates},
        "validFor": {"start": START},
    })
}

const START: &str = "2024-01-01T00:00:00Z";
