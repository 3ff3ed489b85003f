//! The test digest that shows whether a key signs.

#![forbid(unsafe_code)]

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::rand;

/// A fresh digest to be signed and thrown away. What is hashed begins with a text of its own, which no DSSE
/// pre-authentication encoding begins with, and holds 256 random bits: nobody can have wanted this very signature.
///
/// # Errors
/// When the system gives no random numbers.
pub(super) fn digest(token: &str, key: &str) -> Result<[u8; 32], aws_lc_rs::error::Unspecified> {
    let mut nonce = [0; 32];
    rand::fill(&mut nonce)?;
    Ok(of(token, key, &nonce))
}

fn of(token: &str, key: &str, nonce: &[u8; 32]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in [DOMAIN, token.as_bytes(), b"\0", key.as_bytes(), b"\0", nonce] {
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

const DOMAIN: &[u8] = b"StellaOps Signer canary v1\0";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_two_canaries_are_alike_and_none_is_an_envelope() {
        assert_ne!(digest("t", "k").unwrap(), digest("t", "k").unwrap());
        assert_ne!(of("t", "k", &[0; 32]), of("t2", "k", &[0; 32]));
        assert_ne!(of("a", "bc", &[0; 32]), of("ab", "c", &[0; 32]), "the parts do not run into each other");
        assert!(!crate::dsse::pae("", b"").starts_with(&DOMAIN[..6]));
    }
}
