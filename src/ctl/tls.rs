//! The client side of mTLS: whom to trust, and who we are, from PEM files.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{Error as PemError, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::error::CtlError;
use super::files;

/// A client certificate and its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads both files.
    pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Self, CtlError> {
        let chain = certificates(certificate)?;
        let pem = Zeroizing::new(files::read(key, MAX_PEM_BYTES)?);
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
            let why = match error {
                PemError::NoItemsFound => {
                    "no PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY block (an encrypted one cannot be used)"
                }
                _ => "damaged PEM",
            };
            CtlError::content(key, format!("holds no private key: {why}"))
        })?;
        Ok(Self { chain, key })
    }

    /// SHA-256 of the DER leaf certificate: what `cnf.x5t#S256` names (RFC 8705, section 3.1).
    pub(crate) fn thumbprint(&self) -> [u8; 32] {
        let mut thumbprint = [0; 32];
        // `certificates` returns at least one.
        if let Some(leaf) = self.chain.first() {
            thumbprint.copy_from_slice(digest(&SHA256, leaf).as_ref());
        }
        thumbprint
    }
}

/// A TLS client configuration that trusts the CAs in `ca` alone.
pub(crate) fn client_config(ca: &Path, identity: Option<&Identity>) -> Result<ClientConfig, CtlError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots
            .add(certificate)
            .map_err(|error| CtlError::content(ca, format!("holds a certificate that cannot be a CA: {error}")))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| CtlError::Unexpected(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(Identity { chain, key }) => {
            builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|error| {
                CtlError::Usage(format!(
                    "--cert and --key do not make a client identity ({error}); the key must be the certificate's"
                ))
            })
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CtlError> {
    let pem = files::read(path, MAX_PEM_BYTES)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(CtlError::content(path, "holds no certificate; it must be PEM with at least one CERTIFICATE block"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(CtlError::content(path, format!("is damaged PEM: {error}"))),
    }
}

const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;
