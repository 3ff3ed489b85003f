//! X.509 v3 certificates (RFC 5280) as far as Sigstore needs them, with the bytes as they were signed.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA256_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};

use super::der::{self, NotDer, Reader};
use crate::clock::UnixTime;

/// A certificate, its form checked and nothing else.
#[derive(Debug)]
pub(crate) struct Certificate<'a> {
    /// `tbsCertificate`, raw.
    pub(crate) tbs: &'a [u8],
    /// Everything in it before the extensions, each raw: what a precertificate has in common with the certificate.
    pub(crate) before_extensions: Vec<&'a [u8]>,
    /// Contents of the serial number's INTEGER.
    pub(crate) serial: &'a [u8],
    /// `issuer`, raw.
    pub(crate) issuer: &'a [u8],
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    /// `subject`, raw.
    pub(crate) subject: &'a [u8],
    /// `subjectPublicKeyInfo`, raw.
    pub(crate) spki: &'a [u8],
    pub(crate) extensions: Vec<Extension<'a>>,
    /// Contents of `signatureAlgorithm`.
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Extension<'a> {
    /// Contents of its OBJECT IDENTIFIER.
    pub(crate) oid: &'a [u8],
    pub(crate) critical: bool,
    /// Contents of `extnValue`.
    pub(crate) value: &'a [u8],
    pub(crate) raw: &'a [u8],
}

/// `BasicConstraints`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BasicConstraints {
    pub(crate) ca: bool,
    pub(crate) path_length: Option<u8>,
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, NotDer> {
        if bytes.len() > MAX_BYTES {
            return Err(NotDer);
        }
        let mut outer = Reader::new(der::whole(bytes, der::SEQUENCE)?.value);
        let tbs = outer.expect(der::SEQUENCE)?;
        let algorithm = outer.expect(der::SEQUENCE)?;
        let signature = outer.octets_of_bits()?;
        outer.end()?;

        let mut fields = Reader::new(tbs.value);
        let version = fields.expect(der::context(0))?;
        if version.value != V3 {
            return Err(NotDer);
        }
        let serial = fields.expect(der::INTEGER)?;
        let inner_algorithm = fields.expect(der::SEQUENCE)?;
        if inner_algorithm.raw != algorithm.raw {
            return Err(NotDer);
        }
        let issuer = fields.expect(der::SEQUENCE)?;
        let validity = fields.expect(der::SEQUENCE)?;
        let subject = fields.expect(der::SEQUENCE)?;
        let spki = fields.expect(der::SEQUENCE)?;
        // No `issuerUniqueID` and `subjectUniqueID`: webpki does not take them either.
        let extensions = match fields.optional(der::context(3))? {
            Some(wrapped) => extensions(der::whole(wrapped.value, der::SEQUENCE)?.value)?,
            None => Vec::new(),
        };
        fields.end()?;

        let mut window = Reader::new(validity.value);
        let (not_before, not_after) = (window.time()?, window.time()?);
        window.end()?;
        Ok(Self {
            tbs: tbs.raw,
            before_extensions: [version, serial, inner_algorithm, issuer, validity, subject, spki]
                .iter()
                .map(|field| field.raw)
                .collect(),
            serial: serial.value,
            issuer: issuer.raw,
            not_before,
            not_after,
            subject: subject.raw,
            spki: spki.raw,
            extensions,
            algorithm: algorithm.value,
            signature,
        })
    }

    pub(crate) fn extension(&self, oid: &[u8]) -> Option<&Extension<'a>> {
        self.extensions.iter().find(|extension| extension.oid == oid)
    }

    /// Absent means: no CA.
    pub(crate) fn basic_constraints(&self) -> Result<BasicConstraints, NotDer> {
        let Some(extension) = self.extension(BASIC_CONSTRAINTS) else {
            return Ok(BasicConstraints { ca: false, path_length: None });
        };
        let mut fields = Reader::new(der::whole(extension.value, der::SEQUENCE)?.value);
        let ca = fields.default_false()?;
        let path_length = if fields.is_empty() { None } else { Some(fields.small()?) };
        fields.end()?;
        Ok(BasicConstraints { ca, path_length })
    }

    /// The bits of `KeyUsage`, the first one lowest; `None` when the extension is absent.
    pub(crate) fn key_usage(&self) -> Result<Option<u16>, NotDer> {
        let Some(extension) = self.extension(KEY_USAGE) else { return Ok(None) };
        let bits = match *der::whole(extension.value, der::BIT_STRING)?.value {
            // X.690, section 11.2.1: bits that are not used are zero.
            [unused @ 0..8, .., last] if last & ((1 << unused) - 1) != 0 => return Err(NotDer),
            [0..8, first] => u16::from(first.reverse_bits()),
            [0..8, first, second] => u16::from(first.reverse_bits()) | u16::from(second.reverse_bits()) << 8,
            _ => return Err(NotDer),
        };
        Ok(Some(bits))
    }

    /// The purposes of `ExtKeyUsage`, contents of their OBJECT IDENTIFIERs; `None` when the extension is absent.
    pub(crate) fn extended_key_usage(&self) -> Result<Option<Vec<&'a [u8]>>, NotDer> {
        let Some(extension) = self.extension(EXTENDED_KEY_USAGE) else { return Ok(None) };
        let mut list = Reader::new(der::whole(extension.value, der::SEQUENCE)?.value);
        let mut purposes = Vec::new();
        while !list.is_empty() {
            purposes.push(list.oid()?);
        }
        Ok(Some(purposes))
    }
}

