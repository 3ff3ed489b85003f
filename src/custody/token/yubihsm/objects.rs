//! Finding a key on the device and reading what the device says about it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::super::TokenError;
use super::auth_session::AuthSession;
use super::fault::Fault;
use super::frame::{Command, DeviceError};
use crate::custody::uri::KeyUri;
use crate::custody::{KeyAttributes, PublicKey};

/// What GET OBJECT INFO says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ObjectInfo {
    pub(super) capabilities: u64,
    pub(super) id: u16,
    pub(super) domains: u16,
    pub(super) algorithm: u8,
    /// How many objects had this id before.
    pub(super) sequence: u8,
    pub(super) origin: u8,
    pub(super) label: [u8; 40],
    /// Of an authentication key: what it may give to others.
    pub(super) delegated: u64,
}

/// A key that may sign as far as the device is concerned.
pub(super) struct DeviceKey {
    pub(super) info: ObjectInfo,
    pub(super) public_key: PublicKey,
}

/// The one asymmetric key that the URI names by its object id (`id`, two bytes), its label (`object`), or both.
pub(super) fn find(session: &mut AuthSession, auth_key: u16, uri: &KeyUri) -> Result<DeviceKey, TokenError> {
    let info = named(session, uri)?;
    let unsuitable = |why: &str| TokenError::KeyUnsuitable { uri: uri.to_string(), why: why.to_owned() };
    if info.algorithm != EC_P256 {
        return Err(unsuitable(NOT_P256));
    }
    if info.capabilities & SIGN_ECDSA == 0 {
        return Err(unsuitable("it lacks the capability sign-ecdsa, which cannot be added: make another key"));
    }
    let ours = object_info(session, auth_key, kind::AUTHENTICATION_KEY)
        .map_err(|fault| fault.during(Command::GetObjectInfo))?;
    if info.domains & ours.domains == 0 {
        return Err(unsuitable("it shares no domain with the authentication key that this worker uses"));
    }
    if ours.capabilities & SIGN_ECDSA == 0 {
        return Err(unsuitable("the authentication key that this worker uses lacks the capability sign-ecdsa"));
    }
    let public_key = public_key(session, &info, uri)?;
    Ok(DeviceKey { info, public_key })
}

/// The one that the URI names, whatever it may do: for an administrator.
pub(super) fn look_up(session: &mut AuthSession, uri: &KeyUri) -> Result<DeviceKey, TokenError> {
    let info = named(session, uri)?;
    if info.algorithm != EC_P256 {
        return Err(TokenError::KeyUnsuitable { uri: uri.to_string(), why: NOT_P256.to_owned() });
    }
    let public_key = public_key(session, &info, uri)?;
    Ok(DeviceKey { info, public_key })
}

/// Kind and id of every object that the session may see.
pub(super) fn list(session: &mut AuthSession) -> Result<Vec<(u8, u16)>, TokenError> {
    let listed = session.command(Command::ListObjects, &[]).map_err(|fault| fault.during(Command::ListObjects))?;
    match listed.as_chunks::<4>() {
        (entries, []) => Ok(entries.iter().map(|&[i, d, kind, _]| (kind, u16::from_be_bytes([i, d]))).collect()),
        _ => Err(Fault::Malformed("a list of objects of a wrong length").during(Command::ListObjects)),
    }
}

/// What the device says of an object.
pub(super) fn info(session: &mut AuthSession, id: u16, kind: u8) -> Result<ObjectInfo, TokenError> {
    object_info(session, id, kind).map_err(|fault| fault.during(Command::GetObjectInfo))
}

/// Did the device say that there is no such object, or none in our domains?
pub(super) fn is_not_found(error: &TokenError) -> bool {
    let TokenError::Device { source, .. } = error else { return false };
    matches!(source.downcast_ref(), Some(Fault::Device(DeviceError::ObjectNotFound)))
}

/// As the device has it: text of 1 to 40 bytes, filled up with zeros.
pub(super) fn label(text: &str) -> Option<[u8; 40]> {
    let mut label = [0; 40];
    let printable = !text.is_empty() && text.chars().all(|c| !c.is_control());
    label.get_mut(..text.len()).filter(|_| printable)?.copy_from_slice(text.as_bytes());
    Some(label)
}

