//! What requests must look like: the strict schema of the two bodies that the API reads.

use bytes::Bytes;

use crate::config::SigningMode;
use crate::dsse::{Envelope, EnvelopeError};
use crate::entitlement::PoeFormat;
use crate::statement::json::{Document, JsonError, JsonLimits, Node};
use crate::statement::{PredicateType, Statement, Subject, SubjectError, catalog, read_subjects, shown};

/// A read body of `POST /sign/dsse`. It holds the body until it becomes a [`Statement`].
#[derive(Debug)]
pub struct SignRequest {
    document: Document,
    subjects: Vec<Subject>,
    predicate_type: &'static PredicateType,
    scanner_image_digest: String,
    poe: Option<(PoeFormat, String)>,
    options: Options,
    stellaops_version: Option<String>,
    body_bytes: usize,
}

/// `options`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How to sign; absent: as the tenant's default says.
    pub signing_mode: Option<SigningMode>,
    /// Wanted life of a certificate, in seconds; a hint.
    pub expiry_seconds: Option<u32>,
    /// What to return.
    pub return_bundle: ReturnBundle,
}

/// `options.returnBundle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReturnBundle {
    /// `dsse`.
    Dsse,
    /// `dsse+cert`.
    #[default]
    DsseCert,
    /// `sigstore`.
    Sigstore,
}

/// A read body of `POST /verify/dsse`.
#[derive(Debug)]
pub struct VerifyRequest {
    /// The envelope to check.
    pub envelope: Envelope,
}

/// Why a body is not what the route reads. Displayed, it names the place and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not the JSON that is accepted here.
    #[error("the body is not accepted as JSON: {0}")]
    Json(#[from] JsonError),
    /// A member is missing, unknown, or not what it must be.
    #[error("{path}: {want}")]
    Member {
        /// Where, as a JSON path.
        path: &'static str,
        /// What would be right.
        want: String,
    },
    /// A subject is wrong.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The predicate type is not in the catalog.
    #[error("predicateType: `{0}` is not in the catalog; spell it as the catalog does, as in `stella.ops/sbom@v1`")]
    PredicateType(String),
    /// The envelope to verify is malformed.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

impl RequestError {
    /// A stable name, for problem, audit record and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Member { .. } => "schema",
            Self::Subject(_) => "subject",
            Self::PredicateType(_) => "predicate_type_unknown",
            Self::Envelope(_) => "envelope",
        }
    }
}

impl SignRequest {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// [`RequestError`] for the first thing that is wrong.
    pub fn parse(body: Bytes) -> Result<Self, RequestError> {
        let body_bytes = body.len();
        let document = Document::parse(body, &JsonLimits::default())?;
        let members = Members::of(
            document.root(),
            "body",
            &["subject", "predicateType", "predicate", "scannerImageDigest", "poe", "options"],
        )?;

        let subjects = read_subjects(members.required("subject", "must be an array of artifacts")?)?;
        let uri = text(members.required("predicateType", "must be a type of the catalog")?, "predicateType")?;
        let predicate_type = catalog::find(&uri).ok_or_else(|| RequestError::PredicateType(shown(&uri)))?;
        let predicate = members.required("predicate", "must be an object")?;
        if !predicate.is_object() {
            return Err(member("predicate", "must be an object"));
        }
        let scanner = members.required("scannerImageDigest", "must be `sha256:` and 64 lowercase hex digits")?;
        let scanner_image_digest = image_digest(scanner)?;
        let poe = members.optional("poe").map(read_poe).transpose()?;
        let options = members.optional("options").map(read_options).transpose()?.unwrap_or_default();
        let stellaops_version = match predicate.get("stellaops_version") {
            None => None,
            // A version that cannot be read could be any version, and a licence may exclude it.
            Some(version) => Some(text(version, "predicate.stellaops_version")?),
        };
        Ok(Self {
            document,
            subjects,
            predicate_type,
            scanner_image_digest,
            poe,
            options,
            stellaops_version,
            body_bytes,
        })
    }

    /// What the statement will say of its subjects.
    #[must_use]
    pub fn predicate_type(&self) -> &'static PredicateType {
        self.predicate_type
    }

    /// The image that made the evidence: `sha256:<hex>`.
    #[must_use]
    pub fn scanner_image_digest(&self) -> &str {
        &self.scanner_image_digest
    }

    /// The PoE of the body.
    #[must_use]
    pub fn poe(&self) -> Option<(PoeFormat, &str)> {
        self.poe.as_ref().map(|(format, value)| (*format, value.as_str()))
    }

    /// The options, or their defaults.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// The predicate's `stellaops_version`.
    #[must_use]
    pub fn stellaops_version(&self) -> Option<&str> {
        self.stellaops_version.as_deref()
    }

    /// Makes the statement and gives the body's memory back.
    #[must_use]
    pub fn into_statement(self) -> Statement {
        let root = self.document.root();
        let (subject, predicate) = (root.get("subject"), root.get("predicate"));
        let (subject, predicate) = subject.zip(predicate).expect("parse demands both");
        Statement::new(self.predicate_type, subject, self.subjects, predicate, self.body_bytes)
    }
}

