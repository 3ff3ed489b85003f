//! From a certificate to an anchor, through pinned certificates, and through others only where the caller gives them.
//!
//! webpki builds and verifies the path. What it leaves to others is added: `keyUsage` of CAs, and validity, path length
//! and purposes of the anchor itself.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime as PkiTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::trusted_root::Authority;
use super::x509::{self, Certificate};
use crate::clock::UnixTime;

/// Why there is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    /// No pinned certificate has issued it.
    #[error("no pinned certificate has issued it")]
    Unknown,
    /// It, or one of its issuers, is not valid at that time.
    #[error("it, or a pinned certificate that leads to it, is not valid at that time")]
    NotValid,
    /// Its issuer may not issue it.
    #[error("a pinned certificate that leads to it may not do so: {0}")]
    NotAllowed(&'static str),
    /// The certificate itself, webpki says, is none.
    #[error("the certificate cannot be read: {0}")]
    Leaf(webpki::Error),
    /// Anything else that webpki says.
    #[error("{0}")]
    Other(webpki::Error),
}

/// The certificates from the issuer of `leaf` to the anchor of `authority`, all of them valid `at` that time and good
/// for `purpose`, the contents of an OBJECT IDENTIFIER. `leaf` must be valid then as well; who wants to tell that from its
/// issuers' validity judges it first. `loose` are certificates that came along and may stand between: empty where
/// everything is pinned.
pub(super) fn to_anchor(
    leaf: &CertificateDer<'_>,
    authority: &Authority,
    loose: &[CertificateDer<'_>],
    at: UnixTime,
    purpose: &'static [u8],
) -> Result<Vec<CertificateDer<'static>>, PathError> {
    let Some((anchor, pinned)) = authority.chain.split_last() else { return Err(PathError::Unknown) };
    let between: Vec<CertificateDer<'_>> = pinned.iter().chain(loose).cloned().collect();
    let leaf = EndEntityCert::try_from(leaf).map_err(PathError::Leaf)?;
    let trusted = [anchor_from_trusted_cert(anchor).map_err(PathError::Other)?];
    let time = PkiTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.0).unwrap_or(0)));
    let path = leaf
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &trusted,
            &between,
            time,
            KeyUsage::required_if_present(purpose),
            None,
            None,
        )
        .map_err(classified)?;
    let mut issuers: Vec<CertificateDer<'static>> =
        path.intermediate_certificates().map(|certificate| certificate.der().into_owned()).collect();
    anchor_allows(anchor, at, purpose, issuers.len())?;
    issuers.push(anchor.clone());
    for issuer in &issuers {
        may_sign_certificates(issuer)?;
    }
    Ok(issuers)
}

/// Whether pinned certificates make a chain: each signed by the next, the last one a CA.
pub(super) fn check_chain(chain: &[CertificateDer<'_>]) -> Result<(), String> {
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(format!("must have 1 to {MAX_CHAIN} certificates, leaf first"));
    }
    let parsed: Vec<Certificate<'_>> = chain
        .iter()
        .map(|der| Certificate::parse(der).map_err(|_| "holds a certificate that is no DER X.509 v3".to_owned()))
        .collect::<Result<_, _>>()?;
    for (index, certificate) in parsed.iter().enumerate() {
        let place = |what: &str| format!("certificate {} {what}", index + 1);
        // The first of a TSA may be its own certificate; whoever signs certificates is a CA.
        if (index > 0 || parsed.len() == 1) && !certificate.basic_constraints().is_ok_and(|constraints| constraints.ca)
        {
            return Err(place("is no CA certificate; a chain ends with its root or another CA"));
        }
        let next = parsed.get(index + 1);
        let self_signed = certificate.subject == certificate.issuer;
        let issuer = match next {
            Some(next) => next,
            None if self_signed => certificate,
            None => continue,
        };
        if certificate.issuer != issuer.subject
            || !x509::verify(issuer.spki, certificate.algorithm, certificate.tbs, certificate.signature)
        {
            return Err(place("is not signed by the next one; give the chain leaf first, root last, nothing else"));
        }
    }
    Ok(())
}

/// Whether extended key usage, where a certificate has one, is timeStamping and nothing else.
pub(super) fn is_for_timestamps_alone(der: &[u8]) -> bool {
    let purposes = Certificate::parse(der).and_then(|certificate| {
        certificate.extended_key_usage().map(|all| all.is_none_or(|all| all == [x509::TIME_STAMPING]))
    });
    purposes.unwrap_or(false)
}

fn classified(error: webpki::Error) -> PathError {
    match error {
        webpki::Error::UnknownIssuer
        | webpki::Error::InvalidSignatureForPublicKey
        | webpki::Error::UnsupportedSignatureAlgorithmContext(_)
        | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => PathError::Unknown,
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => PathError::NotValid,
        webpki::Error::PathLenConstraintViolated => PathError::NotAllowed("its path length is exceeded"),
        webpki::Error::RequiredEkuNotFoundContext(_) => PathError::NotAllowed("it is for other purposes"),
        webpki::Error::NameConstraintViolation => PathError::NotAllowed("its name constraints exclude this name"),
        other => PathError::Other(other),
    }
}

/// What webpki does not ask an anchor, because RFC 5280 leaves it open (section 6.2).
fn anchor_allows(anchor: &[u8], at: UnixTime, purpose: &[u8], below: usize) -> Result<(), PathError> {
    let malformed = |_| PathError::NotAllowed("the anchor cannot be read");
    let certificate = Certificate::parse(anchor).map_err(malformed)?;
    if at < certificate.not_before || at > certificate.not_after {
        return Err(PathError::NotValid);
    }
    let constraints = certificate.basic_constraints().map_err(malformed)?;
    if !constraints.ca {
        return Err(PathError::NotAllowed("it is no CA"));
    }
    if constraints.path_length.is_some_and(|limit| usize::from(limit) < below) {
        return Err(PathError::NotAllowed("its path length is exceeded"));
    }
    match certificate.extended_key_usage().map_err(malformed)? {
        Some(purposes) if !purposes.contains(&purpose) && !purposes.contains(&ANY_PURPOSE) => {
            Err(PathError::NotAllowed("it is for other purposes"))
        }
        _ => Ok(()),
    }
}

fn may_sign_certificates(issuer: &[u8]) -> Result<(), PathError> {
    let usage = Certificate::parse(issuer).and_then(|certificate| certificate.key_usage());
    match usage {
        Ok(Some(bits)) if bits & x509::KEY_CERT_SIGN == 0 => {
            Err(PathError::NotAllowed("its key usage lacks keyCertSign"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(PathError::NotAllowed("its key usage cannot be read")),
    }
}

/// anyExtendedKeyUsage, 2.5.29.37.0.
const ANY_PURPOSE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

/// webpki goes no deeper than six intermediates.
const MAX_CHAIN: usize = 8;
