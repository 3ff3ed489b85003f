//! Base64 of payloads, which may be megabytes: with SIMD, without copies.

use base64_simd::{STANDARD, URL_SAFE};

/// Bytes of the padded standard encoding.
pub(super) fn encoded_len(bytes: usize) -> usize {
    STANDARD.encoded_length(bytes)
}

/// Appends the padded standard encoding (RFC 4648, section 4).
pub(super) fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    STANDARD.encode_append(bytes, out);
}

/// Whether `text` is the padded standard encoding of `bytes`, compared piece by piece in a small buffer.
pub(super) fn decodes_to(text: &[u8], bytes: &[u8]) -> bool {
    if text.len() != encoded_len(bytes.len()) {
        return false;
    }
    let mut buffer = [0; PIECE];
    text.chunks(PIECE / 3 * 4).zip(bytes.chunks(PIECE)).all(|(text, bytes)| {
        STANDARD.decode(text, base64_simd::Out::from_slice(&mut buffer)).is_ok_and(|decoded| *decoded == *bytes)
    })
}

/// Decodes standard base64 or, where it has the other alphabet's characters, URL-safe base64 (RFC 4648, section 5),
/// padded either way: the DSSE specification lets an envelope have both.
pub(super) fn decode_either(text: &str) -> Option<Vec<u8>> {
    let codec = if text.bytes().any(|byte| byte == b'-' || byte == b'_') { &URL_SAFE } else { &STANDARD };
    codec.decode_to_vec(text.as_bytes()).ok()
}

/// A multiple of three, so that pieces of text and of bytes end together.
const PIECE: usize = 3 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_appended_is_what_everybody_else_writes_and_decodes_to_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
            let mut out = b"before".to_vec();
            append(&mut out, &bytes);
            let text = &out[6..];
            let expected = base64::engine::general_purpose::STANDARD.encode(&bytes);
            prop_assert_eq!(text, expected.as_bytes());
            prop_assert!(decodes_to(text, &bytes));
            prop_assert_eq!(decode_either(std::str::from_utf8(text).unwrap()), Some(bytes.clone()));
            if !bytes.is_empty() {
                let mut other = bytes.clone();
                other[bytes.len() / 2] ^= 0x10;
                prop_assert!(!decodes_to(text, &other));
            }
        }
    }

    #[test]
    fn unpadded_mixed_or_dirty_base64_is_refused() {
        for wrong in ["QQ", "Q===", "QQ=", "+/-_", "QR==", "QQ==\n", " QQ==", "é"] {
            assert_eq!(decode_either(wrong), None, "{wrong}");
        }
        assert_eq!(decode_either("-_-_"), Some(vec![0xfb, 0xff, 0xbf]));
        assert_eq!(decode_either(""), Some(Vec::new()));
    }
}
