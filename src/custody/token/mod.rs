//! What a token worker needs of a device, and the devices behind it.
//!
//! The fence: FFI and `unsafe` live below this module and nowhere else. Above it stand the traits [`Token`] and
//! [`TokenSession`]; a PKCS#11 module implements them, and so can any other way to reach an HSM.

pub mod admin;
mod inherited;
mod lab;
mod pin;
pub mod pkcs11;
pub(super) mod scheduling;
pub mod watch;
pub mod yubihsm;

use std::fmt;

pub use inherited::{Inherited, inherited_listener, inherited_sockets};
pub use lab::Lab;
pub use pin::{Pin, PinFileError};

use super::uri::KeyUri;
use super::{KeyAttributes, PublicKey};

/// One token (HSM partition, smart card, emulator), reachable for the life of the process.
pub trait Token: Send + Sync {
    /// What the token says about itself now. Needs no session and no login.
    ///
    /// # Errors
    /// When the token is absent or the device fails.
    fn facts(&self) -> Result<TokenFacts, TokenError>;

    /// A new session. Login is shared between the sessions of a process, so it may be logged in already.
    ///
    /// # Errors
    /// When the token is absent, has no session left, or the device fails.
    fn open_session(&self) -> Result<Box<dyn TokenSession>, TokenError>;

    /// Brings what stands between us and the device back to where it was at the start, as far as that can be done in
    /// this process. The caller sees to it that no session is open and no call under way.
    ///
    /// # Errors
    /// When it does not come back; the next calls say so, too.
    fn reinitialize(&self) -> Result<(), TokenError> {
        Ok(())
    }
}

/// One session: used by one thread, closed on drop, never used again after an error whose [`TokenError::remedy`] is
/// more than [`Remedy::None`].
pub trait TokenSession {
    /// # Errors
    /// When the session is lost.
    fn is_logged_in(&self) -> Result<bool, TokenError>;

    /// One attempt with this PIN, for all sessions of the process.
    ///
    /// # Errors
    /// [`TokenError::PinRefused`] when the token counted the attempt as wrong or would not take it,
    /// [`TokenError::LoginUnclear`] when nobody can tell.
    fn login(&self, pin: &Pin) -> Result<(), TokenError>;

    /// Ends the login of all sessions of the process: for a device that says at once that somebody is logged in and
    /// that nobody is.
    ///
    /// # Errors
    /// When the device fails. Nothing is lost by that: a login follows, and says what is the matter.
    fn logout(&self) -> Result<(), TokenError> {
        Ok(())
    }

    /// The one private key that the URI names, its public key and its attributes, read from the device at each call.
    /// The key is on P-256; whether its attributes let it sign is judged by the caller.
    ///
    /// # Errors
    /// When there is no such key or several, or it is of another kind.
    fn find_key(&self, uri: &KeyUri) -> Result<FoundKey, TokenError>;

    /// ECDSA over a SHA-256 digest: raw r ‖ s.
    ///
    /// # Errors
    /// [`TokenError::OddSignature`] when the device signed and returned something else than a signature; any other
    /// error means that no signature was handed out.
    fn sign(&self, key: KeySlot, digest: &[u8; 32]) -> Result<[u8; 64], TokenError>;
}

/// A key within one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySlot(pub u64);

/// The answer of [`TokenSession::find_key`].
#[derive(Clone, Debug)]
pub struct FoundKey {
    /// To sign with in this session.
    pub slot: KeySlot,
    /// The public half.
    pub public_key: PublicKey,
    /// As the device reports them.
    pub attributes: KeyAttributes,
    /// The device's certificates for the key, DER, leaf first; empty where it attests nothing.
    pub attestation: Vec<Vec<u8>>,
}

/// What a token says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// Given at initialisation.
    pub label: String,
    /// Of the device.
    pub serial: String,
    /// Who made it.
    pub manufacturer: String,
    /// What it is.
    pub model: String,
    /// Version of its firmware.
    pub firmware: String,
    /// May the PIN be tried?
    pub pin: PinState,
}

