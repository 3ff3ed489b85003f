//! A public key made ready for verification.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaParameters, RsaPublicKeyComponents,
};

use super::jwk::Material;
use super::{Algorithm, JoseError, Jwk, KeyUse};

/// A key that verifies: parsed and checked once, used many times. Cheap to clone.
#[derive(Clone)]
pub struct VerifyingKey {
    inner: Arc<Inner>,
}

struct Inner {
    jwk: Jwk,
    thumbprint: [u8; 32],
    prepared: Prepared,
}

// aws-lc-rs ties a parsed key to its padding, and an RSA key without `alg` may come with either.
enum Prepared {
    P256(ParsedPublicKey),
    Ed25519(ParsedPublicKey),
    Rsa { pkcs1: ParsedPublicKey, pss: ParsedPublicKey },
}

impl VerifyingKey {
    /// Makes the key ready: this is where a point off the curve is found out.
    ///
    /// # Errors
    /// [`JoseError::KeyInvalid`] when the numbers are no key, [`JoseError::KeyUnsupported`] when its `use` or
    /// `key_ops` forbid verification.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, JoseError> {
        if jwk.key_use() != KeyUse::Verify {
            return Err(JoseError::KeyUnsupported { what: "its `use` or `key_ops` is not for verifying signatures" });
        }
        let prepared = match &jwk.material {
            Material::P256 { x, y } => {
                let mut point = [0x04; 65];
                point[1..33].copy_from_slice(x);
                point[33..].copy_from_slice(y);
                Prepared::P256(
                    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                        .map_err(|_| JoseError::KeyInvalid { what: "the point is not on P-256" })?,
                )
            }
            Material::Ed25519 { x } => Prepared::Ed25519(
                ParsedPublicKey::new(&ED25519, x)
                    .map_err(|_| JoseError::KeyInvalid { what: "the point is not on Ed25519" })?,
            ),
            Material::Rsa { n, e } => Prepared::Rsa {
                pkcs1: rsa(n, e, &RSA_PKCS1_2048_8192_SHA256)?,
                pss: rsa(n, e, &RSA_PSS_2048_8192_SHA256)?,
            },
        };
        let inner = Inner { thumbprint: jwk.thumbprint(), jwk: jwk.clone(), prepared };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Checks `signature` over `message`. An ES256 signature is r ‖ s in 64 bytes (RFC 7518, section 3.4).
    ///
    /// # Errors
    /// [`JoseError::KeyMismatch`] when the key is not for `algorithm`, [`JoseError::Signature`] when the signature
    /// does not verify.
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), JoseError> {
        let key = match (&self.inner.prepared, algorithm) {
            _ if !self.inner.jwk.fits(algorithm) => None,
            (Prepared::P256(key), Algorithm::Es256)
            | (Prepared::Ed25519(key), Algorithm::EdDsa)
            | (Prepared::Rsa { pkcs1: key, .. }, Algorithm::Rs256)
            | (Prepared::Rsa { pss: key, .. }, Algorithm::Ps256) => Some(key),
            _ => None,
        };
        let key = key.ok_or(JoseError::KeyMismatch { algorithm })?;
        key.verify_sig(message, signature).map_err(|_| JoseError::Signature)
    }

    /// The key that this was made from.
    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        &self.inner.jwk
    }

    /// `kid` of the JWK.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.inner.jwk.kid()
    }

    /// SHA-256 thumbprint of the JWK (RFC 7638), computed once.
    #[must_use]
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.inner.thumbprint
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifyingKey").field(&self.inner.jwk).finish()
    }
}

fn rsa(n: &[u8], e: &[u8], parameters: &'static RsaParameters) -> Result<ParsedPublicKey, JoseError> {
    RsaPublicKeyComponents { n, e }
        .to_parsed_public_key(parameters)
        .map_err(|_| JoseError::KeyInvalid { what: "the RSA numbers are no key" })
}
