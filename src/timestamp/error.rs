//! Why there is no timestamp.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use super::Window;
use crate::clock::UnixTime;
use crate::outbound::OutboundError;
use crate::sigstore::TimestampError;

/// Why a signature was not stamped as the policy demands.
#[derive(Debug, thiserror::Error)]
pub enum StampError {
    /// The caller's time is over.
    #[error("no timestamp authority answered in time")]
    Deadline,
    /// These authorities did not stamp it.
    #[error("{}", Attempts(.0))]
    Failed(Vec<Attempt>),
    /// The background runtime is gone.
    #[error("the process is stopping")]
    Stopping,
}

/// One authority that did not stamp.
#[derive(Debug)]
pub struct Attempt {
    /// Its name in the settings.
    pub authority: String,
    /// Why not.
    pub error: AuthorityError,
}

/// Why one authority did not stamp.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It failed too often, and is left alone for so much longer.
    #[error("it is left alone for {} ms, after failures", .0.as_millis())]
    Paused(Duration),
    /// Its URL is none.
    #[error("its URL is none; write one like https://tsa.example/api/v1/timestamp")]
    Url,
    /// No answer.
    #[error("{}", chain(.0))]
    Outbound(#[source] OutboundError),
    /// Another status than 200 or 201.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// What it answered is no timestamp that counts.
    #[error("{0}")]
    Refused(#[source] TimestampError),
    /// It states a time long gone.
    #[error(
        "it states {}, and the clock here says {}; set right whichever is wrong", .stated.rfc3339(), .now.rfc3339()
    )]
    Clock {
        /// What it states.
        stated: UnixTime,
        /// What the clock here said.
        now: UnixTime,
    },
    /// It states a time at which the certificate of the signature is not valid: no verifier would take the bundle, ever.
    #[error(
        "it states {}, and the certificate is valid from {} to {}; the clocks of Fulcio and of the authority must agree",
        .stated.rfc3339(), .window.not_before.rfc3339(), .window.not_after.rfc3339()
    )]
    OutsideCertificate {
        /// What it states.
        stated: UnixTime,
        /// The validity of the certificate.
        window: Window,
    },
    /// Its timestamp is signed by the certificate that signed another one, where each must be somebody else's.
    #[error("the one who signed is the one who signed for `{other}`; all must stamp, so name different authorities")]
    NotDistinct {
        /// The other authority's name in the settings.
        other: String,
    },
}

impl StampError {
    /// How long it makes no sense to ask again, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(attempts) => {
                let pause = |attempt: &Attempt| match attempt.error {
                    AuthorityError::Paused(left) => Some(left),
                    _ => None,
                };
                attempts.iter().filter_map(pause).min()
            }
            Self::Deadline | Self::Stopping => None,
        }
    }

    /// A stable word for metrics and audit records: that of the last authority that was really asked.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Deadline => "timestamp_deadline",
            Self::Stopping => "timestamp_stopping",
            Self::Failed(attempts) => {
                let asked = attempts.iter().rev().find(|one| !matches!(one.error, AuthorityError::Paused(_)));
                asked.or(attempts.last()).map_or("timestamp_no_authority", |one| one.error.reason())
            }
        }
    }
}

impl AuthorityError {
    /// A stable word for metrics and audit records.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Paused(_) => "timestamp_paused",
            Self::Url => "timestamp_url",
            Self::Outbound(OutboundError::Timeout { .. }) => "timestamp_timeout",
            Self::Outbound(OutboundError::TooLarge { .. }) => "timestamp_too_large",
            Self::Outbound(_) => "timestamp_unreachable",
            Self::Status(_) => "timestamp_status",
            Self::Refused(error) => error.reason(),
            Self::Clock { .. } => "timestamp_clock",
            Self::OutsideCertificate { .. } => "timestamp_outside_certificate",
            Self::NotDistinct { .. } => "timestamp_not_distinct",
        }
    }
}

struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there is no timestamp authority to ask");
        }
        f.write_str("no timestamp")?;
        for (index, attempt) in self.0.iter().enumerate() {
            write!(f, "{} {}: {}", if index == 0 { ";" } else { "," }, attempt.authority, attempt.error)?;
        }
        Ok(())
    }
}

/// The causes as well: "no connection" alone helps nobody.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