impl VerifyRequest {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// [`RequestError`] for the first thing that is wrong.
    pub fn parse(body: Bytes) -> Result<Self, RequestError> {
        let document = Document::parse(body, &JsonLimits::default())?;
        let members = Members::of(document.root(), "body", &["envelope"])?;
        let envelope = Envelope::read(members.required("envelope", "must be a DSSE envelope")?)?;
        Ok(Self { envelope })
    }
}

fn read_poe(node: Node<'_>) -> Result<(PoeFormat, String), RequestError> {
    let members = Members::of(node, "poe", &["format", "value"])?;
    let format = members.required("format", "must be `jwt` or `opaque`")?;
    let format = format.as_str().and_then(|name| PoeFormat::from_name(&name));
    let format = format.ok_or_else(|| member("poe.format", "must be `jwt` or `opaque`"))?;
    let value = text(members.required("value", "must be a string")?, "poe.value")?;
    Ok((format, value))
}

fn read_options(node: Node<'_>) -> Result<Options, RequestError> {
    let members = Members::of(node, "options", &["signingMode", "expirySeconds", "returnBundle"])?;
    let signing_mode = match members.optional("signingMode") {
        None => None,
        Some(node) if node.is_str("kms") => Some(SigningMode::Kms),
        Some(node) if node.is_str("keyless") => Some(SigningMode::Keyless),
        Some(_) => return Err(member("options.signingMode", "must be `kms` or `keyless`")),
    };
    let expiry_seconds = match members.optional("expirySeconds") {
        None => None,
        Some(node) => match node.as_u64().and_then(|seconds| u32::try_from(seconds).ok()) {
            Some(seconds) if EXPIRY.contains(&seconds) => Some(seconds),
            _ => return Err(member("options.expirySeconds", "must be an integer from 60 to 3600")),
        },
    };
    let return_bundle = match members.optional("returnBundle") {
        None => ReturnBundle::default(),
        Some(node) if node.is_str("dsse") => ReturnBundle::Dsse,
        Some(node) if node.is_str("dsse+cert") => ReturnBundle::DsseCert,
        Some(node) if node.is_str("sigstore") => ReturnBundle::Sigstore,
        Some(_) => return Err(member("options.returnBundle", "must be `dsse`, `dsse+cert` or `sigstore`")),
    };
    Ok(Options { signing_mode, expiry_seconds, return_bundle })
}

fn image_digest(node: Node<'_>) -> Result<String, RequestError> {
    let digest = text(node, "scannerImageDigest")?;
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(digest)
    } else {
        Err(member("scannerImageDigest", "must be `sha256:` and 64 lowercase hex digits"))
    }
}

fn text(node: Node<'_>, path: &'static str) -> Result<String, RequestError> {
    node.as_str().map(std::borrow::Cow::into_owned).ok_or_else(|| member(path, "must be a string"))
}

fn member(path: &'static str, want: impl Into<String>) -> RequestError {
    RequestError::Member { path, want: want.into() }
}

/// The members of an object that has no others than the known ones.
struct Members<'d> {
    node: Node<'d>,
}

