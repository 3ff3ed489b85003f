//! Why there is no keyless signature.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::time::Duration;

use signer_keyless::wire::{Failed, FailureKind, Layers};

use super::identity::IdentityError;
use super::program::ProgramError;
use super::route::{RouteError, RouteSetupError};
use crate::dsse::SignatureError;
use crate::sigstore::{CertificateError, SctError, TrustedRootError};

/// How far a flow has come: the last step that was completed. Each is a place where a helper, Fulcio or the way to it
/// may fail, and what audit records name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowStep {
    /// Nothing yet.
    Begun,
    /// The helper's process runs.
    Spawned,
    /// It has said that its sandbox is closed, and all required layers are there.
    Sealed,
    /// Fulcio is connected as well.
    Connected,
    /// The helper has the job, the identity token and the connection.
    JobSent,
    /// It has a certificate of Fulcio.
    Certificate,
    /// It has answered with a signature.
    Answered,
    /// The answer was found to be right.
    Verified,
}

/// Why there is no keyless signature. `Display` and `source()` are for the log and the auditor.
#[derive(Debug, thiserror::Error)]
pub enum KeylessError {
    /// Fulcio did not answer for a while and is not asked now.
    #[error("Fulcio is not asked now, because it did not answer before")]
    CircuitOpen {
        /// When it is asked again.
        retry_after: Duration,
    },
    /// Too many requests wait for a flow.
    #[error("{waiting} requests wait for a keyless flow already; `max_flows` in [keyless] bounds them")]
    QueueFull {
        /// How many.
        waiting: u32,
        /// How long they will take, as measured.
        retry_after: Duration,
    },
    /// The time was up.
    #[error("the time for a keyless signature was up, at the step `{}`", step.name())]
    Late {
        /// The last step that was completed.
        step: FlowStep,
        /// Whether it was Fulcio's doing: it had a whole `step_timeout` by itself. Otherwise too little was left for it.
        fulcios: bool,
    },
    /// There is no identity token.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The helper cannot be started, or ended, or says what nobody says.
    #[error("the keyless helper failed after the step `{}`: {why}", step.name())]
    Helper {
        /// The last step that was completed.
        step: FlowStep,
        /// What happened.
        why: String,
    },
    /// The helper's sandbox lacks layers that the configuration does not except.
    #[error("the keyless helper runs without {0}; nothing is entrusted to it")]
    Unsealed(Layers),
    /// Fulcio cannot be reached.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The helper says that Fulcio gave no certificate, or that it cannot sign.
    #[error("keyless flow: {0}")]
    Flow(Failed),
    /// What came back is not what was asked for. It does not leave.
    #[error("what Fulcio and the helper answered is refused: {0}")]
    Refuted(#[from] Refuted),
}

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refuted {
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// What the CT log says of it.
    #[error(transparent)]
    Sct(#[from] SctError),
    /// The helper's public key is none.
    #[error("the helper's public key is no point of P-256")]
    Key,
    /// The signature.
    #[error("the helper's signature is refused: {0}")]
    Signature(#[from] SignatureError),
}

/// Why keyless signing cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum KeylessSetupError {
    /// The helper.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A thread for helpers cannot be started.
    #[error("the threads that start and reap keyless helpers")]
    Threads(#[source] io::Error),
    /// The way to Fulcio.
    #[error(transparent)]
    Route(#[from] RouteSetupError),
    /// The pinned roots.
    #[error("keyless.trusted_root")]
    TrustedRoot(#[source] TrustedRootError),
    /// The pinned roots name no Fulcio.
    #[error(
        "keyless.trusted_root names no certificate authority, so no certificate could be trusted; add the Fulcio's"
    )]
    NoAuthority,
    /// The pinned roots name no CT log.
    #[error(
        "keyless.trusted_root names no CT log, so no SCT could be trusted; add the log's key, or write \
         `sct = \"optional\"` in [keyless] if your Fulcio has none"
    )]
    NoCtLog,
    /// An identity.
    #[error("keyless.identity.{name}")]
    Identity {
        /// Its name.
        name: String,
        /// Why.
        source: IdentityError,
    },
    /// A tenant's identity is not configured.
    #[error("tenants.{tenant}.keyless.identity: there is no such identity")]
    NoIdentity {
        /// The tenant.
        tenant: String,
    },
}

impl FlowStep {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Begun,
        Self::Spawned,
        Self::Sealed,
        Self::Connected,
        Self::JobSent,
        Self::Certificate,
        Self::Answered,
        Self::Verified,
    ];

    /// For records and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Spawned => "spawned",
            Self::Sealed => "sealed",
            Self::Connected => "connected",
            Self::JobSent => "job_sent",
            Self::Certificate => "certificate",
            Self::Answered => "answered",
            Self::Verified => "verified",
        }
    }
}

