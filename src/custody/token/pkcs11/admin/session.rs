//! One session with a token, for making and destroying keys.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, CertificateType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::RawAuthPin;
use cryptoki_sys::CK_OBJECT_HANDLE;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::super::classify::{failed, login_failed};
use super::super::direct::DirectCalls;
use crate::custody::PublicKey;
use crate::custody::token::admin::{AdminError, AdminSession, KeyFacts, Object, Slot, proves_itself, signs_for};
use crate::custody::token::{Pin, PinState, TokenError};
use crate::custody::uri::KeyUri;
use crate::hex::hex;

pub(super) struct Pkcs11AdminSession {
    pub(super) session: Session,
    pub(super) calls: Arc<DirectCalls>,
    pub(super) slot: Slot,
}

impl AdminSession for Pkcs11AdminSession {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    fn login(&self, pin: &Pin, unattended: bool) -> Result<(), AdminError> {
        let token = self.slot.token.as_ref();
        if let Some(objection) = token.and_then(|token| token.pin_objection.clone()) {
            return Err(AdminError::PinNotTried(objection));
        }
        let low = token.is_some_and(|token| token.pin_state() == PinState::CountLow);
        if unattended && low {
            let why = "a wrong PIN was presented since the last good one (CKF_USER_PIN_COUNT_LOW), and the configured \
                       one may be it; name the PIN's file with --pin-file, or type it, when you are sure of it";
            return Err(AdminError::PinNotTried(why.to_owned()));
        }
        // Of its exact size, wiped on drop.
        let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        self.session.login_with_raw(UserType::User, &pin).map_err(|e| login_failed(e).into())
    }

    fn objects(&self) -> Result<Vec<Object>, AdminError> {
        let mut all = Vec::new();
        for (class, name) in CLASSES {
            for handle in self.find(&[Attribute::Class(*class)])? {
                let (label, id) = self.label_and_id(handle)?;
                all.push(Object { class: (*name).to_owned(), label: text(&label), id: hex(&id) });
            }
        }
        Ok(all)
    }

    fn key(&self, uri: &KeyUri) -> Result<KeyFacts, AdminError> {
        let handle = self.one(ObjectClass::PRIVATE_KEY, uri)?.ok_or_else(|| not_found(uri))?;
        let (label, id) = self.label_and_id(handle)?;
        let point = match self.bytes(handle, AttributeType::EcPoint)? {
            Some(point) if !point.is_empty() => Some(point),
            _ => self.public_point(&label, &id)?,
        };
        let unsuitable = |why: &str| TokenError::KeyUnsuitable { uri: uri.to_string(), why: why.to_owned() };
        let point = point.ok_or_else(|| unsuitable("the token has no public key object with its id and label"))?;
        let public_key = PublicKey::from_ec_point(&point).map_err(|e| unsuitable(&format!("its public key is {e}")))?;
        let attributes = self.flags_of(handle)?;
        let keyid = public_key.keyid();
        Ok(KeyFacts { label: text(&label), id: hex(&id), keyid, public_key: public_key.to_pem(), attributes })
    }

    fn public_key(&self, uri: &KeyUri) -> Result<Option<PublicKey>, AdminError> {
        let Some(handle) = self.one(ObjectClass::PUBLIC_KEY, uri)? else { return Ok(None) };
        let point = self.bytes(handle, AttributeType::EcPoint)?.unwrap_or_default();
        let unsuitable = |e| TokenError::KeyUnsuitable { uri: uri.to_string(), why: format!("its public key is {e}") };
        Ok(Some(PublicKey::from_ec_point(&point).map_err(unsuitable)?))
    }

