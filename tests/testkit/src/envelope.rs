//! DSSE as a verifier sees it: the PAE, and whether a signature is the key's.

#![forbid(unsafe_code)]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde_json::Value;

use crate::{Context, Error, Result, from_base64, sha256};

/// A DSSE envelope, read from the JSON it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `payloadType`.
    pub payload_type: String,
    /// The payload's bytes.
    pub payload: Vec<u8>,
    /// The one signature's `keyid`.
    pub keyid: String,
    /// The one signature, ASN.1 DER.
    pub signature: Vec<u8>,
}

impl Envelope {
    /// Reads an envelope that has exactly one signature.
    ///
    /// # Errors
    /// When a member is missing, of the wrong type or not base64.
    pub fn read(json: &Value) -> Result<Self> {
        let text = |value: &Value, name: &str| {
            value[name].as_str().map(str::to_owned).context(format!("find `{name}` in the envelope"))
        };
        let [signature] = json["signatures"].as_array().map_or(&[][..], Vec::as_slice) else {
            return Err(Error::new("the envelope does not have exactly one signature"));
        };
        Ok(Self {
            payload_type: text(json, "payloadType")?,
            payload: from_base64(&text(json, "payload")?)?,
            keyid: text(signature, "keyid")?,
            signature: from_base64(&text(signature, "sig")?)?,
        })
    }

    /// The payload as JSON: the in-toto statement.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn statement(&self) -> Result<Value> {
        serde_json::from_slice(&self.payload).context("read the payload as JSON")
    }

    /// What the signature is over (DSSE protocol, "Signature Definition").
    #[must_use]
    pub fn pae(&self) -> Vec<u8> {
        let head = format!("DSSEv1 {} {} {} ", self.payload_type.len(), self.payload_type, self.payload.len());
        [head.as_bytes(), &self.payload].concat()
    }

    /// Verifies the signature by a P-256 key given as its uncompressed point.
    ///
    /// # Errors
    /// When the signature is not the key's.
    pub fn verify(&self, point: &[u8]) -> Result<()> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(&self.pae(), &self.signature)
            .map_err(|_| Error::new("the envelope's signature is not the key's"))
    }
}

/// A P-256 key's fingerprint as SSH prints it, `SHA256:…` (RFC 4253 section 6.6 and RFC 5656 section 3.1 for the
/// encoding): the `keyid` that Sigstore clients accept.
#[must_use]
pub fn keyid(point: &[u8]) -> String {
    use base64::Engine as _;
    let mut wire = Vec::new();
    for field in [&b"ecdsa-sha2-nistp256"[..], b"nistp256", point] {
        wire.extend(u32::try_from(field.len()).expect("short fields").to_be_bytes());
        wire.extend(field);
    }
    format!("SHA256:{}", base64::engine::general_purpose::STANDARD_NO_PAD.encode(sha256(wire)))
}
