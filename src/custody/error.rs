//! Why there is no signature.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::PublicKeyError;
use super::client::LinkError;
use super::history::HistoryError;
use super::uri::UriError;
use super::wire::FailureCode;
use crate::config::SigningMode;

/// Why a digest was not signed. `Display` and `source()` are for the log.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The worker, its token, or the way to it failed.
    #[error("token `{token}`: {source}")]
    Token {
        /// The token's name.
        token: Arc<str>,
        /// What failed.
        source: Cause,
        /// How long what waits for the token now will take it.
        backlog: Duration,
    },
    /// The key was taken out of service.
    #[error("key `{key}` is out of service: {why}")]
    OutOfService {
        /// The key's name.
        key: Arc<str>,
        /// Why.
        why: OutOfService,
    },
}

/// What failed between the front and a signature.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct Cause(#[from] pub(super) LinkError);

/// Why a key does not sign although the configuration says that it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfService {
    /// A signature by it did not verify. Stays so until the front is started anew.
    #[error("a signature that the token returned did not verify; the token must be examined")]
    BadSignature,
    /// The token holds another key under this URI than before or than pinned.
    #[error("the token holds the key {found} under its URI, pinned is {pinned}")]
    Mismatch {
        /// `keyid` that signatures must have.
        pinned: String,
        /// `keyid` that was found.
        found: String,
    },
    /// At first sight after a start, the token holds another key than this appliance last had under the name.
    #[error(
        "the token holds the key {found}, where the key history last has {remembered} under this name: was the key exchanged? If it was, and by you, state the new one in `public_key`"
    )]
    Exchanged {
        /// `keyid` that the history has.
        remembered: String,
        /// `keyid` that was found.
        found: String,
    },
    /// No such key, several, or one that must not be used.
    #[error("{0}")]
    Refused(Arc<str>),
    /// Test signatures fail. Goes back into service by itself when they succeed again.
    #[error("test signatures fail: {0}")]
    Canary(Arc<str>),
    /// An operator has taken the token off.
    #[error("token `{0}` is drained; `signerctl token undrain {0}` takes it back")]
    Drained(Arc<str>),
}

/// Why there is no key to sign with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Not in the configuration.
    #[error("tenant `{0}` is not configured")]
    UnknownTenant(String),
    /// The tenant does not sign in this way.
    #[error("{}", unavailable(*.0))]
    ModeUnavailable(SigningMode),
    /// The tenant has keys, none of them in state `active`.
    #[error("tenant `{0}` has no active key")]
    NoActiveKey(String),
    /// The only active key has not begun.
    #[error("key `{key}` signs from {from} on")]
    KeyNotYetValid {
        /// The key's name.
        key: Arc<str>,
        /// When it begins.
        from: jiff::Timestamp,
    },
    /// The only active key has ended.
    #[error("key `{key}` signed up to {until}")]
    KeyExpired {
        /// The key's name.
        key: Arc<str>,
        /// When it ended.
        until: jiff::Timestamp,
    },
    /// Several keys would sign at this moment.
    #[error("tenant `{tenant}` has several keys that sign now ({keys}); give them windows that do not overlap")]
    SeveralKeys {
        /// The tenant.
        tenant: String,
        /// Their names.
        keys: String,
    },
    /// The key was taken out of service.
    #[error("key `{key}` is out of service: {why}")]
    KeyOutOfService {
        /// The key's name.
        key: Arc<str>,
        /// Why.
        why: OutOfService,
    },
    /// The tenant, or the appliance, has no key of this name.
    #[error("there is no key `{0}`")]
    UnknownKey(String),
    /// The key is there and does not sign now, so it cannot vouch for itself either.
    #[error("key `{key}` does not sign now; only a key that signs can vouch for its own custody")]
    NotSigning {
        /// The key's name.
        key: Arc<str>,
    },
    /// No token has shown the key yet, and no public key is configured for it.
    #[error("key `{key}` was not seen in token `{tokens}` yet")]
    KeyNotSeen {
        /// The key's name.
        key: Arc<str>,
        /// The names of its tokens.
        tokens: Arc<str>,
    },
}

/// Why a token was not drained or undrained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// Not in the configuration.
    #[error("there is no token `{token}`; configured: {known}")]
    Unknown {
        /// As asked for.
        token: String,
        /// What there is.
        known: String,
    },
    /// It would not outlast a restart.
    #[error(
        "the decision cannot be kept in {path}: {source}; make its directory writable for signerd's user, or name another `drained_file` in [custody]"
    )]
    NotKept {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It would be a decision that no auditor hears of.
    #[error("the decision cannot be recorded in the audit log: {0}")]
    NotRecorded(String),
}