fn named(session: &mut AuthSession, uri: &KeyUri) -> Result<ObjectInfo, TokenError> {
    match &uri.id {
        Some(id) => by_id(session, id, uri),
        None => by_label(session, uri),
    }
}

fn public_key(session: &mut AuthSession, info: &ObjectInfo, uri: &KeyUri) -> Result<PublicKey, TokenError> {
    let unsuitable = |why: &str| TokenError::KeyUnsuitable { uri: uri.to_string(), why: why.to_owned() };
    let answer = session
        .command(Command::GetPublicKey, &[&info.id.to_be_bytes()])
        .map_err(|fault| fault.during(Command::GetPublicKey))?;
    let mut point = [4; 65];
    match answer.split_first() {
        Some((&EC_P256, coordinates)) if coordinates.len() == 64 => point[1..].copy_from_slice(coordinates),
        _ => return Err(unsuitable("the device returns no P-256 public key for it")),
    }
    PublicKey::from_sec1(&point).map_err(|error| unsuitable(&format!("its public key is {error}")))
}

impl ObjectInfo {
    /// In the terms of PKCS#11.
    ///
    /// Capabilities cannot be changed once an object exists, so what holds now held always; but an object that came
    /// from outside, imported or wrapped, has been outside. No command of the device reads a private key in plain text
    /// and none is carried out without a session, so every key is sensitive and private.
    pub(super) fn attributes(&self) -> KeyAttributes {
        let exportable = self.capabilities & EXPORTABLE_UNDER_WRAP != 0;
        let local = self.origin == GENERATED;
        KeyAttributes {
            sensitive: true,
            extractable: exportable,
            always_sensitive: local,
            never_extractable: local && !exportable,
            local,
            private: true,
            sign: self.capabilities & SIGN_ECDSA != 0,
            // Key agreement and decryption are how keys are brought in by a key; a signing key does neither.
            unwrap: self.capabilities & (DECRYPT_PKCS | DECRYPT_OAEP | DERIVE_ECDH | UNWRAP_DATA | IMPORT_WRAPPED) != 0,
            always_authenticate: false,
            wrap: self.capabilities & (WRAP_DATA | EXPORT_WRAPPED) != 0,
        }
    }

    /// The same by their names, with what a new key must not be able to do besides.
    pub(super) fn named_attributes(&self) -> BTreeMap<String, bool> {
        let KeyAttributes {
            sensitive,
            extractable,
            always_sensitive,
            never_extractable,
            local,
            private,
            sign,
            unwrap,
            always_authenticate,
            wrap,
        } = self.attributes();
        let named = [
            ("CKA_TOKEN", true),
            ("CKA_PRIVATE", private),
            ("CKA_SENSITIVE", sensitive),
            ("CKA_ALWAYS_SENSITIVE", always_sensitive),
            ("CKA_EXTRACTABLE", extractable),
            ("CKA_NEVER_EXTRACTABLE", never_extractable),
            ("CKA_LOCAL", local),
            ("CKA_SIGN", sign),
            ("CKA_DECRYPT", self.capabilities & (DECRYPT_PKCS | DECRYPT_OAEP) != 0),
            ("CKA_UNWRAP", unwrap),
            ("CKA_WRAP", wrap),
            ("CKA_DERIVE", self.capabilities & DERIVE_ECDH != 0),
            ("CKA_ALWAYS_AUTHENTICATE", always_authenticate),
        ];
        named.into_iter().map(|(name, set)| (name.to_owned(), set)).collect()
    }

    /// As text.
    pub(super) fn label(&self) -> String {
        let end = self.label.iter().position(|&byte| byte == 0).unwrap_or(self.label.len());
        String::from_utf8_lossy(&self.label[..end]).into_owned()
    }

    fn is_labelled(&self, label: &str) -> bool {
        label.len() <= self.label.len()
            && self.label.starts_with(label.as_bytes())
            && self.label[label.len()..].iter().all(|&byte| byte == 0)
    }

