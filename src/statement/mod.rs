//! What exactly will be signed: strict JSON in, canonical in-toto Statement v1 bytes out.
//!
//! A body of n bytes costs 3n at its peak, measured on compact bills of material: the body, its index, and the canonical
//! bytes. Body and index go as soon as these are written, and the answer is made of them in one piece of 4n/3.

#![forbid(unsafe_code)]

pub mod canonical;
pub mod catalog;
pub mod json;
mod subject;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use crate::dsse;
use json::{Document, Field, FieldError, JsonError, JsonLimits, Node};

pub use catalog::PredicateType;
pub use subject::Subject;
pub(crate) use subject::read_all as read_subjects;

/// An in-toto Statement v1 in canonical form (RFC 8785): the bytes that are signed, and the bytes that are returned.
#[derive(Clone)]
pub struct Statement {
    canonical: Bytes,
    subjects: Vec<Subject>,
    predicate_type: &'static PredicateType,
    payload_sha256: [u8; 32],
    pae_sha256: [u8; 32],
}

/// A payload that is a statement by its form, though perhaps not of this appliance: what verification reports.
#[derive(Clone, Debug)]
pub struct ReadStatement {
    /// Its `predicateType`, whether the catalog knows it or not.
    pub predicate_type: String,
    /// What it is about.
    pub subjects: Vec<Subject>,
}

/// Why a payload is no statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Not the JSON that is accepted here.
    #[error("the payload is not strict JSON: {0}")]
    Json(#[from] JsonError),
    /// Strict JSON, but not this.
    #[error("the payload is no in-toto Statement v1: {0}")]
    Field(#[from] FieldError),
}

impl Statement {
    /// Makes the statement. Members are written in the order that RFC 8785 demands, subjects stay in the order in which
    /// they came. `subject` and `predicate` are the caller's JSON; `subjects` is what was read of the former.
    #[must_use]
    pub(crate) fn new(
        predicate_type: &'static PredicateType,
        subject: Node<'_>,
        subjects: Vec<Subject>,
        predicate: Node<'_>,
        capacity: usize,
    ) -> Self {
        let mut bytes = Vec::with_capacity(capacity + FRAME);
        bytes.extend_from_slice(b"{\"_type\":\"https://in-toto.io/Statement/v1\",\"predicate\":");
        canonical::write(predicate, &mut bytes);
        bytes.extend_from_slice(b",\"predicateType\":\"");
        // URIs of the catalog need no escaping; a test holds that.
        bytes.extend_from_slice(predicate_type.uri.as_bytes());
        bytes.extend_from_slice(b"\",\"subject\":");
        canonical::write(subject, &mut bytes);
        bytes.push(b'}');

        let mut payload_sha256 = [0; 32];
        payload_sha256.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        let pae_sha256 = dsse::pae_digest(dsse::PAYLOAD_TYPE, &bytes);
        Self { canonical: bytes.into(), subjects, predicate_type, payload_sha256, pae_sha256 }
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn canonical(&self) -> &Bytes {
        &self.canonical
    }

    /// What it is about.
    #[must_use]
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    /// What it says of it.
    #[must_use]
    pub fn predicate_type(&self) -> &'static PredicateType {
        self.predicate_type
    }

    /// SHA-256 of [`canonical`](Self::canonical).
    #[must_use]
    pub fn payload_sha256(&self) -> &[u8; 32] {
        &self.payload_sha256
    }

    /// SHA-256 of the PAE around it: what the token is asked to sign.
    #[must_use]
    pub fn pae_sha256(&self) -> &[u8; 32] {
        &self.pae_sha256
    }
}

impl ReadStatement {
    /// Reads a payload: strict JSON, exactly the four members of a Statement v1, an object as predicate. `_type` is
    /// checked here because some verifiers do not.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn parse(payload: Bytes) -> Result<Self, StatementError> {
        let document = Document::parse(payload, &JsonLimits::default())?;
        let root = Field::root(document.root());
        let fields = root.object(&["_type", "subject", "predicateType", "predicate"])?;
        let typed = fields.required("_type", STATEMENT_TYPE)?;
        if !typed.node().is_str(STATEMENT_TYPE) {
            return Err(typed.wrong(format!("must be `{STATEMENT_TYPE}`")).into());
        }
        let predicate_type = fields.required("predicateType", "a URI")?;
        let uri = predicate_type.text(MAX_URI, "a URI")?;
        if uri.is_empty() {
            return Err(predicate_type.wrong("must be a URI").into());
        }
        let predicate = fields.required("predicate", "an object")?;
        if !predicate.node().is_object() {
            return Err(predicate.wrong("must be an object").into());
        }
        let subjects = read_subjects(&fields.required("subject", "an array of artifacts")?)?;
        Ok(Self { predicate_type: uri.into_owned(), subjects })
    }
}

