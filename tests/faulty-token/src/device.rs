//! What the device is like, and what happens to it.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::{Attribute, Ckr, ckr};

/// A property of the device. It holds, in every process that loads the module with the same state file, until cleared.
/// Of one kind the last one imposed holds; lies add up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// The device makes `lanes` signatures at a time, each of which takes `latency_us` from its start, the real
    /// module's work included. A call that finds all lanes taken waits for the first that is free.
    Lanes {
        /// 1 and more.
        lanes: u32,
        /// Microseconds.
        latency_us: u64,
        /// Microseconds more at most, evenly drawn.
        #[serde(default)]
        jitter_us: u64,
        /// Whether a signature over the same digest with the same key is remembered instead of made again, for devices
        /// faster than the real module.
        #[serde(default)]
        memo: bool,
    },
    /// `C_OpenSession` gives `CKR_SESSION_COUNT` beyond so many.
    SessionLimit {
        /// Open at a time.
        sessions: u64,
    },
    /// A session that was not used for a while is gone, or the next call on it never returns.
    IdleLimit {
        /// Milliseconds.
        idle_ms: u64,
        /// What becomes of it.
        then: IdleEnd,
    },
    /// So many wrong PINs in a row lock it; absent for never. Three unless imposed.
    PinAttempts {
        /// At least 1.
        limit: Option<u32>,
    },
    /// `C_GetAttributeValue` says something else than the truth.
    Lie {
        /// Which attribute.
        attribute: Attribute,
        /// What it says.
        says: Says,
        /// Of private or of public keys alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class: Option<KeyClass>,
        /// Of objects with this label alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    /// The token holds so many more key pairs, labelled `virtual-00000` and on, with ids `vk` and four bytes. They
    /// sign, with the key that they are like, and share its public key and all attributes but label and id.
    VirtualKeys {
        /// Pairs.
        count: u32,
        /// Label of a key pair of the token.
        like: String,
    },
}

/// What becomes of an idle session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleEnd {
    /// It is lost, as a YubiHSM's after 30 s.
    Lose,
    /// The next call does not return, as behind a firewall that forgot the connection.
    Hang,
}

/// A class of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyClass {
    /// `CKO_PRIVATE_KEY`
    Private,
    /// `CKO_PUBLIC_KEY`
    Public,
}

/// What an attribute is said to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// A `CK_BBOOL`.
    Bool(bool),
    /// A `CK_ULONG`.
    Ulong(u64),
    /// Bytes, in hexadecimal in JSON.
    Bytes(#[serde(with = "hex")] Vec<u8>),
    /// `CKR_ATTRIBUTE_TYPE_INVALID`
    Missing,
    /// `CKR_ATTRIBUTE_SENSITIVE`
    Sensitive,
    /// What another EC key of the token has there, or a new one's where the token has no other.
    OfAnotherKey,
}

/// Something that happens to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The token is pulled: sessions and login are gone for good, slots are without a token.
    RemoveToken {
        /// What calls on the sessions give while the token is away.
        #[serde(default = "device_removed")]
        code: Ckr,
        /// Whether the slots go too, as those of a reader that is unplugged.
        #[serde(default)]
        with_slot: bool,
    },
    /// The token is back.
    ReturnToken {
        /// When the module sees it.
        #[serde(default)]
        seen: Until,
    },
    /// All sessions are gone, and with them the login.
    LoseSessions {
        /// What calls on them give.
        #[serde(default = "session_handle_invalid")]
        code: Ckr,
    },
    /// The user is logged out; private keys found before are not valid after a new login.
    LoseLogin,
    /// Every call that needs the device gives an error.
    Fail {
        /// Which.
        #[serde(default = "device_error")]
        code: Ckr,
        /// How long.
        #[serde(default)]
        until: Until,
    },
    /// A failing device works again.
    Mend,
}

impl Event {
    /// The token is pulled, calls give `CKR_DEVICE_REMOVED`.
    #[must_use]
    pub fn remove_token() -> Self {
        Self::RemoveToken { code: device_removed(), with_slot: false }
    }

    /// The token is back and seen at once.
    #[must_use]
    pub fn return_token() -> Self {
        Self::ReturnToken { seen: Until::Now }
    }

    /// All sessions are gone, calls give `CKR_SESSION_HANDLE_INVALID`.
    #[must_use]
    pub fn lose_sessions() -> Self {
        Self::LoseSessions { code: session_handle_invalid() }
    }

    /// The device gives `CKR_DEVICE_ERROR`.
    #[must_use]
    pub fn fail(until: Until) -> Self {
        Self::Fail { code: device_error(), until }
    }
}

/// What it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Nothing but the event that ends it.
    #[default]
    Now,
    /// `C_Finalize` and `C_Initialize`.
    Reinitialize,
    /// Another process.
    Restart,
}

fn device_removed() -> Ckr {
    ckr::CKR_DEVICE_REMOVED
}

fn session_handle_invalid() -> Ckr {
    ckr::CKR_SESSION_HANDLE_INVALID
}

fn device_error() -> Ckr {
    ckr::CKR_DEVICE_ERROR
}

mod hex {
    use std::fmt::Write as _;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            write!(text, "{byte:02x}").map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        text.as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(digit(high)? << 4 | digit(low)?),
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or_else(|| D::Error::custom("bytes are written as pairs of hexadecimal digits"))
    }
}
