//! Objects of the device: what they are, what they may do, who may see them.

use std::fmt;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
};

use crate::device::error;

/// Object types.
pub mod kind {
    /// Bytes that the device does not look into.
    pub const OPAQUE: u8 = 1;
    /// Opens sessions.
    pub const AUTHENTICATION_KEY: u8 = 2;
    /// Signs.
    pub const ASYMMETRIC_KEY: u8 = 3;
}

/// Capabilities: what an object may do, or have done.
pub mod capability {
    /// Read opaque objects.
    pub const GET_OPAQUE: u64 = 1;
    /// Write opaque objects.
    pub const PUT_OPAQUE: u64 = 1 << 0x01;
    /// Write authentication keys.
    pub const PUT_AUTHENTICATION_KEY: u64 = 1 << 0x02;
    /// Import asymmetric keys.
    pub const PUT_ASYMMETRIC_KEY: u64 = 1 << 0x03;
    /// Generate asymmetric keys.
    pub const GENERATE_ASYMMETRIC_KEY: u64 = 1 << 0x04;
    /// ECDSA.
    pub const SIGN_ECDSA: u64 = 1 << 0x07;
    /// May be exported under a wrap key.
    pub const EXPORTABLE_UNDER_WRAP: u64 = 1 << 0x10;
    /// Write options.
    pub const PUT_OPTION: u64 = 1 << 0x11;
    /// Read options.
    pub const GET_OPTION: u64 = 1 << 0x12;
    /// Read the log and move its index.
    pub const GET_LOG_ENTRIES: u64 = 1 << 0x18;
    /// Factory reset.
    pub const RESET_DEVICE: u64 = 1 << 0x1c;
    /// Certificates for keys.
    pub const SIGN_ATTESTATION_CERTIFICATE: u64 = 1 << 0x22;
    /// Delete opaque objects.
    pub const DELETE_OPAQUE: u64 = 1 << 0x27;
    /// Delete authentication keys.
    pub const DELETE_AUTHENTICATION_KEY: u64 = 1 << 0x28;
    /// Delete asymmetric keys.
    pub const DELETE_ASYMMETRIC_KEY: u64 = 1 << 0x29;
}

/// An object of the device.
pub struct Object {
    /// What it may do, or have done.
    pub capabilities: u64,
    /// Sixteen domains; an authentication key sees the objects that share one with it.
    pub domains: u16,
    /// See `algorithm` in Yubico's manual; 12 is P-256.
    pub algorithm: u8,
    /// How many objects had this type and id before.
    pub sequence: u8,
    /// 1: generated here. 2: imported.
    pub origin: u8,
    /// At most 40 bytes.
    pub label: [u8; 40],
    /// What an authentication key may give to others.
    pub delegated: u64,
    /// What it holds.
    pub secret: Secret,
}

/// What an object holds.
pub enum Secret {
    /// Bytes.
    Opaque(Vec<u8>),
    /// AES-128 for encryption and for MACs.
    Authentication([u8; 32]),
    /// A key pair.
    Ecdsa(Box<EcdsaKeyPair>),
}

/// The fields by which objects are made, in the order of GENERATE and PUT commands.
pub(crate) struct Params {
    pub(crate) id: u16,
    pub(crate) label: [u8; 40],
    pub(crate) domains: u16,
    pub(crate) capabilities: u64,
    pub(crate) algorithm: u8,
}

impl Params {
    /// Those, and what follows them.
    pub(crate) fn read(data: &[u8]) -> Result<(Self, &[u8]), u8> {
        let wrong = error::WRONG_LENGTH;
        let (&id, rest) = data.split_first_chunk().ok_or(wrong)?;
        let (&label, rest) = rest.split_first_chunk().ok_or(wrong)?;
        let (&domains, rest) = rest.split_first_chunk().ok_or(wrong)?;
        let (&capabilities, rest) = rest.split_first_chunk().ok_or(wrong)?;
        let (&algorithm, rest) = rest.split_first().ok_or(wrong)?;
        let (id, domains) = (u16::from_be_bytes(id), u16::from_be_bytes(domains));
        let capabilities = u64::from_be_bytes(capabilities);
        Ok((Self { id, label, domains, capabilities, algorithm }, rest))
    }

