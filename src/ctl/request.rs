//! The body of `POST /sign/dsse`, with the predicate in it byte for byte as the file has it.

use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::cli::SignArgs;
use super::error::CtlError;
use super::files;
use super::settings::{BundleForm, Defaults, required};
use super::subject::{Digest, Subject};
use super::upload::Upload;
use crate::config::SigningMode;
use crate::statement::json::{Document, JsonLimits, Node};
use crate::statement::{canonical, catalog};

/// A request that is ready to be sent, as often as it must.
pub(crate) struct SignRequest {
    head: Bytes,
    predicate: Bytes,
    poe_header: Option<Zeroizing<String>>,
    expected: Expected,
}

/// What must come back.
pub(crate) struct Expected {
    pub(crate) predicate_type: String,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) bundle: BundleForm,
    /// SHA-256 of the payload.
    pub(crate) payload_sha256: [u8; 32],
}

impl SignRequest {
    /// Reads every file and checks what can be checked here, so that nothing is sent that cannot be right.
    pub(crate) fn build(args: &SignArgs, settings: &Defaults) -> Result<Self, CtlError> {
        let predicate_type = predicate_type(&args.predicate_type)?;
        let mut subjects = Vec::new();
        for text in &args.subject {
            subjects.push(Subject::parse(text)?);
        }
        for path in &args.subject_file {
            subjects.push(Subject::of_file(path)?);
        }
        let scanner = Digest::parse(&required(&settings.scanner_digest, "scanner-digest")?, "scanner-digest")?;
        if scanner.algorithm != "sha256" {
            return Err(CtlError::Usage("--scanner-digest must be a sha256 digest, as image digests are".to_owned()));
        }
        let poe = files::read_secret_line(&required(&settings.poe_file, "poe-file")?, "PoE")?;
        let bundle = settings.bundle.unwrap_or_default();

        let (predicate, document) = read_predicate(&args.file)?;
        let subject: Value = subjects.iter().map(Subject::to_json).collect();
        let payload_sha256 = payload_sha256(document.root(), &predicate_type, &subject)?;
        drop(document);
        let mut members = json!({
            "subject": subject,
            "predicateType": predicate_type,
            "scannerImageDigest": scanner.to_string(),
            "options": options(settings.mode, bundle),
        });
        let poe_header = if settings.poe_in_header == Some(true) {
            Some(poe)
        } else {
            members["poe"] = json!({ "format": poe_format(&poe), "value": poe.as_str() });
            None
        };
        let mut head = members.to_string();
        head.pop();
        head.push_str(",\"predicate\":");
        let head = Bytes::from(head);
        let expected = Expected { predicate_type, subjects, bundle, payload_sha256 };
        Ok(Self { head, predicate, poe_header, expected })
    }

    /// What to hold the answer against; the document itself is let go, because the answer is as large again.
    pub(crate) fn into_expected(self) -> Expected {
        self.expected
    }

    /// The body, sharing the bytes with every other one made here.
    pub(crate) fn body(&self) -> Upload {
        Upload::new([self.head.clone(), self.predicate.clone(), Bytes::from_static(b"}")])
    }

    /// Length of the body.
    pub(crate) fn len(&self) -> u64 {
        (self.head.len() + self.predicate.len() + 1) as u64
    }

    /// What goes into `X-PoE`, if the PoE is not in the body.
    pub(crate) fn poe_header(&self) -> Option<&str> {
        self.poe_header.as_ref().map(|poe| poe.as_str())
    }
}

/// A predicate type from its short name or from itself. What the catalog does not know is passed on when it looks
/// like a type, because the appliance's catalog may be newer than this program.
pub(crate) fn predicate_type(text: &str) -> Result<String, CtlError> {
    if let Some(known) = catalog::named(text) {
        return Ok(known.uri.to_owned());
    }
    if text.contains('/') && text.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(CtlError::Usage(format!("--type: `{text}` is no predicate type; write its URI, or one of {}", short_names())))
}

/// The short names of the catalog, for messages and help.
pub(crate) fn short_names() -> String {
    catalog::list().iter().filter_map(|known| known.short_name).collect::<Vec<_>>().join(", ")
}

/// The file must be exactly one JSON object: anything else could end the predicate early and add members of its own
/// to the request.
fn read_predicate(path: &Path) -> Result<(Bytes, Document), CtlError> {
    let bytes = Bytes::from(files::read(path, MAX_PREDICATE_BYTES)?);
    let document = Document::parse(bytes.clone(), &JsonLimits::default())
        .map_err(|error| CtlError::content(path, format!("is no JSON that can be signed: {error}")))?;
    if !document.root().is_object() {
        return Err(CtlError::content(path, "is no JSON object; a predicate must be one"));
    }
    Ok((bytes, document))
}

/// SHA-256 of the one payload that says exactly this: the in-toto Statement v1 in canonical form (RFC 8785), whose
/// members sort as they are written here.
fn payload_sha256(predicate: Node<'_>, predicate_type: &str, subject: &Value) -> Result<[u8; 32], CtlError> {
    let mut payload = Context::new(&SHA256);
    payload.update(b"{\"_type\":\"https://in-toto.io/Statement/v1\",\"predicate\":");
    let mut canonical = Vec::new();
    canonical::write(predicate, &mut canonical);
    payload.update(&canonical);
    let subject = Document::parse(Bytes::from(subject.to_string()), &JsonLimits::default())
        .map_err(|error| CtlError::Usage(format!("a subject cannot be written in canonical form: {error}")))?;
    canonical.clear();
    canonical::write(subject.root(), &mut canonical);
    payload.update(format!(",\"predicateType\":{},\"subject\":", Value::from(predicate_type)).as_bytes());
    payload.update(&canonical);
    payload.update(b"}");
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(payload.finish().as_ref());
    Ok(sha256)
}

fn options(mode: Option<SigningMode>, bundle: BundleForm) -> Value {
    match mode {
        Some(mode) => json!({ "signingMode": mode, "returnBundle": bundle.name() }),
        None => json!({ "returnBundle": bundle.name() }),
    }
}

/// A PoE that is a JWT is proven offline; anything else can only be introspected.
fn poe_format(poe: &str) -> &'static str {
    if poe.split('.').count() == 3 { "jwt" } else { "opaque" }
}

/// The strict JSON reader takes no more, and the appliance less.
const MAX_PREDICATE_BYTES: u64 = (1 << 28) - 1;
