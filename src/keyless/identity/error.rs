//! Why there is no identity token.

#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::outbound::OutboundError;

/// Why there is no identity token. Never says anything of the token itself but issuer and audience.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is not there or cannot be read.
    #[error("the identity token {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The unit hands over no credentials.
    #[error(
        "there are no credentials for `{name}`: $CREDENTIALS_DIRECTORY is not set; add `LoadCredential={name}:…` to \
         signerd's unit, or name the token's `file`"
    )]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// Not a token that Fulcio could take.
    #[error("the identity token cannot be used: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Of another issuer than configured.
    #[error("the identity token is of the issuer `{found}`, and `issuer` in [keyless.identity] says `{expected}`")]
    Issuer {
        /// Of the token.
        found: String,
        /// As configured.
        expected: String,
    },
    /// For somebody else.
    #[error("the identity token is for `{found}`, and Fulcio's `audience` in [keyless.identity] is `{expected}`")]
    Audience {
        /// Of the token.
        found: String,
        /// As configured.
        expected: String,
    },
    /// Its `exp` has passed.
    #[error("the identity token ended {} s ago; whatever writes it must write a new one", by.as_secs())]
    Expired {
        /// How long ago.
        by: Duration,
    },
    /// The Authority's CA, or the client's certificate, cannot be used.
    #[error("[keyless.identity.{name}] cannot be used: {source}")]
    Setup {
        /// The identity.
        name: String,
        /// Why.
        source: Arc<OutboundError>,
    },
    /// The token endpoint gave no answer.
    #[error("the Authority at {place} gave no identity token: {why}")]
    Unanswered {
        /// Where.
        place: Arc<str>,
        /// What happened.
        why: String,
    },
    /// The token endpoint refused (RFC 6749, section 5.2).
    #[error("the Authority at {place} refused the identity token with status {status}{error}")]
    Refused {
        /// Where.
        place: Arc<str>,
        /// Its status.
        status: u16,
        /// `: ` and its `error`, where it has the form of one.
        error: String,
    },
    /// The key that vouches for the client does not sign.
    #[error("the client assertion cannot be signed by key `{key}`: {why}")]
    Assertion {
        /// The key.
        key: String,
        /// Why.
        why: String,
    },
    /// None could be had before the request's time was up.
    #[error("no identity token could be had in time")]
    Late,
}

impl IdentityError {
    /// Stable, for audit and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "identity_unreadable",
            Self::NoCredentials { .. } | Self::Setup { .. } => "identity_setup",
            Self::Malformed { .. } => "identity_malformed",
            Self::Issuer { .. } => "identity_issuer",
            Self::Audience { .. } => "identity_audience",
            Self::Expired { .. } => "identity_expired",
            Self::Unanswered { .. } => "identity_unanswered",
            Self::Refused { .. } => "identity_refused",
            Self::Assertion { .. } => "identity_assertion",
            Self::Late => "identity_late",
        }
    }
}