fn extensions(list: &[u8]) -> Result<Vec<Extension<'_>>, NotDer> {
    let mut list = Reader::new(list);
    let mut extensions: Vec<Extension<'_>> = Vec::new();
    while !list.is_empty() {
        let element = list.expect(der::SEQUENCE)?;
        let mut fields = Reader::new(element.value);
        let extension = Extension {
            oid: fields.oid()?,
            critical: fields.default_false()?,
            value: fields.expect(der::OCTET_STRING)?.value,
            raw: element.raw,
        };
        fields.end()?;
        // RFC 5280, section 4.2: not twice. Two readers might each take another one.
        if extensions.len() == MAX_EXTENSIONS || extensions.iter().any(|known| known.oid == extension.oid) {
            return Err(NotDer);
        }
        extensions.push(extension);
    }
    Ok(extensions)
}

/// The algorithm's contents and the key's bits in a SubjectPublicKeyInfo.
pub(crate) fn split_spki(spki: &[u8]) -> Result<(&[u8], &[u8]), NotDer> {
    let mut fields = Reader::new(der::whole(spki, der::SEQUENCE)?.value);
    let algorithm = fields.expect(der::SEQUENCE)?.value;
    let bits = fields.octets_of_bits()?;
    fields.end()?;
    Ok((algorithm, bits))
}

/// Verifies a signature under an AlgorithmIdentifier's contents; `false` for an unknown algorithm as well.
pub(crate) fn verify(spki: &[u8], algorithm: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok((key_algorithm, key)) = split_spki(spki) else { return false };
    webpki::ALL_VERIFICATION_ALGS.iter().any(|candidate| {
        *candidate.signature_alg_id() == *algorithm
            && *candidate.public_key_alg_id() == *key_algorithm
            && candidate.verify_signature(key, message, signature).is_ok()
    })
}

/// A public key of a CT log, a transparency log or a release.
#[derive(Clone)]
pub(crate) struct VerifyingKey {
    spki: Box<[u8]>,
    kind: KeyKind,
    parsed: ParsedPublicKey,
    /// The same key with the other hash that signatures of its kind have.
    otherwise: Option<ParsedPublicKey>,
}

/// The kinds of keys that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    EcdsaP256,
    EcdsaP384,
    EcdsaP521,
    Rsa { bits: usize },
    Ed25519,
}

impl VerifyingKey {
    /// A key that logs and snapshots may be signed with.
    pub(crate) fn from_spki(spki: &[u8]) -> Option<Self> {
        Self::of_release(spki).filter(|key| !matches!(key.kind, KeyKind::EcdsaP384 | KeyKind::EcdsaP521))
    }

    /// A key that releases may be signed with: those, and ECDSA on the other curves that cosign takes.
    pub(crate) fn of_release(spki: &[u8]) -> Option<Self> {
        let (_, bits) = split_spki(spki).ok()?;
        let kind = key_kind(spki)?;
        // cosign 3 signs with the hash of the curve's own size; with SHA-256 its `verify` checks by default.
        let (verification, otherwise): (
            &'static dyn VerificationAlgorithm,
            Option<&'static dyn VerificationAlgorithm>,
        ) = match kind {
            KeyKind::EcdsaP256 => (&ECDSA_P256_SHA256_ASN1, None),
            KeyKind::EcdsaP384 => (&ECDSA_P384_SHA384_ASN1, Some(&ECDSA_P384_SHA256_ASN1)),
            KeyKind::EcdsaP521 => (&ECDSA_P521_SHA512_ASN1, Some(&ECDSA_P521_SHA256_ASN1)),
            KeyKind::Rsa { .. } => (&RSA_PKCS1_2048_8192_SHA256, None),
            KeyKind::Ed25519 => (&ED25519, None),
        };
        let parsed = ParsedPublicKey::new(verification, bits).ok()?;
        let otherwise = match otherwise {
            Some(verification) => Some(ParsedPublicKey::new(verification, bits).ok()?),
            None => None,
        };
        Some(Self { spki: spki.into(), kind, parsed, otherwise })
    }

