//! P-256 public keys: the name a verifier looks for, and verification of a digest.

use std::fmt;

use aws_lc_rs::digest::{self, Digest, SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::ecdsa::{Signature, SignatureError};

/// A P-256 public key, on the curve, ready to verify with.
#[derive(Clone)]
pub struct PublicKey {
    point: [u8; 65],
    keyid: String,
    parsed: ParsedPublicKey,
}

impl PublicKey {
    /// Takes the uncompressed point of SEC1, section 2.3.3: `04`, x and y, 65 bytes.
    ///
    /// # Errors
    /// Another length or form, or a point that is not on the curve.
    pub fn from_sec1(point: &[u8]) -> Result<Self, PublicKeyError> {
        let point: [u8; 65] = point.try_into().map_err(|_| PublicKeyError::Form)?;
        if point[0] != 0x04 {
            return Err(PublicKeyError::Form);
        }
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).map_err(|_| PublicKeyError::NotOnCurve)?;
        Ok(Self { point, keyid: keyid(&point), parsed })
    }

    /// The uncompressed point.
    #[must_use]
    pub fn sec1(&self) -> &[u8; 65] {
        &self.point
    }

    /// The key's name in envelopes; see [`keyid`].
    #[must_use]
    pub fn keyid(&self) -> &str {
        &self.keyid
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.keyid).finish()
    }
}

/// Why bytes are no P-256 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Wrong length or first byte.
    #[error("not an uncompressed P-256 point; it must be 65 bytes, the first of them 0x04")]
    Form,
    /// Not on the curve.
    #[error("the point does not lie on P-256; the key is damaged or of another curve")]
    NotOnCurve,
}

/// The key's SSH fingerprint: `SHA256:` and the unpadded base64 of SHA-256 over the key in SSH wire form
/// (RFC 5656, section 3.1; RFC 4253, section 6.6).
///
/// cosign skips a signature whose `keyid` is not exactly this, and every other Sigstore client accepts it.
/// `point` is the uncompressed point of SEC1.
#[must_use]
pub fn keyid(point: &[u8; 65]) -> String {
    let mut context = digest::Context::new(&SHA256);
    for field in [b"ecdsa-sha2-nistp256".as_slice(), b"nistp256", point] {
        let length = u32::try_from(field.len()).expect("three short fields");
        context.update(&length.to_be_bytes());
        context.update(field);
    }
    let mut name = String::with_capacity(50);
    name.push_str("SHA256:");
    STANDARD_NO_PAD.encode_string(context.finish(), &mut name);
    name
}

/// Verifies an ECDSA signature over a SHA-256 digest (FIPS 186-5, section 6.4.2).
///
/// # Errors
/// [`SignatureError::Mismatch`] when the signature is not this key's over this digest.
pub fn verify_digest(key: &PublicKey, sha256: &[u8; 32], signature: &Signature) -> Result<(), SignatureError> {
    let digest = Digest::import_less_safe(sha256, &SHA256).map_err(|_| SignatureError::Mismatch)?;
    key.parsed.verify_digest_sig(&digest, &signature.to_der()).map_err(|_| SignatureError::Mismatch)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::*;
    use crate::dsse::pae_digest;

    /// RFC 6979, appendix A.2.5: the P-256 key, and its signature over "sample" with SHA-256.
    const POINT: &str = "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
                         7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
    const SAMPLE: &str = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
                          f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_keyid_is_what_ssh_keygen_prints() {
        // Made by OpenSSH: `ssh-keygen -l` of this key in its one-line form.
        let key = PublicKey::from_sec1(&unhex(POINT)).unwrap();
        assert_eq!(key.keyid(), SSH_KEYGEN);
    }

    #[test]
    fn the_published_signature_verifies_and_a_changed_one_does_not() {
        let key = PublicKey::from_sec1(&unhex(POINT)).unwrap();
        let digest: [u8; 32] = digest::digest(&SHA256, b"sample").as_ref().try_into().unwrap();
        let raw: [u8; 64] = unhex(SAMPLE).try_into().unwrap();
        verify_digest(&key, &digest, &Signature::from_raw(&raw).unwrap()).unwrap();

        let mut changed = raw;
        changed[63] ^= 1;
        let changed = Signature::from_raw(&changed).unwrap();
        assert_eq!(verify_digest(&key, &digest, &changed), Err(SignatureError::Mismatch));
        let mut other = digest;
        other[0] ^= 1;
        let published = Signature::from_raw(&raw).unwrap();
        assert_eq!(verify_digest(&key, &other, &published), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_fresh_signature_over_pae_verifies_by_its_digest() {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
        let key = PublicKey::from_sec1(pair.public_key().as_ref()).unwrap();
        let raw = pair.sign(&random, &crate::dsse::pae("type", b"payload")).unwrap();
        let signature = Signature::from_raw(raw.as_ref().try_into().unwrap()).unwrap();
        verify_digest(&key, &pae_digest("type", b"payload"), &signature).unwrap();
    }

    #[test]
    fn only_an_uncompressed_point_on_the_curve_is_a_key() {
        let good = unhex(POINT);
        let mut compressed = good[..33].to_vec();
        compressed[0] = 0x03;
        let mut off = good.clone();
        off[64] ^= 1;
        let mut hybrid = good.clone();
        hybrid[0] = 0x07;
        for (wrong, why) in [
            (compressed, PublicKeyError::Form),
            (good[..64].to_vec(), PublicKeyError::Form),
            (hybrid, PublicKeyError::Form),
            (Vec::new(), PublicKeyError::Form),
            (off, PublicKeyError::NotOnCurve),
        ] {
            assert_eq!(PublicKey::from_sec1(&wrong).unwrap_err(), why);
        }
    }

    const SSH_KEYGEN: &str = "SHA256:hfuNWmjIYvsBGZ6dpCLTTAEa5LxbZABRHHVoynAxFlo";
}
