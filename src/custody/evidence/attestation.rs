//! A device's own word for a key: certificates, judged against a root that is pinned. One judgement, by which the worker
//! admits a key and an auditor reads a custody report.
//!
//! A YubiHSM signs a certificate for a key by its attestation key, whose certificate Yubico signed at the factory.
//! Yubico's extensions (1.3.6.1.4.1.41482.4) tie both to the device's serial number, and the key's to its object id. A key
//! of the device that may sign anything can issue certificates as well, and has a genuine certificate itself: what tells
//! it from the attestation key is that only certificates of mere keys carry an object id.

#![forbid(unsafe_code)]

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use jiff::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::custody::PublicKey;

/// What a chain must be about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The key that is vouched for.
    pub key: &'a PublicKey,
    /// The serial number by which the device is known, decimal. Compared where the certificates name one.
    pub serial: Option<&'a str>,
    /// The object id of the key in a YubiHSM: with it, the certificates must be such a device's.
    pub object: Option<u16>,
}

/// What is wrong with an attestation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// No certificate at all.
    #[error("there is no certificate")]
    Empty,
    /// Not X.509.
    #[error("certificate {0} of the chain is no X.509 certificate")]
    Form(usize),
    /// The leaf is for another key.
    #[error("the first certificate is for another public key")]
    OtherKey,
    /// The leaf is for another object of the device.
    #[error("the first certificate is for another object than the key's")]
    OtherObject,
    /// A certificate above the leaf is one for a key of a device.
    #[error(
        "certificate {0} of the chain is one for a key in a device, not for a device: that key may sign anything, a \
         certificate like the one below it included"
    )]
    NotADevice(usize),
    /// The certificates are not about one device, or not about this one.
    #[error("certificate {0} of the chain names another device, or none: its serial number is not the key's device's")]
    OtherSerial(usize),
    /// A link of the chain does not hold.
    #[error("certificate {0} of the chain was not signed by the next one")]
    NotSignedByNext(usize),
    /// The last one was not signed by the root, nor is it the root.
    #[error("the chain does not end at the pinned root")]
    OtherRoot,
    /// Outside its validity.
    #[error("certificate {0} of the chain was not valid at the time; is the clock right?")]
    NotValidThen(usize),
}

/// Checks that a device vouches for this key: the leaf is for it, each certificate was signed by the next, the last by
/// `root` (or is it), and all were valid at `then`. Certificates of a YubiHSM must be about one device, and no
/// certificate of a mere key may stand above the leaf.
///
/// Attestation certificates carry no usages and no constraints of the web PKI, which is why its rules are not applied
/// (Yubico, "YubiHSM 2 attestation").
///
/// # Errors
/// The first thing that does not hold.
pub fn check(chain: &[Vec<u8>], subject: &Subject<'_>, root: &[u8], then: Timestamp) -> Result<(), AttestationError> {
    let mut certificates = Vec::with_capacity(chain.len() + 1);
    for (at, der) in chain.iter().map(Vec::as_slice).chain([root]).enumerate() {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => certificates.push(certificate),
            _ => return Err(AttestationError::Form(at)),
        }
    }
    let leaf = chain.first().and(certificates.first()).ok_or(AttestationError::Empty)?;
    if PublicKey::from_spki(leaf.public_key().raw) != Ok(*subject.key) {
        return Err(AttestationError::OtherKey);
    }
    one_device(&certificates, subject)?;
    let seconds = then.as_second();
    for (at, certificate) in certificates.iter().enumerate() {
        let validity = certificate.validity();
        if seconds < validity.not_before.timestamp() || seconds > validity.not_after.timestamp() {
            return Err(AttestationError::NotValidThen(at));
        }
    }
    // A device may send its root along.
    let last = chain.len() - 1;
    let ends_with_root = chain[last] == root;
    for (at, pair) in certificates.windows(2).enumerate() {
        let [certificate, issuer] = pair else { continue };
        if at == last && ends_with_root {
            return Ok(());
        }
        if !signed_by(certificate, issuer) {
            return Err(if at == last { AttestationError::OtherRoot } else { AttestationError::NotSignedByNext(at) });
        }
    }
    Ok(())
}

