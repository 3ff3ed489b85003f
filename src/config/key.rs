//! `[keys.NAME]`: a signing key, the tokens that hold it, and what its custody gate lets pass.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

use super::{KeyState, units};
use crate::custody::GateAttribute;

/// `[keys.NAME]`: one signing key.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Key {
    /// The token that holds it.
    pub token: String,
    /// RFC 7512 URI of the object within the token: `pkcs11:object=…;id=…`. Of an `object_id`, its URI.
    pub uri: String,
    /// What it does now.
    pub state: KeyState,
    /// PEM public key that the token's must equal. Absent: pinned at first sight, for the life of the process.
    pub public_key: Option<PathBuf>,
    /// PEM certificate chain returned with `dsse+cert`, leaf first.
    pub certificate_chain: Option<PathBuf>,
    /// Signs from this moment on (RFC 3339).
    pub not_before: Option<jiff::Timestamp>,
    /// Signs up to this moment (RFC 3339).
    pub not_after: Option<jiff::Timestamp>,
    /// More tokens that hold the same key. Public keys are compared when it is opened, never assumed.
    pub replica: Vec<Replica>,
    /// What the custody gate lets pass for this key, each with a reason.
    pub custody_exception: Vec<CustodyException>,
}

/// `[[keys.NAME.replica]]`: another token that holds the same key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenReplica")]
pub struct Replica {
    /// The token.
    pub token: String,
    /// RFC 7512 URI of the object within that token.
    pub uri: String,
}

/// `[[keys.NAME.custody_exception]]`: an attribute that the custody gate lets pass, and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodyException {
    /// Which one, as PKCS#11 spells it.
    pub attribute: GateAttribute,
    /// Why; it stands in metrics, audit records and custody reports for whoever reviews them.
    pub reason: String,
}

/// The key as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    token: String,
    uri: Option<String>,
    object_id: Option<ObjectId>,
    state: KeyState,
    public_key: Option<PathBuf>,
    certificate_chain: Option<PathBuf>,
    #[serde(default, deserialize_with = "units::moment")]
    not_before: Option<jiff::Timestamp>,
    #[serde(default, deserialize_with = "units::moment")]
    not_after: Option<jiff::Timestamp>,
    #[serde(default)]
    replica: Vec<Replica>,
    #[serde(default)]
    custody_exception: Vec<CustodyException>,
}

/// The replica as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenReplica {
    token: String,
    uri: Option<String>,
    object_id: Option<ObjectId>,
}

impl Key {
    /// The object's URI in this token; `None` when the key is not in it.
    #[must_use]
    pub fn in_token(&self, token: &str) -> Option<&str> {
        let first = (self.token.as_str(), self.uri.as_str());
        let more = self.replica.iter().map(|replica| (replica.token.as_str(), replica.uri.as_str()));
        std::iter::once(first).chain(more).find(|(name, _)| *name == token).map(|(_, uri)| uri)
    }
}

impl TryFrom<Written> for Key {
    type Error = &'static str;

    fn try_from(key: Written) -> Result<Self, Self::Error> {
        Ok(Self {
            token: key.token,
            uri: object(key.uri, key.object_id)?,
            state: key.state,
            public_key: key.public_key,
            certificate_chain: key.certificate_chain,
            not_before: key.not_before,
            not_after: key.not_after,
            replica: key.replica,
            custody_exception: key.custody_exception,
        })
    }
}

impl TryFrom<WrittenReplica> for Replica {
    type Error = &'static str;

    fn try_from(replica: WrittenReplica) -> Result<Self, Self::Error> {
        Ok(Self { token: replica.token, uri: object(replica.uri, replica.object_id)? })
    }
}

/// Everything behind the configuration knows objects by their URI only.
fn object(uri: Option<String>, id: Option<ObjectId>) -> Result<String, &'static str> {
    match (uri, id) {
        (Some(uri), None) => Ok(uri),
        (None, Some(ObjectId(id))) => {
            let [high, low] = id.to_be_bytes();
            Ok(format!("pkcs11:id=%{high:02X}%{low:02X}"))
        }
        (None, None) => {
            Err("the object is missing; write `uri = \"pkcs11:object=…\"`, or `object_id = \"0x…\"` for a YubiHSM")
        }
        (Some(_), Some(_)) => Err("`uri` and `object_id` both name the object; keep one of them"),
    }
}

/// The number of an object in a YubiHSM, as in `"0x0123"`.
struct ObjectId(u16);

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
        match digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
            // 0 and 0xffff are reserved (YubiHSM 2 user guide, "Object ID").
            Some(id @ 1..=0xfffe) => Ok(Self(id)),
            _ => Err(de::Error::custom(format!("`{text}` is no object id; write one from \"0x0001\" to \"0xfffe\""))),
        }
    }
}
