//! Signed certificate timestamps (RFC 6962, section 3.2): a log's promise to publish a certificate.

mod list;

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::certificate::FulcioCertificate;
use super::der;
use super::trusted_root::TrustedRoot;
use super::x509::Certificate;
use crate::clock::UnixTime;

use list::Sct;

/// How many logs must have promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SctPolicy {
    /// Different pinned logs; 0 demands none, but a false promise of a pinned log is an error all the same.
    pub required: usize,
}

/// A promise that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSct {
    /// Which log: SHA-256 of its public key.
    pub log_id: [u8; 32],
    /// When it saw the certificate, to the second.
    pub time: UnixTime,
}

/// Why promises do not suffice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SctError {
    /// None at all.
    #[error("the certificate comes without a signed certificate timestamp; its Fulcio must log to a pinned CT log")]
    Missing,
    /// One beside the certificate and none in it. The forms of a bundle carry the certificate alone.
    #[error(
        "the signed certificate timestamp came beside the certificate, and no bundle carries it there; Fulcio must embed it"
    )]
    Detached,
    /// Not the encoding of RFC 6962.
    #[error("the signed certificate timestamp cannot be read")]
    Malformed,
    /// Only logs that nobody pinned.
    #[error("no pinned CT log has signed the certificate timestamp")]
    UnknownLog,
    /// It names a pinned log, which did not sign it over this certificate.
    #[error("the signature of the certificate timestamp is not the one of the pinned CT log over this certificate")]
    Signature,
    /// Outside of what the log or the certificate allows.
    #[error("the certificate timestamp says {}, which {why}", .at.rfc3339())]
    Time {
        /// What it says.
        at: UnixTime,
        /// What speaks against it.
        why: &'static str,
    },
    /// Fewer logs than demanded.
    #[error("{found} pinned CT logs have signed; {required} are demanded")]
    TooFew {
        /// How many did.
        found: usize,
        /// How many should have.
        required: usize,
    },
}

impl Default for SctPolicy {
    /// One, as cosign demands.
    fn default() -> Self {
        Self { required: 1 }
    }
}

impl SctError {
    /// A stable word for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "sct_missing",
            Self::Detached => "sct_detached",
            Self::Malformed => "sct_malformed",
            Self::UnknownLog => "sct_unknown_log",
            Self::Signature => "sct_signature",
            Self::Time { .. } => "sct_time",
            Self::TooFew { .. } => "sct_too_few",
        }
    }
}

/// Verifies the timestamps that are embedded in the certificate: made over it as it was before they were put in.
///
/// # Errors
/// [`SctError`].
pub fn verify_embedded(
    certificate: &FulcioCertificate,
    root: &TrustedRoot,
    policy: SctPolicy,
) -> Result<Vec<VerifiedSct>, SctError> {
    let leaf = Certificate::parse(&certificate.leaf).map_err(|_| SctError::Malformed)?;
    let scts = match leaf.extension(SCT_LIST) {
        Some(extension) => list::embedded(extension.value).ok_or(SctError::Malformed)?,
        None => Vec::new(),
    };
    let entry = precertificate_entry(&leaf, certificate)?;
    judge(&scts, &entry, certificate, root, policy)
}

/// Verifies a timestamp that came beside the certificate, made over the certificate as it is: the JSON of RFC 6962,
/// section 4.1, which Fulcio returns in `signedCertificateTimestamp`. Empty JSON counts as none.
///
/// # Errors
/// [`SctError`].
pub fn verify_detached(
    certificate: &FulcioCertificate,
    json: &[u8],
    root: &TrustedRoot,
    policy: SctPolicy,
) -> Result<Vec<VerifiedSct>, SctError> {
    let scts = match json {
        [] => Vec::new(),
        json => vec![list::detached(json).ok_or(SctError::Malformed)?],
    };
    let length = u24(certificate.leaf.len()).ok_or(SctError::Malformed)?;
    let entry = [&X509_ENTRY[..], &length, &certificate.leaf].concat();
    judge(&scts, &entry, certificate, root, policy)
}

fn judge(
    scts: &[Sct],
    entry: &[u8],
    certificate: &FulcioCertificate,
    root: &TrustedRoot,
    policy: SctPolicy,
) -> Result<Vec<VerifiedSct>, SctError> {
    let mut verified = Vec::new();
    for sct in scts {
        // One key may be pinned for several spans of time.
        let logs = || root.ct_logs.iter().filter(|log| log.log_id == sct.log_id);
        let Some(log) = logs().next() else { continue };
        if !sct.fits(log.key.kind()) || !log.key.verifies(&sct.signed_over(entry), &sct.signature) {
            return Err(SctError::Signature);
        }
        let at = UnixTime(i64::try_from(sct.milliseconds / 1000).unwrap_or(i64::MAX));
        let untimely = |why| SctError::Time { at, why };
        if !logs().any(|log| log.valid_for.contains(at)) {
            return Err(untimely("lies outside of what the pinned CT log is trusted for"));
        }
        if at < certificate.not_before.minus(SLACK) || at > certificate.not_after.plus(SLACK) {
            return Err(untimely("lies outside of the validity of the certificate"));
        }
        verified.push(VerifiedSct { log_id: log.log_id, time: at });
    }
    let found = verified.iter().map(|sct| sct.log_id).collect::<BTreeSet<_>>().len();
    match (found, policy.required) {
        (found, required) if found >= required => Ok(verified),
        (0, _) if scts.is_empty() => Err(SctError::Missing),
        (0, _) => Err(SctError::UnknownLog),
        (found, required) => Err(SctError::TooFew { found, required }),
    }
}

/// `PreCert`: the hash of the issuer's key, and the certificate's to-be-signed part without the list of timestamps. The
/// poison that marked it as a precertificate is no longer in the certificate, so there is none to take out.
fn precertificate_entry(leaf: &Certificate<'_>, certificate: &FulcioCertificate) -> Result<Vec<u8>, SctError> {
    let issuer = certificate.issuers.first().ok_or(SctError::Malformed)?;
    let issuer = Certificate::parse(issuer).map_err(|_| SctError::Malformed)?;
    let kept: Vec<&[u8]> = leaf.extensions.iter().filter(|one| one.oid != SCT_LIST).map(|one| one.raw).collect();
    let extensions = der::wrap(der::context(3), &[&der::wrap(der::SEQUENCE, &kept)]);
    let mut fields = leaf.before_extensions.clone();
    if !kept.is_empty() {
        fields.push(&extensions);
    }
    let tbs = der::wrap(der::SEQUENCE, &fields);
    let length = u24(tbs.len()).ok_or(SctError::Malformed)?;
    Ok([&PRECERT_ENTRY[..], digest(&SHA256, issuer.spki).as_ref(), &length, &tbs].concat())
}

fn u24(length: usize) -> Option<[u8; 3]> {
    match u32::try_from(length).ok()?.to_be_bytes() {
        [0, high, middle, low] => Some([high, middle, low]),
        _ => None,
    }
}

/// `LogEntryType` (RFC 6962, section 3.1).
const X509_ENTRY: [u8; 2] = [0, 0];
const PRECERT_ENTRY: [u8; 2] = [0, 1];

/// 1.3.6.1.4.1.11129.2.4.2.
const SCT_LIST: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];

/// How far the clocks of Fulcio and of its log may be apart.
const SLACK: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