    fn read(body: &[u8]) -> Option<Self> {
        let (&capabilities, rest) = body.split_first_chunk::<8>()?;
        let (&[i, d, _, _, e, f, _, algorithm, sequence, origin], rest) = rest.split_first_chunk::<10>()?;
        let (&label, delegated) = rest.split_first_chunk::<40>()?;
        // What an answer leaves out nobody may give.
        let delegated = delegated.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Some(Self {
            capabilities: u64::from_be_bytes(capabilities),
            id: u16::from_be_bytes([i, d]),
            domains: u16::from_be_bytes([e, f]),
            algorithm,
            sequence,
            origin,
            label,
            delegated,
        })
    }
}

fn by_id(session: &mut AuthSession, id: &[u8], uri: &KeyUri) -> Result<ObjectInfo, TokenError> {
    let not_found = || TokenError::KeyNotFound { uri: uri.to_string() };
    let id = <[u8; 2]>::try_from(id).map_err(|_| not_found())?;
    let info = match object_info(session, u16::from_be_bytes(id), kind::ASYMMETRIC_KEY) {
        // An object in other domains than ours is not there for us.
        Err(Fault::Device(DeviceError::ObjectNotFound)) => return Err(not_found()),
        other => other.map_err(|fault| fault.during(Command::GetObjectInfo))?,
    };
    match &uri.object {
        Some(label) if !info.is_labelled(label) => Err(not_found()),
        _ => Ok(info),
    }
}

fn by_label(session: &mut AuthSession, uri: &KeyUri) -> Result<ObjectInfo, TokenError> {
    let not_found = || TokenError::KeyNotFound { uri: uri.to_string() };
    let wanted = uri.object.as_deref().ok_or_else(not_found)?.as_bytes();
    let mut label = [0; 40];
    label.get_mut(..wanted.len()).ok_or_else(not_found)?.copy_from_slice(wanted);
    let listed = session
        .command(Command::ListObjects, &[&[FILTER_TYPE, kind::ASYMMETRIC_KEY, FILTER_LABEL], &label])
        .map_err(|fault| fault.during(Command::ListObjects))?;
    match listed.as_chunks::<4>() {
        ([], []) => Err(not_found()),
        (&[[i, d, ..]], []) => object_info(session, u16::from_be_bytes([i, d]), kind::ASYMMETRIC_KEY)
            .map_err(|fault| fault.during(Command::GetObjectInfo)),
        (several, []) => Err(TokenError::SeveralKeys { uri: uri.to_string(), count: several.len() }),
        _ => Err(Fault::Malformed("a list of objects of a wrong length").during(Command::ListObjects)),
    }
}

fn object_info(session: &mut AuthSession, id: u16, kind: u8) -> Result<ObjectInfo, Fault> {
    let body = session.command(Command::GetObjectInfo, &[&id.to_be_bytes(), &[kind]])?;
    ObjectInfo::read(&body).ok_or(Fault::Malformed("an object info that ends too early"))
}

// Yubico, YubiHSM 2 User Guide, Core Concepts: object types, algorithms, origins, capabilities, options.

/// Types of objects.
pub(super) mod kind {
    pub(in super::super) const OPAQUE: u8 = 1;
    pub(in super::super) const AUTHENTICATION_KEY: u8 = 2;
    pub(in super::super) const ASYMMETRIC_KEY: u8 = 3;
}

/// The authentication key of a device fresh from the factory, and its password.
pub(super) const FACTORY_KEY: u16 = 1;
pub(super) const FACTORY_PASSWORD: &[u8] = b"password";

/// What the worker's authentication key may do.
pub(super) const WORKER: u64 = SIGN_ECDSA | GET_LOG_ENTRIES | SIGN_ATTESTATION | GET_OPAQUE;

/// What an administrator's may do: everything about signing keys, certificates and authentication keys, and the trial
/// signature of a new key. It can neither import a key nor have one exported.
pub(super) const ADMINISTRATOR: u64 = SIGN_ECDSA
    | SIGN_ATTESTATION
    | GENERATE_ASYMMETRIC_KEY
    | DELETE_ASYMMETRIC_KEY
    | GET_OPAQUE
    | PUT_OPAQUE
    | DELETE_OPAQUE
    | PUT_AUTHENTICATION_KEY
    | DELETE_AUTHENTICATION_KEY
    | CHANGE_AUTHENTICATION_KEY
    | GET_OPTION
    | PUT_OPTION;

