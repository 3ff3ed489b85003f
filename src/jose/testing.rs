//! Signing, which only tests do here.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use serde_json::{Value, json};

use super::{Algorithm, base64url};

/// A private key of any of the four algorithms.
pub(crate) enum SigningKey {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(&'static RsaKeyPair),
}

impl SigningKey {
    pub(crate) fn generate(algorithm: Algorithm) -> Self {
        // One RSA key for all tests: making one takes longer than the tests themselves.
        static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        match algorithm {
            Algorithm::Es256 => Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            Algorithm::EdDsa => Self::Ed25519(Ed25519KeyPair::generate().unwrap()),
            Algorithm::Ps256 | Algorithm::Rs256 => Self::Rsa(&RSA),
        }
    }

    /// The public key as a bare JWK.
    pub(crate) fn jwk(&self) -> Value {
        match self {
            Self::P256(key) => {
                let point = key.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": base64url(&point[1..33]), "y": base64url(&point[33..]) })
            }
            Self::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key().as_ref()) })
            }
            Self::Rsa(key) => {
                let public: PublicKeyComponents<Vec<u8>> = key.public_key().into();
                json!({ "kty": "RSA", "n": base64url(&public.n), "e": base64url(&public.e) })
            }
        }
    }

    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match (self, algorithm) {
            (Self::P256(key), _) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            (Self::Ed25519(key), _) => key.sign(message).as_ref().to_vec(),
            (Self::Rsa(key), _) => {
                let padding = if algorithm == Algorithm::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// A compact JWS over exactly this header and payload, whatever they say.
    pub(crate) fn token(&self, algorithm: Algorithm, header: &Value, payload: &Value) -> String {
        self.token_of(algorithm, header.to_string().as_bytes(), payload.to_string().as_bytes())
    }

    /// As [`token`](Self::token), from bytes, so that they may be malformed.
    pub(crate) fn token_of(&self, algorithm: Algorithm, header: &[u8], payload: &[u8]) -> String {
        let input = format!("{}.{}", base64url(header), base64url(payload));
        let signature = self.sign(algorithm, input.as_bytes());
        format!("{input}.{}", base64url(&signature))
    }
}
