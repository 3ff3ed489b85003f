//! What administering a token needs of a device: the traits [`TokenAdmin`] and [`AdminSession`].
//!
//! Apart from [`Token`](super::Token) on purpose. A worker at work can sign and nothing else; only `signer-token
//! admin`, started by an operator, makes and destroys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Pin, TokenError, TokenFacts};
use crate::custody::PublicKey;
use crate::custody::uri::{KeyUri, TokenUri};

/// A device or module with all its tokens.
pub trait TokenAdmin {
    /// Every slot, whether a token is in it or not.
    ///
    /// # Errors
    /// When the device fails.
    fn slots(&self) -> Result<Vec<Slot>, AdminError>;

    /// Makes a token out of an empty one: label, security officer's PIN, user PIN. Destroys what was on it.
    ///
    /// # Errors
    /// Before anything is touched: no such slot, an initialised token without [`NewToken::reinitialise`], a label or
    /// PIN that the token cannot take. Later: when the device refuses.
    fn initialise(&self, wanted: &NewToken<'_>) -> Result<Slot, AdminError>;

    /// A session with the one token that the URI names; reads and writes once [logged in](AdminSession::login).
    ///
    /// # Errors
    /// When there is no such token, several, or the device fails.
    fn open(&self, token: &TokenUri) -> Result<Box<dyn AdminSession>, AdminError>;
}

/// One session with one token.
pub trait AdminSession {
    /// The token, its limits and flags.
    fn slot(&self) -> &Slot;

    /// One attempt as the user. The flags are looked at first; `unattended` says that nobody chose this PIN just now,
    /// so that after a wrong one it is not tried again.
    ///
    /// # Errors
    /// [`AdminError::PinNotTried`] when the flags forbid it, [`TokenError::PinRefused`] when the PIN is wrong.
    fn login(&self, pin: &Pin, unattended: bool) -> Result<(), AdminError>;

    /// The keys and certificates that are visible now; private ones only after login.
    ///
    /// # Errors
    /// When the device fails.
    fn objects(&self) -> Result<Vec<Object>, AdminError>;

    /// The private key that the URI names, as the device describes it. It may be one that must not sign.
    ///
    /// # Errors
    /// When there is none, several, or no public half on P-256 can be found.
    fn key(&self, uri: &KeyUri) -> Result<KeyFacts, AdminError>;

    /// The public half of the key that the URI names, from its public key object: needs no login.
    ///
    /// # Errors
    /// When the device fails, or several objects match.
    fn public_key(&self, uri: &KeyUri) -> Result<Option<PublicKey>, AdminError>;

    /// Makes a P-256 key pair by the safe template (see [`REQUIRED`]), reads it back, and destroys it again when the
    /// device made something else.
    ///
    /// # Errors
    /// When an object of this label or id exists, the device refuses, or [`AdminError::Unsafe`].
    fn generate(&self, label: &str, id: &[u8]) -> Result<KeyFacts, AdminError>;

    /// ECDSA over a SHA-256 digest, raw r ‖ s.
    ///
    /// # Errors
    /// When nothing was signed.
    fn sign(&self, uri: &KeyUri, digest: &[u8; 32]) -> Result<[u8; 64], AdminError>;

    /// Stores a certificate (DER) under the key's id and label; a certificate that was there before is replaced.
    ///
    /// # Errors
    /// When the key is not there or the device refuses.
    fn import_certificate(&self, uri: &KeyUri, certificate: &[u8]) -> Result<(), AdminError>;

    /// Renames the key's objects.
    ///
    /// # Errors
    /// When the key is not there or the device refuses.
    fn set_label(&self, uri: &KeyUri, label: &str) -> Result<(), AdminError>;

    /// Destroys the private key whose public half has the fingerprint `expect`, and its public key and certificates.
    /// Returns what is gone.
    ///
    /// # Errors
    /// Before anything is touched: the key is not there, is another one, or has no public half that can be read.
    /// Later: when the device refuses; then some of the objects may be gone.
    fn delete(&self, uri: &KeyUri, expect: &str) -> Result<Vec<Object>, AdminError>;
}

/// What [`TokenAdmin::initialise`] makes.
#[derive(Debug)]
pub struct NewToken<'a> {
    /// Which slot; `None` is the first one with an empty token, or with `reinitialise` the one with this label.
    pub slot: Option<u64>,
    /// At most 32 bytes (`CK_TOKEN_INFO.label`).
    pub label: &'a str,
    /// The security officer's PIN; of an initialised token the present one.
    pub so_pin: &'a Pin,
    /// The user PIN.
    pub user_pin: &'a Pin,
    /// Destroy an initialised token.
    pub reinitialise: bool,
    /// Its serial number, as the operator saw it; without it, or when it is another one, nothing is destroyed.
    pub expect_serial: Option<&'a str>,
}

/// A slot and the token in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    /// `slot-id` of a URI.
    pub id: u64,
    /// What the slot calls itself.
    pub description: String,
    /// The token; `None` when the slot is empty.
    pub token: Option<TokenSeen>,
}

