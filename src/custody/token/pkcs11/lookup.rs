//! Finding a key pair by its URI and reading what the device says about it.

#![forbid(unsafe_code)]

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session;
use cryptoki_sys::{
    CK_ATTRIBUTE_TYPE, CK_ULONG, CKA_CLASS, CKA_ID, CKA_KEY_TYPE, CKA_LABEL, CKK_EC, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY,
};

use super::super::watch;
use super::super::{FoundKey, KeySlot, TokenError};
use super::classify::failed;
use super::direct::DirectCalls;
use crate::custody::uri::KeyUri;
use crate::custody::{KeyAttributes, PublicKey};

/// Exactly one private key that matches, on P-256, its public half, and what the device says about it.
pub(super) fn find_key(session: &Session, calls: &DirectCalls, uri: &KeyUri) -> Result<FoundKey, TokenError> {
    let key = private_key(session, calls, uri)?;
    let unsuitable = |why: String| TokenError::KeyUnsuitable { uri: uri.to_string(), why };
    let read = attributes(session, key, WANTED)?;
    let described = Described::from(read);
    if described.key_type != Some(KeyType::EC) {
        return Err(unsuitable("it is not an EC key".to_owned()));
    }
    if let Some(params) = &described.ec_params
        && !P256_PARAMS.contains(&&params[..])
    {
        return Err(unsuitable("it is on another curve than P-256".to_owned()));
    }
    let point = match described.ec_point {
        Some(point) if !point.is_empty() => point,
        _ => public_point(session, calls, &described.id, &described.label).map_err(|problem| match problem {
            PublicPoint::Missing(why) => unsuitable(why),
            PublicPoint::Failed(error) => error,
        })?,
    };
    let public_key = PublicKey::from_ec_point(&point).map_err(|e| unsuitable(format!("its public key is {e}")))?;
    #[allow(clippy::useless_conversion, reason = "a handle is as wide as a C long, which is not 64 bits everywhere")]
    let slot = KeySlot(key.handle());
    Ok(FoundKey { slot, public_key, attributes: described.attributes, attestation: Vec::new() })
}

fn private_key(session: &Session, calls: &DirectCalls, uri: &KeyUri) -> Result<ObjectHandle, TokenError> {
    let class = number(CKO_PRIVATE_KEY);
    let mut wanted: Vec<Wanted<'_>> = vec![(CKA_CLASS, &class)];
    wanted.extend(uri.object.as_ref().map(|label| (CKA_LABEL, label.as_bytes())));
    wanted.extend(uri.id.as_ref().map(|id| (CKA_ID, &id[..])));
    match calls.objects(session.handle(), &wanted)?[..] {
        [key] => Ok(key),
        [] => Err(TokenError::KeyNotFound { uri: uri.to_string() }),
        ref several => Err(TokenError::SeveralKeys { uri: uri.to_string(), count: several.len() }),
    }
}

enum PublicPoint {
    Missing(String),
    Failed(TokenError),
}

/// `CKA_EC_POINT` of the public key object that shares the private key's id, or its label where it has no id.
fn public_point(session: &Session, calls: &DirectCalls, id: &[u8], label: &[u8]) -> Result<Vec<u8>, PublicPoint> {
    let (class, kind) = (number(CKO_PUBLIC_KEY), number(CKK_EC));
    let partner = if id.is_empty() { (CKA_LABEL, label) } else { (CKA_ID, id) };
    let mut wanted: Vec<Wanted<'_>> = vec![(CKA_CLASS, &class), (CKA_KEY_TYPE, &kind), partner];
    let find = |wanted: &[Wanted<'_>]| calls.objects(session.handle(), wanted).map_err(PublicPoint::Failed);
    let mut found = find(&wanted)?;
    if found.len() > 1 {
        wanted.push((CKA_LABEL, label));
        found = find(&wanted)?;
    }
    let [key] = found[..] else {
        return Err(PublicPoint::Missing(match found.len() {
            0 => "the token has no public key object with its id; create one, or copy the key pair's".to_owned(),
            n => format!("{n} public key objects share its id and label"),
        }));
    };
    let read = attributes(session, key, &[AttributeType::EcPoint]).map_err(PublicPoint::Failed)?;
    Ok(Described::from(read).ec_point.unwrap_or_default())
}

/// An attribute that is searched for.
type Wanted<'a> = (CK_ATTRIBUTE_TYPE, &'a [u8]);

