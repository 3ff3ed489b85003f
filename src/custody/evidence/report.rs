//! The custody report: an in-toto statement in which the appliance says where a key lives, signed by that key.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::KeyCustody;
use crate::config::KeyState;
use crate::custody::{Custody, GateAttribute, KeyListing, PublicKey, SigningKey};
use crate::statement::catalog::{PredicateType, Topic};
use crate::statement::json::{Document, Field, JsonLimits};
use crate::statement::{Statement, read_subjects};

/// The type of the custody report. It is not in the catalog: no tenant can have a statement of this type signed.
pub static PREDICATE_TYPE: PredicateType = PredicateType {
    uri: "https://stella-ops.org/attestations/custody/1",
    short_name: None,
    topic: Topic::Other,
    title: "custody of a signing key",
};

/// The predicate of a custody report. Its subject is the key: its name, and SHA-256 of its `SubjectPublicKeyInfo`.
/// Readers pass over members that they do not know (in-toto attestation framework, "parsing rules").
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustodyReport {
    /// Who says so.
    pub appliance: Appliance,
    /// When it was said.
    pub generated_at: Timestamp,
    /// The key.
    pub key: ReportedKey,
    /// How each token holds it.
    pub custody: Vec<KeyCustody>,
    /// What the operator lets pass at the custody gate.
    pub exceptions: Vec<ReportedException>,
}

/// The program that made a report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Appliance {
    /// `stellaops-signer`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The key of a report.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedKey {
    /// Its name in the appliance.
    pub name: String,
    /// `keyid` of its signatures.
    pub keyid: String,
    /// DER `SubjectPublicKeyInfo` (RFC 5480), in base64.
    pub public_key: String,
    /// What it does, by the configuration.
    pub state: KeyState,
    /// Signs from this moment on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Signs up to this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

/// One exception of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportedException {
    /// What is let pass.
    pub attribute: GateAttribute,
    /// Why, in the operator's words.
    pub reason: String,
}

/// The report's own text is made here and is always a statement; this is for a defect.
#[derive(Debug, thiserror::Error)]
#[error("the custody report cannot be formed: {0}")]
pub struct ReportError(String);

impl CustodyReport {
    fn of(key: &SigningKey, listing: KeyListing, now: Timestamp) -> Self {
        let exceptions = listing.exceptions.into_iter();
        Self {
            appliance: Appliance {
                name: env!("CARGO_PKG_NAME").to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            generated_at: now,
            key: ReportedKey {
                name: key.name().to_string(),
                keyid: key.keyid().to_string(),
                public_key: BASE64_STANDARD.encode(key.public_key().spki()),
                state: listing.state,
                not_before: listing.not_before,
                not_after: listing.not_after,
            },
            custody: listing.custody,
            exceptions: exceptions.map(|e| ReportedException { attribute: e.attribute, reason: e.reason }).collect(),
        }
    }

    /// The statement to be signed, in canonical form.
    fn statement(&self) -> Result<Statement, ReportError> {
        let failed = |error: &dyn ToString| ReportError(error.to_string());
        let subject = serde_json::json!([{ "name": self.key.name, "digest": { "sha256": self.key.spki_sha256() } }]);
        let read = |json: Vec<u8>| Document::parse(json.into(), &JsonLimits::default()).map_err(|error| failed(&error));
        let subject = read(subject.to_string().into_bytes())?;
        let predicate = read(serde_json::to_vec(self).map_err(|error| failed(&error))?)?;
        let subjects = read_subjects(&Field::root(subject.root())).map_err(|error| failed(&error))?;
        Ok(Statement::new(&PREDICATE_TYPE, subject.root(), subjects, predicate.root(), 4096))
    }
}

impl ReportedKey {
    /// The public key; `None` when it is none.
    #[must_use]
    pub fn point(&self) -> Option<PublicKey> {
        PublicKey::from_spki(&BASE64_STANDARD.decode(&self.public_key).ok()?).ok()
    }

    /// SHA-256 of the DER `SubjectPublicKeyInfo`, in lowercase hex; of what stands there, if it is no key.
    fn spki_sha256(&self) -> String {
        let der = BASE64_STANDARD.decode(&self.public_key).unwrap_or_default();
        spki_sha256(&der)
    }
}

/// SHA-256 of a DER `SubjectPublicKeyInfo`, in lowercase hex.
#[must_use]
pub fn spki_sha256(der: &[u8]) -> String {
    crate::hex::sha256(der)
}

impl Custody {
    /// The statement of a custody report about this key, as it is now.
    ///
    /// # Errors
    /// [`ReportError`], which would be a defect.
    pub fn report(&self, key: &SigningKey) -> Result<Statement, ReportError> {
        let listing = self.listing_of(key);
        CustodyReport::of(key, listing, Timestamp::now()).statement()
    }
}
