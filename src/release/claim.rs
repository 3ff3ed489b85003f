//! What a candidate of cosign's claims, whichever of the forms it has: bytes, a signature over them, and what goes with it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::digest::Digest;
use super::notary;
use super::registry::annotation::{CERTIFICATE, LOG_ENTRY, SIGNATURE, TIMESTAMP};
use super::registry::{Descriptor, Manifest};
use super::rejection::{Rejection, SIGN_PREDICATE};
use crate::dsse::{PAYLOAD_TYPE, pae};
use crate::sigstore::bundle::{Bundle, Signer};
use crate::sigstore::log::LogEntry;
use crate::statement::json::{Document, Field, FieldError, JsonLimits};

/// A signature and everything that came with it. Nothing in it is verified.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) form: Form,
    /// What was signed: of a bundle the statement, else the simple signing payload.
    pub(super) content: Bytes,
    pub(super) signature: Vec<u8>,
    /// Of a key's signature there is none.
    pub(super) certificate: Option<CertificateDer<'static>>,
    pub(super) timestamps: Vec<Vec<u8>>,
    pub(super) log_entries: Vec<LogEntry>,
}

/// The forms of a release signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// A Sigstore bundle v0.3 around a DSSE envelope: what cosign 3 writes.
    Bundle,
    /// Simple signing with annotations: what cosign writes in its older ways.
    SimpleSigning,
    /// A signature of the Notary Project in a JWS: what notation writes.
    NotaryJws,
    /// The same in COSE.
    NotaryCose,
}

impl Form {
    /// The form that a layer of this manifest has. A JWS or COSE may be anything; the manifest says that it is a signature
    /// of the Notary Project, which has one layer (`signature-specification.md`, "OCI Signatures").
    pub(super) fn of_layer(manifest: &Manifest, layer: &Descriptor) -> Option<Self> {
        let alone = manifest.layers.len() + manifest.skipped == 1 && !manifest.more;
        let is_notary = alone && manifest.artifact_type.as_deref() == Some(notary::ARTIFACT);
        match &*layer.media_type {
            crate::sigstore::bundle::MEDIA_TYPE => Some(Self::Bundle),
            SIMPLE_SIGNING => Some(Self::SimpleSigning),
            notary::JWS if is_notary => Some(Self::NotaryJws),
            notary::COSE if is_notary => Some(Self::NotaryCose),
            _ => None,
        }
    }

    /// Whether it is one of the Notary Project.
    #[must_use]
    pub fn is_notary(self) -> bool {
        matches!(self, Self::NotaryJws | Self::NotaryCose)
    }

    /// For audit records and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bundle => "sigstore_bundle",
            Self::SimpleSigning => "simple_signing",
            Self::NotaryJws => "notary_jws",
            Self::NotaryCose => "notary_cose",
        }
    }
}

impl Claim {
    /// Reads a layer of a signature's manifest: a bundle, or a payload of simple signing with its annotations.
    pub(super) fn read(form: Form, layer: &Descriptor, blob: &Bytes) -> Result<Self, Rejection> {
        if form == Form::Bundle { of_bundle(blob) } else { of_simple_signing(layer, blob) }
    }

    /// The bytes that the signature covers.
    pub(super) fn message(&self) -> Vec<u8> {
        if self.form == Form::Bundle { pae(PAYLOAD_TYPE, &self.content) } else { self.content.to_vec() }
    }

    /// Whether what was signed says that this image is released. Asked only after the signature was verified.
    pub(super) fn is_about(&self, image: Digest) -> Result<(), Rejection> {
        if self.form == Form::Bundle {
            is_signature_statement(&self.content, image)
        } else {
            is_simple_signing(&self.content, image)
        }
    }
}

fn of_bundle(blob: &Bytes) -> Result<Claim, Rejection> {
    let malformed = |why: String| Rejection::Malformed(format!("the bundle cannot be read: {why}"));
    let document = Document::parse(blob.clone(), &LIMITS).map_err(|error| malformed(error.to_string()))?;
    let root = Field::root(document.root());
    let bundle = Bundle::read(&root).map_err(|error| malformed(error.to_string()))?;
    let entries = root.member("verificationMaterial").and_then(|material| material.member("tlogEntries"));
    let log_entries = match entries {
        Some(entries) => bundled_entries(&entries).map_err(|error| malformed(error.to_string()))?,
        None => Vec::new(),
    };
    let certificate = match bundle.material.signer {
        Signer::Key(_) => None,
        Signer::Certificate(certificate) => Some(certificate),
    };
    Ok(Claim {
        form: Form::Bundle,
        content: bundle.envelope.payload,
        signature: bundle.envelope.signature,
        certificate,
        timestamps: bundle.material.timestamps,
        log_entries,
    })
}

