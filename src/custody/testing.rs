//! What the tests of this module share.

#![allow(clippy::unwrap_used)]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::PublicKey;

/// A fresh key pair in software.
pub(crate) fn key_pair() -> (EcdsaKeyPair, PublicKey) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public_key = PublicKey::from_sec1(pair.public_key().as_ref()).unwrap();
    (pair, public_key)
}
