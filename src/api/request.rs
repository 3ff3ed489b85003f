//! What requests must look like: the strict schema of the two bodies that the API reads.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::config::SigningMode;
use crate::dsse::Envelope;
use crate::entitlement::PoeFormat;
use crate::statement::json::{Document, Field, FieldError, JsonError, JsonLimits};
use crate::statement::{PredicateType, Statement, Subject, catalog, read_subjects};

/// A read body of `POST /sign/dsse`. It holds the body until it becomes a [`Statement`].
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

/// Why a body is not what the route reads. Displayed, it names the place and what would be right, and no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not the JSON that is accepted here.
    #[error("the body is not accepted as JSON: {0}")]
    Json(#[from] JsonError),
    /// A member is missing, unknown, or not what it must be.
    #[error("the body is not what this route reads: {0}")]
    Member(#[from] FieldError),
    /// A subject is wrong.
    #[error("the body names no artifact to sign for: {0}")]
    Subject(FieldError),
    /// The predicate type is not in the catalog.
    #[error("the body is of no known type: {0}")]
    PredicateType(FieldError),
    /// The envelope to verify is malformed.
    #[error("the body holds no envelope: {0}")]
    Envelope(FieldError),
}

impl RequestError {
    /// A stable name, for problem, audit record and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Member(_) => "schema",
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
        let root = Field::root(document.root());
        let fields = root.object(&["subject", "predicateType", "predicate", "scannerImageDigest", "poe", "options"])?;

        let subject = fields.required("subject", "an array of artifacts")?;
        let subjects = read_subjects(&subject).map_err(RequestError::Subject)?;
        let predicate_type = fields.required("predicateType", RIGHT_TYPE)?;
        let uri = predicate_type.text(MAX_URI, RIGHT_TYPE)?;
        let outside = || predicate_type.wrong(format!("is not in the catalog; it must be {RIGHT_TYPE}"));
        let predicate_type = catalog::find(&uri).ok_or_else(|| RequestError::PredicateType(outside()))?;
        let predicate = fields.required("predicate", "an object")?;
        if !predicate.node().is_object() {
            return Err(predicate.wrong("must be an object").into());
        }
        let scanner_image_digest = read_image_digest(&fields.required("scannerImageDigest", RIGHT_IMAGE_DIGEST)?)?;
        let poe = fields.optional("poe").map(|poe| read_poe(&poe)).transpose()?;
        let options = fields.optional("options").map(|options| read_options(&options)).transpose()?.unwrap_or_default();
        // A version that cannot be read could be any version, and a licence may exclude it.
        let version = predicate.member("stellaops_version");
        let version = version.map(|version| version.text(usize::MAX, "a string").map(Cow::into_owned));
        let stellaops_version = version.transpose()?;
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
        let root = Field::root(document.root());
        let envelope = root.object(&["envelope"])?.required("envelope", "a DSSE envelope")?;
        Ok(Self { envelope: Envelope::read(&envelope).map_err(RequestError::Envelope)? })
    }
}

impl fmt::Debug for SignRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the evidence nor the PoE is for logs.
        f.debug_struct("SignRequest")
            .field("predicate_type", &self.predicate_type.uri)
            .field("subjects", &self.subjects.len())
            .field("options", &self.options)
            .field("body_bytes", &self.body_bytes)
            .finish_non_exhaustive()
    }
}

fn read_image_digest(field: &Field<'_>) -> Result<String, FieldError> {
    let digest = field.text(RIGHT_IMAGE_DIGEST_LENGTH, RIGHT_IMAGE_DIGEST)?;
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(digest.into_owned())
    } else {
        Err(field.wrong(format!("must be {RIGHT_IMAGE_DIGEST}")))
    }
}

fn read_poe(field: &Field<'_>) -> Result<(PoeFormat, String), FieldError> {
    let fields = field.object(&["format", "value"])?;
    let format = fields.required("format", "`jwt` or `opaque`")?;
    let known = format.node().as_str().and_then(|name| PoeFormat::from_name(&name));
    let known = known.ok_or_else(|| format.wrong("must be `jwt` or `opaque`"))?;
    // How long it may be is for whoever proves it to say.
    let value = fields.required("value", "a string")?.text(usize::MAX, "a string")?;
    Ok((known, value.into_owned()))
}

fn read_options(field: &Field<'_>) -> Result<Options, FieldError> {
    let fields = field.object(&["signingMode", "expirySeconds", "returnBundle"])?;
    let mut options = Options::default();
    if let Some(mode) = fields.optional("signingMode") {
        options.signing_mode = match mode.node().as_str().as_deref() {
            Some("kms") => Some(SigningMode::Kms),
            Some("keyless") => Some(SigningMode::Keyless),
            _ => return Err(mode.wrong("must be `kms` or `keyless`")),
        };
    }
    if let Some(expiry) = fields.optional("expirySeconds") {
        let seconds = expiry.node().as_u64().and_then(|seconds| u32::try_from(seconds).ok());
        let seconds = seconds.filter(|seconds| EXPIRY.contains(seconds));
        options.expiry_seconds = Some(seconds.ok_or_else(|| expiry.wrong("must be an integer from 60 to 3600"))?);
    }
    if let Some(form) = fields.optional("returnBundle") {
        options.return_bundle = match form.node().as_str().as_deref() {
            Some("dsse") => ReturnBundle::Dsse,
            Some("dsse+cert") => ReturnBundle::DsseCert,
            Some("sigstore") => ReturnBundle::Sigstore,
            _ => return Err(form.wrong("must be `dsse`, `dsse+cert` or `sigstore`")),
        };
    }
    Ok(options)
}

const RIGHT_TYPE: &str = "a predicate type spelled as the catalog does, as in `stella.ops/sbom@v1`";

const RIGHT_IMAGE_DIGEST: &str = "`sha256:` and 64 lowercase hex digits";
const RIGHT_IMAGE_DIGEST_LENGTH: usize = 71;

/// Longer than any URI of the catalog.
const MAX_URI: usize = 256;

const EXPIRY: std::ops::RangeInclusive<u32> = 60..=3600;

#[cfg(test)]
mod tests;
