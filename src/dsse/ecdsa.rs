//! ECDSA signatures on P-256 in their two forms: raw r‖s as a token returns it, ASN.1 DER as an envelope carries it.

use std::ops::Deref;

/// An ECDSA signature on P-256 whose r and s both lie in 1..n−1 (FIPS 186-5, section 6.4.2, step 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature([u8; 64]);

/// A signature in DER: at most 72 bytes, held in place.
#[derive(Clone, Copy, Debug)]
pub struct DerSignature {
    bytes: [u8; 72],
    length: usize,
}

/// Why bytes are no signature, or not the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// r or s is zero, or not below the order of the curve.
    #[error("r or s is out of range; both must lie in 1..n-1 of P-256")]
    Range,
    /// Not the one DER form of `Ecdsa-Sig-Value`.
    #[error(
        "not an ECDSA signature in DER; it must be one SEQUENCE of two minimal positive INTEGERs, nothing after it"
    )]
    Der,
    /// A well-formed signature, but of another key or over other bytes.
    #[error("the signature does not verify: it was made by another key or over other bytes")]
    Mismatch,
}

impl Signature {
    /// Takes r‖s, 32 bytes each, big endian (PKCS#11 v3.1, section 6.3.12).
    ///
    /// # Errors
    /// [`SignatureError::Range`].
    pub fn from_raw(raw: &[u8; 64]) -> Result<Self, SignatureError> {
        let (r, s) = raw.split_at(32);
        if in_range(r) && in_range(s) { Ok(Self(*raw)) } else { Err(SignatureError::Range) }
    }

    /// Takes `Ecdsa-Sig-Value` (RFC 3279, section 2.2.3) in DER and no other encoding of it (X.690, section 8.3 and
    /// 10.1): definite short lengths, integers without needless leading bytes, no trailing bytes.
    ///
    /// # Errors
    /// [`SignatureError::Der`] or [`SignatureError::Range`].
    pub fn from_der(der: &[u8]) -> Result<Self, SignatureError> {
        let [SEQUENCE, length, body @ ..] = der else { return Err(SignatureError::Der) };
        if usize::from(*length) != body.len() || body.len() > MAX_BODY {
            return Err(SignatureError::Der);
        }
        let mut raw = [0; 64];
        let rest = read_integer(body, &mut raw[..32])?;
        let rest = read_integer(rest, &mut raw[32..])?;
        if rest.is_empty() { Self::from_raw(&raw) } else { Err(SignatureError::Der) }
    }

    /// r‖s.
    #[must_use]
    pub fn raw(&self) -> &[u8; 64] {
        &self.0
    }

    /// The DER form.
    #[must_use]
    pub fn to_der(&self) -> DerSignature {
        let mut der = DerSignature { bytes: [0; 72], length: 2 };
        let (r, s) = self.0.split_at(32);
        der.push_integer(r);
        der.push_integer(s);
        der.bytes[0] = SEQUENCE;
        der.bytes[1] = u8::try_from(der.length - 2).expect("two integers of at most 35 bytes each");
        der
    }
}

impl DerSignature {
    fn push_integer(&mut self, big_endian: &[u8]) {
        let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
        let digits = &big_endian[zeros..];
        // A first bit that is set would make it negative.
        let pad = usize::from(digits.first().is_none_or(|first| *first >= 0x80));
        let length = digits.len() + pad;
        let value = self.length + 2 + pad;
        self.bytes[self.length] = INTEGER;
        self.bytes[self.length + 1] = u8::try_from(length).expect("at most 33");
        self.bytes[value..value + digits.len()].copy_from_slice(digits);
        self.length += 2 + length;
    }
}

impl Deref for DerSignature {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsRef<[u8]> for DerSignature {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Reads one INTEGER into `into`, right-aligned, and returns what follows it.
fn read_integer<'a>(der: &'a [u8], into: &mut [u8]) -> Result<&'a [u8], SignatureError> {
    let [INTEGER, length, rest @ ..] = der else { return Err(SignatureError::Der) };
    let (value, rest) = rest.split_at_checked(usize::from(*length)).ok_or(SignatureError::Der)?;
    let digits = match value {
        [] => return Err(SignatureError::Der),
        // The leading zero is due only where the next bit is set; zero itself is one zero byte.
        [0, next, ..] if *next < 0x80 => return Err(SignatureError::Der),
        [first, ..] if *first >= 0x80 => return Err(SignatureError::Der),
        [0, digits @ ..] => digits,
        digits => digits,
    };
    let start = into.len().checked_sub(digits.len()).ok_or(SignatureError::Der)?;
    into[start..].copy_from_slice(digits);
    Ok(rest)
}

