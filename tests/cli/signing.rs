//! Envelopes made without the code under test: PAE, keyid and JSON are written out here once more.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
pub(crate) const SIGSTORE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A signing key outside of any token.
pub(crate) struct Signer(EcdsaKeyPair);

impl Signer {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    /// `SHA256:` and base64 over the SSH wire form of the key.
    pub(crate) fn keyid(&self) -> String {
        let mut wire = Vec::new();
        for field in [b"ecdsa-sha2-nistp256".as_slice(), b"nistp256", self.0.public_key().as_ref()] {
            wire.extend((field.len() as u32).to_be_bytes());
            wire.extend(field);
        }
        format!("SHA256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, &wire)))
    }

    /// SubjectPublicKeyInfo, DER.
    pub(crate) fn spki(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        der.as_ref().to_vec()
    }

    pub(crate) fn pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(self.spki()))
    }

    pub(crate) fn write_pem(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, self.pem()).unwrap();
        path
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.keyid(),
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
            "name": "release", "state": "active", "token": "main", "inService": true,
        })
    }

    /// An envelope over any payload of any type.
    pub(crate) fn seal(&self, payload_type: &str, payload: &[u8]) -> Value {
        let signature = self.0.sign(&SystemRandom::new(), &pae(payload_type, payload)).unwrap();
        json!({
            "payloadType": payload_type,
            "payload": STANDARD.encode(payload),
            "signatures": [{ "keyid": self.keyid(), "sig": STANDARD.encode(signature) }],
        })
    }

    /// An envelope over a statement.
    pub(crate) fn envelope(&self, statement: &Value) -> Value {
        self.seal(PAYLOAD_TYPE, statement.to_string().as_bytes())
    }
}

pub(crate) fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut pae = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    pae.extend(payload);
    pae
}

pub(crate) fn sigstore(envelope: &Value) -> Value {
    json!({
        "mediaType": SIGSTORE,
        "verificationMaterial": { "publicKey": { "hint": envelope["signatures"][0]["keyid"] }, "tlogEntries": [] },
        "dsseEnvelope": envelope,
    })
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A statement about a file with the content `artifact`.
pub(crate) fn statement() -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "app.tar", "digest": { "sha256": sha256_hex(b"artifact") } }],
        "predicateType": "stella.ops/sbom@v1",
        "predicate": { "bomFormat": "CycloneDX" },
    })
}