impl fmt::Display for FlowStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl KeylessError {
    /// The coarse code for the caller.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::QueueFull { .. } | Self::Late { step: FlowStep::Begun, .. } => "overloaded",
            Self::CircuitOpen { .. } | Self::Route(_) | Self::Late { .. } => "dependency_unavailable",
            Self::Identity(error) if error.is_the_authoritys() => "dependency_unavailable",
            Self::Flow(failed) if is_fulcios(failed.kind) => "dependency_unavailable",
            _ => "signing_unavailable",
        }
    }

    /// Stable, for audit and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CircuitOpen { .. } => "fulcio_circuit_open",
            Self::QueueFull { .. } => "keyless_queue_full",
            Self::Late { .. } => "keyless_deadline",
            Self::Identity(error) => error.reason(),
            Self::Helper { .. } => "keyless_helper_failed",
            Self::Unsealed(_) => "keyless_helper_unsealed",
            Self::Route(RouteError::Proxy { .. }) => "fulcio_proxy_refused",
            Self::Route(RouteError::NotLoopback { .. }) => "fulcio_not_loopback",
            Self::Route(RouteError::OutOfTime { .. }) => "keyless_deadline",
            Self::Route(_) => "fulcio_unreachable",
            Self::Flow(failed) => match failed.kind {
                FailureKind::Sandbox => "keyless_helper_unsealed",
                FailureKind::BadJob | FailureKind::Crypto => "keyless_helper_failed",
                FailureKind::TlsRefused => "fulcio_tls_refused",
                FailureKind::Refused => "fulcio_refused",
                FailureKind::Busy => "fulcio_busy",
                FailureKind::BadAnswer => "fulcio_bad_answer",
                FailureKind::TooLarge => "fulcio_answer_too_large",
                FailureKind::TimedOut => "fulcio_timed_out",
                FailureKind::Closed => "fulcio_closed",
            },
            Self::Refuted(refuted) => refuted.reason(),
        }
    }

    /// The last step that was completed.
    #[must_use]
    pub fn step(&self) -> FlowStep {
        match self {
            Self::CircuitOpen { .. } | Self::QueueFull { .. } | Self::Identity(_) | Self::Route(_) => FlowStep::Begun,
            Self::Late { step, .. } | Self::Helper { step, .. } => *step,
            Self::Unsealed(_) => FlowStep::Spawned,
            Self::Flow(failed) => step_of(failed),
            Self::Refuted(_) => FlowStep::Answered,
        }
    }

    /// When it makes sense to ask again.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::CircuitOpen { retry_after } => (*retry_after).max(Duration::from_secs(1)),
            Self::QueueFull { retry_after, .. } => *retry_after,
            Self::Late { .. } => Duration::from_secs(1),
            Self::Flow(Failed { kind: FailureKind::Busy, retry_after: Some(seconds), .. }) => {
                Duration::from_secs((*seconds).into()).clamp(Duration::from_secs(1), LONGEST_WAIT)
            }
            Self::Route(_) | Self::Helper { .. } => Duration::from_secs(5),
            Self::Identity(error) if error.is_the_authoritys() => Duration::from_secs(5),
            // Its token, or the audit log, may be back any moment.
            Self::Identity(IdentityError::Assertion { .. }) => Duration::from_secs(5),
            Self::Flow(failed) if is_fulcios(failed.kind) => Duration::from_secs(5),
            // An operator has to act first.
            _ => LONGEST_WAIT,
        }
    }

    /// Whether the same may be tried again at once, with another helper and another key.
    ///
    /// Only where certainly nothing was made that anybody could use: Fulcio was not reached, or the helper itself says
    /// that Fulcio told it to come back (429, 5xx). A certificate that Fulcio may have issued all the same is for a key
    /// that is gone with its helper. Not where a helper fell silent after it had the job: it may have signed, and that
    /// it died is not for a retry to hide. Not where an answer was refused: the same Fulcio would give the same.
    pub(super) fn may_be_tried_again(&self) -> bool {
        match self {
            Self::Route(RouteError::Connect { .. } | RouteError::Late { .. }) => true,
            Self::Flow(failed) => failed.kind == FailureKind::Busy,
            // It never had anything to work with.
            Self::Helper { step, .. } => matches!(step, FlowStep::Begun | FlowStep::Spawned | FlowStep::Sealed),
            _ => false,
        }
    }

    /// What the circuit is to think of it: `Some` when Fulcio failed.
    pub(super) fn is_fulcios_failure(&self) -> bool {
        match self {
            Self::Route(error) => !matches!(error, RouteError::NotLoopback { .. } | RouteError::OutOfTime { .. }),
            Self::Flow(failed) => is_fulcios(failed.kind),
            Self::Late { fulcios, .. } => *fulcios,
            _ => false,
        }
    }

    /// Whether it is the helper that failed.
    pub(super) fn is_the_helpers(&self) -> bool {
        match self {
            Self::Helper { .. } | Self::Unsealed(_) => true,
            Self::Flow(failed) => {
                matches!(failed.kind, FailureKind::Sandbox | FailureKind::BadJob | FailureKind::Crypto)
            }
            _ => false,
        }
    }

    /// Whether Fulcio has answered, be it with a refusal.
    pub(super) fn fulcio_answered(&self) -> bool {
        match self {
            Self::Refuted(_) => true,
            Self::Flow(failed) => matches!(
                failed.kind,
                FailureKind::Refused | FailureKind::BadAnswer | FailureKind::TooLarge | FailureKind::TlsRefused
            ),
            _ => false,
        }
    }
}

