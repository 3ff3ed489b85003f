//! The certificates of a Notary signature (`signature-specification.md`, "Certificate Requirements" and "Algorithm
//! Selection").
//!
//! The specification has its own rules for a chain: it is complete, in order, ends with a root, and holds nothing else; of
//! extensions it honours three. So no path is built here, every certificate is held against the next. Stricter than the
//! specification, which would let them pass: an extension that is marked as critical and is none of the three is refused
//! (RFC 5280, section 4.2), since nobody here would see to what it demands, such as the names a CA may issue for.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::CertificateDer;

use super::{MAX_CHAIN, NotaryError};
use crate::clock::UnixTime;
use crate::sigstore::x509::{self, Certificate, KeyKind};

/// The algorithms that there are, each for one kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
}

/// A chain that may sign: leaf first, root last.
#[derive(Debug)]
pub(super) struct Chain<'a>(Vec<Certificate<'a>>);

impl Algorithm {
    const ALL: [Self; 6] = [Self::Ps256, Self::Ps384, Self::Ps512, Self::Es256, Self::Es384, Self::Es512];

    /// As `alg` of JWS spells it (RFC 7518, section 3.1).
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
        }
    }

    pub(super) fn of_jws(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// By its number in COSE (RFC 9053, section 2.1, and RFC 8230, section 2).
    pub(super) fn of_cose(number: i64) -> Option<Self> {
        match number {
            -37 => Some(Self::Ps256),
            -38 => Some(Self::Ps384),
            -39 => Some(Self::Ps512),
            -7 => Some(Self::Es256),
            -35 => Some(Self::Es384),
            -36 => Some(Self::Es512),
            _ => None,
        }
    }

    /// The one that a key of this kind is for.
    fn of_key(spki: &[u8]) -> Option<Self> {
        match x509::key_kind(spki)? {
            KeyKind::EcdsaP256 => Some(Self::Es256),
            KeyKind::EcdsaP384 => Some(Self::Es384),
            KeyKind::EcdsaP521 => Some(Self::Es512),
            KeyKind::Rsa { bits: 2048 } => Some(Self::Ps256),
            KeyKind::Rsa { bits: 3072 } => Some(Self::Ps384),
            KeyKind::Rsa { bits: 4096 } => Some(Self::Ps512),
            KeyKind::Rsa { .. } | KeyKind::Ed25519 => None,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &RSA_PSS_2048_8192_SHA512,
            Self::Es256 => &ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

impl<'a> Chain<'a> {
    /// Checks everything but validity, which is for whoever knows the time, and trust.
    pub(super) fn check(ders: &'a [CertificateDer<'static>]) -> Result<Self, NotaryError> {
        let wrong = NotaryError::Certificates;
        if ders.is_empty() || ders.len() > MAX_CHAIN {
            return Err(wrong(format!("it has {} of them; a chain has 1 to {MAX_CHAIN}", ders.len())));
        }
        let mut chain = Vec::with_capacity(ders.len());
        for (at, der) in ders.iter().enumerate() {
            let parsed = Certificate::parse(der);
            chain.push(parsed.map_err(|_| wrong(format!("{} is no DER X.509 v3", place(at))))?);
        }
        // From the root down: who has no certificate of the store's owner gets no further than its first signature.
        for (at, certificate) in chain.iter().enumerate().rev() {
            let certified = |why: &str| wrong(format!("{} {why}", place(at)));
            let last = at + 1 == chain.len();
            // What each may do costs less than whose signature it has.
            if at == 0 {
                check_leaf(certificate).map_err(certified)?;
            } else {
                check_issuer(certificate, at - 1).map_err(certified)?;
            }
            if !last && certificate.issuer == certificate.subject && is_issued_by(certificate, certificate) {
                return Err(certified("is a root, and is not the last"));
            }
            let issuer = chain.get(at + 1).unwrap_or(certificate);
            if !is_issued_by(certificate, issuer) {
                return Err(certified(if last { "is the last, and no root" } else { "is not signed by the next one" }));
            }
        }
        Ok(Self(chain))
    }

    pub(super) fn leaf(&self) -> &Certificate<'a> {
        &self.0[0]
    }

    /// Whether the leaf's key made this signature with the algorithm that it is for, and the envelope says so.
    pub(super) fn verify(&self, stated: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), NotaryError> {
        let spki = self.leaf().spki;
        // Of another kind it would have been refused as a leaf.
        let Some(algorithm) = Algorithm::of_key(spki) else { return Err(NotaryError::Signature) };
        if stated != algorithm {
            return Err(NotaryError::Algorithm { found: stated.name().to_owned(), expected: algorithm.name() });
        }
        let (_, key) = x509::split_spki(spki).map_err(|_| NotaryError::Signature)?;
        let key = UnparsedPublicKey::new(algorithm.verification(), key);
        key.verify(message, signature).map_err(|_| NotaryError::Signature)
    }

    /// Whether every certificate is valid at this moment.
    pub(super) fn is_valid(&self, at: UnixTime) -> bool {
        self.0.iter().all(|certificate| certificate.not_before <= at && at <= certificate.not_after)
    }

    /// When the first of them ends.
    pub(super) fn ends(&self) -> Option<UnixTime> {
        self.0.iter().map(|certificate| certificate.not_after).min()
    }
}

fn is_issued_by(certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
    certificate.issuer == issuer.subject
        && x509::verify(issuer.spki, certificate.algorithm, certificate.tbs, certificate.signature)
}

/// "Leaf Certificates".
fn check_leaf(leaf: &Certificate<'_>) -> Result<(), &'static str> {
    check_extensions(leaf)?;
    if leaf.basic_constraints().map_err(|_| UNREADABLE)?.ca {
        return Err("is a CA, which signs no images");
    }
    let usage = leaf.key_usage().map_err(|_| UNREADABLE)?;
    if !is_critical(leaf, x509::KEY_USAGE) || usage.is_none() {
        return Err("has no critical key usage");
    }
    let usage = usage.unwrap_or_default();
    if usage & x509::DIGITAL_SIGNATURE == 0 || usage & !(x509::DIGITAL_SIGNATURE | x509::CONTENT_COMMITMENT) != 0 {
        return Err("must have a key usage of digitalSignature and nothing that encrypts, agrees or certifies");
    }
    let purposes = leaf.extended_key_usage().map_err(|_| UNREADABLE)?.unwrap_or_default();
    if purposes.iter().any(|purpose| FOREIGN_PURPOSES.contains(purpose)) {
        return Err("is for other purposes than signing code");
    }
    match Algorithm::of_key(leaf.spki) {
        Some(_) => Ok(()),
        None => Err("has a key that is none of RSA of 2048, 3072 or 4096 bits and ECDSA on P-256, P-384 or P-521"),
    }
}

/// "Root and Intermediate CA Certificates". `below` is how many CAs stand between it and the leaf.
fn check_issuer(issuer: &Certificate<'_>, below: usize) -> Result<(), &'static str> {
    check_extensions(issuer)?;
    let constraints = issuer.basic_constraints().map_err(|_| UNREADABLE)?;
    if !constraints.ca || !is_critical(issuer, x509::BASIC_CONSTRAINTS) {
        return Err("has no critical basic constraints that make it a CA");
    }
    if constraints.path_length.is_some_and(|limit| usize::from(limit) < below) {
        return Err("has more CAs below it than its path length allows");
    }
    let usage = issuer.key_usage().map_err(|_| UNREADABLE)?;
    if !is_critical(issuer, x509::KEY_USAGE) || usage.unwrap_or_default() & x509::KEY_CERT_SIGN == 0 {
        return Err("has no critical key usage with keyCertSign");
    }
    match x509::key_kind(issuer.spki) {
        Some(KeyKind::Ed25519) | None => Err("has a key that is neither RSA from 2048 bits on nor ECDSA"),
        Some(_) => Ok(()),
    }
}

fn check_extensions(certificate: &Certificate<'_>) -> Result<(), &'static str> {
    let understood = [x509::BASIC_CONSTRAINTS, x509::KEY_USAGE, x509::EXTENDED_KEY_USAGE];
    match certificate.extensions.iter().find(|one| one.critical && !understood.contains(&one.oid)) {
        Some(_) => Err("has a critical extension other than basic constraints, key usage and extended key usage"),
        None => Ok(()),
    }
}

fn is_critical(certificate: &Certificate<'_>, oid: &[u8]) -> bool {
    certificate.extension(oid).is_some_and(|extension| extension.critical)
}

fn place(at: usize) -> String {
    format!("certificate {} of its chain", at + 1)
}

const UNREADABLE: &str = "has an extension that cannot be read";

macro_rules! key_purpose {
    ($last:literal) => {
        &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, $last]
    };
}

/// anyExtendedKeyUsage, serverAuth, clientAuth, emailProtection, timeStamping.
const FOREIGN_PURPOSES: [&[u8]; 5] =
    [&[0x55, 0x1d, 0x25, 0x00], key_purpose!(1), key_purpose!(2), key_purpose!(4), key_purpose!(8)];
