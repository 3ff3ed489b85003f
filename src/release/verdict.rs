//! The answer to whether an image is a trusted release, and the steps that led to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::claim::Form;
use super::digest::Digest;
use super::policy::ProvenTime;

/// A scanner image that somebody vouches for. Only this module makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedRelease {
    pub(crate) digest: Arc<str>,
    pub(crate) signed_by: Arc<str>,
    pub(crate) evidence: Evidence,
}

/// On what grounds an image is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The operator named its digest in the configuration.
    OperatorList {
        /// Why, in the operator's words.
        reason: Arc<str>,
    },
    /// A release identity signed it.
    Signature {
        /// In which form.
        form: Form,
        /// Digest of the signature's manifest: where it is found. One manifest may hold several.
        digest: Arc<str>,
        /// Which one it is: SHA-256 of the signature's bytes, in hexadecimal.
        sha256: Arc<str>,
        /// The repository, or the snapshot, that it was found in.
        found_in: Arc<str>,
        /// When it existed at the latest, where that is proven.
        time: Option<ProvenTime>,
    },
}

/// Why an image is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Not an image digest.
    #[error("the scanner image digest is not `sha256:` and 64 lowercase hex digits")]
    Malformed,
    /// The operator withdrew it.
    #[error("the scanner image {digest} is revoked: {why}")]
    Revoked {
        /// The digest that was asked about.
        digest: Digest,
        /// Why, in the operator's words.
        why: Arc<str>,
    },
    /// Nobody vouches for it: that much is certain.
    #[error("nobody vouches for the scanner image {digest}: {detail}")]
    Untrusted {
        /// The digest that was asked about.
        digest: Digest,
        /// The check that failed, of the candidate that came furthest.
        reason: &'static str,
        /// The same in words.
        detail: Arc<str>,
    },
    /// Nobody can say now: a registry does not answer, or not what a registry answers.
    #[error("whether the scanner image {digest} is released cannot be found out now: {detail}")]
    Unavailable {
        /// The digest that was asked about.
        digest: Digest,
        /// What was in the way.
        reason: &'static str,
        /// The same in words.
        detail: Arc<str>,
    },
    /// Too many images are being looked up already.
    #[error("{limit} scanner images are being looked up already")]
    Busy {
        /// How many may be.
        limit: usize,
    },
}

/// One step on the way to a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How it went.
    pub mark: Mark,
    /// What was done and what came of it.
    pub text: String,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It speaks for the image.
    Good,
    /// It does not.
    Bad,
    /// Neither.
    Note,
}

impl TrustedRelease {
    /// `sha256:` and 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Who vouches for it.
    #[must_use]
    pub fn signed_by(&self) -> &str {
        &self.signed_by
    }

    /// On what grounds.
    #[must_use]
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}

impl Evidence {
    /// The kind of grounds, for audit records.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OperatorList { .. } => "operator_list",
            Self::Signature { form, .. } => form.name(),
        }
    }

    /// The digest of the manifest with the signature that carries it.
    #[must_use]
    pub fn signature(&self) -> Option<&str> {
        match self {
            Self::OperatorList { .. } => None,
            Self::Signature { digest, .. } => Some(digest),
        }
    }

    /// SHA-256 of the bytes of the signature that carries it, in hexadecimal.
    #[must_use]
    pub fn signature_sha256(&self) -> Option<&str> {
        match self {
            Self::OperatorList { .. } => None,
            Self::Signature { sha256, .. } => Some(sha256),
        }
    }
}

impl ReleaseError {
    /// The error code on the wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed | Self::Revoked { .. } | Self::Untrusted { .. } => "release_untrusted",
            Self::Unavailable { .. } => "dependency_unavailable",
            Self::Busy { .. } => "overloaded",
        }
    }

    /// The precise reason, for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "release_digest_malformed",
            Self::Revoked { .. } => "release_revoked",
            Self::Untrusted { reason, .. } | Self::Unavailable { reason, .. } => reason,
            Self::Busy { .. } => "release_look_ups_busy",
        }
    }

    /// When asking again may have another answer.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { .. } => Some(RETRY),
            Self::Busy { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "ok",
            Self::Bad => "no",
            Self::Note => "-",
        })
    }
}

const RETRY: Duration = Duration::from_secs(2);
