//! `trusted_root.json` (sigstore/protobuf-specs, `sigstore_trustroot.proto`): whom an offline verifier trusts.

mod json;

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;

use super::x509::{Certificate, VerifyingKey};
use crate::clock::UnixTime;

/// The roots that somebody pinned. Its certificates parse and its keys are keys; nothing in it is believed because it
/// is there in an answer.
#[derive(Clone, Debug, Default)]
pub struct TrustedRoot {
    /// Fulcio instances.
    pub certificate_authorities: Vec<Authority>,
    /// Timestamp authorities.
    pub timestamp_authorities: Vec<Authority>,
    /// Certificate transparency logs.
    pub ct_logs: Vec<CtLog>,
}

/// A Fulcio or a TSA: its certificates, and when it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Where it lives; for people, never called from here.
    pub uri: String,
    /// Each certificate signed by the next one; the last one is the anchor. A TSA's may begin with its own certificate,
    /// and then no other signer of it is accepted.
    pub chain: Vec<CertificateDer<'static>>,
    /// When signatures of it count.
    pub valid_for: ValidFor,
}

/// A certificate transparency log.
#[derive(Clone, Debug)]
pub struct CtLog {
    /// Where it lives; for people, never called from here.
    pub base_url: String,
    /// SHA-256 of its SubjectPublicKeyInfo (RFC 6962, section 3.2).
    pub log_id: [u8; 32],
    /// When signatures of it count.
    pub valid_for: ValidFor,
    pub(super) key: VerifyingKey,
}

/// A span of time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidFor {
    /// From when on.
    pub start: UnixTime,
    /// Until when; open where absent.
    pub end: Option<UnixTime>,
}

/// Why a file is no trusted root.
#[derive(Debug, thiserror::Error)]
pub enum TrustedRootError {
    /// The file system says no.
    #[error("the trusted root {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not the JSON of a trusted root.
    #[error("no trusted root: {0}")]
    Json(String),
    /// Another media type, which other Sigstore clients do not read.
    #[error("the mediaType of the trusted root is `{0}`; it must be {MEDIA_TYPE}")]
    MediaType(String),
    /// A value in it is not what belongs there.
    #[error("{place} of the trusted root {why}")]
    Value {
        /// Which: `certificateAuthorities[0].certChain`.
        place: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}

impl TrustedRoot {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TrustedRootError`].
    pub fn load(path: &Path) -> Result<Self, TrustedRootError> {
        let json = std::fs::read(path).map_err(|source| TrustedRootError::Read { path: path.to_owned(), source })?;
        Self::from_json(&json)
    }

    /// Reads `trusted_root.json`. Members that the specification does not have are errors; `tlogs` is not looked at,
    /// because no transparency log is asked here.
    ///
    /// # Errors
    /// [`TrustedRootError`].
    pub fn from_json(json: &[u8]) -> Result<Self, TrustedRootError> {
        json::read(json)
    }

    /// What others make less of than is made here, in words: issuers of timestamp authorities that are for more than
    /// timestamps, whose timestamps cosign and sigstore-go refuse.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, authority) in self.timestamp_authorities.iter().enumerate() {
            let Some((_, below)) = authority.chain.split_last() else { continue };
            for (place, der) in below.iter().enumerate() {
                if !super::path::is_for_timestamps_alone(der) {
                    warnings.push(format!(
                        "timestampAuthorities[{index}]: certificate {} has an extended key usage other than timeStamping \
                         alone; cosign and sigstore-go refuse its timestamps",
                        place + 1
                    ));
                }
            }
        }
        warnings
    }

    /// Writes `trusted_root.json` as cosign, sigstore-go and the others read it.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write(self)
    }
}

impl Authority {
    /// An authority whose chain was checked: certificates that parse, each signed by the next, the last one a CA.
    ///
    /// # Errors
    /// Which certificate is wrong and what would be right, to be put behind the name of the place.
    pub fn new(uri: String, chain: Vec<CertificateDer<'static>>, valid_for: ValidFor) -> Result<Self, String> {
        super::path::check_chain(&chain)?;
        Ok(Self { uri, chain, valid_for })
    }

    /// As [`new`](Self::new), valid for as long as all certificates of the chain are.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_chain(uri: String, chain: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut valid_for = ValidFor { start: UnixTime(0), end: None };
        for der in &chain {
            let certificate =
                Certificate::parse(der).map_err(|_| "holds a certificate that is no DER X.509".to_owned())?;
            valid_for.start = valid_for.start.max(certificate.not_before);
            valid_for.end = Some(valid_for.end.map_or(certificate.not_after, |end| end.min(certificate.not_after)));
        }
        Self::new(uri, chain, valid_for)
    }
}

impl CtLog {
    /// A log by its public key, a DER SubjectPublicKeyInfo: ECDSA on P-256 or RSA of 2,048 bits and more (RFC 6962,
    /// section 2.1.4), or Ed25519.
    ///
    /// # Errors
    /// The key is none of these.
    pub fn new(base_url: String, spki: &[u8], valid_for: ValidFor) -> Result<Self, String> {
        let key = VerifyingKey::from_spki(spki).ok_or_else(|| {
            "is no DER SubjectPublicKeyInfo of ECDSA P-256, RSA from 2048 bits on, or Ed25519".to_owned()
        })?;
        let mut log_id = [0; 32];
        log_id.copy_from_slice(digest(&SHA256, spki).as_ref());
        Ok(Self { base_url, log_id, valid_for, key })
    }

    /// Its public key, a DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        self.key.spki()
    }
}

impl ValidFor {
    /// Whether `at` lies in it.
    #[must_use]
    pub fn contains(&self, at: UnixTime) -> bool {
        self.start <= at && self.end.is_none_or(|end| at <= end)
    }
}

/// The one spelling that cosign, sigstore-go and the others all read.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot+json;version=0.1";

#[cfg(test)]
mod tests;
