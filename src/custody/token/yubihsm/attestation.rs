//! The device's own certificate for a key, checked up to a pinned root.
//!
//! A YubiHSM signs an X.509 certificate for a key by its attestation key, whose certificate Yubico signed at the
//! factory and which is opaque object 0. Yubico's extensions (1.3.6.1.4.1.41482.4) tie both to a serial number.

#![forbid(unsafe_code)]

use std::path::Path;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::custody::PublicKey;

/// The certificates that the operator trusts to vouch for devices: Yubico's root and what is between it and devices.
pub(super) struct Roots(Vec<CertificateDer<'static>>);

/// Why a chain proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AttestationError {
    #[error("the {0} certificate is malformed")]
    Malformed(&'static str),
    #[error("the {0} certificate is not valid now; is the clock right?")]
    NotNow(&'static str),
    #[error("the key's certificate was not signed by this device's attestation key")]
    NotByDevice,
    #[error("the device's certificate leads to none of `attestation_roots`")]
    NotPinned,
    #[error("the device's certificate is one for a key of a device, not for a device")]
    NotADevice,
    #[error("the {0} certificate names another device than this one")]
    OtherSerial(&'static str),
    #[error("the key's certificate is for another object")]
    OtherObject,
    #[error("the key's certificate is for another public key")]
    OtherKey,
}

/// What a chain must be about.
pub(super) struct Subject<'a> {
    pub(super) serial: u32,
    pub(super) object: u16,
    pub(super) public_key: &'a PublicKey,
}

impl Roots {
    /// # Errors
    /// In words, without the file's name.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let certificates = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| format!("this is no PEM file with certificates: {error}"))?;
        for certificate in &certificates {
            let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "one certificate is malformed")?;
            if !parsed.is_ca() {
                return Err(format!("`{}` is no certificate authority; list Yubico's root", parsed.subject()));
            }
        }
        if certificates.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(Self(certificates)) }
    }

    /// Checks the certificate of a key and the certificate of its device; returns the chain up to the root, the key's
    /// certificate first.
    pub(super) fn verify(
        &self,
        key: &[u8],
        device: &[u8],
        subject: &Subject<'_>,
    ) -> Result<Vec<Vec<u8>>, AttestationError> {
        use AttestationError as E;
        let leaf = parse(key, "key's")?;
        let issuer = parse(device, "device's")?;
        // A key of the device that may sign anything could otherwise pose as the attestation key.
        if extension(&issuer, OBJECT_ID).is_some() {
            return Err(E::NotADevice);
        }
        if !signed_by(&leaf, &issuer) {
            return Err(E::NotByDevice);
        }
        for (certificate, whose) in [(&leaf, "key's"), (&issuer, "device's")] {
            if extension(certificate, SERIAL).and_then(integer) != Some(subject.serial.into()) {
                return Err(E::OtherSerial(whose));
            }
        }
        if extension(&leaf, OBJECT_ID).and_then(integer) != Some(subject.object.into()) {
            return Err(E::OtherObject);
        }
        if leaf.public_key().subject_public_key.data.as_ref() != subject.public_key.sec1() {
            return Err(E::OtherKey);
        }
        let mut chain = vec![key.to_vec(), device.to_vec()];
        self.climb(&issuer, &mut chain)?;
        Ok(chain)
    }

    /// Follows the issuers within the pinned certificates, as far as they go.
    fn climb(&self, device: &X509Certificate<'_>, chain: &mut Vec<Vec<u8>>) -> Result<(), AttestationError> {
        let mut below = self.issuer_of(device)?.ok_or(AttestationError::NotPinned)?;
        for _ in 0..self.0.len() {
            chain.push(below.0.to_vec());
            match self.issuer_of(&below.1)? {
                Some(above) if above.0 != below.0 => below = above,
                _ => break,
            }
        }
        Ok(())
    }

    fn issuer_of(
        &self,
        below: &X509Certificate<'_>,
    ) -> Result<Option<(&CertificateDer<'static>, X509Certificate<'_>)>, AttestationError> {
        for pinned in &self.0 {
            let certificate = parse(pinned, "pinned")?;
            if certificate.subject().as_raw() == below.issuer().as_raw() && signed_by(below, &certificate) {
                return Ok(Some((pinned, certificate)));
            }
        }
        Ok(None)
    }
}

fn parse<'a>(der: &'a [u8], whose: &'static str) -> Result<X509Certificate<'a>, AttestationError> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| AttestationError::Malformed(whose))?;
    if !rest.is_empty() {
        return Err(AttestationError::Malformed(whose));
    }
    if certificate.validity().is_valid() { Ok(certificate) } else { Err(AttestationError::NotNow(whose)) }
}

/// Yubico's devices and authorities sign by RSA; a device whose attestation key was replaced may sign by ECDSA.
fn signed_by(below: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
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
    UnparsedPublicKey::new(algorithm, &issuer.public_key().subject_public_key.data)
        .verify(below.tbs_certificate.as_ref(), &below.signature_value.data)
        .is_ok()
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
mod tests {
    use super::integer;

    #[test]
    fn only_a_whole_small_integer_is_one() {
        assert_eq!(integer(&[2, 1, 5]), Some(5));
        assert_eq!(integer(&[2, 4, 0, 0x73, 0x35, 0x5c]), Some(0x0073_355c));
        for wrong in [&[][..], &[2], &[2, 0], &[2, 2, 1], &[2, 1, 0x80], &[4, 1, 5], &[2, 1, 5, 0]] {
            assert_eq!(integer(wrong), None, "{wrong:?}");
        }
    }
}