impl std::fmt::Debug for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The predicate is the caller's evidence; it stays out of logs.
        f.debug_struct("Statement")
            .field("predicate_type", &self.predicate_type.uri)
            .field("bytes", &self.canonical.len())
            .finish_non_exhaustive()
    }
}

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// Longest `predicateType` that is read.
const MAX_URI: usize = 2048;

/// Everything of a statement but predicate and subjects.
const FRAME: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn statement(subject: &'static str, predicate: &'static str) -> Statement {
        let (subject, predicate) = (document(subject), document(predicate));
        let subjects = read_subjects(&Field::root(subject.root())).unwrap();
        Statement::new(catalog::find("stella.ops/sbom@v1").unwrap(), subject.root(), subjects, predicate.root(), 0)
    }

    fn document(text: &'static str) -> Document {
        Document::parse(text.into(), &JsonLimits::default()).unwrap()
    }

    #[test]
    fn a_statement_is_canonical_and_reads_back_as_what_it_is() {
        let digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let subject =
            format!(r#"[ {{"name":"b", "digest": {{"sha256":"{digest}"}}}}, {{"digest":{{"sha256":"{digest}"}}}} ]"#);
        let made = statement(subject.leak(), r#"{"z":1.0,"a":"\u0041"}"#);
        let expected = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","predicate":{{"a":"A","z":1}},"predicateType":"stella.ops/sbom@v1","subject":[{{"digest":{{"sha256":"{digest}"}},"name":"b"}},{{"digest":{{"sha256":"{digest}"}}}}]}}"#
        );
        assert_eq!(std::str::from_utf8(made.canonical()).unwrap(), expected);
        let oracle =
            serde_json_canonicalizer::to_vec(&serde_json::from_str::<serde_json::Value>(&expected).unwrap()).unwrap();
        assert_eq!(made.canonical()[..], oracle[..]);

        let read = ReadStatement::parse(made.canonical().clone()).unwrap();
        assert_eq!((read.predicate_type.as_str(), read.subjects.len()), ("stella.ops/sbom@v1", 2));
        assert_eq!(read.subjects, made.subjects());
        assert!(!format!("{made:?}").contains("sha256"));
    }

    #[test]
    fn uris_of_the_catalog_need_no_escaping() {
        for known in catalog::list() {
            assert_eq!(serde_json::to_string(known.uri).unwrap(), format!("\"{}\"", known.uri));
        }
    }

    #[test]
    fn a_payload_that_is_no_statement_is_refused() {
        let digest = "00".repeat(32);
        let subject = format!(r#""subject":[{{"digest":{{"sha256":"{digest}"}}}}]"#);
        let typed = r#""_type":"https://in-toto.io/Statement/v1""#;
        for wrong in [
            "[]".to_owned(),
            format!(r#"{{{typed},{subject},"predicateType":"x","predicate":[]}}"#),
            format!(r#"{{{typed},{subject},"predicateType":"","predicate":{{}}}}"#),
            format!(r#"{{{typed},"subject":[],"predicateType":"x","predicate":{{}}}}"#),
            format!(r#"{{{typed},{subject},"predicateType":"x","predicate":{{}},"more":1}}"#),
            format!(
                r#"{{"_type":"https://in-toto.io/Statement/v0.1",{subject},"predicateType":"x","predicate":{{}}}}"#
            ),
            format!(r#"{{{typed},{typed},{subject},"predicateType":"x","predicate":{{}}}}"#),
        ] {
            assert!(ReadStatement::parse(wrong.clone().into()).is_err(), "{wrong}");
        }
    }
}
