//! Keys, and certificates whose every field can be wrong.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RsaKeyPair,
};

use super::der;

/// A key that signs certificates, timestamps or SCTs. Clones are the same key.
#[derive(Clone)]
pub struct SigningKey(Arc<Kind>);

enum Kind {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// ECDSA on P-256 with SHA-256.
    #[must_use]
    pub fn p256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("randomness is there");
        Self(Arc::new(Kind::P256(pair)))
    }

    /// ECDSA on P-384 with SHA-384.
    #[must_use]
    pub fn p384() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).expect("randomness is there");
        Self(Arc::new(Kind::P384(pair)))
    }

    /// RSA PKCS#1 of 2,048 bits with SHA-256.
    #[must_use]
    pub fn rsa() -> Self {
        Self(Arc::new(Kind::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("randomness is there"))))
    }

    /// Ed25519.
    #[must_use]
    pub fn ed25519() -> Self {
        Self(Arc::new(Kind::Ed25519(Ed25519KeyPair::generate().expect("randomness is there"))))
    }

    /// DER, except for Ed25519.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &*self.0 {
            Kind::P256(pair) | Kind::P384(pair) => pair.sign(&random, message).expect("it signs").as_ref().to_vec(),
            Kind::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("it signs");
                signature
            }
            Kind::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key's bits: point, RSAPublicKey, or 32 bytes.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        match &*self.0 {
            Kind::P256(pair) | Kind::P384(pair) => pair.public_key().as_ref(),
            Kind::Rsa(pair) => pair.public_key().as_ref(),
            Kind::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    /// SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        let algorithm = match &*self.0 {
            Kind::P256(_) => der::seq(&[&der::oid("1.2.840.10045.2.1"), &der::oid("1.2.840.10045.3.1.7")]),
            Kind::P384(_) => der::seq(&[&der::oid("1.2.840.10045.2.1"), &der::oid("1.3.132.0.34")]),
            Kind::Rsa(_) => der::seq(&[&der::oid("1.2.840.113549.1.1.1"), NULL]),
            Kind::Ed25519(_) => der::seq(&[&der::oid("1.3.101.112")]),
        };
        der::seq(&[&algorithm, &der::bits(self.public())])
    }

    /// AlgorithmIdentifier of its signatures.
    #[must_use]
    pub fn algorithm(&self) -> Vec<u8> {
        match &*self.0 {
            Kind::P256(_) => der::seq(&[&der::oid("1.2.840.10045.4.3.2")]),
            Kind::P384(_) => der::seq(&[&der::oid("1.2.840.10045.4.3.3")]),
            Kind::Rsa(_) => der::seq(&[&der::oid("1.2.840.113549.1.1.11"), NULL]),
            Kind::Ed25519(_) => der::seq(&[&der::oid("1.3.101.112")]),
        }
    }
}

/// A certificate before it is signed.
#[derive(Clone, Debug)]
pub struct Template {
    /// Contents of the serial number's INTEGER.
    pub serial: Vec<u8>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Name, DER.
    pub subject: Vec<u8>,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// Each a whole Extension, DER.
    pub extensions: Vec<Vec<u8>>,
}

/// Who signs certificates: a name and a key, and the certificate for them.
#[derive(Clone)]
pub struct Issuer {
    /// Name, DER.
    pub name: Vec<u8>,
    /// Its key.
    pub key: SigningKey,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
}

impl Template {
    /// Without extensions; valid for a year around `now`.
    #[must_use]
    pub fn new(common_name: &str, spki: Vec<u8>, now: i64) -> Self {
        let mut serial = crate::sha256([&spki[..], common_name.as_bytes()].concat())[..16].to_vec();
        serial[0] = serial[0] & 0x3f | 0x40;
        let (not_before, not_after) = (now - 180 * 86_400, now + 180 * 86_400);
        Self { serial, not_before, not_after, subject: der::name(common_name), spki, extensions: Vec::new() }
    }

    /// With these extensions.
    #[must_use]
    pub fn with(mut self, extensions: Vec<Vec<u8>>) -> Self {
        self.extensions.extend(extensions);
        self
    }