    /// A new object with them.
    pub(crate) fn object(self, origin: u8, secret: Secret) -> Object {
        let Self { label, domains, capabilities, algorithm, .. } = self;
        Object { capabilities, domains, algorithm, sequence: 0, origin, label, delegated: 0, secret }
    }
}

impl Object {
    /// The answer to GET OBJECT INFO.
    pub(crate) fn info(&self, kind: u8, id: u16) -> Vec<u8> {
        let mut info = self.capabilities.to_be_bytes().to_vec();
        info.extend_from_slice(&id.to_be_bytes());
        info.extend_from_slice(&self.length().to_be_bytes());
        info.extend_from_slice(&self.domains.to_be_bytes());
        info.extend_from_slice(&[kind, self.algorithm, self.sequence, self.origin]);
        info.extend_from_slice(&self.label);
        info.extend_from_slice(&self.delegated.to_be_bytes());
        info
    }

    fn length(&self) -> u16 {
        match &self.secret {
            Secret::Opaque(bytes) => u16::try_from(bytes.len()).unwrap_or(u16::MAX),
            Secret::Authentication(_) => 40,
            Secret::Ecdsa(pair) => u16::try_from(pair.public_key().as_ref().len() / 2).unwrap_or(u16::MAX),
        }
    }
}

impl Secret {
    /// A key pair made here.
    pub(crate) fn generate(algorithm: u8) -> Result<Self, u8> {
        let signing = match algorithm {
            P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
            _ => return Err(error::INVALID_DATA),
        };
        EcdsaKeyPair::generate(signing).map(|pair| Self::Ecdsa(Box::new(pair))).map_err(|_| error::STORAGE_FAILED)
    }

    /// A P-256 key pair from outside.
    pub(crate) fn import(algorithm: u8, scalar: &[u8]) -> Result<Self, u8> {
        if algorithm != P256 {
            return Err(error::INVALID_DATA);
        }
        let private = PrivateKey::from_private_key(&ECDH_P256, scalar).map_err(|_| error::INVALID_DATA)?;
        let public = private.compute_public_key().map_err(|_| error::INVALID_DATA)?;
        EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_ASN1_SIGNING, scalar, public.as_ref())
            .map(|pair| Self::Ecdsa(Box::new(pair)))
            .map_err(|_| error::INVALID_DATA)
    }

    /// ECDSA over a digest, as ASN.1.
    pub(crate) fn sign(&self, digest: &[u8]) -> Result<Vec<u8>, u8> {
        let Self::Ecdsa(pair) = self else { return Err(error::INVALID_DATA) };
        let digest = aws_lc_rs::digest::Digest::import_less_safe(digest, &aws_lc_rs::digest::SHA256)
            .map_err(|_| error::WRONG_LENGTH)?;
        pair.sign_digest(&digest).map(|signature| signature.as_ref().to_vec()).map_err(|_| error::INVALID_DATA)
    }

    /// The public point without its first byte.
    pub(crate) fn public_point(&self) -> Option<&[u8]> {
        match self {
            Self::Ecdsa(pair) => pair.public_key().as_ref().get(1..),
            Self::Opaque(_) | Self::Authentication(_) => None,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The authentication key of a password, as all of Yubico's tools derive it.
#[must_use]
pub fn key_of_password(password: &[u8]) -> [u8; 32] {
    use aws_lc_rs::pbkdf2;
    let mut key = [0; 32];
    let rounds = std::num::NonZeroU32::MIN.saturating_add(9_999);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, b"Yubico", password, &mut key);
    key
}

/// A label, padded with zeros; cut after 40 bytes.
#[must_use]
pub fn label(text: &str) -> [u8; 40] {
    let mut label = [0; 40];
    for (to, from) in label.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    label
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::SecureRandom::fill(&SystemRandom::new(), &mut bytes).expect("the system has random numbers");
    bytes
}

const P256: u8 = 12;
const P384: u8 = 13;
