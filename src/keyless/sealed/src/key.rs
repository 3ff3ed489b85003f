//! The ephemeral key: made here, used here, and gone with the process.

#![forbid(unsafe_code)]

use base64ct::{Base64, Encoding as _};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};

use crate::sandbox::scrubbed;
use crate::wire::{Failed, FailureKind, Step};

/// A P-256 key. Every use clears the stack below it, because the arithmetic leaves the key and the nonce there.
pub(crate) struct EphemeralKey(Box<SigningKey>);

impl EphemeralKey {
    /// A fresh one.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub(crate) fn generate() -> Result<Self, Failed> {
        scrubbed(|| {
            // Asked before, because key generation has no way but a panic to say so.
            let random = OsRng.try_fill_bytes(&mut [0; 1]);
            random.map_err(|_| failed(Step::Key, "the kernel gives no random bytes"))?;
            Ok(Self(Box::new(SigningKey::random(&mut OsRng))))
        })
    }

    /// SEC 1, uncompressed.
    pub(crate) fn public_key(&self) -> [u8; 65] {
        let point = self.0.verifying_key().to_encoded_point(false);
        let mut sec1 = [0; 65];
        sec1.copy_from_slice(point.as_bytes());
        sec1
    }

    /// Signs a SHA-256 digest; ASN.1 DER, the nonce as RFC 6979 has it.
    ///
    /// # Errors
    /// Never with a digest of this length; but a key that does not sign must not end in a panic.
    pub(crate) fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>, Failed> {
        scrubbed(|| self.0.sign_prehash(digest).map(|signature: DerSignature| signature.as_bytes().to_vec()))
            .map_err(|_| failed(Step::Sign, "the key does not sign"))
    }

    /// A certificate signing request (RFC 2986) with an empty subject and no attribute, as PEM. Fulcio takes the name
    /// from the token and the key from here; the signature proves that the key is ours.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub(crate) fn request(&self) -> Result<String, Failed> {
        let info = der(SEQUENCE, &[&VERSION_AND_NO_SUBJECT, &EC_P256_KEY, &self.public_key(), &NO_ATTRIBUTES]);
        let signature =
            scrubbed(|| self.0.try_sign(&info).map(|signature: DerSignature| signature.as_bytes().to_vec()))
                .map_err(|_| failed(Step::Key, "the key does not sign"))?;
        let signature = der(BIT_STRING, &[&[0], &signature]);
        Ok(pem(&der(SEQUENCE, &[&info, &ECDSA_WITH_SHA256, &signature])))
    }
}

/// One tagged value of at most 255 bytes, which a request with a P-256 key never reaches.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u8::try_from(content.len()).expect("a certificate signing request with a P-256 key is short");
    let mut value = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
    value.extend_from_slice(&content);
    value
}

fn pem(request: &[u8]) -> String {
    let base64 = Base64::encode_string(request);
    let mut text = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    let mut rest = &base64[..];
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE REQUEST-----\n");
    text
}

fn failed(step: Step, detail: &str) -> Failed {
    Failed::new(step, FailureKind::Crypto, detail)
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// `INTEGER 0`, and a name without a part.
const VERSION_AND_NO_SUBJECT: [u8; 5] = [0x02, 0x01, 0x00, 0x30, 0x00];
/// A `SubjectPublicKeyInfo` of `id-ecPublicKey` and `secp256r1` (RFC 5480), but for the point at its end.
const EC_P256_KEY: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const NO_ATTRIBUTES: [u8; 2] = [0xa0, 0x00];
/// `ecdsa-with-SHA256` (RFC 5758), without parameters.
const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use p256::ecdsa::VerifyingKey;
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
    use x509_parser::prelude::*;

    use super::*;

    #[test]
    fn the_request_is_one_that_others_read_and_its_signature_is_by_its_key() {
        for _ in 0..50 {
            let key = EphemeralKey::generate().unwrap();
            let pem = key.request().unwrap();
            let (rest, block) = parse_x509_pem(pem.as_bytes()).unwrap();
            assert!(rest.is_empty() && block.label == "CERTIFICATE REQUEST");
            let (rest, request) = X509CertificationRequest::from_der(&block.contents).unwrap();
            assert!(rest.is_empty());
            let info = &request.certification_request_info;
            assert_eq!(info.subject.iter().count(), 0);
            assert_eq!(*info.subject_pki.subject_public_key.data, key.public_key());
            assert!(info.attributes().is_empty());
            request.verify_signature().unwrap();
        }
    }

    #[test]
    fn a_signature_is_over_the_digest_itself() {
        let key = EphemeralKey::generate().unwrap();
        let signature = key.sign(&[7; 32]).unwrap();
        let public = VerifyingKey::from_sec1_bytes(&key.public_key()).unwrap();
        let verify = |digest| public.verify_prehash(digest, &DerSignature::from_bytes(&signature).unwrap());
        verify(&[7; 32]).unwrap();
        verify(&[8; 32]).unwrap_err();
    }
}