/// Why the custody part of a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CustodySetupError {
    /// A URI does not parse.
    #[error("keys.{key}.uri")]
    Uri {
        /// The key's name.
        key: String,
        /// Why.
        source: UriError,
    },
    /// A key's token is not configured.
    #[error("keys.{key}.token: there is no token `{token}`")]
    NoToken {
        /// The key's name.
        key: String,
        /// The token's name.
        token: String,
    },
    /// A replica's URI does not parse.
    #[error("keys.{key}.replica: in token `{token}`")]
    ReplicaUri {
        /// The key's name.
        key: String,
        /// The token's name.
        token: String,
        /// Why.
        source: UriError,
    },
    /// The list of drained tokens cannot be read.
    #[error("custody.drained_file: cannot read {path}; give it to this process's user, or remove it to undrain all")]
    Drained {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key history cannot be read, and there are keys without `public_key` to be compared with it.
    #[error("custody.history: keys without `public_key` are compared with it")]
    History(#[source] HistoryError),
    /// A tenant's key is not configured.
    #[error("tenants.{tenant}.keys: there is no key `{key}`")]
    NoKey {
        /// The tenant.
        tenant: String,
        /// The key's name.
        key: String,
    },
    /// No such user.
    #[error("tokens.{token}.worker_user: there is no user `{user}` on this system; write a user's name or number")]
    NoUser {
        /// The token's name.
        token: String,
        /// As configured.
        user: String,
    },
    /// A file cannot be read.
    #[error("keys.{key}: cannot read {path}")]
    Read {
        /// The key's name.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a P-256 public key.
    #[error("keys.{key}: {path}")]
    PublicKey {
        /// The key's name.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: PublicKeyError,
    },
    /// No certificates in the file.
    #[error("keys.{key}.certificate_chain: {path} holds no PEM certificate with a P-256 key first")]
    Chain {
        /// The key's name.
        key: String,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and public key differ.
    #[error("keys.{key}: the first certificate of `certificate_chain` is for another key than `public_key`")]
    ChainMismatch {
        /// The key's name.
        key: String,
    },
}

impl CustodyError {
    /// The coarse code for the caller.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.reason() {
            "queue_full" | "deadline_exceeded" => "overloaded",
            _ => "signing_unavailable",
        }
    }

    /// Stable, for audit and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OutOfService { why: OutOfService::BadSignature, .. } => "signature_invalid",
            Self::OutOfService { .. } => "key_out_of_service",
            Self::Token { source: Cause(error), .. } => match error {
                LinkError::Connect { .. } | LinkError::Hello(_) => "worker_unreachable",
                LinkError::Peer { .. } | LinkError::Socket { .. } => "worker_untrusted",
                LinkError::Protocol(_) => "worker_protocol",
                LinkError::Unsent(_) | LinkError::Lost(_) => "worker_lost",
                LinkError::Timeout => "worker_timeout",
                LinkError::Overloaded => "queue_full",
                LinkError::Refused(failure) => match failure.code {
                    FailureCode::UnknownKey => "key_unknown",
                    FailureCode::KeyUnsuitable => "key_unsuitable",
                    FailureCode::TokenUnavailable => "token_unavailable",
                    FailureCode::PinRefused => "pin_refused",
                    FailureCode::QueueFull => "queue_full",
                    FailureCode::DeadlineExceeded => "deadline_exceeded",
                    FailureCode::DeviceError => "device_error",
                    FailureCode::BadRequest => "worker_protocol",
                    // As when the worker dies without a word.
                    FailureCode::Unclear | FailureCode::Stopping => "worker_lost",
                    FailureCode::BadSignature => "signature_invalid",
                },
            },
        }
    }

    /// When it makes sense to ask again.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match (self, self.reason()) {
            // When what waits now has been worked off.
            (Self::Token { backlog, .. }, "queue_full" | "deadline_exceeded") => {
                (*backlog).clamp(Duration::from_secs(1), LONGEST_WAIT)
            }
            (_, "worker_lost" | "worker_timeout") => Duration::from_secs(1),
            (_, "worker_unreachable" | "token_unavailable" | "device_error") => Duration::from_secs(5),
            // An operator has to act first.
            _ => LONGEST_WAIT,
        }
    }
}

impl ResolveError {
    /// The coarse code for the caller.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ModeUnavailable(_) | Self::NotSigning { .. } => "invalid_request",
            Self::UnknownKey(_) => "not_found",
            _ => "signing_unavailable",
        }
    }

    /// Stable, for audit and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownTenant(_) => "unknown_tenant",
            Self::ModeUnavailable(_) => "mode_unavailable",
            Self::NoActiveKey(_) => "no_active_key",
            Self::KeyNotYetValid { .. } => "key_not_yet_valid",
            Self::KeyExpired { .. } => "key_expired",
            Self::SeveralKeys { .. } => "several_active_keys",
            Self::KeyOutOfService { .. } => "key_out_of_service",
            Self::UnknownKey(_) => "unknown_key",
            Self::NotSigning { .. } => "key_not_signing",
            Self::KeyNotSeen { .. } => "key_not_seen",
        }
    }

    /// When it makes sense to ask again; `None` when asking again changes nothing.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::ModeUnavailable(_) | Self::UnknownKey(_) | Self::NotSigning { .. } => None,
            Self::KeyNotSeen { .. } | Self::KeyOutOfService { why: OutOfService::Canary(_), .. } => {
                Some(Duration::from_secs(5))
            }
            // An operator has to act first, or a window to open.
            _ => Some(LONGEST_WAIT),
        }
    }
}

fn unavailable(mode: SigningMode) -> &'static str {
    match mode {
        SigningMode::Keyless => "this tenant does not sign keyless; ask for the signing mode \"kms\"",
        SigningMode::Kms => "this tenant has no key in a token; ask for the signing mode \"keyless\"",
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(60);