/// `tlogEntries` (sigstore/protobuf-specs, `sigstore_rekor.proto`) that carry a promise; the others state no time.
fn bundled_entries(entries: &Field<'_>) -> Result<Vec<LogEntry>, FieldError> {
    let mut read = Vec::new();
    for entry in entries.elements(0..=MAX_ENTRIES, "log entries")? {
        let promise = entry.member("inclusionPromise").and_then(|promise| promise.member("signedEntryTimestamp"));
        let Some(promise) = promise else { continue };
        let log_id = required(&required(&entry, "logId")?, "keyId")?;
        // Protobuf writes 64-bit integers as strings.
        let number = |field: &Field<'_>| -> Result<u64, FieldError> {
            let text = field.node().as_str().and_then(|text| text.parse().ok());
            text.or_else(|| field.node().as_u64()).ok_or_else(|| field.wrong("must be a number in a string"))
        };
        let index = match entry.member("logIndex") {
            Some(index) => number(&index)?,
            None => 0,
        };
        let integrated = required(&entry, "integratedTime")?;
        let integrated =
            i64::try_from(number(&integrated)?).map_err(|_| integrated.wrong("must be seconds since 1970"))?;
        read.push(LogEntry {
            log_id: base64(&log_id)?,
            index,
            integrated,
            body: base64(&required(&entry, "canonicalizedBody")?)?,
            promise: base64(&promise)?,
        });
    }
    Ok(read)
}

fn base64(field: &Field<'_>) -> Result<Vec<u8>, FieldError> {
    let text = field.text(MAX_TEXT, "padded standard base64")?;
    BASE64_STANDARD.decode(text.as_bytes()).map_err(|_| field.wrong("must be padded standard base64"))
}

fn of_simple_signing(layer: &Descriptor, blob: &Bytes) -> Result<Claim, Rejection> {
    let malformed = |why: String| Rejection::Malformed(why);
    let signature = layer
        .annotation(SIGNATURE)
        .ok_or_else(|| malformed(format!("the layer has no annotation `{SIGNATURE}`")))
        .and_then(|text| {
            BASE64_STANDARD.decode(text).map_err(|_| malformed("its signature is no base64".to_owned()))
        })?;
    let certificate = match layer.annotation(CERTIFICATE).filter(|pem| !pem.is_empty()) {
        Some(pem) => Some(
            CertificateDer::from_pem_slice(pem.as_bytes())
                .map_err(|_| malformed("its certificate is no PEM".to_owned()))?
                .into_owned(),
        ),
        None => None,
    };
    let annotation = |name: &str| layer.annotation(name).filter(|text| !text.is_empty() && *text != "null");
    let field = |error: FieldError| malformed(error.to_string());
    let json = |text: &str| {
        Document::parse(Bytes::copy_from_slice(text.as_bytes()), &LIMITS).map_err(|error| malformed(error.to_string()))
    };
    let mut timestamps = Vec::new();
    if let Some(text) = annotation(TIMESTAMP) {
        let document = json(text)?;
        let root = Field::root(document.root());
        let stamp = root.member("SignedRFC3161Timestamp");
        let stamp = stamp.ok_or_else(|| malformed(format!("`{TIMESTAMP}` has no SignedRFC3161Timestamp")))?;
        timestamps.push(base64(&stamp).map_err(field)?);
    }
    let mut log_entries = Vec::new();
    if let Some(text) = annotation(LOG_ENTRY) {
        let document = json(text)?;
        log_entries.push(annotated_entry(&Field::root(document.root())).map_err(field)?);
    }
    Ok(Claim { form: Form::SimpleSigning, content: blob.clone(), signature, certificate, timestamps, log_entries })
}

fn required<'d>(parent: &Field<'d>, name: &str) -> Result<Field<'d>, FieldError> {
    parent.member(name).ok_or_else(|| parent.wrong(format!("must have `{name}`")))
}

