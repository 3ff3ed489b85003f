//! Why a token was not administered, and what would help.

use super::super::TokenError;
use super::Object;

/// Why a token was not administered. Nothing was changed, unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The device, its module, or what was asked of it.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No slot to initialise.
    #[error("{0}")]
    NoSlot(String),
    /// The token has an owner already.
    #[error(
        "slot {slot} holds the initialised token `{label}` (serial {serial}); initialising destroys every key on it"
    )]
    Initialised {
        /// Its slot.
        slot: u64,
        /// Its label.
        label: String,
        /// Its serial number.
        serial: String,
    },
    /// It is not the token that the operator agreed to destroy.
    #[error(
        "slot {slot} holds the token `{label}` (serial {serial}), which is not the one that was to be destroyed; it \
         was left alone"
    )]
    OtherToken {
        /// Its slot.
        slot: u64,
        /// Its label.
        label: String,
        /// Its serial number.
        serial: String,
    },
    /// Another token in the module has the label already.
    #[error("the token in slot {slot} is labelled `{label}` already; two of one label cannot be told apart by it")]
    LabelTaken {
        /// Its slot.
        slot: u64,
        /// The label.
        label: String,
    },
    /// The label does not fit.
    #[error("a label has 1 to 32 bytes of printable text (CK_TOKEN_INFO); `{0}` does not")]
    Label(String),
    /// The PIN does not fit.
    #[error("{what} must have {least} to {most} bytes for this token")]
    PinLength {
        /// Which PIN.
        what: &'static str,
        /// At least.
        least: usize,
        /// At most.
        most: usize,
    },
    /// The PIN is no text, which the call that sets it needs.
    #[error("{0} is not UTF-8 text")]
    PinText(&'static str),
    /// The flags say that the PIN had better not be tried.
    #[error("the PIN was not tried: {0}")]
    PinNotTried(String),
    /// The token is labelled, and has no user PIN: the second of two steps failed.
    #[error("the token was initialised, but its user PIN could not be set")]
    HalfInitialised(#[source] Box<AdminError>),
    /// The object exists.
    #[error("the token already has a {class} with label `{label}` and id {id}")]
    Exists {
        /// What it is.
        class: String,
        /// Its label.
        label: String,
        /// Its id, hex.
        id: String,
    },
    /// The device made a key that must not be used.
    #[error("the device made a key that is not as asked ({}); {}", objections.join(", "), if *destroyed { "it was destroyed again" } else { "IT COULD NOT BE DESTROYED and is still on the token" })]
    Unsafe {
        /// What is wrong with it.
        objections: Vec<String>,
        /// Is it gone again?
        destroyed: bool,
    },
    /// The private key is not the one that was to be destroyed.
    #[error("the private key {uri} is {is}, not {expected}; it was left alone")]
    OtherKey {
        /// How it was named.
        uri: String,
        /// Its fingerprint.
        is: String,
        /// The one that was meant.
        expected: String,
    },
    /// It cannot be told which key it is.
    #[error("the token shows no public half for the private key {uri} ({source}); it was left alone")]
    Unrecognised {
        /// How it was named.
        uri: String,
        /// Why not.
        source: Box<AdminError>,
    },
    /// A part is destroyed, and the rest is still there.
    #[error("{} destroyed, the rest is still on the token; run the command again", gone.iter().map(|object| object.class.as_str()).collect::<Vec<_>>().join(" and "))]
    Partly {
        /// What is no more.
        gone: Vec<Object>,
        /// Why the rest is.
        source: Box<AdminError>,
    },
    /// A YubiHSM that is not as it left the factory.
    #[error(
        "the device does not take the factory's password for authentication key 0x0001: somebody has set it up; it was \
         left alone"
    )]
    SetUpAlready,
    /// A YubiHSM is set up, and everybody can still administer it.
    #[error("the device is set up, but its factory authentication key, whose password everybody knows, is STILL THERE")]
    FactoryKeyStays(#[source] Box<AdminError>),
    /// Whatever one of them makes the other does not see.
    #[error(
        "authentication key {acting} shares no domain with the worker's, {worker}, or that one is not there: the worker \
         could not use the key"
    )]
    NoSharedDomain {
        /// The one that acts.
        acting: String,
        /// The worker's.
        worker: String,
    },
    /// A signature by the key does not verify.
    #[error("a signature by the key does not verify with its public key{}", match destroyed {
        Some(true) => "; the new key was destroyed again",
        Some(false) => "; THE NEW KEY COULD NOT BE DESTROYED and is still on the token",
        None => "; the key is still on the token",
    })]
    BadSignature {
        /// Is a key that was just made gone again? `None`: the key was there before.
        destroyed: Option<bool>,
    },
}

