//! The key of the Signer API's certificate.

use std::path::Path;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::place::{Ledger, Owner};
use super::plan::SERVER_KEY;
use super::secret;
use crate::ctl::error::CtlError;

/// Refuses what would be found to be no key only when the unit starts.
pub(crate) fn expect_private(file: &Path, content: &[u8]) -> Result<(), CtlError> {
    // Not the error itself: it may quote the file.
    PrivateKeyDer::from_pem_slice(content)
        .map(drop)
        .map_err(|_| CtlError::content(file, "holds no PEM private key (PKCS#8, SEC1 or PKCS#1)"))
}

/// Makes a P-256 key, sealed (`seal` says with what) or as a file for the front, and a PKCS#10 request (RFC 2986) for
/// it; what is there already is left. Returns what was done, in words.
///
/// # Errors
/// When a key is there, but its request was lost.
pub(crate) fn request(ledger: &mut Ledger, names: &[String], seal: Option<&str>) -> Result<String, CtlError> {
    let sealed = secret::of_front("server.key");
    let key_file = if seal.is_some() { sealed.as_path() } else { Path::new(SERVER_KEY) };
    let request_file = Path::new(REQUEST);
    if ledger.at(key_file).exists() {
        if !ledger.at(request_file).exists() && !ledger.at(Path::new(super::plan::SERVER_CERTIFICATE)).exists() {
            let why = "is there, and neither its request nor its certificate is; remove it to make another one";
            return Err(CtlError::content(&ledger.at(key_file), why));
        }
        return Ok(format!("{REQUEST} (as it was)"));
    }
    let unusable = |error: rcgen::Error| CtlError::Usage(format!("tls_request.names: {error}"));
    let key = KeyPair::generate().map_err(unusable)?;
    let mut params = CertificateParams::new(names).map_err(unusable)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, names.first().map_or("StellaOps Signer", String::as_str));
    params.distinguished_name = subject;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let pem = params.serialize_request(&key).and_then(|request| request.pem()).map_err(unusable)?;
    let secret = Zeroizing::new(Zeroizing::new(key.serialize_pem()).as_bytes().to_vec());
    match seal {
        Some(with) => secret::seal(ledger, "server.key", &sealed, &secret, with)?,
        None => ledger.file(key_file, &secret, 0o640, Owner::RootForFront)?,
    };
    ledger.file(request_file, pem.as_bytes(), 0o644, Owner::Root)?;
    Ok(REQUEST.to_owned())
}

pub(crate) const REQUEST: &str = "/etc/stellaops-signer/tls/server.csr";