pub(super) const OPAQUE_X509: u8 = 31;
pub(super) const AES_AUTHENTICATION: u8 = 38;
pub(super) const EC_P256: u8 = 12;
pub(super) const FORCE_AUDIT: u8 = 1;
pub(super) const COMMAND_AUDIT: u8 = 3;
const GENERATED: u8 = 1;
pub(super) const GET_OPAQUE: u64 = 1;
const PUT_OPAQUE: u64 = 1 << 0x01;
const PUT_AUTHENTICATION_KEY: u64 = 1 << 0x02;
const GENERATE_ASYMMETRIC_KEY: u64 = 1 << 0x04;
pub(super) const SIGN_ECDSA: u64 = 1 << 0x07;
const PUT_OPTION: u64 = 1 << 0x11;
const GET_OPTION: u64 = 1 << 0x12;
pub(super) const GET_LOG_ENTRIES: u64 = 1 << 0x18;
pub(super) const SIGN_ATTESTATION: u64 = 1 << 0x22;
const DELETE_OPAQUE: u64 = 1 << 0x27;
const DELETE_AUTHENTICATION_KEY: u64 = 1 << 0x28;
const DELETE_ASYMMETRIC_KEY: u64 = 1 << 0x29;
const CHANGE_AUTHENTICATION_KEY: u64 = 1 << 0x2e;
const DECRYPT_PKCS: u64 = 1 << 0x09;
const DECRYPT_OAEP: u64 = 1 << 0x0a;
const DERIVE_ECDH: u64 = 1 << 0x0b;
const IMPORT_WRAPPED: u64 = 1 << 0x0d;
pub(super) const EXPORTABLE_UNDER_WRAP: u64 = 1 << 0x10;
const UNWRAP_DATA: u64 = 1 << 0x26;
const WRAP_DATA: u64 = 1 << 0x25;
const EXPORT_WRAPPED: u64 = 1 << 0x0c;
const FILTER_TYPE: u8 = 2;
const FILTER_LABEL: u8 = 6;

const NOT_P256: &str = "it is not a P-256 key (algorithm ec-p256)";

#[cfg(test)]
mod tests {
    use super::*;

    fn info(capabilities: u64, origin: u8) -> ObjectInfo {
        ObjectInfo {
            capabilities,
            id: 1,
            domains: 1,
            algorithm: EC_P256,
            sequence: 0,
            origin,
            label: [0; 40],
            delegated: 0,
        }
    }

    #[test]
    fn a_key_generated_here_that_cannot_be_exported_never_left() {
        let attributes = info(SIGN_ECDSA, GENERATED).attributes();
        assert!(attributes.local && attributes.never_extractable && attributes.always_sensitive);
        assert!(!attributes.extractable && !attributes.unwrap && attributes.objection().is_none());
    }

    #[test]
    fn a_key_that_may_be_wrapped_is_extractable() {
        let attributes = info(SIGN_ECDSA | EXPORTABLE_UNDER_WRAP, GENERATED).attributes();
        assert!(attributes.extractable && !attributes.never_extractable && attributes.objection().is_some());
    }

    #[test]
    fn a_key_that_came_from_outside_is_not_local_and_was_extractable_once() {
        for origin in [0x02, 0x11, 0x12] {
            let attributes = info(SIGN_ECDSA, origin).attributes();
            assert!(!attributes.local && !attributes.never_extractable && !attributes.always_sensitive, "{origin:#x}");
        }
    }

    #[test]
    fn a_key_with_another_use_is_said_to_unwrap() {
        for other in [DECRYPT_PKCS, DECRYPT_OAEP, DERIVE_ECDH, UNWRAP_DATA, IMPORT_WRAPPED] {
            assert!(info(SIGN_ECDSA | other, GENERATED).attributes().unwrap, "{other:#x}");
        }
    }

    #[test]
    fn a_label_matches_whole_or_not_at_all() {
        let mut object = info(SIGN_ECDSA, GENERATED);
        object.label[..4].copy_from_slice(b"acme");
        assert!(object.is_labelled("acme"));
        assert!(!object.is_labelled("acm") && !object.is_labelled("acme2") && !object.is_labelled(&"a".repeat(41)));
    }
}
