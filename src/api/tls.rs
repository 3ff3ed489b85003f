//! TLS of the Signer API: server authentication, and a client certificate from everyone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::client_chain::RememberingVerifier;
use crate::auth::PeerCertificate;
use crate::clock::UnixTime;
use crate::config::{Tls, TlsVersion};

/// Why TLS cannot be set up. Names the configuration key and the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file is missing, unreadable or no PEM.
    #[error("server.tls.{key}: {}: {source}; give a readable PEM file", path.display())]
    File {
        /// Key under `[server.tls]`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: pem::Error,
    },
    /// A PEM file holds nothing of the wanted kind.
    #[error("server.tls.{key}: {} holds no {wanted}", path.display())]
    Empty {
        /// Key under `[server.tls]`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The PEM section that was looked for.
        wanted: &'static str,
    },
    /// A CA certificate or CRL is not usable.
    #[error("server.tls.{key}: {}: {reason}", path.display())]
    Unusable {
        /// Key under `[server.tls]`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not fit together, or rustls refuses them.
    #[error("server.tls: {0}; certificate and private_key must belong together")]
    Rustls(#[from] rustls::Error),
}

/// What the listener needs of `[server.tls]`.
pub(crate) struct ServerTls {
    /// For every handshake.
    pub(crate) config: Arc<ServerConfig>,
    /// End of the server certificate's validity, for the metric that warns before it.
    pub(crate) certificate_expires: UnixTime,
    /// From when on the first of the revocation lists says nothing any more, and with it nobody is let in.
    pub(crate) lists_end: Option<UnixTime>,
    /// What it was made of, for the audit log.
    pub(crate) made_of: MadeOf,
}

/// SHA-256 of certificates and revocation lists in DER, in hexadecimal: `openssl x509` and `openssl crl` print the same with
/// `-fingerprint -sha256`.
#[derive(Clone, Debug, Default)]
pub(crate) struct MadeOf {
    pub(crate) certificate: String,
    pub(crate) client_ca: Vec<String>,
    pub(crate) client_crl: Vec<String>,
}

/// Reads certificates, keys, CAs and CRLs and makes the rustls configuration: TLS 1.3 (1.2 only where allowed),
/// client certificate required, HTTP/2 and HTTP/1.1 by ALPN, no session tickets, no early data.
///
/// # Errors
/// [`TlsError`] names the key and the file at fault.
pub(crate) fn server_tls(tls: &Tls) -> Result<ServerTls, TlsError> {
    let chain = certificates("certificate", &tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.private_key).map_err(|source| TlsError::File {
        key: "private_key",
        path: tls.private_key.clone(),
        source,
    })?;
    let certificate_expires = expiry(&chain[0]).ok_or_else(|| TlsError::Unusable {
        key: "certificate",
        path: tls.certificate.clone(),
        reason: "is no X.509 certificate".into(),
    })?;

    let versions: &[&SupportedProtocolVersion] = match tls.min_version {
        TlsVersion::Tls13 => &[&version::TLS13],
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
    };
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // Our choice among what the client offers: the keys of both sides are P-256, so a 256-bit cipher adds nothing, and
    // SHA-256 runs in hardware where SHA-384 does not.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let mut made_of = MadeOf { certificate: crate::hex::sha256(&chain[0]), ..MadeOf::default() };
    let verifier = client_verifier(tls, Arc::clone(&provider), &mut made_of)?;
    let lists_end = verifier.lists_end().and_then(|end| i64::try_from(end).ok()).map(UnixTime);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would skip the CRL; tickets that nobody may use are not worth sending.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(ServerTls { config: Arc::new(config), certificate_expires, lists_end, made_of })
}

/// Reads what authentication and audit need of a verified client certificate.
#[must_use]
pub(super) fn peer_certificate(leaf: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
    let mut thumbprint = [0; 32];
    thumbprint.copy_from_slice(digest.as_ref());
    let subject: String = parsed.subject().to_string().chars().take(MAX_SUBJECT).collect();
    Some(PeerCertificate { thumbprint, subject: subject.into() })
}

fn client_verifier(
    tls: &Tls,
    provider: Arc<rustls::crypto::CryptoProvider>,
    made_of: &mut MadeOf,
) -> Result<Arc<RememberingVerifier>, TlsError> {
    let authorities = certificates("client_ca", &tls.client_ca)?;
    let mut roots = RootCertStore::empty();
    for certificate in &authorities {
        roots.add(certificate.clone()).map_err(|error| TlsError::Unusable {
            key: "client_ca",
            path: tls.client_ca.clone(),
            reason: error.to_string(),
        })?;
    }
    let mut crls = Vec::new();
    for path in &tls.client_crl {
        let file = |source| TlsError::File { key: "client_crl", path: path.clone(), source };
        let before = crls.len();
        for crl in CertificateRevocationListDer::pem_file_iter(path).map_err(file)? {
            crls.push(crl.map_err(file)?);
        }
        if crls.len() == before {
            return Err(TlsError::Empty { key: "client_crl", path: path.clone(), wanted: "X509 CRL" });
        }
    }
    every_authority_has_a_list(tls, &authorities, &crls)?;
    made_of.client_ca = authorities.iter().map(|der| crate::hex::sha256(der)).collect();
    made_of.client_crl = crls.iter().map(|der| crate::hex::sha256(der)).collect();
    // With CRLs, the whole chain is checked, an uncovered certificate is refused, and so is a stale CRL: an old
    // list cannot say who was revoked since.
    let lists = crls.clone();
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if crls.is_empty() { builder } else { builder.with_crls(crls).enforce_revocation_expiration() };
    let inner = builder.build().map_err(|error| {
        let (key, path) = match tls.client_crl.first() {
            Some(crl) => ("client_crl", crl.clone()),
            None => ("client_ca", tls.client_ca.clone()),
        };
        TlsError::Unusable { key, path, reason: error.to_string() }
    })?;
    Ok(Arc::new(RememberingVerifier::new(inner, &lists)))
}

/// Where there are lists, a CA without one of its own locks all of its clients out: their status would be unknown. That
/// is what becomes of a list of another CA that was copied to the place of the right one.
fn every_authority_has_a_list(
    tls: &Tls,
    authorities: &[CertificateDer<'_>],
    crls: &[CertificateRevocationListDer<'_>],
) -> Result<(), TlsError> {
    let Some(path) = tls.client_crl.first() else { return Ok(()) };
    let lists: Vec<_> =
        crls.iter().filter_map(|list| Some(CertificateRevocationList::from_der(list).ok()?.1)).collect();
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else { continue };
        let named = lists.iter().filter(|list| list.issuer().as_raw() == authority.subject().as_raw());
        let mut found = named.map(|list| list.verify_signature(authority.public_key()).is_ok());
        let missing = match (found.next(), found.any(|signed| signed)) {
            (Some(true), _) | (_, true) => continue,
            (Some(false), false) => "the revocation list in its name is not signed by it",
            (None, _) => "no revocation list is of it",
        };
        let subject = authority.subject();
        let remedy = "nobody it certified would be let in; give its list, or take it out of client_ca";
        return Err(TlsError::Unusable {
            key: "client_crl",
            path: path.clone(),
            reason: format!("{subject} is in client_ca, and {missing}: {remedy}"),
        });
    }
    Ok(())
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source| TlsError::File { key, path: path.to_owned(), source };
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(file)?.collect::<Result<Vec<_>, _>>().map_err(file)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { key, path: path.to_owned(), wanted: "CERTIFICATE" });
    }
    Ok(certificates)
}

fn expiry(leaf: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    Some(UnixTime(parsed.validity().not_after.timestamp()))
}

const MAX_SUBJECT: usize = 256;