/// As attributes hold it.
fn number(value: CK_ULONG) -> [u8; size_of::<CK_ULONG>()] {
    value.to_ne_bytes()
}

fn attributes(session: &Session, object: ObjectHandle, wanted: &[AttributeType]) -> Result<Vec<Attribute>, TokenError> {
    let _call = watch::call("C_GetAttributeValue");
    session.get_attributes(object, wanted).map_err(|e| failed("C_GetAttributeValue", e))
}

#[derive(Default)]
struct Described {
    key_type: Option<KeyType>,
    id: Vec<u8>,
    label: Vec<u8>,
    ec_params: Option<Vec<u8>>,
    ec_point: Option<Vec<u8>>,
    attributes: KeyAttributes,
}

impl From<Vec<Attribute>> for Described {
    fn from(read: Vec<Attribute>) -> Self {
        // What the device does not report keeps the less safe value.
        let unreported = KeyAttributes { extractable: true, unwrap: true, ..KeyAttributes::default() };
        let mut described = Self { attributes: unreported, ..Self::default() };
        let attributes = &mut described.attributes;
        for attribute in read {
            match attribute {
                Attribute::KeyType(key_type) => described.key_type = Some(key_type),
                Attribute::Id(id) => described.id = id,
                Attribute::Label(label) => described.label = label,
                Attribute::EcParams(params) => described.ec_params = Some(params),
                Attribute::EcPoint(point) => described.ec_point = Some(point),
                Attribute::Sensitive(set) => attributes.sensitive = set,
                Attribute::Extractable(set) => attributes.extractable = set,
                Attribute::AlwaysSensitive(set) => attributes.always_sensitive = set,
                Attribute::NeverExtractable(set) => attributes.never_extractable = set,
                Attribute::Local(set) => attributes.local = set,
                Attribute::Private(set) => attributes.private = set,
                Attribute::Sign(set) => attributes.sign = set,
                Attribute::Unwrap(set) => attributes.unwrap = set,
                Attribute::Wrap(set) => attributes.wrap = set,
                Attribute::AlwaysAuthenticate(set) => attributes.always_authenticate = set,
                _ => {}
            }
        }
        described
    }
}

const WANTED: &[AttributeType] = &[
    AttributeType::KeyType,
    AttributeType::Id,
    AttributeType::Label,
    AttributeType::EcParams,
    AttributeType::EcPoint,
    AttributeType::Sensitive,
    AttributeType::Extractable,
    AttributeType::AlwaysSensitive,
    AttributeType::NeverExtractable,
    AttributeType::Local,
    AttributeType::Private,
    AttributeType::Sign,
    AttributeType::Unwrap,
    AttributeType::Wrap,
    AttributeType::AlwaysAuthenticate,
];

/// `CKA_EC_PARAMS` of P-256: the DER object identifier 1.2.840.10045.3.1.7 (RFC 5480), or a curve name as
/// PrintableString, which PKCS#11 3.0 allows. Whatever a device says here, the public key must be a point on P-256.
const P256_PARAMS: &[&[u8]] =
    &[&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], b"\x13\x0aprime256v1", b"\x13\x09secp256r1"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_reports_nothing_has_no_key_that_may_sign() {
        assert!(Described::from(Vec::new()).attributes.objection().is_some());
        let reported = vec![Attribute::Sensitive(true), Attribute::Sign(true)];
        let attributes = Described::from(reported).attributes;
        assert!(attributes.extractable && attributes.objection().is_some(), "extractable unless reported otherwise");
    }
}
