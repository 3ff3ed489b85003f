//! Whom outbound calls trust, and as whom they go.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::OutboundError;

/// The trust anchors of a dependency, and the certificate that the appliance presents to it.
#[derive(Default)]
pub struct OutboundTls {
    /// The certificates that the dependency's must chain to. None: only plain http on loopback can be called.
    pub roots: Vec<CertificateDer<'static>>,
    /// Certificate chain, leaf first, and private key.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl OutboundTls {
    /// Reads PEM files: a bundle of CA certificates (the system's own when `ca` is absent), and certificate chain and
    /// private key (PKCS#8, SEC1 or PKCS#1).
    ///
    /// # Errors
    /// [`OutboundError::Pem`], naming the file.
    pub fn load(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Self, OutboundError> {
        let roots = match ca {
            Some(path) => certificates(path)?,
            None => system_roots()?,
        };
        let identity = match identity {
            Some((certificate, key)) => {
                let private_key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|source| pem(key, "no PEM private key (PKCS#8, SEC1 or PKCS#1) can be read", source))?;
                Some((certificates(certificate)?, private_key))
            }
            None => None,
        };
        Ok(Self { roots, identity })
    }

    pub(super) fn into_client_config(self) -> Result<ClientConfig, OutboundError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        self.into_client_config_with(provider, rustls::DEFAULT_VERSIONS)
    }

    /// The same for whoever brings cryptography of their own.
    pub(crate) fn into_client_config_with(
        self,
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ClientConfig, OutboundError> {
        let mut roots = RootCertStore::empty();
        // System bundles hold a certificate now and then that webpki does not parse; it is then simply not trusted.
        roots.add_parsable_certificates(self.roots);
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(OutboundError::Tls)?
            .with_root_certificates(roots);
        match self.identity {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(OutboundError::Tls),
            None => Ok(config.with_no_client_auth()),
        }
    }
}

// Nothing of a private key is ever printed.
impl fmt::Debug for OutboundTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundTls")
            .field("roots", &self.roots.len())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OutboundError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(found) if found.is_empty() => {
            Err(OutboundError::Pem { path: path.to_owned(), why: "it holds no PEM certificate", source: None })
        }
        Ok(found) => Ok(found),
        Err(source) => Err(pem(path, "no PEM certificates can be read", source)),
    }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, OutboundError> {
    match SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => certificates(path),
        None => Err(OutboundError::Pem {
            path: PathBuf::from(SYSTEM_BUNDLES[0]),
            why: "the system has no CA bundle; install ca-certificates or name a bundle with `ca`",
            source: None,
        }),
    }
}

fn pem(path: &Path, why: &'static str, source: rustls_pki_types::pem::Error) -> OutboundError {
    OutboundError::Pem { path: path.to_owned(), why, source: Some(source) }
}

/// Debian and its kin, then Fedora and its kin.
const SYSTEM_BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