/// `RekorBundle` of cosign.
fn annotated_entry(root: &Field<'_>) -> Result<LogEntry, FieldError> {
    let promise = required(root, "SignedEntryTimestamp")?;
    let payload = required(root, "Payload")?;
    let number = |name: &str| -> Result<u64, FieldError> {
        let field = required(&payload, name)?;
        field.node().as_u64().ok_or_else(|| field.wrong("must be a number"))
    };
    let id = required(&payload, "logID")?;
    let log_id = id.text(64, "64 hex digits").ok().and_then(|hex| Digest::from_hex(&hex).ok());
    let integrated = number("integratedTime")?;
    Ok(LogEntry {
        log_id: log_id.ok_or_else(|| id.wrong("must be 64 hex digits"))?.bytes().to_vec(),
        index: number("logIndex")?,
        integrated: i64::try_from(integrated).map_err(|_| payload.wrong("has no time that can be read"))?,
        body: base64(&required(&payload, "body")?)?,
        promise: base64(&promise)?,
    })
}

/// cosign 3 signs a statement about the image; any other statement about it is an attestation and no release. The type is
/// looked at first, because attestations have other forms, too. Of a subject nothing but its digest counts; cosign writes
/// annotations beside it, which the pipeline's own reader of statements does not take.
fn is_signature_statement(payload: &Bytes, image: Digest) -> Result<(), Rejection> {
    let unreadable = |why: String| Rejection::Payload(why);
    let document = Document::parse(payload.clone(), &LIMITS).map_err(|error| unreadable(error.to_string()))?;
    let root = Field::root(document.root());
    let text = |name: &str| -> Result<String, FieldError> {
        Ok(required(&root, name)?.text(MAX_NAME, "a URI of at most 256 bytes")?.into_owned())
    };
    let predicate_type = text("predicateType").map_err(|error| unreadable(error.to_string()))?;
    if predicate_type != SIGN_PREDICATE {
        return Err(Rejection::PredicateType(shown(&predicate_type)));
    }
    let read = || -> Result<Vec<String>, FieldError> {
        let kind = text("_type")?;
        if kind != STATEMENT_TYPE {
            return Err(root.wrong(format!("`_type` must be {STATEMENT_TYPE}")));
        }
        let mut digests = Vec::new();
        for subject in required(&root, "subject")?.elements(1..=MAX_SUBJECTS, "artifacts")? {
            let sha256 = required(&required(&subject, "digest")?, "sha256")?;
            digests.push(sha256.text(64, "64 hex digits")?.into_owned());
        }
        Ok(digests)
    };
    let digests = read().map_err(|error| unreadable(error.to_string()))?;
    if digests.contains(&image.hex()) {
        return Ok(());
    }
    let others: Vec<String> = digests.iter().take(3).map(|hex| format!("sha256:{}", shown(hex))).collect();
    Err(Rejection::Image(others.join(", ")))
}

/// `{"critical":{"identity":{…},"image":{"docker-manifest-digest":…},"type":…},"optional":…}` (containers/image,
/// `containers-signature.5`).
fn is_simple_signing(payload: &Bytes, image: Digest) -> Result<(), Rejection> {
    let unreadable = |why: String| Rejection::Payload(why);
    let document = Document::parse(payload.clone(), &LIMITS).map_err(|error| unreadable(error.to_string()))?;
    let root = Field::root(document.root());
    let read = || -> Result<(String, String), FieldError> {
        let fields = root.object(&["critical", "optional"])?;
        let critical = fields.required("critical", "an object")?;
        let fields = critical.object(&["identity", "image", "type"])?;
        let kind = fields.required("type", SIMPLE_TYPE)?.text(MAX_NAME, SIMPLE_TYPE)?.into_owned();
        let about = fields.required("image", "an object")?;
        let fields = about.object(&["docker-manifest-digest"])?;
        let digest = fields.required("docker-manifest-digest", "a digest")?.text(MAX_NAME, "a digest")?.into_owned();
        Ok((kind, digest))
    };
    let (kind, digest) = read().map_err(|error| unreadable(error.to_string()))?;
    if kind != SIMPLE_TYPE {
        return Err(Rejection::PredicateType(shown(&kind)));
    }
    if digest.parse() == Ok(image) { Ok(()) } else { Err(Rejection::Image(shown(&digest))) }
}

/// What others wrote, fit for a log.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(200).collect()
}

/// Media type of a layer in cosign's older ways.
pub(super) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// What `type` of the payload is; `atomic container signature` is what others sign by GPG.
const SIMPLE_TYPE: &str = "cosign container image signature";

const LIMITS: JsonLimits = JsonLimits { max_depth: 64, max_values: 1 << 18 };
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const MAX_SUBJECTS: usize = 1024;
const MAX_ENTRIES: usize = 32;
const MAX_TEXT: usize = 256 * 1024;
const MAX_NAME: usize = 256;
