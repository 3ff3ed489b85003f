//! Judging the signatures that a device gave, beyond whether each verifies.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::custody::PublicKey;
use crate::dsse;

/// A digest and what the device made of it.
pub(super) type Signed = ([u8; 32], [u8; 64]);

/// What is wrong with them, worst first; `None` when nothing is.
pub(super) fn objection(key: &PublicKey, signed: &[Signed]) -> Option<Objection> {
    let mut seen: HashMap<&[u8], &[u8; 32]> = HashMap::new();
    for (digest, signature) in signed {
        // One r for two digests is one nonce for two digests: anybody who has both signatures has the key.
        if let Some(other) = seen.insert(&signature[..32], digest)
            && other != digest
        {
            return Some(Objection::SharedNonce);
        }
    }
    let out_of_range = signed.iter().filter(|(_, signature)| !in_range(signature)).count();
    if out_of_range > 0 {
        return Some(Objection::OutOfRange(out_of_range));
    }
    let Ok(verifier) = key.verifier() else { return Some(Objection::Wrong(signed.len())) };
    let verifies = |(digest, signature): &&Signed| {
        dsse::Signature::from_raw(signature)
            .is_ok_and(|signature| dsse::verify_digest(&verifier, digest, &signature).is_ok())
    };
    let wrong = signed.iter().filter(|signed| !verifies(signed)).count();
    (wrong > 0).then_some(Objection::Wrong(wrong))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objection {
    /// Two digests, one nonce.
    SharedNonce,
    /// r or s is zero or not below the order of the curve.
    OutOfRange(usize),
    /// The public key does not verify it.
    Wrong(usize),
}

/// r and s from 1 to n - 1 (FIPS 186-5, section 6.4.2).
fn in_range(signature: &[u8; 64]) -> bool {
    signature.chunks_exact(32).all(|half| half.iter().any(|&byte| byte != 0) && half < &ORDER[..])
}

/// The order n of P-256 (SP 800-186, section 3.2.1.3), big-endian as r and s are.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::testing::{key_pair, sign};

    #[test]
    fn good_signatures_pass_and_each_fault_is_told_apart() {
        let (pair, key) = key_pair();
        let good: Vec<Signed> = (0..4).map(|n| ([n; 32], sign(&pair, &[n; 32]))).collect();
        assert_eq!(objection(&key, &good), None);

        let mut wrong = good.clone();
        wrong[2].1[63] ^= 1;
        assert_eq!(objection(&key, &wrong), Some(Objection::Wrong(1)));

        let mut zero = good.clone();
        zero[1].1[..32].fill(0);
        let mut high = good.clone();
        high[3].1[32..].copy_from_slice(&ORDER);
        for out_of_range in [zero, high] {
            assert_eq!(objection(&key, &out_of_range), Some(Objection::OutOfRange(1)));
        }

        let mut shared = good.clone();
        let r: [u8; 32] = shared[0].1[..32].try_into().unwrap_or_default();
        shared[1].1[..32].copy_from_slice(&r);
        assert_eq!(objection(&key, &shared), Some(Objection::SharedNonce));
        // A device that signs without randomness (RFC 6979) gives the same signature for the same digest.
        assert_eq!(objection(&key, &[good[0], good[0]]), None);
    }
}
