//! Certificates that a Fulcio issues: for ten minutes, to one name, vouched for by one identity provider.

mod error;
mod extensions;

use std::fmt;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use super::path::{self, PathError};
use super::trusted_root::TrustedRoot;
use super::x509::{self, Certificate};
use crate::clock::UnixTime;
use crate::dsse::PublicKey;

pub use error::CertificateError;

/// A certificate that a pinned Fulcio issued, good at the time that it was judged by. Only [`verify`] makes one.
#[derive(Clone, Debug)]
pub struct FulcioCertificate {
    /// The certificate, DER.
    pub leaf: CertificateDer<'static>,
    /// The pinned certificates that lead to it: its issuer first, the anchor last.
    pub issuers: Vec<CertificateDer<'static>>,
    /// To whom it was issued.
    pub san: San,
    /// The identity provider that Fulcio believed: OID 1.3.6.1.4.1.57264.1.8.
    pub issuer: String,
    /// From when on it is valid.
    pub not_before: UnixTime,
    /// Until when, that second included.
    pub not_after: UnixTime,
    /// The key that it certifies.
    pub public_key: PublicKey,
}

/// The one subject alternative name of a certificate, in one of the forms that Fulcio writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// `rfc822Name`.
    Email(String),
    /// `uniformResourceIdentifier`: SPIFFE ids, CI workflows, `uri` issuers.
    Uri(String),
    /// `otherName` of type 1.3.6.1.4.1.57264.1.7: issuers of user names.
    Username(String),
}

/// Whom a verifier expects. Both are compared exactly, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The subject alternative name.
    pub san: String,
    /// The issuer of the token that Fulcio saw.
    pub issuer: String,
}

/// What a certificate may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificatePolicy {
    /// The longest time between `notBefore` and `notAfter`.
    pub max_lifetime: Duration,
    /// By how much the issuer's clock may be ahead of the one that is judged by; added to `max_lifetime`, too, because
    /// some issuers antedate `notBefore` by it.
    pub skew: Duration,
}

impl CertificatePolicy {
    /// For a certificate that Fulcio has just issued, judged by the own clock.
    pub const FRESH: Self = Self { max_lifetime: Duration::from_secs(600), skew: Duration::from_secs(30) };

    /// For a certificate in a bundle, judged by a timestamp: no grace, as no other Sigstore client gives any.
    pub const OFFLINE: Self = Self { max_lifetime: Duration::from_secs(630), skew: Duration::ZERO };
}