    fn generate(&self, label: &str, id: &[u8]) -> Result<KeyFacts, AdminError> {
        self.vacant(label, id)?;
        let (of_both, label_bytes) = (vec![Attribute::Token(true), Attribute::Id(id.to_vec())], label.as_bytes());
        let mut public = of_both.clone();
        public.extend([
            Attribute::Label(label_bytes.to_vec()),
            Attribute::EcParams(P256_OID.to_vec()),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::Encrypt(false),
            Attribute::Wrap(false),
            Attribute::Derive(false),
        ]);
        let mut private = of_both;
        private.extend([
            Attribute::Label(label_bytes.to_vec()),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Decrypt(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ]);
        let (public, private) = self
            .session
            .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
            .map_err(|e| failed("C_GenerateKeyPair", e))?;
        let facts = self.judge(private, label, id);
        if facts.is_err() {
            let destroyed = [public, private].map(|handle| self.session.destroy_object(handle).is_ok());
            if let Err(AdminError::Unsafe { objections, .. }) = facts {
                return Err(AdminError::Unsafe { objections, destroyed: destroyed == [true, true] });
            }
            if let Err(AdminError::BadSignature { .. }) = facts {
                return Err(AdminError::BadSignature { destroyed: Some(destroyed == [true, true]) });
            }
        }
        facts
    }

    fn sign(&self, uri: &KeyUri, digest: &[u8; 32]) -> Result<[u8; 64], AdminError> {
        let handle = self.one(ObjectClass::PRIVATE_KEY, uri)?.ok_or_else(|| not_found(uri))?;
        self.ecdsa(handle, digest)
    }

    fn import_certificate(&self, uri: &KeyUri, certificate: &[u8]) -> Result<(), AdminError> {
        let key = self.one(ObjectClass::PRIVATE_KEY, uri)?.ok_or_else(|| not_found(uri))?;
        let (label, id) = self.label_and_id(key)?;
        let unsuitable = |_| TokenError::KeyUnsuitable { uri: uri.to_string(), why: "no X.509 certificate".to_owned() };
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(unsuitable)?;
        let other = |why: String| TokenError::KeyUnsuitable { uri: uri.to_string(), why };
        let certified = PublicKey::from_spki(parsed.public_key().raw)
            .map_err(|error| other(format!("the certificate's key is {error}")))?;
        // One without a public half that can be read was compared by `signerctl`, with the pinned one.
        if self.key(uri).is_ok_and(|held| held.keyid != certified.keyid()) {
            return Err(other(format!("the certificate is for the key {}", certified.keyid())).into());
        }
        let partner = partner(uri, &label, &id)?;
        let mut before = Vec::new();
        for old in self.find(&[Attribute::Class(ObjectClass::CERTIFICATE), partner])? {
            // Others may have put another key's certificate under the same label or id.
            if self.key_of(ObjectClass::CERTIFICATE, old)? == Some(certified) {
                before.push(old);
            }
        }
        let mut template = vec![Attribute::Class(ObjectClass::CERTIFICATE), Attribute::Id(id)];
        template.extend([
            Attribute::Label(label),
            Attribute::CertificateType(CertificateType::X_509),
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Subject(parsed.subject().as_raw().to_vec()),
            Attribute::Issuer(parsed.issuer().as_raw().to_vec()),
            Attribute::SerialNumber(der_integer(parsed.raw_serial())),
            Attribute::Value(certificate.to_vec()),
        ]);
        self.session.create_object(&template).map_err(|e| failed("C_CreateObject", e))?;
        // The new one is there before the old ones go.
        before.into_iter().try_for_each(|old| self.destroy(old))
    }

    fn set_label(&self, uri: &KeyUri, label: &str) -> Result<(), AdminError> {
        let renamed = [Attribute::Label(label.as_bytes().to_vec())];
        let key = self.one(ObjectClass::PRIVATE_KEY, uri)?.ok_or_else(|| not_found(uri))?;
        for (_, _, handle) in self.parts(uri, Some(key))? {
            self.session.update_attributes(handle, &renamed).map_err(|e| failed("C_SetAttributeValue", e))?;
        }
        Ok(())
    }

    fn delete(&self, uri: &KeyUri, expect: &PublicKey) -> Result<Vec<Object>, AdminError> {
        let private = self.one(ObjectClass::PRIVATE_KEY, uri)?;
        if let Some(handle) = private {
            self.recognise(handle, uri, expect)?;
        }
        let mut parts = Vec::new();
        for (class, object, handle) in self.parts(uri, private)? {
            // What lies under the same id or label and is of another key is not this command's.
            if class == ObjectClass::PRIVATE_KEY || self.key_of(class, handle)?.as_ref() == Some(expect) {
                parts.push((object, handle));
            }
        }
        if parts.is_empty() {
            return Err(not_found(uri));
        }
        let mut gone = Vec::new();
        // The private key first: without it nothing more is signed, and what is left can be told by its own key.
        for (object, handle) in parts {
            self.destroy(handle).map_err(|error| AdminError::after(&gone, error))?;
            gone.push(object);
        }
        Ok(gone)
    }
}

impl Pkcs11AdminSession {
    fn find(&self, template: &[Attribute]) -> Result<Vec<ObjectHandle>, AdminError> {
        self.session.find_objects(template).map_err(|e| failed("C_FindObjects", e).into())
    }

