//! Why a PoE does not entitle.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::PoeFormat;
use super::claims::{Claim, Fault};
use super::json::JsonFault;
use super::pinned::PinnedError;
use crate::outbound::OutboundError;

/// Why a request is not entitled to a signature.
///
/// Three audiences: [`reason`](Self::reason) is precise and for audit records and metrics,
/// [`public_reason`](Self::public_reason) tells the caller what to change and nothing else, and `Display` is for the
/// log.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoeError {
    /// The request carries none.
    #[error("the request carries no PoE; send it in the body or in X-PoE")]
    Missing,
    /// It is longer than any PoE.
    #[error("the PoE has {bytes} bytes, at most {limit} are accepted")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// What is accepted.
        limit: usize,
    },
    /// It holds characters that no token has.
    #[error("the PoE has characters other than printable ASCII")]
    Characters,
    /// This installation has no way to prove a PoE of this format.
    #[error("a PoE of format {} cannot be proven here; [licensing.online] is not configured", format.name())]
    FormatNotAccepted {
        /// Its format.
        format: PoeFormat,
    },
    /// It is not a JWT signed by a pinned licensing key.
    #[error("the PoE is not a JWT of the Licensing Service: {source}")]
    Token {
        /// What is wrong with it.
        source: Arc<PinnedError>,
    },
    /// Its payload is not a JSON object, or names a claim twice.
    #[error("the claims of the PoE cannot be read: {source}")]
    Payload {
        /// What is wrong with it.
        source: JsonFault,
    },
    /// One claim is not what it must be.
    #[error("the claim `{}` of the PoE {}", claim.name(), fault.words())]
    Claim {
        /// Which claim.
        claim: Claim,
        /// What is wrong with it.
        fault: Fault,
    },
    /// It is bound to a certificate and the caller proved a DPoP key, or the other way round.
    #[error("the PoE is bound to another kind of key than the one that the caller proved to hold")]
    BindingKind,
    /// Its time is over.
    #[error("the PoE has expired")]
    Expired,
    /// Its time has not come.
    #[error("the PoE is not valid yet")]
    NotYetValid,
    /// It was issued after now: one of the clocks is wrong.
    #[error("the PoE was issued in the future; compare the clocks")]
    IssuedInFuture,
    /// The Licensing Service says that it is not active: revoked, expired or unknown.
    #[error("the Licensing Service says that the PoE is not active")]
    Inactive,
    /// The licence is on the revocation list.
    #[error("the licence is revoked")]
    LicenseRevoked,
    /// This very PoE is on the revocation list.
    #[error("the PoE is revoked")]
    TokenRevoked,
    /// The plan is not configured here, and the PoE does not name every limit itself.
    #[error("the plan of the PoE is not configured here and the PoE does not name `{missing}`")]
    PlanUnknown {
        /// The first limit that nothing names.
        missing: &'static str,
    },
    /// The release year of the scanner is after the one that the licence names.
    #[error("the licence covers releases up to {licensed}, `stellaops_version` is of {year}")]
    ReleaseYear {
        /// The year of the request.
        year: u32,
        /// The year of the licence.
        licensed: u32,
    },
    /// The scanner is newer than the licence names.
    #[error("`stellaops_version` is newer than the `max_version` of the licence")]
    NewerVersion,
    /// The licence names a year or version, and the scanner's cannot be read.
    #[error("`stellaops_version` is neither like 2026.03.1 nor like 1.2.3")]
    VersionUnreadable,
    /// The licence names a calendar version or year and the scanner has a semantic one, or the other way round.
    #[error("`stellaops_version` is of another scheme than the licence names, so they cannot be compared")]
    VersionScheme,
    /// It cannot be decided now.
    #[error("the PoE cannot be proven now: {0}")]
    Unavailable(#[source] Unavailable),
}