/// What the token's flags say about the user PIN, before anything is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PinState {
    /// No wrong PIN since the last good one.
    #[default]
    Good,
    /// `CKF_USER_PIN_COUNT_LOW`: a wrong PIN was presented since the last good one.
    CountLow,
    /// `CKF_USER_PIN_FINAL_TRY`: one more wrong PIN locks the token.
    FinalTry,
    /// `CKF_USER_PIN_LOCKED`.
    Locked,
    /// The user PIN was never set.
    NotInitialized,
    /// `CKF_USER_PIN_TO_BE_CHANGED`: nothing works until the PIN is changed.
    MustChange,
}

impl PinState {
    /// Why the PIN must not be tried in this state; `None` when it may be.
    #[must_use]
    pub fn objection(self) -> Option<&'static str> {
        match self {
            Self::Good | Self::CountLow => None,
            Self::FinalTry => Some(
                "one more wrong PIN locks the token (CKF_USER_PIN_FINAL_TRY); log in once by hand with the right PIN \
                 to reset the count",
            ),
            Self::Locked => Some("the user PIN is locked (CKF_USER_PIN_LOCKED); the security officer must reset it"),
            Self::NotInitialized => Some("the user PIN was never set; initialise it with the vendor's tool"),
            Self::MustChange => {
                Some("the user PIN must be changed first (CKF_USER_PIN_TO_BE_CHANGED); use the vendor's tool")
            }
        }
    }
}

/// What went wrong between us and the device.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No token in any slot matches the URI.
    #[error("no token matches the configured URI; present: {present}")]
    Absent {
        /// Labels and serials of the tokens that are there.
        present: String,
    },
    /// The URI is too vague.
    #[error("{count} tokens match the configured URI; add `serial` to name exactly one")]
    SeveralTokens {
        /// How many.
        count: usize,
    },
    /// No private key matches.
    #[error("no private key matches `{uri}`")]
    KeyNotFound {
        /// As configured.
        uri: String,
    },
    /// More than one private key matches.
    #[error("{count} private keys match `{uri}`; name exactly one by `object` and `id`")]
    SeveralKeys {
        /// As configured.
        uri: String,
        /// How many.
        count: usize,
    },
    /// The key is there and must not be used.
    #[error("the key `{uri}` may not sign: {why}")]
    KeyUnsuitable {
        /// As configured.
        uri: String,
        /// What is wrong with it.
        why: String,
    },
    /// The token took the PIN for wrong, or will not take any.
    #[error("the token refused the PIN: {0}")]
    PinRefused(String),
    /// The login failed in a way that leaves open whether the attempt was counted.
    #[error("the login failed, and the token may have counted the attempt")]
    LoginUnclear(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The device said that it signed, and what it returned is no signature.
    #[error("{operation} returned {length} bytes, where a P-256 signature has 64")]
    OddSignature {
        /// The call.
        operation: &'static str,
        /// Of what it returned, in bytes.
        length: u64,
    },
    /// A call into the device failed.
    #[error("{operation} failed")]
    Device {
        /// What was tried.
        operation: &'static str,
        /// What it takes to go on.
        remedy: Remedy,
        /// What the device or its module said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What it takes to go on after an error; each includes the ones before it. The rungs of a ladder: where one does not
/// help, the next one is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Nothing: the session is as good as before.
    None,
    /// A new session.
    NewSession,
    /// A new session and a new login.
    NewLogin,
    /// The module must be finalised and initialised anew, in this process.
    Reinitialize,
    /// The module is beyond repair from within; only a new process helps.
    NewProcess,
}

impl TokenError {
    /// What it takes to go on.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Absent { .. } | Self::SeveralTokens { .. } | Self::PinRefused(_) | Self::OddSignature { .. } => {
                Remedy::NewSession
            }
            Self::KeyNotFound { .. } | Self::SeveralKeys { .. } | Self::KeyUnsuitable { .. } => Remedy::None,
            Self::LoginUnclear(_) => Remedy::NewLogin,
            Self::Device { remedy, .. } => *remedy,
        }
    }
}

/// An error and its causes in one line, for logs and for the front.
#[must_use]
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl fmt::Display for TokenFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, serial, manufacturer, model, firmware, .. } = self;
        write!(f, "`{label}` (serial {serial}, {manufacturer} {model}, firmware {firmware})")
    }
}