    fn destroy(&self, handle: ObjectHandle) -> Result<(), AdminError> {
        self.session.destroy_object(handle).map_err(|e| failed("C_DestroyObject", e).into())
    }

    /// Makes sure that it is the private half of this key: by the public half that the token shows with it, else, where
    /// that is gone, by a signature.
    fn recognise(&self, private: ObjectHandle, uri: &KeyUri, expect: &PublicKey) -> Result<(), AdminError> {
        let other = |is: String| AdminError::OtherKey { uri: uri.to_string(), is, expected: expect.keyid() };
        match self.key(uri) {
            Ok(held) if held.keyid == expect.keyid() => Ok(()),
            Ok(held) => Err(other(held.keyid)),
            Err(error @ AdminError::Token(TokenError::KeyUnsuitable { .. })) => {
                match signs_for(expect, |digest| self.ecdsa(private, digest)) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(other("another one, by its signature".to_owned())),
                    Err(_) => Err(AdminError::Unrecognised { uri: uri.to_string(), source: Box::new(error) }),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The one object of the class that the URI names.
    fn one(&self, class: ObjectClass, uri: &KeyUri) -> Result<Option<ObjectHandle>, AdminError> {
        let mut template = vec![Attribute::Class(class)];
        template.extend(uri.object.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
        template.extend(uri.id.as_ref().map(|id| Attribute::Id(id.clone())));
        match self.find(&template)?[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            ref several => Err(TokenError::SeveralKeys { uri: uri.to_string(), count: several.len() }.into()),
        }
    }

    /// The private key and what belongs to it: the public key and the certificates of its id. Without an id, the
    /// private key and the public key of its label. Where the private key is gone, what the URI itself names.
    fn parts(
        &self,
        uri: &KeyUri,
        private: Option<ObjectHandle>,
    ) -> Result<Vec<(ObjectClass, Object, ObjectHandle)>, AdminError> {
        let (label, id) = match private {
            Some(key) => self.label_and_id(key)?,
            None => {
                let label = uri.object.as_ref().map(|label| label.clone().into_bytes()).unwrap_or_default();
                (label, uri.id.clone().unwrap_or_default())
            }
        };
        let partner = partner(uri, &label, &id)?;
        let mut parts = Vec::new();
        for (class, name) in CLASSES {
            let found = match *class {
                ObjectClass::PRIVATE_KEY => private.into_iter().collect(),
                other => self.find(&[Attribute::Class(other), partner.clone()])?,
            };
            for handle in found {
                let (label, id) = self.label_and_id(handle)?;
                parts.push((*class, Object { class: (*name).to_owned(), label: text(&label), id: hex(&id) }, handle));
            }
        }
        Ok(parts)
    }

    /// The P-256 key of a public key object or certificate; `None` when it is of another kind or cannot be read.
    fn key_of(&self, class: ObjectClass, handle: ObjectHandle) -> Result<Option<PublicKey>, AdminError> {
        if class == ObjectClass::PUBLIC_KEY {
            let point = self.bytes(handle, AttributeType::EcPoint)?.unwrap_or_default();
            return Ok(PublicKey::from_ec_point(&point).ok());
        }
        let der = self.bytes(handle, AttributeType::Value)?.unwrap_or_default();
        let parsed = X509Certificate::from_der(&der).ok();
        Ok(parsed.and_then(|(_, certificate)| PublicKey::from_spki(certificate.public_key().raw).ok()))
    }

    fn vacant(&self, label: &str, id: &[u8]) -> Result<(), AdminError> {
        for (class, name) in CLASSES {
            for same in [Attribute::Label(label.as_bytes().to_vec()), Attribute::Id(id.to_vec())] {
                if let Some(handle) = self.find(&[Attribute::Class(*class), same])?.first() {
                    let (label, id) = self.label_and_id(*handle)?;
                    return Err(AdminError::Exists { class: (*name).to_owned(), label: text(&label), id: hex(&id) });
                }
            }
        }
        Ok(())
    }

    /// A new key as the device describes it; it has signed once, and the signature verified.
    fn judge(&self, private: ObjectHandle, label: &str, id: &[u8]) -> Result<KeyFacts, AdminError> {
        let encoded: String = id.iter().map(|byte| format!("%{byte:02X}")).collect();
        let uri: KeyUri = format!("pkcs11:id={encoded}").parse().map_err(|_| AdminError::Label(label.to_owned()))?;
        let facts = self.key(&uri)?;
        let objections = facts.objections();
        if !objections.is_empty() {
            return Err(AdminError::Unsafe { objections, destroyed: false });
        }
        proves_itself(&facts, |digest| self.ecdsa(private, digest))?;
        Ok(facts)
    }

    fn ecdsa(&self, key: ObjectHandle, digest: &[u8; 32]) -> Result<[u8; 64], AdminError> {
        match self.calls.ecdsa(self.session.handle(), key.handle() as CK_OBJECT_HANDLE, digest) {
            Ok(Ok(signature)) => Ok(signature),
            Ok(Err(_)) => Err(AdminError::BadSignature { destroyed: None }),
            Err(error) => Err(failed("C_Sign", error).into()),
        }
    }

    fn public_point(&self, label: &[u8], id: &[u8]) -> Result<Option<Vec<u8>>, AdminError> {
        let partner = if id.is_empty() { Attribute::Label(label.to_vec()) } else { Attribute::Id(id.to_vec()) };
        let mut template = vec![Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::KeyType(KeyType::EC), partner];
        let mut found = self.find(&template)?;
        if found.len() > 1 {
            template.push(Attribute::Label(label.to_vec()));
            found = self.find(&template)?;
        }
        match found[..] {
            [key] => self.bytes(key, AttributeType::EcPoint),
            _ => Ok(None),
        }
    }

    fn attributes(&self, handle: ObjectHandle, wanted: &[AttributeType]) -> Result<Vec<Attribute>, AdminError> {
        self.session.get_attributes(handle, wanted).map_err(|e| failed("C_GetAttributeValue", e).into())
    }

    fn label_and_id(&self, handle: ObjectHandle) -> Result<(Vec<u8>, Vec<u8>), AdminError> {
        let (mut label, mut id) = (Vec::new(), Vec::new());
        for attribute in self.attributes(handle, &[AttributeType::Label, AttributeType::Id])? {
            match attribute {
                Attribute::Label(bytes) => label = bytes,
                Attribute::Id(bytes) => id = bytes,
                _ => {}
            }
        }
        Ok((label, id))
    }

    fn bytes(&self, handle: ObjectHandle, wanted: AttributeType) -> Result<Option<Vec<u8>>, AdminError> {
        match self.attributes(handle, &[wanted])?.pop() {
            Some(Attribute::EcPoint(bytes) | Attribute::Value(bytes)) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    }

    fn flags_of(&self, handle: ObjectHandle) -> Result<BTreeMap<String, bool>, AdminError> {
        let wanted: Vec<AttributeType> = FLAGS.iter().map(|(attribute, _)| *attribute).collect();
        let named = |attribute: Attribute| {
            let of_type = attribute.attribute_type();
            let (_, name) = FLAGS.iter().find(|(flag, _)| *flag == of_type)?;
            Some(((*name).to_owned(), set(&attribute)?))
        };
        Ok(self.attributes(handle, &wanted)?.into_iter().filter_map(named).collect())
    }
}

fn set(attribute: &Attribute) -> Option<bool> {
    match attribute {
        Attribute::Token(set)
        | Attribute::Private(set)
        | Attribute::Sensitive(set)
        | Attribute::AlwaysSensitive(set)
        | Attribute::Extractable(set)
        | Attribute::NeverExtractable(set)
        | Attribute::Local(set)
        | Attribute::Sign(set)
        | Attribute::Decrypt(set)
        | Attribute::Unwrap(set)
        | Attribute::Wrap(set)
        | Attribute::Derive(set)
        | Attribute::AlwaysAuthenticate(set) => Some(*set),
        _ => None,
    }
}

/// What a key is judged by, and its name in [`KeyFacts::attributes`].
const FLAGS: &[(AttributeType, &str)] = &[
    (AttributeType::Token, "CKA_TOKEN"),
    (AttributeType::Private, "CKA_PRIVATE"),
    (AttributeType::Sensitive, "CKA_SENSITIVE"),
    (AttributeType::AlwaysSensitive, "CKA_ALWAYS_SENSITIVE"),
    (AttributeType::Extractable, "CKA_EXTRACTABLE"),
    (AttributeType::NeverExtractable, "CKA_NEVER_EXTRACTABLE"),
    (AttributeType::Local, "CKA_LOCAL"),
    (AttributeType::Sign, "CKA_SIGN"),
    (AttributeType::Decrypt, "CKA_DECRYPT"),
    (AttributeType::Unwrap, "CKA_UNWRAP"),
    (AttributeType::Wrap, "CKA_WRAP"),
    (AttributeType::Derive, "CKA_DERIVE"),
    (AttributeType::AlwaysAuthenticate, "CKA_ALWAYS_AUTHENTICATE"),
];

/// The private key first: see [`AdminSession::delete`].
const CLASSES: &[(ObjectClass, &str)] = &[
    (ObjectClass::PRIVATE_KEY, "private key"),
    (ObjectClass::PUBLIC_KEY, "public key"),
    (ObjectClass::CERTIFICATE, "certificate"),
];

/// What an object has in common with the private key it belongs to: the id, or for want of one the label.
fn partner(uri: &KeyUri, label: &[u8], id: &[u8]) -> Result<Attribute, AdminError> {
    match (id, label) {
        ([], []) => {
            let why = "it has neither an id nor a label, so nothing else on the token can be told to belong to it";
            Err(TokenError::KeyUnsuitable { uri: uri.to_string(), why: why.to_owned() }.into())
        }
        ([], label) => Ok(Attribute::Label(label.to_vec())),
        (id, _) => Ok(Attribute::Id(id.to_vec())),
    }
}

fn not_found(uri: &KeyUri) -> AdminError {
    TokenError::KeyNotFound { uri: uri.to_string() }.into()
}

/// `CKA_SERIAL_NUMBER` is a DER INTEGER; serial numbers have 20 bytes at most (RFC 5280, section 4.1.2.2).
fn der_integer(content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 0x80);
    length.map_or_else(Vec::new, |length| [&[0x02, length], content].concat())
}

/// Labels are text by the standard and bytes by the device.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `CKA_EC_PARAMS` of P-256: the DER object identifier 1.2.840.10045.3.1.7 (RFC 5480).
const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
