//! Why something that looks like a signature is none that counts.

use super::digest::Digest;
use super::notary::NotaryError;
use super::registry::RegistryError;
use crate::clock::UnixTime;
use crate::sigstore::log::LogError;
use crate::sigstore::{CertificateError, SctError, TimestampError};

/// The check that failed, of one candidate.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// The registry did not give it, or something else.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Its manifest is attached to something else.
    #[error("its manifest is attached to {}, not to this image", attached(.0))]
    ManifestSubject(Option<Digest>),
    /// It is some other artifact, as an SBOM is.
    #[error("it is no signature: {0}")]
    NotASignature(String),
    /// It cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// Signed, by somebody whom the operator did not name.
    #[error("no configured identity has signed it: {0}")]
    Signer(String),
    /// A time stamp.
    #[error(transparent)]
    Timestamp(TimestampError),
    /// A log entry.
    #[error(transparent)]
    Log(LogError),
    /// The certificate.
    #[error(transparent)]
    Certificate(CertificateError),
    /// The promise of the CT logs.
    #[error(transparent)]
    Sct(SctError),
    /// The same proof of time twice, which other verifiers of Sigstore refuse as well.
    #[error("the same {0} is there twice")]
    Twice(&'static str),
    /// A check of the Notary Project's.
    #[error(transparent)]
    Notary(#[from] NotaryError),
    /// A certificate lives for minutes, and nothing proves that it was used in them.
    #[error(
        "its certificate is not judged by today's clock; a time stamp or a log entry must prove when it was signed"
    )]
    TimeMissing,
    /// The identity wants a proof of time that is not there.
    #[error("identity `{0}` counts only with a time stamp of a pinned authority or an entry of a pinned log")]
    TimeRequired(String),
    /// The identity does not count at that time.
    #[error("identity `{identity}` {why} ({}{})", .at.rfc3339(), if *.proven { "" } else { ", for want of a proven time" })]
    Window {
        /// Whose window.
        identity: String,
        /// Before or after it.
        why: &'static str,
        /// The time that was judged by.
        at: UnixTime,
        /// Whether a time stamp or log entry says so.
        proven: bool,
    },
    /// A trusted identity has signed something else about the image, such as a report.
    #[error("it is an attestation of type `{0}` and says nothing of a release; a release has `{SIGN_PREDICATE}`")]
    PredicateType(String),
    /// A trusted identity has signed another image.
    #[error("it is the signature of another image: {0}")]
    Image(String),
    /// A trusted identity has signed something that cannot be read.
    #[error("what was signed cannot be read: {0}")]
    Payload(String),
}

impl Rejection {
    /// A stable word for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Registry(error) => error.reason(),
            Self::ManifestSubject(_) => "release_manifest_subject",
            Self::NotASignature(_) => "release_not_a_signature",
            Self::Malformed(_) => "release_signature_malformed",
            Self::Signer(_) => "release_signer_unknown",
            Self::Timestamp(TimestampError::Untrusted) => "release_timestamp_unknown",
            Self::Timestamp(_) => "release_timestamp",
            Self::Log(_) => "release_log_entry",
            Self::Certificate(CertificateError::SanMismatch { .. } | CertificateError::IssuerMismatch { .. }) => {
                "release_identity_mismatch"
            }
            Self::Certificate(CertificateError::Expired { .. } | CertificateError::NotYetValid { .. }) => {
                "release_certificate_expired"
            }
            Self::Certificate(CertificateError::UntrustedIssuer) => "release_certificate_untrusted",
            Self::Certificate(_) => "release_certificate",
            Self::Sct(_) => "release_sct",
            Self::Twice(_) => "release_timestamp_duplicate",
            Self::Notary(error) => error.reason(),
            Self::TimeMissing => "release_time_missing",
            Self::TimeRequired(_) => "release_time_required",
            Self::Window { .. } => "release_identity_window",
            Self::PredicateType(_) => "release_predicate_type",
            Self::Image(_) => "release_other_image",
            Self::Payload(_) => "release_payload",
        }
    }

    /// How far it came. Of many candidates the one that came furthest says most about what is wrong.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::NotASignature(_) => 0,
            Self::Registry(_) => 1,
            Self::ManifestSubject(_) => 2,
            Self::Malformed(_) => 3,
            Self::Signer(_) | Self::Certificate(CertificateError::UntrustedIssuer) => 4,
            Self::Certificate(CertificateError::SanMismatch { .. } | CertificateError::IssuerMismatch { .. }) => 5,
            Self::Timestamp(_) | Self::Twice(_) | Self::Log(_) | Self::Certificate(_) | Self::Sct(_) => 6,
            Self::Notary(error) => error.rank(),
            Self::TimeMissing | Self::TimeRequired(_) => 7,
            Self::Window { .. } => 8,
            Self::PredicateType(_) | Self::Image(_) | Self::Payload(_) => 9,
        }
    }
}

fn attached(to: &Option<Digest>) -> String {
    to.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string())
}

/// What cosign says of an image that it signs; `cosign verify` itself does not look at it.
pub const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
