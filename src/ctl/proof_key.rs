//! The keys this client signs with: DPoP proofs (RFC 9449) and client assertions (RFC 7523).

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PSS_SHA256,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::RSAPublicKey;
use zeroize::Zeroizing;

use super::error::CtlError;
use super::files;
use crate::clock::UnixTime;
use crate::jose::{Algorithm, Jwk, base64url};

/// A private key and its public JWK.
pub(crate) struct ProofKey {
    private: Private,
    jwk: Jwk,
}

enum Private {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(Box<rsa::KeyPair>),
}

/// What one DPoP proof is for.
#[derive(Debug)]
pub(crate) struct Proof<'a> {
    /// HTTP method of the request.
    pub(crate) method: &'a str,
    /// Its URL without query and fragment.
    pub(crate) url: &'a str,
    /// The access token it goes with, if any.
    pub(crate) token: Option<&'a str>,
    /// The nonce the server asked for, if any.
    pub(crate) nonce: Option<&'a str>,
}

impl ProofKey {
    /// Reads a PEM private key.
    pub(crate) fn load(path: &Path) -> Result<Self, CtlError> {
        let pem = Zeroizing::new(files::read(path, MAX_PEM_BYTES)?);
        let wrong = |why: &str| CtlError::content(path, format!("holds no usable key: {why}"));
        let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong("no unencrypted PEM private key in it"))?;
        let private = match &der {
            PrivateKeyDer::Pkcs8(der) => from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(der) => {
                let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_sec1_der());
                key.ok().map(Private::P256)
            }
            PrivateKeyDer::Pkcs1(der) => {
                rsa::KeyPair::from_der(der.secret_pkcs1_der()).ok().map(|key| Private::Rsa(Box::new(key)))
            }
            _ => None,
        };
        let private = private.ok_or_else(|| wrong("it must be P-256, Ed25519, or RSA of 2048 to 8192 bits"))?;
        Self::new(private).ok_or_else(|| wrong("its public half has no JWK form that the appliance accepts"))
    }

    /// A fresh P-256 key that lives as long as this process.
    pub(crate) fn ephemeral() -> Result<Self, CtlError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok();
        key.and_then(|key| Self::new(Private::P256(key))).ok_or_else(|| {
            CtlError::Unexpected("no DPoP key could be made: random numbers are not available".to_owned())
        })
    }

    fn new(private: Private) -> Option<Self> {
        let jwk = match &private {
            Private::P256(key) => Jwk::from_p256_point(key.public_key().as_ref()).ok()?,
            Private::Ed25519(key) => {
                let x = base64url(key.public_key().as_ref());
                Jwk::from_value(&json!({ "kty": "OKP", "crv": "Ed25519", "x": x })).ok()?
            }
            Private::Rsa(key) => {
                let (_, public) = RSAPublicKey::from_der(key.public_key().as_ref()).ok()?;
                let number = |bytes: &[u8]| base64url(bytes.strip_prefix(&[0]).unwrap_or(bytes));
                let (n, e) = (number(public.modulus), number(public.exponent));
                Jwk::from_value(&json!({ "kty": "RSA", "n": n, "e": e })).ok()?
            }
        };
        Some(Self { private, jwk })
    }

    /// The thumbprint that `cnf.jkt` names (RFC 7638), in base64url.
    pub(crate) fn thumbprint(&self) -> String {
        base64url(&self.jwk.thumbprint())
    }

    /// A DPoP proof (RFC 9449, section 4.2), good for one request.
    pub(crate) fn prove(&self, proof: &Proof<'_>) -> Result<String, CtlError> {
        let mut claims = json!({
            "jti": uuid::Uuid::new_v4().to_string(),
            "htm": proof.method,
            "htu": proof.url,
            "iat": UnixTime::now().0,
        });
        if let Some(token) = proof.token {
            claims["ath"] = base64url(digest(&SHA256, token.as_bytes()).as_ref()).into();
        }
        if let Some(nonce) = proof.nonce {
            claims["nonce"] = nonce.into();
        }
        self.sign(json!({ "typ": "dpop+jwt", "jwk": self.jwk.to_json() }), &claims)
    }

    /// A client assertion (RFC 7523, section 3) for the token endpoint of `issuer`, good for one request.
    pub(crate) fn assert(&self, client_id: &str, issuer: &str, kid: Option<&str>) -> Result<String, CtlError> {
        let now = UnixTime::now().0;
        let mut header = json!({ "typ": "JWT" });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        let claims = json!({
            "iss": client_id,
            "sub": client_id,
            "aud": issuer,
            "jti": uuid::Uuid::new_v4().to_string(),
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        });
        self.sign(header, &claims)
    }

    fn sign(&self, mut header: Value, claims: &Value) -> Result<String, CtlError> {
        header["alg"] = self.algorithm().name().into();
        let mut jws = base64url(header.to_string().as_bytes());
        jws.push('.');
        jws.push_str(&base64url(claims.to_string().as_bytes()));
        let signature = match &self.private {
            Private::P256(key) => key.sign(&SystemRandom::new(), jws.as_bytes()).map(|s| s.as_ref().to_vec()),
            Private::Ed25519(key) => key.try_sign(jws.as_bytes()).map(|s| s.as_ref().to_vec()),
            Private::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), jws.as_bytes(), &mut signature).map(|()| signature)
            }
        };
        let signature = signature.map_err(|_| CtlError::Unexpected("the DPoP or client key cannot sign".to_owned()))?;
        jws.push('.');
        jws.push_str(&base64url(&signature));
        Ok(jws)
    }

    fn algorithm(&self) -> Algorithm {
        match self.private {
            Private::P256(_) => Algorithm::Es256,
            Private::Ed25519(_) => Algorithm::EdDsa,
            Private::Rsa(_) => Algorithm::Ps256,
        }
    }
}

