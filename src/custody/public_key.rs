//! A P-256 public key, known to be a point on the curve.

#![forbid(unsafe_code)]

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;

use crate::dsse;

/// An uncompressed SEC 1 point on P-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey {
    sec1: [u8; 65],
}

/// Why bytes are not a P-256 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Compressed, another curve, or no point at all.
    #[error("not an uncompressed point (0x04, x, y: 65 bytes) on P-256")]
    NotAPoint,
    /// No PEM `PUBLIC KEY`, or one of another kind of key.
    #[error("not a PEM public key on P-256; `openssl pkey -pubin -in FILE -text` should say prime256v1")]
    NotAPem,
}

impl PublicKey {
    /// # Errors
    /// [`PublicKeyError::NotAPoint`] when it is anything but 0x04, x, y of a point on the curve.
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, PublicKeyError> {
        let sec1: [u8; 65] = bytes.try_into().map_err(|_| PublicKeyError::NotAPoint)?;
        if sec1[0] != 0x04 {
            return Err(PublicKeyError::NotAPoint);
        }
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, sec1).map_err(|_| PublicKeyError::NotAPoint)?;
        Ok(Self { sec1 })
    }

    /// `CKA_EC_POINT` in either form found in the field: the DER OCTET STRING that PKCS#11 prescribes, or the bare
    /// point.
    ///
    /// # Errors
    /// [`PublicKeyError::NotAPoint`].
    pub fn from_ec_point(attribute: &[u8]) -> Result<Self, PublicKeyError> {
        Self::from_sec1(attribute.strip_prefix(&[0x04, 65]).filter(|point| point.len() == 65).unwrap_or(attribute))
    }

    /// A PEM `PUBLIC KEY` (RFC 7468, section 13).
    ///
    /// # Errors
    /// [`PublicKeyError::NotAPem`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, PublicKeyError> {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| PublicKeyError::NotAPem)?;
        Self::from_spki(&spki)
    }

    /// A DER `SubjectPublicKeyInfo` (RFC 5480).
    ///
    /// # Errors
    /// [`PublicKeyError::NotAPem`].
    pub fn from_spki(der: &[u8]) -> Result<Self, PublicKeyError> {
        let point = der.strip_prefix(&SPKI_PREFIX).ok_or(PublicKeyError::NotAPem)?;
        Self::from_sec1(point).map_err(|_| PublicKeyError::NotAPem)
    }

    /// 0x04, x, y.
    #[must_use]
    pub fn sec1(&self) -> &[u8; 65] {
        &self.sec1
    }

    /// The DER `SubjectPublicKeyInfo` (RFC 5480).
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.sec1].concat()
    }

    /// The PEM `PUBLIC KEY` (RFC 7468, section 13): what `public_key` in the configuration names.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let base64 = BASE64_STANDARD.encode(self.spki());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for line in base64.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|byte| char::from(*byte)));
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        pem
    }

    /// The `x` and `y` of a JWK (RFC 7518, section 6.2.1), base64url.
    #[must_use]
    pub fn jwk_coordinates(&self) -> (String, String) {
        (BASE64_URL_SAFE_NO_PAD.encode(&self.sec1[1..33]), BASE64_URL_SAFE_NO_PAD.encode(&self.sec1[33..]))
    }

    /// Made ready to verify many signatures with.
    ///
    /// # Errors
    /// [`PublicKeyError::NotAPoint`]; cannot happen, because the point was checked when this value was made.
    pub fn verifier(&self) -> Result<dsse::PublicKey, PublicKeyError> {
        dsse::PublicKey::from_sec1(&self.sec1).map_err(|_| PublicKeyError::NotAPoint)
    }

    /// The `keyid` of signatures by this key: its SSH fingerprint.
    #[must_use]
    pub fn keyid(&self) -> String {
        dsse::keyid(&self.sec1)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.keyid())
    }
}

/// `SubjectPublicKeyInfo` of an uncompressed P-256 point, up to the point: id-ecPublicKey, prime256v1, BIT STRING.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::custody::testing::key_pair;

    #[test]
    fn a_point_is_read_bare_and_wrapped() {
        let (_, key) = key_pair();
        let wrapped = [&[0x04, 65][..], key.sec1()].concat();
        assert_eq!(PublicKey::from_ec_point(&wrapped), Ok(key));
        assert_eq!(PublicKey::from_ec_point(key.sec1()), Ok(key));
        assert_eq!(PublicKey::from_spki(&key.spki()), Ok(key));
        assert_eq!(PublicKey::from_pem(key.to_pem().as_bytes()), Ok(key));
    }

    #[test]
    fn what_is_no_point_on_the_curve_is_refused() {
        let (_, key) = key_pair();
        let mut off = *key.sec1();
        off[64] ^= 1;
        let mut compressed = *key.sec1();
        compressed[0] = 0x02;
        for wrong in [&off[..], &compressed[..33], &compressed, &[], &[0x04; 64], &[0x04; 67], &[0; 65]] {
            assert_eq!(PublicKey::from_ec_point(wrong), Err(PublicKeyError::NotAPoint), "{wrong:02x?}");
        }
    }

    #[test]
    fn the_keyid_is_the_ssh_fingerprint() {
        // Made with `ssh-keygen -t ecdsa -b 256` and `ssh-keygen -lf`.
        let point = base64::prelude::BASE64_STANDARD_NO_PAD.decode(SSH_POINT).unwrap();
        assert_eq!(PublicKey::from_sec1(&point).unwrap().keyid(), SSH_FINGERPRINT);
    }

    const SSH_POINT: &str = "BDHBZ1+5TU+34UrHtWB9n5upIAO13d5UDMyajrLVF66sWs0IcsfKx/WbWFj9hyQa/DM0F0P8Pqi+x9r/OEiS6XE";
    const SSH_FINGERPRINT: &str = "SHA256:moitKfR+hVRAYfyBHeB4XP5Ti+gqBkR7zp6BxuURMf8";
}