/// Why entitlement cannot be decided now.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// No answer from the Licensing Service.
    #[error("the Licensing Service gives no answer: {source}")]
    Unreachable {
        /// What happened instead.
        source: Arc<OutboundError>,
    },
    /// The Licensing Service answered with another status than 200.
    #[error("the Licensing Service answered with status {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// Its `Retry-After`, bounded.
        retry_after: Option<Duration>,
    },
    /// The answer is none in the sense of RFC 7662.
    #[error("the answer of the Licensing Service is not an introspection response: {source}")]
    Answer {
        /// What is wrong with it.
        source: JsonFault,
    },
    /// As many look-ups are in progress as there may be.
    #[error("{limit} look-ups at the Licensing Service are in progress already")]
    Busy {
        /// How many there may be.
        limit: usize,
    },
    /// The look-up ended without an answer because the process is stopping.
    #[error("the look-up was given up")]
    Aborted,
    /// The revocation list in force is too old to prove anything by.
    #[error("the revocation list (sequence {sequence}) is older than allowed; install a new one")]
    RevocationListStale {
        /// Its sequence number.
        sequence: u64,
    },
    /// The revocation list in force was signed by a key that is no longer pinned.
    #[error(
        "the revocation list (sequence {sequence}) was signed by a key that is no longer pinned; install a new one"
    )]
    RevocationListDisowned {
        /// Its sequence number.
        sequence: u64,
    },
}

impl PoeError {
    /// The error code on the wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "dependency_unavailable",
            _ => "entitlement_denied",
        }
    }

    /// The precise reason: one for each thing that can be wrong. For audit records and metrics, not for the caller.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "poe_missing",
            Self::TooLarge { .. } => "poe_too_large",
            Self::Characters => "poe_characters",
            Self::FormatNotAccepted { .. } => "poe_format_not_accepted",
            Self::Token { source } => source.reason(),
            Self::Payload { .. } => "poe_payload_unreadable",
            Self::Claim { claim, fault } => claim.reason(*fault),
            Self::BindingKind => "poe_cnf_kind",
            Self::Expired => "poe_expired",
            Self::NotYetValid => "poe_not_yet_valid",
            Self::IssuedInFuture => "poe_issued_in_future",
            Self::Inactive => "poe_inactive",
            Self::LicenseRevoked => "poe_license_revoked",
            Self::TokenRevoked => "poe_jti_revoked",
            Self::PlanUnknown { .. } => "poe_plan_unknown",
            Self::ReleaseYear { .. } => "poe_release_year_exceeded",
            Self::NewerVersion => "poe_max_version_exceeded",
            Self::VersionUnreadable => "poe_stellaops_version_unreadable",
            Self::VersionScheme => "poe_stellaops_version_scheme",
            Self::Unavailable(unavailable) => unavailable.reason(),
        }
    }

    /// What the caller is told: enough to know what to renew, nothing about how the PoE was judged.
    #[must_use]
    pub fn public_reason(&self) -> &'static str {
        match self {
            Self::Missing => "poe_required",
            Self::Claim { claim: Claim::Tid | Claim::Cnf, fault: Fault::Mismatch }
            | Self::Claim { claim: Claim::Cnf, fault: Fault::Missing }
            | Self::BindingKind => "poe_binding",
            Self::Expired | Self::NotYetValid => "poe_expired",
            Self::LicenseRevoked | Self::TokenRevoked => "poe_revoked",
            Self::PlanUnknown { .. } => "plan_unknown",
            Self::ReleaseYear { .. } | Self::NewerVersion | Self::VersionScheme => "version_not_licensed",
            Self::VersionUnreadable => "version_unreadable",
            Self::Unavailable(_) => "licensing_unavailable",
            Self::TooLarge { .. }
            | Self::Characters
            | Self::FormatNotAccepted { .. }
            | Self::Token { .. }
            | Self::Payload { .. }
            | Self::Claim { .. }
            | Self::IssuedInFuture
            | Self::Inactive => "poe_invalid",
        }
    }

    /// When to try again; `None` when the same PoE will not do better.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable(Unavailable::Status { retry_after: Some(wait), .. }) => Some(*wait),
            Self::Unavailable(Unavailable::RevocationListStale { .. } | Unavailable::RevocationListDisowned { .. }) => {
                Some(Duration::from_secs(60))
            }
            Self::Unavailable(Unavailable::Busy { .. }) => Some(Duration::from_secs(1)),
            Self::Unavailable(_) => Some(Duration::from_secs(2)),
            _ => None,
        }
    }
}

impl Unavailable {
    fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { source } => match **source {
                OutboundError::Timeout { .. } => "licensing_timeout",
                _ => "licensing_unreachable",
            },
            Self::Status { .. } => "licensing_status",
            Self::Answer { .. } => "licensing_answer_invalid",
            Self::Busy { .. } => "licensing_busy",
            Self::Aborted => "licensing_lookup_aborted",
            Self::RevocationListStale { .. } => "revocation_list_stale",
            Self::RevocationListDisowned { .. } => "revocation_list_disowned",
        }
    }
}
