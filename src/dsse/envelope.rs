//! DSSE envelopes as others send them to be verified.

use bytes::Bytes;

use super::base64;
use super::ecdsa::SignatureError;
use super::{PAYLOAD_TYPE, PublicKey, Signature, pae_digest, verify_digest};
use crate::statement::json::{Field, FieldError};

/// An envelope that was read: one payload, one signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The payload, decoded.
    pub payload: Bytes,
    /// Which key the sender says has signed.
    pub keyid: Option<String>,
    /// The signature, decoded.
    pub signature: Vec<u8>,
}

impl Envelope {
    /// Reads `{"payloadType", "payload", "signatures": [{"keyid", "sig"}]}` (DSSE v1, `envelope.md`), with exactly one
    /// signature and the payload type of in-toto.
    ///
    /// # Errors
    /// The first place that is wrong, and what would be right.
    pub fn read(field: &Field<'_>) -> Result<Self, FieldError> {
        let fields = field.object(&["payloadType", "payload", "signatures"])?;
        let payload_type = fields.required("payloadType", PAYLOAD_TYPE)?;
        if !payload_type.node().is_str(PAYLOAD_TYPE) {
            return Err(payload_type.wrong(format!("must be `{PAYLOAD_TYPE}`")));
        }
        let payload = decode(&fields.required("payload", RIGHT_BASE64)?, usize::MAX)?;
        let signatures = fields.required("signatures", "an array of one signature")?;
        let mut one = signatures.elements(1..=1, "signature")?;
        let one = one.next().ok_or_else(|| signatures.wrong("must be an array of one signature"))?;
        let fields = one.object(&["keyid", "sig"])?;
        let keyid = match fields.optional("keyid") {
            Some(keyid) => Some(keyid.text(MAX_KEYID, "a string")?.into_owned()).filter(|keyid| !keyid.is_empty()),
            None => None,
        };
        let signature = decode(&fields.required("sig", RIGHT_BASE64)?, MAX_SIGNATURE)?;
        Ok(Self { payload: payload.into(), keyid, signature })
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

fn decode(field: &Field<'_>, max: usize) -> Result<Vec<u8>, FieldError> {
    let text = field.text(max, RIGHT_BASE64)?;
    base64::decode_either(&text).ok_or_else(|| field.wrong(format!("must be {RIGHT_BASE64}")))
}

const RIGHT_BASE64: &str = "padded base64";

/// Characters; a `keyid` of ours has 50, and a signature 96.
const MAX_KEYID: usize = 1024;
const MAX_SIGNATURE: usize = 4096;