    /// The part that is signed.
    #[must_use]
    pub fn tbs(&self, issuer: &[u8], algorithm: &[u8]) -> Vec<u8> {
        let list: Vec<&[u8]> = self.extensions.iter().map(Vec::as_slice).collect();
        let validity = der::seq(&[&der::utc_time(self.not_before), &der::utc_time(self.not_after)]);
        let extensions = if list.is_empty() { Vec::new() } else { der::tlv(0xa3, &[&der::seq(&list)]) };
        der::seq(&[
            &[0xa0, 3, 2, 1, 2],
            &der::integer(&self.serial),
            algorithm,
            issuer,
            &validity,
            &self.subject,
            &self.spki,
            &extensions,
        ])
    }

    /// The certificate.
    #[must_use]
    pub fn signed_by(&self, issuer_name: &[u8], key: &SigningKey) -> Vec<u8> {
        let algorithm = key.algorithm();
        let tbs = self.tbs(issuer_name, &algorithm);
        der::seq(&[&tbs, &algorithm, &der::bits(&key.sign(&tbs))])
    }
}

impl Issuer {
    /// A root of its own.
    #[must_use]
    pub fn root(common_name: &str, key: SigningKey, now: i64) -> Self {
        Self::root_of(Template::new(common_name, key.spki(), now).with(ca_extensions(None)), key)
    }

    /// A root with this certificate.
    #[must_use]
    pub fn root_of(template: Template, key: SigningKey) -> Self {
        let certificate = template.signed_by(&template.subject, &key);
        Self { name: template.subject, key, certificate }
    }

    /// An intermediate below this one.
    #[must_use]
    pub fn below(&self, template: Template, key: SigningKey) -> Self {
        let certificate = self.sign(&template);
        Self { name: template.subject, key, certificate }
    }

    /// A certificate of this issuer.
    #[must_use]
    pub fn sign(&self, template: &Template) -> Vec<u8> {
        template.signed_by(&self.name, &self.key)
    }
}

/// What a CA has: critical basicConstraints, critical keyUsage of keyCertSign and cRLSign.
#[must_use]
pub fn ca_extensions(path_length: Option<u8>) -> Vec<Vec<u8>> {
    vec![basic_constraints(true, path_length), key_usage(1 << 5 | 1 << 6)]
}

/// An extension.
#[must_use]
pub fn extension(dotted: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { der::yes() } else { Vec::new() };
    der::seq(&[&der::oid(dotted), &flag, &der::octets(value)])
}

/// Critical basicConstraints.
#[must_use]
pub fn basic_constraints(ca: bool, path_length: Option<u8>) -> Vec<u8> {
    let flag = if ca { der::yes() } else { Vec::new() };
    let length = path_length.map(|length| der::integer(&[length])).unwrap_or_default();
    extension("2.5.29.19", true, &der::seq(&[&flag, &length]))
}

/// Critical keyUsage; bit n of `usage` is bit n of the BIT STRING.
#[must_use]
pub fn key_usage(usage: u8) -> Vec<u8> {
    let octet = usage.reverse_bits();
    extension("2.5.29.15", true, &der::tlv(0x03, &[&[octet.trailing_zeros().min(7) as u8, octet]]))
}

/// extendedKeyUsage.
#[must_use]
pub fn extended_key_usage(purposes: &[&str], critical: bool) -> Vec<u8> {
    let purposes: Vec<Vec<u8>> = purposes.iter().map(|dotted| der::oid(dotted)).collect();
    let list: Vec<&[u8]> = purposes.iter().map(Vec::as_slice).collect();
    extension("2.5.29.37", critical, &der::seq(&list))
}

/// subjectAltName of GeneralNames, each with its tag.
#[must_use]
pub fn subject_alt_name(names: &[(u8, &[u8])], critical: bool) -> Vec<u8> {
    let names: Vec<Vec<u8>> = names.iter().map(|(tag, value)| der::tlv(*tag, &[value])).collect();
    let list: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    extension("2.5.29.17", critical, &der::seq(&list))
}

/// 1.3.6.1.5.5.7.3.3.
pub const CODE_SIGNING: &str = "1.3.6.1.5.5.7.3.3";
/// 1.3.6.1.5.5.7.3.8.
pub const TIME_STAMPING: &str = "1.3.6.1.5.5.7.3.8";

const NULL: &[u8] = &[0x05, 0x00];