fn in_range(scalar: &[u8]) -> bool {
    scalar < ORDER.as_slice() && scalar.iter().any(|byte| *byte != 0)
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// Two integers of 33 bytes with their heads.
const MAX_BODY: usize = 70;

/// The order n of P-256 (SP 800-186, section 3.2.1.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, //
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(r: &[u8], s: &[u8]) -> [u8; 64] {
        let mut raw = [0; 64];
        raw[32 - r.len()..32].copy_from_slice(r);
        raw[64 - s.len()..].copy_from_slice(s);
        raw
    }

    #[test]
    fn integers_are_written_minimal_and_positive() {
        let high = [0x80; 32];
        for (r, s, der) in [
            (&[1][..], &[2][..], vec![0x30, 6, 2, 1, 1, 2, 1, 2]),
            (&[0x80], &[0x7f], vec![0x30, 7, 2, 2, 0, 0x80, 2, 1, 0x7f]),
            (&[1, 0], &[0xff, 0xff], vec![0x30, 9, 2, 2, 1, 0, 2, 3, 0, 0xff, 0xff]),
            (&high, &high, [&[0x30, 70, 2, 33, 0][..], &high, &[2, 33, 0], &high].concat()),
        ] {
            let signature = Signature::from_raw(&raw(r, s)).unwrap();
            assert_eq!(&*signature.to_der(), &der[..]);
            assert_eq!(Signature::from_der(&der), Ok(signature));
        }
    }

    #[test]
    fn zero_and_the_order_are_out_of_range_in_both_forms() {
        let mut below = ORDER;
        below[31] -= 1;
        assert!(Signature::from_raw(&raw(&below, &below)).is_ok());
        for (r, s) in [(&[][..], &[1][..]), (&[1], &[]), (&ORDER, &[1]), (&[1], &ORDER), (&[0xff; 32], &[1])] {
            assert_eq!(Signature::from_raw(&raw(r, s)), Err(SignatureError::Range));
        }
        assert_eq!(Signature::from_der(&[0x30, 6, 2, 1, 0, 2, 1, 1]), Err(SignatureError::Range));
        let order = [&[0x30, 38, 2, 33, 0][..], &ORDER, &[2, 1, 1]].concat();
        assert_eq!(Signature::from_der(&order), Err(SignatureError::Range));
    }

    #[test]
    fn every_other_encoding_of_the_same_numbers_is_refused() {
        for wrong in [
            &[][..],
            &[0x30],
            &[0x30, 0],
            &[0x31, 6, 2, 1, 1, 2, 1, 2],
            &[0x30, 0x81, 6, 2, 1, 1, 2, 1, 2],
            &[0x30, 0x80, 2, 1, 1, 2, 1, 2, 0, 0],
            &[0x30, 6, 2, 1, 1, 2, 1, 2, 0],
            &[0x30, 7, 2, 1, 1, 2, 1, 2, 0],
            &[0x30, 5, 2, 1, 1, 2, 1, 2],
            &[0x30, 7, 2, 2, 0, 1, 2, 1, 2],
            &[0x30, 6, 2, 1, 0x80, 2, 1, 2],
            &[0x30, 5, 2, 0, 2, 1, 2],
            &[0x30, 7, 2, 0x81, 1, 1, 2, 1, 2],
            &[0x30, 6, 3, 1, 1, 2, 1, 2],
            &[0x30, 3, 2, 1, 1],
            &[0x30, 9, 2, 1, 1, 2, 1, 2, 2, 1, 3],
        ] {
            assert_eq!(Signature::from_der(wrong), Err(SignatureError::Der), "{wrong:02x?}");
        }
        let long = [&[0x30, 39, 2, 34, 1][..], &[0; 33], &[2, 1, 1]].concat();
        assert_eq!(Signature::from_der(&long), Err(SignatureError::Der));
    }

    proptest! {
        #[test]
        fn der_and_raw_are_one_to_one(bytes in any::<[[u8; 32]; 2]>(), zeros in any::<(u8, u8)>()) {
            let [mut r, mut s] = bytes;
            r[..usize::from(zeros.0 % 33)].fill(0);
            s[..usize::from(zeros.1 % 33)].fill(0);
            if let Ok(signature) = Signature::from_raw(&raw(&r, &s)) {
                prop_assert_eq!(Signature::from_der(&signature.to_der()), Ok(signature));
            }
        }

        #[test]
        fn what_is_read_as_der_is_written_back_the_same(mut der in proptest::collection::vec(any::<u8>(), 0..80), r in 1..34u8) {
            // Most random bytes fail at once; a plausible head makes some of them pass.
            if der.len() > 40 {
                der[0] = 0x30;
                der[1] = u8::try_from(der.len() - 2).unwrap();
                der[2] = 2;
                der[3] = r;
            }
            if let Ok(signature) = Signature::from_der(&der) {
                prop_assert_eq!(&*signature.to_der(), &der[..]);
            }
        }
    }
}