/// A token as an operator wants to see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenSeen {
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
    /// Was it ever given a label and PINs?
    pub initialized: bool,
    /// Why the user PIN must not be tried; `None` when it may be.
    pub pin_objection: Option<String>,
    /// Its flags, in words.
    pub flags: Vec<String>,
    /// Sessions at most; `None` where it sets no limit or does not say.
    pub max_sessions: Option<u64>,
    /// `CKM_ECDSA`: bits of the smallest and largest curve; `None` when the token cannot sign with it.
    pub ecdsa_bits: Option<(u64, u64)>,
}

/// A private key, its public half and everything the device says about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyFacts {
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`, hex.
    pub id: String,
    /// SSH fingerprint of the public half: `keyid` of its signatures.
    pub keyid: String,
    /// The public half, PEM.
    pub public_key: String,
    /// Attributes by their names in PKCS#11; one that the device does not report is absent.
    pub attributes: BTreeMap<String, bool>,
}

/// An object in a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// `private key`, `public key` or `certificate`.
    pub class: String,
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`, hex.
    pub id: String,
}

/// Attributes of a key that was made here, and what each must be. A device that does not report one that must be true
/// has not proven it; one that it does not know cannot be set to true.
pub const REQUIRED: &[(&str, bool)] = &[
    ("CKA_TOKEN", true),
    ("CKA_PRIVATE", true),
    ("CKA_SENSITIVE", true),
    ("CKA_ALWAYS_SENSITIVE", true),
    ("CKA_EXTRACTABLE", false),
    ("CKA_NEVER_EXTRACTABLE", true),
    ("CKA_LOCAL", true),
    ("CKA_SIGN", true),
    ("CKA_DECRYPT", false),
    ("CKA_UNWRAP", false),
    ("CKA_WRAP", false),
    ("CKA_DERIVE", false),
    ("CKA_ALWAYS_AUTHENTICATE", false),
];

/// What a new key must be beyond what the custody gate asks of every key.
const BEYOND_THE_GATE: &[&str] = &["CKA_TOKEN", "CKA_DECRYPT", "CKA_DERIVE"];

impl KeyFacts {
    /// What is not as [`REQUIRED`], each as `CKA_… is true, must be false`.
    #[must_use]
    pub fn objections(&self) -> Vec<String> {
        self.judge(|_| true)
    }

    /// Of those, what keeps the key from signing here, unless the configuration has a written exception.
    #[must_use]
    pub fn gate_objections(&self) -> Vec<String> {
        self.judge(|name| !BEYOND_THE_GATE.contains(&name))
    }

    fn judge(&self, of_interest: impl Fn(&str) -> bool) -> Vec<String> {
        let wrong = |(name, wanted): &(&str, bool)| match self.attributes.get(*name) {
            Some(is) if is == wanted => None,
            Some(is) => Some(format!("{name} is {is}, must be {wanted}")),
            // Extractable unless the device says otherwise; of the rest, what is not reported is not there.
            None if *wanted || *name == "CKA_EXTRACTABLE" => {
                Some(format!("{name} is not reported by the device, must be {wanted}"))
            }
            None => None,
        };
        REQUIRED.iter().filter(|(name, _)| of_interest(name)).filter_map(wrong).collect()
    }
}

impl From<TokenFacts> for TokenSeen {
    fn from(facts: TokenFacts) -> Self {
        let TokenFacts { label, serial, manufacturer, model, firmware, pin } = facts;
        let pin_objection = pin.objection().map(str::to_owned);
        Self { label, serial, manufacturer, model, firmware, pin_objection, ..Self::default() }
    }
}

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
            Self::HalfInitialised(_) => {
                Some("run the command again with --reinitialise: the security officer's PIN is the new one already")
            }
            Self::Exists { .. } => Some("choose another --id and --label"),
            Self::OtherKey { .. } => Some("correct the key's `uri` in the configuration"),
            Self::Unrecognised { .. } => Some(
                "restore the public key object under the private key's CKA_ID, or make sure that it is the right one \
                 and destroy it with the vendor's tool",
            ),
            Self::Unsafe { .. } => {
                Some("this device or its configuration cannot hold a key that is safe; ask its vendor")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_does_not_report_is_not_taken_for_proven() {
        let mut facts = KeyFacts {
            label: String::new(),
            id: String::new(),
            keyid: String::new(),
            public_key: String::new(),
            attributes: REQUIRED.iter().map(|(name, wanted)| ((*name).to_owned(), *wanted)).collect(),
        };
        assert_eq!(facts.objections(), Vec::<String>::new());
        for (name, wanted) in REQUIRED {
            facts.attributes.insert((*name).to_owned(), !wanted);
            assert_eq!(facts.objections(), [format!("{name} is {}, must be {wanted}", !wanted)]);
            assert_eq!(facts.gate_objections().is_empty(), BEYOND_THE_GATE.contains(name), "{name}");
            facts.attributes.remove(*name);
            assert_eq!(facts.objections().len(), usize::from(*wanted || *name == "CKA_EXTRACTABLE"), "{name}");
            facts.attributes.insert((*name).to_owned(), *wanted);
        }
    }
}
