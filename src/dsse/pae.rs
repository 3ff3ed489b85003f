//! Pre-Authentication Encoding: the bytes that are signed (DSSE v1, `protocol.md`).

use std::io::Write as _;

use aws_lc_rs::digest::{Context, SHA256};

/// `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`, lengths in ASCII decimal.
///
/// Copies the payload; to sign, [`pae_digest`] is enough.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoded = head(payload_type, payload.len());
    encoded.reserve_exact(payload.len());
    encoded.extend_from_slice(payload);
    encoded
}

/// SHA-256 over [`pae`] without making it.
#[must_use]
pub fn pae_digest(payload_type: &str, payload: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&head(payload_type, payload.len()));
    context.update(payload);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn head(payload_type: &str, payload_length: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(payload_type.len() + 50);
    write!(head, "DSSEv1 {} {payload_type} {payload_length} ", payload_type.len()).expect("a Vec takes every write");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_dsse_specification_encodes_as_printed_there() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn lengths_count_bytes_and_zero_is_written() {
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
        assert_eq!(pae("\u{e9}", b" 1 "), "DSSEv1 2 \u{e9} 3  1 ".as_bytes());
    }

    #[test]
    fn the_digest_is_that_of_the_encoding() {
        for payload in [b"".as_slice(), b"hello world", &[0xff; 100_000]] {
            let whole = aws_lc_rs::digest::digest(&SHA256, &pae("t/x", payload));
            assert_eq!(pae_digest("t/x", payload), whole.as_ref());
        }
    }
}