impl Refuted {
    /// Stable, for audit and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Certificate(error) => error.reason(),
            Self::Sct(error) => error.reason(),
            Self::Key => "certificate_key_mismatch",
            Self::Signature(_) => "signature_invalid",
        }
    }
}

impl IdentityError {
    /// Whether the Authority, and not the configuration, has to be waited for.
    fn is_the_authoritys(&self) -> bool {
        match self {
            Self::Unanswered { .. } | Self::Late => true,
            Self::Refused { status, .. } => matches!(status, 429 | 500..=599),
            _ => false,
        }
    }
}

/// Whether Fulcio, and not this appliance, has to be waited for.
fn is_fulcios(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Busy | FailureKind::TimedOut | FailureKind::Closed)
}

fn step_of(failed: &Failed) -> FlowStep {
    use signer_keyless::wire::Step;
    match failed.step {
        Step::Seal => FlowStep::Spawned,
        Step::Key | Step::Receive => FlowStep::Connected,
        Step::Handshake | Step::Request | Step::Answer => FlowStep::JobSent,
        Step::Sign => FlowStep::Certificate,
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use signer_keyless::wire::Step;

    #[test]
    fn only_what_has_certainly_made_nothing_is_tried_again() {
        let io = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let flow = |step, kind| KeylessError::Flow(Failed::new(step, kind, ""));
        let helper = |step| KeylessError::Helper { step, why: String::new() };
        for again in [
            KeylessError::Route(RouteError::Connect { place: String::new(), source: io() }),
            KeylessError::Route(RouteError::Late { place: String::new() }),
            flow(Step::Answer, FailureKind::Busy),
            helper(FlowStep::Begun),
            helper(FlowStep::Sealed),
        ] {
            assert!(again.may_be_tried_again(), "{again}");
        }
        for never in [
            helper(FlowStep::JobSent),
            helper(FlowStep::Certificate),
            helper(FlowStep::Answered),
            flow(Step::Answer, FailureKind::TimedOut),
            flow(Step::Answer, FailureKind::Closed),
            flow(Step::Answer, FailureKind::Refused),
            flow(Step::Answer, FailureKind::BadAnswer),
            flow(Step::Handshake, FailureKind::TlsRefused),
            flow(Step::Sign, FailureKind::Crypto),
            KeylessError::Refuted(Refuted::Key),
            KeylessError::Unsealed(Layers::all()),
            KeylessError::Late { step: FlowStep::JobSent, fulcios: true },
            KeylessError::Route(RouteError::OutOfTime { place: String::new() }),
        ] {
            assert!(!never.may_be_tried_again(), "{never}");
        }
    }

    #[test]
    fn what_waits_for_somebody_else_is_told_apart_from_what_an_operator_must_mend() {
        let flow = |kind| KeylessError::Flow(Failed::new(Step::Answer, kind, "").answered(Some(503), Some(7)));
        assert_eq!(flow(FailureKind::Busy).code(), "dependency_unavailable");
        assert_eq!(flow(FailureKind::Busy).retry_after(), Duration::from_secs(7));
        assert!(flow(FailureKind::Busy).is_fulcios_failure());
        assert_eq!(flow(FailureKind::Refused).code(), "signing_unavailable");
        assert!(!flow(FailureKind::Refused).is_fulcios_failure() && flow(FailureKind::Refused).fulcio_answered());
        assert_eq!(KeylessError::QueueFull { waiting: 1, retry_after: Duration::from_secs(1) }.code(), "overloaded");
        let refused = |status| {
            let error =
                IdentityError::Refused { place: "https://a.example/token".into(), status, error: String::new() };
            let error = KeylessError::Identity(error);
            (error.code(), error.retry_after().as_secs())
        };
        assert_eq!(refused(429), ("dependency_unavailable", 5));
        assert_eq!(refused(503), ("dependency_unavailable", 5));
        assert_eq!(refused(401), ("signing_unavailable", 60));
        let unsigned = IdentityError::Assertion { key: "k".to_owned(), why: "its token is down".to_owned() };
        assert_eq!(KeylessError::Identity(unsigned).retry_after().as_secs(), 5);
        assert_eq!(KeylessError::Refuted(Refuted::Key).code(), "signing_unavailable");
    }
}
