//! The public keys to verify against: one PEM, or a JWK set as the appliance publishes it.

use std::path::Path;
use std::time::Duration;

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::Value;

use crate::clock::UnixTime;
use crate::ctl::error::CtlError;
use crate::ctl::files;
use crate::ctl::verify::Fault;
use crate::dsse::PublicKey;
use crate::jose::{Algorithm, Jwk, base64url_decode};

/// A public key and what its publisher says of it.
#[derive(Debug)]
pub(crate) struct PublishedKey {
    /// The key.
    pub(crate) key: PublicKey,
    /// From when on it signs, where its publisher says so.
    not_before: Option<UnixTime>,
    /// Until when.
    not_after: Option<UnixTime>,
    /// The members beside the key itself: `state`, `name`, windows and custody. Empty for a PEM.
    pub(crate) about: Value,
}

/// Keys to choose from by keyid.
#[derive(Debug)]
pub(crate) enum KeySource {
    /// The one key.
    Pem(Box<PublishedKey>),
    /// A set.
    Set(Vec<PublishedKey>),
}

impl KeySource {
    /// Reads a PEM SubjectPublicKeyInfo.
    pub(crate) fn pem(path: &Path) -> Result<Self, CtlError> {
        let pem = files::read(path, MAX_KEY_BYTES)?;
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(&pem).map_err(|_| {
            CtlError::content(path, "holds no PUBLIC KEY block; give the PEM that `signerctl keys list --pem` prints")
        })?;
        let point = spki.strip_prefix(P256_SPKI_PREFIX).ok_or_else(|| {
            CtlError::content(path, "is no P-256 key with an uncompressed point; the appliance signs with P-256 alone")
        })?;
        let key = PublicKey::from_sec1(point).map_err(|error| CtlError::content(path, error.to_string()))?;
        Ok(Self::Pem(Box::new(PublishedKey { key, not_before: None, not_after: None, about: Value::Null })))
    }

    /// Reads a JWK set.
    pub(crate) fn set(path: &Path) -> Result<Self, CtlError> {
        let json = files::read(path, MAX_KEY_BYTES)?;
        let keys = published(&json).map_err(|why| CtlError::content(path, why))?;
        Ok(Self::Set(keys))
    }

    /// The key that an envelope's keyid names.
    pub(crate) fn find(&self, keyid: &str) -> Result<&PublishedKey, Fault> {
        match self {
            Self::Pem(key) if key.key.keyid() == keyid => Ok(key),
            Self::Pem(key) => Err(Fault::Keyid { found: keyid.to_owned(), expected: key.key.keyid().to_owned() }),
            Self::Set(keys) => keys
                .iter()
                .find(|key| key.key.keyid() == keyid)
                .ok_or_else(|| Fault::UnknownKey { found: keyid.to_owned(), known: keys.len() }),
        }
    }
}

impl PublishedKey {
    /// A text member beside the key.
    pub(crate) fn text(&self, member: &str) -> Option<&str> {
        self.about.get(member)?.as_str()
    }

    /// Whether it signs already, and did when the signature was stamped at the latest. A moment of grace is for what lies
    /// between a signature and its timestamp: the way to the authority, and its clock.
    pub(crate) fn in_use(&self, stamped: Option<UnixTime>) -> Result<(), Fault> {
        if self.text("state") == Some("next") {
            return Err(Fault::KeyNext);
        }
        let Some(at) = stamped else { return Ok(()) };
        if let Some(start) = self.not_before.filter(|start| at < start.minus(GRACE)) {
            return Err(Fault::KeyNotInUse { at, why: format!("it signs from {} on", start.rfc3339()) });
        }
        if let Some(end) = self.not_after.filter(|end| at > end.plus(GRACE)) {
            return Err(Fault::KeyNotInUse { at, why: format!("it signed until {}", end.rfc3339()) });
        }
        Ok(())
    }

    /// Whether there are times at which it does not sign.
    pub(crate) fn has_an_end(&self) -> bool {
        self.not_before.is_some() || self.not_after.is_some() || self.text("state") == Some("retired")
    }

    /// The key in PEM (SubjectPublicKeyInfo).
    pub(crate) fn to_pem(&self) -> String {
        use base64::Engine as _;
        let der = [P256_SPKI_PREFIX, self.key.sec1()].concat();
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.extend(line.iter().copied().map(char::from));
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        pem
    }
}

/// The P-256 keys of a JWK set, each under the keyid computed from the key itself, never the one it claims. A key
/// whose claimed `kid` is another is an error: such a set was not written by the appliance.
pub(crate) fn published(json: &[u8]) -> Result<Vec<PublishedKey>, String> {
    let set: Set = serde_json::from_slice(json).map_err(|error| format!("is no JWK set: {error}"))?;
    let mut keys = Vec::new();
    for (index, value) in set.keys.into_iter().enumerate() {
        let wrong = |why: String| format!("key {index} of the JWK set cannot be used: {why}");
        let jwk = Jwk::from_value(&value).map_err(|error| wrong(error.to_string()))?;
        if !jwk.fits(Algorithm::Es256) {
            continue;
        }
        let mut point = vec![0x04];
        for member in ["x", "y"] {
            let text = value[member].as_str().unwrap_or_default();
            point.extend(base64url_decode(text, "coordinate").map_err(|error| wrong(error.to_string()))?);
        }
        let key = PublicKey::from_sec1(&point).map_err(|error| wrong(error.to_string()))?;
        if let Some(kid) = jwk.kid().filter(|kid| *kid != key.keyid()) {
            let kid = crate::ctl::output::plain(kid);
            return Err(wrong(format!("it calls itself `{kid}`, its fingerprint is {}", key.keyid())));
        }
        let moment = |member: &str| match &value[member] {
            Value::Null => Ok(None),
            stated => stated
                .as_str()
                .and_then(|text| text.parse::<jiff::Timestamp>().ok())
                .map(|at| Some(UnixTime(at.as_second())))
                .ok_or_else(|| wrong(format!("its `{member}` is no time of RFC 3339"))),
        };
        let (not_before, not_after) = (moment("notBefore")?, moment("notAfter")?);
        keys.push(PublishedKey { key, not_before, not_after, about: value });
    }
    Ok(keys)
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// RFC 5480, section 2.1.1: SEQUENCE { SEQUENCE { id-ecPublicKey, secp256r1 }, BIT STRING of 66 bytes }, up to the
/// point.
const P256_SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A request may take this long, and the clock of an authority may be as much behind.
const GRACE: Duration = Duration::from_secs(60);

const MAX_KEY_BYTES: u64 = 1024 * 1024;