fn from_pkcs8(der: &[u8]) -> Option<Private> {
    if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
        return Some(Private::P256(key));
    }
    if let Ok(key) = Ed25519KeyPair::from_pkcs8(der) {
        return Some(Private::Ed25519(key));
    }
    rsa::KeyPair::from_pkcs8(der).ok().map(|key| Private::Rsa(Box::new(key)))
}

const ASSERTION_SECONDS: i64 = 60;
const MAX_PEM_BYTES: u64 = 64 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::jose::{Jws, VerifyingKey};

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
    }

    #[test]
    fn a_proof_of_every_key_type_carries_its_claims_and_verifies_under_its_own_jwk() {
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap().to_pkcs8v1().unwrap();
        let ed25519 = Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
        let rsa: Pkcs8V1Der<'_> = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap();
        let directory = tempfile::tempdir().unwrap();
        for (der, algorithm) in
            [(p256.as_ref(), Algorithm::Es256), (ed25519.as_ref(), Algorithm::EdDsa), (rsa.as_ref(), Algorithm::Ps256)]
        {
            let path = directory.path().join("key.pem");
            std::fs::write(&path, pem(der)).unwrap();
            let key = ProofKey::load(&path).unwrap();
            let proof = Proof {
                method: "POST",
                url: "https://signer.example/x",
                token: Some("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"),
                nonce: Some("n-1"),
            };
            let jwt = key.prove(&proof).unwrap();
            let jws = Jws::parse(&jwt, 16 * 1024).unwrap();
            assert_eq!(jws.header().alg, algorithm);
            let jwk = jws.header().jwk.as_ref().unwrap();
            assert_eq!(base64url(&jwk.thumbprint()), key.thumbprint());
            let claims: Value =
                serde_json::from_slice(&jws.verify(&VerifyingKey::from_jwk(jwk).unwrap()).unwrap()).unwrap();
            assert_eq!(
                (&claims["htm"], &claims["htu"], &claims["nonce"]),
                (&json!("POST"), &json!(proof.url), &json!("n-1"))
            );
            // RFC 9449, section 7.1: the `ath` of the token in its example.
            assert_eq!(claims["ath"], "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
        }
    }

    #[test]
    fn a_file_without_a_usable_key_is_named_and_nothing_of_it_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        for content in ["", "secret-text", &pem(b"secret-text"), "-----BEGIN PRIVATE KEY-----\nsecret"] {
            std::fs::write(&path, content).unwrap();
            let error = ProofKey::load(&path).err().unwrap().to_string();
            assert!(error.contains("key.pem") && !error.contains("secret"), "{error}");
        }
    }
}