impl<'d> Members<'d> {
    fn of(node: Node<'d>, path: &'static str, known: &[&'static str]) -> Result<Self, RequestError> {
        if !node.is_object() {
            return Err(member(path, "must be an object"));
        }
        match node.members().find(|(name, _)| !known.iter().any(|known| name.is_str(known))) {
            None => Ok(Self { node }),
            Some((name, _)) => {
                let name = name.as_str().unwrap_or_default();
                Err(member(path, format!("has no member `{}`; it has {}", shown(&name), known.join(", "))))
            }
        }
    }

    fn required(&self, name: &'static str, want: &str) -> Result<Node<'d>, RequestError> {
        self.node.get(name).ok_or_else(|| member(name, format!("is missing; it {want}")))
    }

    fn optional(&self, name: &str) -> Option<Node<'d>> {
        self.node.get(name)
    }
}

const EXPIRY: std::ops::RangeInclusive<u32> = 60..=3600;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({
            "subject": [{ "name": "app", "digest": { "sha256": "00".repeat(32) } }],
            "predicateType": "stella.ops/sbom@v1",
            "predicate": { "bomFormat": "CycloneDX", "stellaops_version": "2026.03" },
            "scannerImageDigest": format!("sha256:{}", "11".repeat(32)),
        })
    }

    fn parse(body: &Value) -> Result<SignRequest, RequestError> {
        SignRequest::parse(body.to_string().into())
    }

    #[test]
    fn a_request_is_read_with_its_defaults_and_becomes_a_statement() {
        let request = parse(&good()).unwrap();
        assert_eq!(request.options(), Options::default());
        assert_eq!(request.stellaops_version(), Some("2026.03"));
        assert!(request.poe().is_none());
        let statement = request.into_statement();
        assert!(
            statement
                .canonical()
                .starts_with(br#"{"_type":"https://in-toto.io/Statement/v1","predicate":{"bomFormat""#)
        );
    }

    #[test]
    fn options_and_poe_are_read() {
        let mut body = good();
        body["poe"] = json!({ "format": "opaque", "value": "handle" });
        body["options"] = json!({ "signingMode": "keyless", "expirySeconds": 600, "returnBundle": "sigstore" });
        let request = parse(&body).unwrap();
        assert_eq!(request.poe(), Some((PoeFormat::Opaque, "handle")));
        let expected = Options {
            signing_mode: Some(SigningMode::Keyless),
            expiry_seconds: Some(600),
            return_bundle: ReturnBundle::Sigstore,
        };
        assert_eq!(request.options(), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let hex = "00".repeat(32);
        let cases: [(&str, Value, &str); 22] = [
            ("/subject", json!({}), "subject: must be an array"),
            ("/subject", json!([]), "subject: must name at least one"),
            ("/subject/0", json!("app"), "subject[0]: must be an object"),
            ("/subject/0", json!({ "digest": {} }), "subject[0].digest: must hold 1 to 32"),
            ("/subject/0", json!({ "name": "app" }), "subject[0].digest: is missing"),
            ("/subject/0/name", json!(""), "subject[0].name: must be a string"),
            ("/subject/0/uri", json!("x"), "subject[0]: has no member `uri`"),
            ("/subject/0/digest", json!({ "md5": "00" }), "subject[0].digest: `md5` is no digest algorithm"),
            ("/subject/0/digest/sha256", json!("AB".repeat(32)), "subject[0].digest.sha256: must be 64 lowercase"),
            ("/subject/0/digest/sha256", json!("00"), "subject[0].digest.sha256: must be 64 lowercase"),
            ("/predicateType", json!("sbom"), "predicateType: `sbom` is not in the catalog"),
            ("/predicateType", json!(7), "predicateType: must be a string"),
            ("/predicate", json!([]), "predicate: must be an object"),
            ("/predicate/stellaops_version", json!(2026), "predicate.stellaops_version: must be a string"),
            ("/scannerImageDigest", json!(hex), "scannerImageDigest: must be `sha256:`"),
            ("/poe", json!({ "format": "xml", "value": "x" }), "poe.format: must be `jwt` or `opaque`"),
            ("/poe", json!({ "format": "jwt", "value": "x", "more": 1 }), "poe: has no member `more`"),
            ("/options", json!({ "signingMode": "hsm" }), "options.signingMode: must be `kms` or `keyless`"),
            ("/options", json!({ "expirySeconds": 59 }), "options.expirySeconds: must be an integer"),
            ("/options", json!({ "expirySeconds": 600.5 }), "options.expirySeconds: must be an integer"),
            ("/options", json!({ "returnBundle": "pem" }), "options.returnBundle: must be `dsse`"),
            ("/surprise", json!(1), "body: has no member `surprise`"),
        ];
        for (pointer, value, expected) in cases {
            let mut body = good();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = body.pointer_mut(parent).unwrap();
            match key.parse::<usize>() {
                Ok(index) => parent[index] = value,
                Err(_) => parent[key] = value,
            }
            let error = parse(&body).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{pointer}: {error}");
        }
        for missing in ["subject", "predicateType", "predicate", "scannerImageDigest"] {
            let mut body = good();
            body.as_object_mut().unwrap().remove(missing);
            let error = parse(&body).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{missing}: is missing")), "{error}");
        }
    }

    #[test]
    fn only_so_many_subjects_and_digests_are_read() {
        let mut body = good();
        let one = body["subject"][0].clone();
        body["subject"] = Value::Array(vec![one.clone(); 1024]);
        assert!(parse(&body).is_ok());
        body["subject"] = Value::Array(vec![one; 1025]);
        assert!(parse(&body).unwrap_err().to_string().contains("at most 1024"));
    }

    #[test]
    fn an_envelope_to_verify_is_read_strictly() {
        let envelope = json!({ "payloadType": "application/vnd.in-toto+json", "payload": "e30=", "signatures": [{ "sig": "AA==" }] });
        let parse = |envelope: &Value| VerifyRequest::parse(json!({ "envelope": envelope }).to_string().into());
        assert_eq!(parse(&envelope).unwrap().envelope.payload, b"{}");
        for (pointer, value) in [
            ("payloadType", json!("text/plain")),
            ("payload", json!("e30")),
            ("payload", json!(7)),
            ("signatures", json!([])),
            ("signatures", json!([{ "sig": "AA==" }, { "sig": "AA==" }])),
            ("signatures", json!([{ "sig": "AA==", "cert": "x" }])),
            ("signatures", json!([{ "keyid": 7, "sig": "AA==" }])),
            ("extra", json!(1)),
        ] {
            let mut wrong = envelope.clone();
            wrong[pointer] = value;
            assert!(parse(&wrong).is_err(), "{wrong}");
        }
    }
}
