//! Why a registry gave nothing usable.

use http::StatusCode;

use crate::outbound::OutboundError;
use crate::release::digest::Digest;
use crate::statement::json::{FieldError, JsonError};

/// Why one request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached, is not who it should be, or is too slow.
    #[error("{}", chain(.0))]
    Unreachable(#[source] OutboundError),
    /// An answer larger than what is read.
    #[error("{}", chain(.0))]
    TooLarge(#[source] OutboundError),
    /// It does not let this appliance read.
    #[error("{place} answered {status}; give the appliance the right to pull, in `credentials` of this repository")]
    Denied {
        /// Which request.
        place: String,
        /// 401 or 403.
        status: StatusCode,
    },
    /// It wants a token of a service that the operator did not name.
    #[error("it asks for a token of `{realm}`, which is neither its own host nor the configured `token_service`")]
    TokenService {
        /// What it named.
        realm: String,
    },
    /// The token service gave none.
    #[error("the token service {place} {why}")]
    Token {
        /// Where.
        place: String,
        /// What it did.
        why: String,
    },
    /// It sends the appliance elsewhere.
    #[error("it redirects to `{to}`, which is not among the configured `redirects`")]
    Redirect {
        /// The host, or what stands in its place.
        to: String,
    },
    /// A next page that is not on the same list.
    #[error("the next page `{0}` is not one of this list")]
    Link(String),
    /// There is no such content.
    #[error("it does not have {0}")]
    Missing(String),
    /// A status that no registry should answer.
    #[error("{place} answered {status}")]
    Status {
        /// Which request.
        place: String,
        /// The status.
        status: StatusCode,
    },
    /// The content is not what was asked for.
    #[error("what it calls {expected} has the digest {found}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The content has not the length that its descriptor states.
    #[error("{digest} has {found} bytes, and its descriptor says {expected}")]
    Size {
        /// Of what.
        digest: Digest,
        /// What the descriptor states.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The content has more bytes than its descriptor states; no more were read.
    #[error("{digest} has more than the {expected} bytes that its descriptor says")]
    Longer {
        /// Of what.
        digest: Digest,
        /// What the descriptor states.
        expected: u64,
    },
    /// Declared as something else.
    #[error("{what} is declared as `{found}`")]
    MediaType {
        /// What was asked for.
        what: String,
        /// What it says that it is.
        found: String,
    },
    /// Not the JSON that it should be.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl RegistryError {
    /// Whether another answer is to be expected when it is asked again: whatever this hides may be a good signature.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::Denied { .. }
            | Self::TokenService { .. }
            | Self::Token { .. }
            | Self::Status { .. } => true,
            Self::TooLarge(_)
            | Self::Redirect { .. }
            | Self::Link(_)
            | Self::Missing(_)
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::Longer { .. }
            | Self::MediaType { .. }
            | Self::Malformed { .. } => false,
        }
    }

    /// A stable word for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(OutboundError::Timeout { .. }) => "release_registry_timeout",
            Self::Unreachable(_) => "release_registry_unreachable",
            Self::TooLarge(_) => "release_content_too_large",
            Self::Denied { .. } => "release_registry_denied",
            Self::TokenService { .. } => "release_token_service_foreign",
            Self::Token { .. } => "release_token_service",
            Self::Redirect { .. } => "release_redirect",
            Self::Link(_) => "release_link_foreign",
            Self::Missing(_) => "release_content_missing",
            Self::Status { .. } => "release_registry_status",
            Self::Digest { .. } => "release_content_digest",
            Self::Size { .. } | Self::Longer { .. } => "release_content_size",
            Self::MediaType { .. } => "release_media_type",
            Self::Malformed { .. } => "release_content_malformed",
        }
    }

    pub(super) fn json(what: &str, error: &JsonError) -> Self {
        Self::Malformed { what: what.to_owned(), why: error.to_string() }
    }

    pub(super) fn field(what: &str, error: &FieldError) -> Self {
        Self::Malformed { what: what.to_owned(), why: error.to_string() }
    }
}

impl From<OutboundError> for RegistryError {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::TooLarge { .. } => Self::TooLarge(error),
            other => Self::Unreachable(other),
        }
    }
}

/// The causes as well: "no connection" alone helps nobody.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
