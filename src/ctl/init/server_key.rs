//! The key of the Signer API's certificate.

use std::path::Path;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::place::{Ledger, Owner};
use super::plan::{SERVER_CERTIFICATE, SERVER_KEY};
use super::{MAX_FILE_BYTES, secret};
use crate::ctl::error::CtlError;
use crate::ctl::files;

/// Refuses what would be found to be no key only when the unit starts.
pub(crate) fn expect_private(file: &Path, content: &[u8]) -> Result<(), CtlError> {
    // Not the error itself: it may quote the file.
    PrivateKeyDer::from_pem_slice(content)
        .map(drop)
        .map_err(|_| CtlError::content(file, "holds no PEM private key (PKCS#8, SEC1 or PKCS#1)"))
}

/// Refuses a certificate chain that is for another key.
pub(crate) fn expect_pair(certificate: &Path, chain: &[u8], key: &[u8]) -> Result<(), CtlError> {
    let wrong = |what: &str| {
        let remedy = "it is kept, since you renew it there; remove it, and the one of the answers is taken";
        CtlError::content(certificate, format!("{what} ({remedy})"))
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| wrong("holds no PEM certificates"))?;
    // Not the errors themselves: they may quote the key.
    let key = PrivateKeyDer::from_pem_slice(key).ok().and_then(|key| any_supported_type(&key).ok());
    let pair = key.map(|key| CertifiedKey::new(chain, key));
    if pair.is_some_and(|pair| pair.keys_match().is_ok()) {
        return Ok(());
    }
    Err(wrong("is for another key than the one that the answers name"))
}

/// Makes a P-256 key, sealed (`seal` says with what) or as a file for the front, and a PKCS#10 request (RFC 2986) for
/// it; what is there already is left. The key of an image, which is a file, is sealed. Returns what was done, in words.
///
/// # Errors
/// When a key is there, but its request was lost, or this machine cannot open it.
pub(crate) fn request(ledger: &mut Ledger, names: &[String], seal: Option<&str>) -> Result<String, CtlError> {
    let sealed = secret::of_front("server.key");
    let (open_file, request_file) = (Path::new(SERVER_KEY), Path::new(REQUEST));
    let key_file = if seal.is_some() { sealed.as_path() } else { open_file };
    let there = |path: &Path| ledger.at(path).exists();
    if let Some(key) = [key_file, open_file].into_iter().find(|key| there(key)) {
        let at = ledger.at(key);
        if !there(request_file) && !there(Path::new(SERVER_CERTIFICATE)) {
            let why = "is there, and neither its request nor its certificate is; remove it to make another one";
            return Err(CtlError::content(&at, why));
        }
        match seal {
            Some(with) if key == open_file => {
                let secret = files::read(&at, MAX_FILE_BYTES).map(Zeroizing::new)?;
                expect_private(&at, &secret)?;
                secret::seal(ledger, "server.key", &sealed, &secret, with)?;
                ledger.retire(open_file);
                return Ok(format!("{} (the key of {})", sealed.display(), at.display()));
            }
            Some(_) => {
                let why = "cannot be opened on this machine, so it is another one's; remove it to make another key";
                let secret = secret::open("server.key", &sealed).ok_or_else(|| CtlError::content(&at, why))?;
                // Left by a run that was ended in between.
                let open = files::read(&ledger.at(open_file), MAX_FILE_BYTES).map(Zeroizing::new);
                if open.is_ok_and(|open| open == secret) {
                    ledger.retire(open_file);
                }
            }
            None => {}
        }
        return Ok(format!("{REQUEST} (as it was)"));
    }
    // From another machine, whose key stayed there: neither is of use with the key that is made now.
    let mut aside = Vec::new();
    for old in [request_file, Path::new(SERVER_CERTIFICATE)] {
        aside.extend(ledger.move_aside(old)?.map(|aside| aside.display().to_string()));
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
    let moved = format!(" (anew, since the key of the earlier one is not here; kept: {})", aside.join(", "));
    Ok(if aside.is_empty() { REQUEST.to_owned() } else { format!("{REQUEST}{moved}") })
}

pub(crate) const REQUEST: &str = "/etc/stellaops-signer/tls/server.csr";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_goes_with_its_own_key_alone() {
        let made = || rcgen::generate_simple_self_signed(["signer.example".to_owned()]).unwrap();
        let (one, other) = (made(), made());
        let pair = |chain: &str, key: &str| expect_pair(Path::new("/x/server.crt"), chain.as_bytes(), key.as_bytes());
        let key = one.signing_key.serialize_pem();
        pair(&one.cert.pem(), &key).unwrap();
        for chain in [other.cert.pem(), "no certificate".to_owned()] {
            let refused = pair(&chain, &key).unwrap_err().to_string();
            assert!(refused.contains("/x/server.crt") && refused.contains("remove it"), "{refused}");
        }
    }
}