/// Verifies the first certificate of `chain` as one of Fulcio, `at` this time.
///
/// The rest of `chain` is what the other side says about itself, so it is bounded and not looked at: the path goes
/// through the certificates of `root` alone. A verifier of a Sigstore bundle has no others either.
///
/// # Errors
/// The first check that fails; nothing about the certificate is to be believed then.
pub fn verify(
    chain: &[CertificateDer<'_>],
    root: &TrustedRoot,
    at: UnixTime,
    policy: &CertificatePolicy,
) -> Result<FulcioCertificate, CertificateError> {
    let leaf = match chain {
        [] => return Err(CertificateError::Missing),
        chain if chain.len() > MAX_CHAIN || chain.iter().any(|one| one.len() > MAX_BYTES) => {
            return Err(CertificateError::TooLarge);
        }
        [leaf, ..] => leaf,
    };
    let certificate = Certificate::parse(leaf).map_err(|_| CertificateError::Malformed)?;
    let issuers = pinned_issuers(leaf, &certificate, root, at, policy)?;
    check_form(&certificate, policy)?;
    let san = extensions::san(&certificate)?;
    let issuer = extensions::issuer(&certificate)?;
    let point = x509::p256_point(certificate.spki).ok_or(CertificateError::KeyType)?;
    let public_key = PublicKey::from_sec1(point).map_err(|_| CertificateError::KeyType)?;
    Ok(FulcioCertificate {
        issuers,
        san,
        issuer,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        public_key,
        leaf: leaf.clone().into_owned(),
    })
}

impl FulcioCertificate {
    /// Whether it was issued to whom is expected, by whom is expected.
    ///
    /// # Errors
    /// [`CertificateError::SanMismatch`] or [`CertificateError::IssuerMismatch`].
    pub fn expect(&self, identity: &Identity) -> Result<(), CertificateError> {
        if self.san.value() != identity.san {
            let (found, expected) = (self.san.value().to_owned(), identity.san.clone());
            return Err(CertificateError::SanMismatch { found, expected });
        }
        if self.issuer != identity.issuer {
            let (found, expected) = (self.issuer.clone(), identity.issuer.clone());
            return Err(CertificateError::IssuerMismatch { found, expected });
        }
        Ok(())
    }

    /// Whether it certifies this key and no other.
    ///
    /// # Errors
    /// [`CertificateError::KeyMismatch`].
    pub fn certifies(&self, key: &PublicKey) -> Result<(), CertificateError> {
        if self.public_key.sec1() == key.sec1() { Ok(()) } else { Err(CertificateError::KeyMismatch) }
    }

    /// Whether `at` lies in its validity.
    ///
    /// # Errors
    /// [`CertificateError::NotYetValid`] or [`CertificateError::Expired`].
    pub fn valid_at(&self, at: UnixTime) -> Result<(), CertificateError> {
        within(self.not_before, self.not_after, at)
    }
}

impl San {
    /// The name without its kind, as `--certificate-identity` of cosign takes it.
    #[must_use]
    pub fn value(&self) -> &str {
        match self {
            Self::Email(value) | Self::Uri(value) | Self::Username(value) => value,
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.value())
    }
}

/// The path from one of the pinned Fulcios. Of several reasons why there is none, the one that says most.
fn pinned_issuers(
    leaf: &CertificateDer<'_>,
    certificate: &Certificate<'_>,
    root: &TrustedRoot,
    at: UnixTime,
    policy: &CertificatePolicy,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    within(certificate.not_before.minus(policy.skew), certificate.not_after, at)?;
    // A clock that lags behind Fulcio's is forgiven `skew`, here as well.
    let at = at.max(certificate.not_before);
    if let Some(unknown) = certificate.extensions.iter().find(|one| one.critical && !CRITICAL.contains(&one.oid)) {
        return Err(CertificateError::UnknownCritical(unknown.oid.to_vec()));
    }
    if certificate.basic_constraints().map_err(|_| CertificateError::Malformed)?.ca {
        return Err(CertificateError::IsCa);
    }
    // Before the path, so that a missing purpose is named as what it is.
    if certificate.extended_key_usage().map_err(|_| CertificateError::Malformed)?.as_deref()
        != Some(&[x509::CODE_SIGNING])
    {
        return Err(CertificateError::ExtendedKeyUsage);
    }
    let mut reason = CertificateError::UntrustedIssuer;
    for authority in &root.certificate_authorities {
        let found = path::to_anchor(leaf, authority, &[], at, x509::CODE_SIGNING);
        match found {
            Ok(issuers) if authority.valid_for.contains(at) => return Ok(issuers),
            Ok(_) => reason = CertificateError::IssuerNotValid,
            Err(PathError::Unknown) => {}
            Err(PathError::NotValid) => reason = CertificateError::IssuerNotValid,
            Err(PathError::Leaf(_)) => return Err(CertificateError::Malformed),
            Err(PathError::NotAllowed(why)) => reason = CertificateError::IssuerNotAllowed(why.to_owned()),
            Err(PathError::Other(error)) => reason = CertificateError::IssuerNotAllowed(error.to_string()),
        }
    }
    Err(reason)
}

fn check_form(certificate: &Certificate<'_>, policy: &CertificatePolicy) -> Result<(), CertificateError> {
    let max = policy.max_lifetime + policy.skew;
    let lifetime = certificate.not_after.since(certificate.not_before);
    if lifetime > max {
        return Err(CertificateError::Lifetime { lifetime, max });
    }
    if certificate.subject != EMPTY_NAME {
        return Err(CertificateError::SubjectNotEmpty);
    }
    match certificate.key_usage() {
        Ok(Some(bits)) if bits & x509::DIGITAL_SIGNATURE != 0 && bits & (x509::KEY_CERT_SIGN | x509::CRL_SIGN) == 0 => {
            Ok(())
        }
        Ok(_) => Err(CertificateError::KeyUsage),
        Err(_) => Err(CertificateError::Malformed),
    }
}

fn within(not_before: UnixTime, not_after: UnixTime, at: UnixTime) -> Result<(), CertificateError> {
    if at < not_before {
        return Err(CertificateError::NotYetValid { at, not_before });
    }
    if at > not_after {
        return Err(CertificateError::Expired { at, not_after });
    }
    Ok(())
}

/// `SEQUENCE {}`.
const EMPTY_NAME: &[u8] = &[0x30, 0x00];

/// What may be marked critical: that which is understood here.
const CRITICAL: [&[u8]; 4] =
    [x509::KEY_USAGE, x509::EXTENDED_KEY_USAGE, x509::BASIC_CONSTRAINTS, x509::SUBJECT_ALT_NAME];

/// Fulcio returns two or three; eight would be an odd PKI.
const MAX_CHAIN: usize = 8;

/// A certificate of Fulcio has one or two kilobytes.
const MAX_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests;
