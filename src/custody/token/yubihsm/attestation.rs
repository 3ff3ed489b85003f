//! The device's own certificate for a key, led up to a pinned root; what it must say is judged by
//! [`crate::custody::evidence::attestation`].

#![forbid(unsafe_code)]

use std::path::Path;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::custody::evidence::attestation::{self, AttestationError, Subject, signed_by};

/// The certificates that the operator trusts to vouch for devices: Yubico's root and what is between it and devices.
pub(super) struct Roots(Vec<CertificateDer<'static>>);

/// Why a device's word for a key proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unproven {
    #[error("the device's certificate leads to none of `attestation_roots`")]
    NotPinned,
    #[error(transparent)]
    Chain(#[from] AttestationError),
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

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Checks the certificate of a key and the certificate of its device; returns the chain up to the root, the key's
    /// certificate first.
    pub(super) fn verify(&self, key: &[u8], device: &[u8], subject: &Subject<'_>) -> Result<Vec<Vec<u8>>, Unproven> {
        let mut chain = vec![key.to_vec(), device.to_vec()];
        let mut below = device;
        // The issuers within the pinned certificates, as far as they go.
        for _ in 0..self.0.len() {
            match self.issuer_of(below) {
                Some(above) if above != below => {
                    chain.push(above.to_vec());
                    below = above;
                }
                _ => break,
            }
        }
        if chain.len() == 2 {
            return Err(Unproven::NotPinned);
        }
        attestation::check(&chain, subject, below, Timestamp::now())?;
        Ok(chain)
    }

    fn issuer_of(&self, below: &[u8]) -> Option<&[u8]> {
        let (_, below) = X509Certificate::from_der(below).ok()?;
        let issued = |pinned: &&CertificateDer<'static>| {
            X509Certificate::from_der(pinned).is_ok_and(|(_, issuer)| signed_by(&below, &issuer))
        };
        self.0.iter().find(issued).map(AsRef::as_ref)
    }
}