    pub(crate) fn kind(&self) -> KeyKind {
        self.kind
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// With SHA-256 where the algorithm takes a hash, and on larger curves with that of their size as well.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verifies = |key: &ParsedPublicKey| key.verify_sig(message, signature).is_ok();
        verifies(&self.parsed) || self.otherwise.as_ref().is_some_and(verifies)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifyingKey").field(&self.kind).finish()
    }
}

/// The kind of a key, RSA from 2,048 to 8,192 bits, uncompressed points; `None` for any other.
pub(crate) fn key_kind(spki: &[u8]) -> Option<KeyKind> {
    let (algorithm, bits) = split_spki(spki).ok()?;
    match algorithm {
        P256_KEY if bits.len() == 65 && bits[0] == 4 => Some(KeyKind::EcdsaP256),
        P384_KEY if bits.len() == 97 && bits[0] == 4 => Some(KeyKind::EcdsaP384),
        P521_KEY if bits.len() == 133 && bits[0] == 4 => Some(KeyKind::EcdsaP521),
        RSA_KEY => {
            let bits = modulus_bits(bits).ok().filter(|bits| (2048..=8192).contains(bits))?;
            Some(KeyKind::Rsa { bits })
        }
        ED25519_KEY => Some(KeyKind::Ed25519),
        _ => None,
    }
}

fn modulus_bits(rsa_public_key: &[u8]) -> Result<usize, NotDer> {
    let mut fields = Reader::new(der::whole(rsa_public_key, der::SEQUENCE)?.value);
    let modulus = fields.integer()?;
    let digits = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    Ok(digits.first().map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize))
}

/// The uncompressed point of an ECDSA key on P-256.
pub(crate) fn p256_point(spki: &[u8]) -> Option<&[u8]> {
    split_spki(spki).ok().filter(|(algorithm, _)| *algorithm == P256_KEY).map(|(_, point)| point)
}

/// A certificate has one or two kilobytes, ten with post-quantum keys, and a dozen extensions.
pub(crate) const MAX_BYTES: usize = 32 * 1024;
const MAX_EXTENSIONS: usize = 64;

/// `INTEGER 2` (v3).
const V3: &[u8] = &[0x02, 0x01, 0x02];

/// id-ecPublicKey with prime256v1 (RFC 5480, section 2.1.1).
const P256_KEY: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// The same with secp384r1.
const P384_KEY: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
/// The same with secp521r1.
const P521_KEY: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
/// rsaEncryption with NULL (RFC 3279, section 2.3.1).
const RSA_KEY: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// id-Ed25519 (RFC 8410, section 3).
const ED25519_KEY: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// 2.5.29.19.
pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// 2.5.29.15.
pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// 2.5.29.37.
pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// 2.5.29.17.
pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 1.3.6.1.5.5.7.3.3.
pub(crate) const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
/// 1.3.6.1.5.5.7.3.8.
pub(crate) const TIME_STAMPING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08];

/// Bits of [`Certificate::key_usage`].
pub(crate) const DIGITAL_SIGNATURE: u16 = 1;
pub(crate) const CONTENT_COMMITMENT: u16 = 1 << 1;
pub(crate) const KEY_CERT_SIGN: u16 = 1 << 5;
pub(crate) const CRL_SIGN: u16 = 1 << 6;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use testkit::sigstore::x509::{Issuer, SigningKey, Template, extension};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn with(extensions: Vec<Vec<u8>>) -> Vec<u8> {
        let key = SigningKey::p256();
        let template = Template::new("leaf", key.spki(), NOW).with(extensions);
        Issuer::root("root", SigningKey::p256(), NOW).sign(&template)
    }

    #[test]
    fn bits_of_a_key_usage_that_are_not_used_are_zero() {
        let usage = |bits: &[u8]| {
            let value = [&[0x03, u8::try_from(bits.len()).unwrap()], bits].concat();
            let der = with(vec![extension("2.5.29.15", true, &value)]);
            Certificate::parse(&der).and_then(|certificate| certificate.key_usage())
        };
        assert_eq!(usage(&[7, 0x80]), Ok(Some(DIGITAL_SIGNATURE)));
        assert_eq!(usage(&[7, 0xc0]), Err(NotDer));
        assert_eq!(usage(&[7, 0, 0x80]), Ok(Some(1 << 8)));
        assert_eq!(usage(&[7, 0, 0x81]), Err(NotDer));
    }

    #[test]
    fn what_no_certificate_needs_is_not_read() {
        let many = |count: usize| (0..count).map(|one| extension(&format!("1.2.3.{one}"), false, b"")).collect();
        assert!(Certificate::parse(&with(many(MAX_EXTENSIONS))).is_ok());
        assert_eq!(Certificate::parse(&with(many(MAX_EXTENSIONS + 1))).map(drop), Err(NotDer));
        let long = with(vec![extension("1.2.3", false, &vec![0; MAX_BYTES])]);
        assert_eq!(Certificate::parse(&long).map(drop), Err(NotDer));
    }
}