impl AdminError {
    /// What became of a command that had destroyed something when it failed.
    pub(in super::super) fn after(gone: &[Object], error: Self) -> Self {
        if gone.is_empty() { error } else { Self::Partly { gone: gone.to_vec(), source: Box::new(error) } }
    }

    /// A stable word for scripts and for `signerctl`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Token(TokenError::Absent { .. }) => "token_absent",
            Self::Token(TokenError::SeveralTokens { .. }) => "several_tokens",
            Self::Token(TokenError::KeyNotFound { .. }) => "key_not_found",
            Self::Token(TokenError::SeveralKeys { .. }) => "several_keys",
            Self::Token(TokenError::KeyUnsuitable { .. }) => "key_unsuitable",
            Self::Token(TokenError::PinRefused(_)) => "pin_refused",
            Self::Token(TokenError::LoginUnclear(_)) => "login_unclear",
            Self::Token(TokenError::Device { operation: "C_Initialize", .. }) => "module_initialise",
            // What else a device may say: it failed.
            Self::Token(_) => "device_failed",
            Self::NoSlot(_) => "no_slot",
            Self::Initialised { .. } => "initialised",
            Self::OtherToken { .. } => "other_token",
            Self::LabelTaken { .. } => "label_taken",
            Self::Label(_) => "label",
            Self::PinLength { .. } | Self::PinText(_) => "pin_form",
            Self::PinNotTried(_) => "pin_not_tried",
            Self::HalfInitialised(_) => "half_initialised",
            Self::Exists { .. } => "exists",
            Self::Unsafe { .. } => "unsafe_key",
            Self::OtherKey { .. } => "other_key",
            Self::Unrecognised { .. } => "unrecognised_key",
            Self::BadSignature { .. } => "bad_signature",
            Self::Partly { .. } => "partly_destroyed",
            Self::SetUpAlready => "initialised",
            Self::FactoryKeyStays(_) => "half_initialised",
            Self::NoSharedDomain { .. } => "no_shared_domain",
        }
    }

    /// What would help, where the message does not say it.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Token(TokenError::PinRefused(_)) => Some(
                "the attempt was counted; make sure of the PIN before you try another one, a token locks after a few",
            ),
            Self::Token(TokenError::LoginUnclear(_)) => Some("look at the token's PIN flags before another attempt"),
            Self::Initialised { .. } => {
                Some("take an empty token (--slot), or give --reinitialise when every key on this one may be destroyed")
            }
            Self::OtherToken { .. } => Some("look at `signerctl token list`, and begin again"),
            Self::LabelTaken { .. } => Some("choose another --label"),
            Self::SetUpAlready => Some(
                "administer it as an authentication key that may (--auth-key), or reset it to the factory's state with \
                 yubihsm-shell, which destroys every key in it",
            ),
            Self::FactoryKeyStays(_) => {
                Some("delete it: yubihsm-shell -a delete-object -t authentication-key -i 1, as the new administrator")
            }
            Self::NoSharedDomain { .. } => Some("act as an authentication key of the worker's domain (--auth-key)"),
            Self::HalfInitialised(_) => {
                Some("run the command again with --reinitialise: the security officer's PIN is the new one already")
            }
            Self::Exists { .. } => Some("choose another --id and --label"),
            Self::OtherKey { .. } => Some("correct the key's `uri` in the configuration"),
            Self::Unrecognised { .. } => Some(
                "it would have to sign once to be recognised, and did not; make sure that it is the right one and \
                 destroy it with the vendor's tool",
            ),
            Self::Unsafe { .. } => {
                Some("this device or its configuration cannot hold a key that is safe; ask its vendor")
            }
            _ => None,
        }
    }
}
