//! What a memory must not hold, in every form that it could be held in.

use std::collections::HashMap;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use p256::elliptic_curve::bigint::ArrayEncoding as _;
use p256::elliptic_curve::ops::Reduce;
use p256::elliptic_curve::point::AffineCoordinates as _;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::elliptic_curve::{Curve as _, PrimeField as _};
use p256::{FieldBytes, NistP256, ProjectivePoint, Scalar, U256};
use sha2::{Digest as _, Sha256};

use crate::helper::TOKEN;

/// Eight bytes of any secret, wherever they begin, are a hit: a limb is as good as a number.
pub(super) struct Secrets {
    /// By the lowest two bytes, so that most of a memory costs one look each.
    likely: Vec<bool>,
    pieces: HashMap<u64, &'static str>,
}

impl Secrets {
    /// The identity token: as it is sent, and what it says.
    pub(super) fn of_token() -> Self {
        let mut secrets = Self { likely: vec![false; 1 << 16], pieces: HashMap::new() };
        secrets.add("token", TOKEN.as_bytes());
        for part in TOKEN.split('.').skip(1) {
            secrets.add("token, decoded", &Base64UrlUnpadded::decode_vec(part).unwrap());
        }
        for shift in 0..3 {
            secrets.add("token, in base64", Base64UrlUnpadded::encode_string(&TOKEN.as_bytes()[shift..]).as_bytes());
        }
        secrets
    }

    /// Whatever gives this key away once it has signed these digests and its certificate signing request.
    pub(super) fn add_key(&mut self, key: &Key, digests: &[[u8; 32]]) {
        self.add_scalar("d", key.0);
        for digest in digests.iter().chain([&key.request_digest()]) {
            let nonce = key.nonce(digest);
            let r = r_of(nonce);
            self.add_scalar("k", nonce);
            self.add_scalar("1/k", nonce.invert().unwrap());
            self.add_scalar("r·d", r * key.0);
            let z = <Scalar as Reduce<U256>>::reduce_bytes(&FieldBytes::from(*digest));
            self.add_scalar("z + r·d", z + r * key.0);
        }
    }

    fn add_scalar(&mut self, name: &'static str, scalar: Scalar) {
        // Multiplied by 2^256, as Montgomery arithmetic holds it.
        let montgomery = (0..256).fold(scalar, |value, _| value.double());
        for form in [scalar, montgomery] {
            let mut bytes = form.to_repr();
            self.add(name, &bytes);
            bytes.reverse();
            self.add(name, &bytes);
        }
    }

    fn add(&mut self, name: &'static str, bytes: &[u8]) {
        for piece in bytes.windows(8) {
            let piece = u64::from_le_bytes(piece.try_into().unwrap());
            self.likely[usize::from(piece as u16)] = true;
            self.pieces.insert(piece, name);
        }
    }

    /// Where which of them is.
    pub(super) fn search(&self, memory: &[u8]) -> Vec<(usize, &'static str)> {
        let mut hits = Vec::new();
        let mut start = 0;
        while start + 8 <= memory.len() {
            let end = (start + BLOCK + 7).min(memory.len());
            let block = &memory[start..end];
            if block != &ZEROS[..block.len()] {
                for (offset, piece) in block.windows(8).enumerate() {
                    if self.likely[usize::from(u16::from_le_bytes([piece[0], piece[1]]))] {
                        let piece = u64::from_le_bytes(piece.try_into().unwrap());
                        hits.extend(self.pieces.get(&piece).map(|name| (start + offset, *name)));
                    }
                }
            }
            start += BLOCK;
        }
        hits
    }
}

/// A private key, recomputed from the random bytes that the helper was given.
pub(super) struct Key(Scalar);

impl Key {
    /// As p256 makes one; none where the bytes are beyond the order.
    pub(super) fn from_random(bytes: [u8; 32]) -> Option<Self> {
        Option::from(Scalar::from_repr(bytes.into())).filter(|scalar| *scalar != Scalar::ZERO).map(Self)
    }

    /// SEC 1, uncompressed.
    pub(super) fn public_key(&self) -> Vec<u8> {
        (ProjectivePoint::GENERATOR * self.0).to_affine().to_encoded_point(false).as_bytes().to_vec()
    }

    /// The first half of the signature over this digest.
    pub(super) fn r(&self, digest: &[u8; 32]) -> Vec<u8> {
        r_of(self.nonce(digest)).to_repr().to_vec()
    }

    /// RFC 6979.
    fn nonce(&self, digest: &[u8; 32]) -> Scalar {
        let order = NistP256::ORDER.to_be_byte_array();
        let k = rfc6979::generate_k::<Sha256, _>(&self.0.to_repr(), &order, &(*digest).into(), &[]);
        Scalar::from_repr(k).unwrap()
    }

    /// What its certificate signing request has signed.
    fn request_digest(&self) -> [u8; 32] {
        let public_key = self.public_key();
        let key_info = &REQUEST_INFO[..];
        Sha256::digest([key_info, &public_key, &[0xa0, 0x00]].concat()).into()
    }
}

fn r_of(nonce: Scalar) -> Scalar {
    <Scalar as Reduce<U256>>::reduce_bytes(&(ProjectivePoint::GENERATOR * nonce).to_affine().x())
}

/// `CertificationRequestInfo` of an empty subject and a P-256 key, up to the point.
const REQUEST_INFO: [u8; 33] = [
    0x30, 0x62, 0x02, 0x01, 0x00, 0x30, 0x00, 0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
    0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK + 7] = [0; BLOCK + 7];
