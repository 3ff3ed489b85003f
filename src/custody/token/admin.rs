//! What administering a token needs of a device: the traits [`TokenAdmin`] and [`AdminSession`].
//!
//! Apart from [`Token`](super::Token) on purpose. A worker at work can sign and nothing else; only `signer-token
//! admin`, started by an operator, makes and destroys.

mod error;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::error::AdminError;
use super::{Pin, PinState, TokenFacts};
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
    /// [`AdminError::PinNotTried`] when the flags forbid it, [`TokenError::PinRefused`](super::TokenError::PinRefused) when the PIN is wrong.
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

    /// Destroys the private key whose public half is `expect`, and then its public key and certificates. Returns what
    /// is gone. The private key goes first, and it can be run again: of a key whose private half is gone already, it
    /// destroys what is left.
    ///
    /// # Errors
    /// Before anything is touched: the key is not there, is another one, or cannot be told apart. Later:
    /// [`AdminError::Partly`] when the device refuses the rest.
    fn delete(&self, uri: &KeyUri, expect: &PublicKey) -> Result<Vec<Object>, AdminError>;

    /// What else there is to say of this kind of device: for the doctor.
    fn concerns(&self) -> Vec<Concern> {
        Vec::new()
    }
}

/// What a doctor should say of a device that other devices do not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Concern {
    /// About what.
    pub kind: ConcernKind,
    /// Is it wrong? `None`: that could not be found out.
    pub problem: Option<bool>,
    /// In words.
    pub detail: String,
    /// What would help.
    pub remedy: String,
}

/// What a [`Concern`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConcernKind {
    /// The authentication key that a device leaves the factory with.
    FactoryKey,
    /// The authentication key of the worker.
    AuthenticationKey,
    /// The device's own log.
    Audit,
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

/// A new key signs once, and the signature must verify.
///
/// # Errors
/// [`AdminError::BadSignature`] when it does not, or what `sign` says.
pub(super) fn proves_itself(
    facts: &KeyFacts,
    sign: impl FnOnce(&[u8; 32]) -> Result<[u8; 64], AdminError>,
) -> Result<(), AdminError> {
    let bad = AdminError::BadSignature { destroyed: None };
    let Ok(key) = PublicKey::from_pem(facts.public_key.as_bytes()) else { return Err(bad) };
    if signs_for(&key, sign)? { Ok(()) } else { Err(bad) }
}

/// Is what signs here the private half of this key? It has to sign what nobody could have asked it before.
///
/// # Errors
/// When it does not sign at all.
pub(super) fn signs_for(
    key: &PublicKey,
    sign: impl FnOnce(&[u8; 32]) -> Result<[u8; 64], AdminError>,
) -> Result<bool, AdminError> {
    let mut digest = [0x5a; 32];
    // Without random numbers it is a signature over a constant, which proves as much to whoever asked for it.
    let _ = aws_lc_rs::rand::fill(&mut digest);
    let signature = sign(&digest)?;
    Ok(key
        .verifier()
        .ok()
        .zip(crate::dsse::Signature::from_raw(&signature).ok())
        .is_some_and(|(key, signature)| crate::dsse::verify_digest(&key, &digest, &signature).is_ok()))
}

impl TokenSeen {
    /// What the flags say of the PIN, as far as it may be tried at all.
    #[must_use]
    pub fn pin_state(&self) -> PinState {
        if self.flags.iter().any(|flag| flag == USER_PIN_COUNT_LOW) { PinState::CountLow } else { PinState::Good }
    }
}

/// Among [`TokenSeen::flags`]: `CKF_USER_PIN_COUNT_LOW`.
pub(super) const USER_PIN_COUNT_LOW: &str = "wrong user PIN seen since the last good one";

impl From<TokenFacts> for TokenSeen {
    fn from(facts: TokenFacts) -> Self {
        let TokenFacts { label, serial, manufacturer, model, firmware, pin } = facts;
        let pin_objection = pin.objection().map(str::to_owned);
        Self { label, serial, manufacturer, model, firmware, pin_objection, ..Self::default() }
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
