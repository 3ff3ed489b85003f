//! DSSE envelopes as others send them to be verified.

use super::base64;
use super::ecdsa::SignatureError;
use super::{PAYLOAD_TYPE, PublicKey, Signature, pae_digest, verify_digest};
use crate::statement::json::{Kind, Node};

/// An envelope that was read: one payload, one signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The payload, decoded.
    pub payload: Vec<u8>,
    /// Which key the sender says has signed.
    pub keyid: Option<String>,
    /// The signature, decoded.
    pub signature: Vec<u8>,
}

/// Why JSON is no envelope of this appliance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A member is missing, unknown, or of the wrong type.
    #[error("{path}: {want}")]
    Member {
        /// Where, as a JSON path.
        path: &'static str,
        /// What would be right.
        want: &'static str,
    },
    /// A member that an envelope does not have.
    #[error("an envelope has no member `{0}`; it has payloadType, payload and signatures")]
    Unknown(String),
}

impl Envelope {
    /// Reads `{"payloadType", "payload", "signatures": [{"keyid", "sig"}]}` (dsse `envelope.md`), with exactly one
    /// signature and the payload type of in-toto.
    ///
    /// # Errors
    /// [`EnvelopeError`] names the member and what would be right.
    pub fn read(node: Node<'_>) -> Result<Self, EnvelopeError> {
        let member = |path, want| EnvelopeError::Member { path, want };
        if !node.is_object() {
            return Err(member("envelope", "must be an object"));
        }
        let text = |node: Option<Node<'_>>, path, want| {
            node.and_then(|node| node.as_str().map(std::borrow::Cow::into_owned)).ok_or(member(path, want))
        };
        only(node, &["payloadType", "payload", "signatures"])?;
        if text(node.get("payloadType"), "envelope.payloadType", "must be a string")? != PAYLOAD_TYPE {
            return Err(member("envelope.payloadType", "must be `application/vnd.in-toto+json`"));
        }
        let payload = text(node.get("payload"), "envelope.payload", "must be a string")?;
        let payload = base64::decode_either(&payload).ok_or(member("envelope.payload", "must be padded base64"))?;

        let signatures = node.get("signatures").filter(|node| node.kind() == Kind::Array);
        let mut signatures = signatures.ok_or(member("envelope.signatures", "must be an array"))?.elements();
        let (Some(one), None) = (signatures.next(), signatures.next()) else {
            return Err(member("envelope.signatures", "must hold exactly one signature"));
        };
        if !one.is_object() {
            return Err(member("envelope.signatures[0]", "must be an object"));
        }
        only(one, &["keyid", "sig"])?;
        let keyid = match one.get("keyid") {
            None => None,
            keyid => Some(text(keyid, "envelope.signatures[0].keyid", "must be a string")?).filter(|id| !id.is_empty()),
        };
        let sig = text(one.get("sig"), "envelope.signatures[0].sig", "must be a string")?;
        let signature =
            base64::decode_either(&sig).ok_or(member("envelope.signatures[0].sig", "must be padded base64"))?;
        Ok(Self { payload, keyid, signature })
    }

    /// Verifies the signature over the PAE with `key`.
    ///
    /// # Errors
    /// [`SignatureError`] says whether it is no signature at all or not this key's over these bytes.
    pub fn verify(&self, key: &PublicKey) -> Result<(), SignatureError> {
        let signature = Signature::from_der(&self.signature)?;
        verify_digest(key, &pae_digest(PAYLOAD_TYPE, &self.payload), &signature)
    }
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("payload", &self.payload.len())
            .field("keyid", &self.keyid)
            .finish_non_exhaustive()
    }
}

fn only(node: Node<'_>, known: &[&str]) -> Result<(), EnvelopeError> {
    match node.members().find(|(name, _)| !known.iter().any(|known| name.is_str(known))) {
        None => Ok(()),
        Some((name, _)) => Err(EnvelopeError::Unknown(name.as_str().unwrap_or_default().chars().take(64).collect())),
    }
}