/// Did `issuer` sign the certificate below it, under its own name? Yubico's devices and authorities sign by RSA; a device
/// whose attestation key was replaced may sign by ECDSA.
pub(in crate::custody) fn signed_by(below: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let signature = below.signature_algorithm.algorithm.to_id_string();
    let key = issuer.public_key().algorithm.algorithm.to_id_string();
    let algorithm: &dyn VerificationAlgorithm = match (signature.as_str(), key.as_str()) {
        ("1.2.840.113549.1.1.11", RSA) => &RSA_PKCS1_2048_8192_SHA256,
        ("1.2.840.113549.1.1.12", RSA) => &RSA_PKCS1_2048_8192_SHA384,
        ("1.2.840.113549.1.1.13", RSA) => &RSA_PKCS1_2048_8192_SHA512,
        ("1.2.840.10045.4.3.2", EC) => &ECDSA_P256_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", EC) => &ECDSA_P384_SHA384_ASN1,
        _ => return false,
    };
    below.issuer().as_raw() == issuer.subject().as_raw()
        && UnparsedPublicKey::new(algorithm, &issuer.public_key().subject_public_key.data)
            .verify(below.tbs_certificate.as_ref(), &below.signature_value.data)
            .is_ok()
}

/// Yubico's extensions, wherever they stand. Without one, the chain is another vendor's and they are not asked for.
fn one_device(certificates: &[X509Certificate<'_>], subject: &Subject<'_>) -> Result<(), AttestationError> {
    if let Some(at) = (1..certificates.len()).find(|&at| extension(&certificates[at], OBJECT_ID).is_some()) {
        return Err(AttestationError::NotADevice(at));
    }
    let marked = |oid| certificates.iter().any(|certificate| extension(certificate, oid).is_some());
    if subject.object.is_none() && !marked(SERIAL) && !marked(OBJECT_ID) {
        return Ok(());
    }
    let object = certificates.first().and_then(|leaf| extension(leaf, OBJECT_ID)).and_then(integer);
    if object.is_none() || subject.object.is_some_and(|wanted| object != Some(wanted.into())) {
        return Err(AttestationError::OtherObject);
    }
    let serial = certificates.first().and_then(|leaf| extension(leaf, SERIAL)).and_then(integer);
    if serial.is_none_or(|serial| subject.serial.is_some_and(|wanted| wanted != serial.to_string())) {
        return Err(AttestationError::OtherSerial(0));
    }
    // The key's and the device's certificate name it; what is above belongs to no device.
    let other = |(at, certificate): &(usize, &X509Certificate<'_>)| match extension(certificate, SERIAL) {
        Some(named) => integer(named) != serial,
        None => *at == 1,
    };
    match certificates.iter().enumerate().skip(1).find(other) {
        Some((at, _)) => Err(AttestationError::OtherSerial(at)),
        None => Ok(()),
    }
}

fn extension<'a>(certificate: &'a X509Certificate<'_>, oid: &str) -> Option<&'a [u8]> {
    let mut found = certificate.extensions().iter().filter(|extension| extension.oid.to_id_string() == oid);
    found.next().map(|extension| extension.value)
}

/// A DER integer that is not negative and has at most eight bytes.
fn integer(der: &[u8]) -> Option<u64> {
    let (&[tag, length], content) = der.split_first_chunk()?;
    if tag != 0x02 || usize::from(length) != content.len() || !(1..=8).contains(&length) || content[0] & 0x80 != 0 {
        return None;
    }
    Some(content.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";

// Yubico, "YubiHSM OIDs".
const SERIAL: &str = "1.3.6.1.4.1.41482.4.2";
const OBJECT_ID: &str = "1.3.6.1.4.1.41482.4.6";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    struct Vendor {
        root: CertifiedIssuer<'static, KeyPair>,
        device: CertifiedIssuer<'static, KeyPair>,
        key: KeyPair,
        attestation: Vec<u8>,
    }

    fn named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn vendor() -> Vendor {
        let mut params = named("root");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        // As devices do it: no basic constraints, no usages.
        let device = CertifiedIssuer::signed_by(named("device"), KeyPair::generate().unwrap(), &root).unwrap();
        let key = KeyPair::generate().unwrap();
        let attestation = named("key").signed_by(&key, &device).unwrap().der().to_vec();
        Vendor { root, device, key, attestation }
    }

    fn about(key: &PublicKey) -> Subject<'_> {
        Subject { key, serial: Some("4711"), object: None }
    }

    impl Vendor {
        fn public_key(&self) -> PublicKey {
            PublicKey::from_pem(self.key.public_key_pem().as_bytes()).unwrap()
        }

        fn chain(&self) -> Vec<Vec<u8>> {
            vec![self.attestation.clone(), self.device.der().to_vec()]
        }
    }

    #[test]
    fn a_chain_to_the_pinned_root_holds_with_and_without_the_root_in_it() {
        let vendor = vendor();
        let (key, root, now) = (vendor.public_key(), vendor.root.der(), Timestamp::now());
        let mut chain = vendor.chain();
        assert_eq!(check(&chain, &about(&key), root, now), Ok(()));
        chain.push(root.to_vec());
        assert_eq!(check(&chain, &about(&key), root, now), Ok(()));
    }

    #[test]
    fn whatever_is_not_that_chain_is_told_apart() {
        let (ours, other) = (vendor(), vendor());
        let (key, root, now) = (ours.public_key(), ours.root.der().to_vec(), Timestamp::now());
        let chain = ours.chain();
        let later: Timestamp = "9000-01-01T00:00:00Z".parse().unwrap();
        let table = [
            (vec![], key, &root, now, AttestationError::Empty),
            (vec![vec![0x30]], key, &root, now, AttestationError::Form(0)),
            ([&chain[0][..], &[0]].map(<[u8]>::to_vec).to_vec(), key, &root, now, AttestationError::Form(1)),
            (chain.clone(), other.public_key(), &root, now, AttestationError::OtherKey),
            (vec![chain[0].clone(), other.chain()[1].clone()], key, &root, now, AttestationError::NotSignedByNext(0)),
            (vec![chain[0].clone()], key, &root, now, AttestationError::OtherRoot),
            (chain.clone(), key, &other.root.der().to_vec(), now, AttestationError::OtherRoot),
            (chain.clone(), key, &root, later, AttestationError::NotValidThen(0)),
        ];
        for (chain, key, root, then, expected) in table {
            assert_eq!(check(&chain, &about(&key), root, then), Err(expected));
        }
    }

    #[test]
    fn a_chain_of_another_vendor_is_none_of_a_yubihsm() {
        let vendor = vendor();
        let key = vendor.public_key();
        let subject = Subject { object: Some(7), ..about(&key) };
        let judged = check(&vendor.chain(), &subject, vendor.root.der(), Timestamp::now());
        assert_eq!(judged, Err(AttestationError::OtherObject));
    }

    #[test]
    fn only_a_whole_small_integer_is_one() {
        assert_eq!(integer(&[2, 1, 5]), Some(5));
        assert_eq!(integer(&[2, 4, 0, 0x73, 0x35, 0x5c]), Some(0x0073_355c));
        for wrong in [&[][..], &[2], &[2, 0], &[2, 2, 1], &[2, 1, 0x80], &[4, 1, 5], &[2, 1, 5, 0]] {
            assert_eq!(integer(wrong), None, "{wrong:?}");
        }
    }
}
