//! `signerctl verify`: one envelope against one public key, offline.

mod fault;
pub(crate) mod form;
pub(crate) mod key;

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde_json::{Map, Value, json};

pub(crate) use fault::Fault;

use self::form::{EnvelopeSignature, Form, Found};
use self::key::{KeySource, PublishedKey};
use super::cli::VerifyArgs;
use super::error::CtlError;
use super::files;
use super::output::{Report, plain};
use super::request;
use super::subject::Digest;
use crate::dsse::{PAYLOAD_TYPE, Signature, pae_digest, verify_digest};
use crate::statement::{ReadStatement, Subject};

/// What a caller demands beyond a good signature.
struct Demands {
    predicate_type: Option<String>,
    digests: Vec<Digest>,
    files: Vec<std::path::PathBuf>,
}

/// An envelope that passed every check. Only [`check`] makes one.
struct Verified<'k> {
    form: Form,
    key: &'k PublishedKey,
    statement: ReadStatement,
    payload_sha256: [u8; 32],
    matched: Vec<String>,
    unchecked: Vec<&'static str>,
}

pub(crate) fn run(args: &VerifyArgs) -> Result<Report, CtlError> {
    let keys = match (&args.key, &args.keys) {
        (Some(pem), _) => KeySource::pem(pem)?,
        (None, Some(set)) => KeySource::set(set)?,
        (None, None) => return Err(CtlError::Usage("give --key PEM or --keys JWKS".to_owned())),
    };
    let demands = Demands {
        predicate_type: args.predicate_type.as_deref().map(request::predicate_type).transpose()?,
        digests: args.digest.iter().map(|text| Digest::parse(text, "digest")).collect::<Result<_, _>>()?,
        files: args.subject_file.clone(),
    };
    let json = files::read(&args.file, MAX_ENVELOPE_BYTES)?;
    let verified = check(&json, &keys, &demands).map_err(|failed| match failed {
        Failed::Fault(fault) => CtlError::NotVerified { path: args.file.clone(), fault },
        Failed::Other(error) => error,
    })?;
    Ok(verified.report(&args.file))
}

enum Failed {
    Fault(Fault),
    Other(CtlError),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The order is the point: nothing in the payload is looked at before its signature holds.
fn check<'k>(json: &[u8], keys: &'k KeySource, demands: &Demands) -> Result<Verified<'k>, Failed> {
    let holder = form::read(json)?;
    let found = holder.found()?;
    let signature = sole_signature(&found)?;
    let key = keys.find(named_key(&found, signature)?)?;
    let payload = authentic_payload(&found, signature, key)?;
    let payload_sha256 = digest(&SHA256, &payload).as_ref().try_into().unwrap_or([0; 32]);
    let statement = ReadStatement::parse(Bytes::from(payload)).map_err(Fault::Statement)?;
    let matched = meets(&statement, demands)?;
    let mut unchecked = Vec::new();
    if matched.is_empty() {
        unchecked.push("no artifact was compared with the subjects; --subject-file or --digest does that");
    }
    if found.material.is_some_and(has_timestamp) {
        unchecked.push("the RFC 3161 timestamp in the bundle");
    }
    if found.material.is_some_and(has_log_entry) {
        unchecked.push("the transparency log entry in the bundle");
    }
    Ok(Verified { form: found.form, key, statement, payload_sha256, matched, unchecked })
}

/// The one signature of an envelope of the appliance's payload type.
pub(crate) fn sole_signature<'f>(found: &Found<'f>) -> Result<&'f EnvelopeSignature, Fault> {
    if found.envelope.payload_type != PAYLOAD_TYPE {
        return Err(Fault::PayloadType(found.envelope.payload_type.to_string()));
    }
    match found.envelope.signatures.as_slice() {
        [signature] => Ok(signature),
        others => Err(Fault::SignatureCount(others.len())),
    }
}

/// The keyid of the signature; in a Sigstore bundle the hint must say the same.
pub(crate) fn named_key<'f>(found: &Found<'f>, signature: &'f EnvelopeSignature) -> Result<&'f str, Fault> {
    if let Some(material) = found.material {
        if material.get("certificate").is_some() || material.get("x509CertificateChain").is_some() {
            return Err(Fault::Certificate);
        }
        let hint = material.pointer("/publicKey/hint").and_then(Value::as_str).unwrap_or_default();
        if hint != signature.keyid {
            return Err(Fault::Hint { hint: hint.to_owned(), keyid: signature.keyid.clone() });
        }
    }
    if signature.keyid.is_empty() { Err(Fault::KeyidMissing) } else { Ok(&signature.keyid) }
}

/// The payload, once the signature over its PAE has proven to be the key's.
fn authentic_payload(found: &Found<'_>, signature: &EnvelopeSignature, key: &PublishedKey) -> Result<Vec<u8>, Fault> {
    let signature = form::decode(&signature.sig, "signature")?;
    let signature = Signature::from_der(&signature).map_err(Fault::SignatureForm)?;
    let payload = form::decode(&found.envelope.payload, "payload")?;
    let digest = pae_digest(&found.envelope.payload_type, &payload);
    verify_digest(&key.key, &digest, &signature).map_err(|_| Fault::Signature)?;
    Ok(payload)
}

/// Every demand is met, or the first that is not. Returns the subjects that were compared, in words.
fn meets(statement: &ReadStatement, demands: &Demands) -> Result<Vec<String>, Failed> {
    if let Some(wanted) = &demands.predicate_type
        && *wanted != statement.predicate_type
    {
        return Err(Fault::Type { found: statement.predicate_type.clone(), wanted: wanted.clone() }.into());
    }
    let mut matched = Vec::new();
    for wanted in &demands.digests {
        if !statement.subjects.iter().any(|subject| has(subject, wanted)) {
            return Err(Fault::Subject { wanted: wanted.to_string() }.into());
        }
        matched.push(wanted.to_string());
    }
    for file in &demands.files {
        let digest = matching_digest(statement, file)?;
        matched.push(format!("{} {digest}", plain(&file.display().to_string())));
    }
    Ok(matched)
}

/// The digest under which `file` is a subject. The file is read once per algorithm that the subjects use.
fn matching_digest(statement: &ReadStatement, file: &Path) -> Result<Digest, Failed> {
    for algorithm in ["sha256", "sha512", "sha384"] {
        let used = statement.subjects.iter().any(|subject| subject.digest.iter().any(|(name, _)| **name == *algorithm));
        let Some(digest) = used.then(|| Digest::of_file(file, algorithm)).flatten() else { continue };
        let digest = digest.map_err(Failed::Other)?;
        if statement.subjects.iter().any(|subject| has(subject, &digest)) {
            return Ok(digest);
        }
    }
    Err(Fault::Subject { wanted: format!("{} (or the file was changed)", file.display()) }.into())
}

fn has(subject: &Subject, wanted: &Digest) -> bool {
    subject.digest.iter().any(|(algorithm, hex)| **algorithm == *wanted.algorithm && **hex == *wanted.hex)
}

/// Subjects as in-toto writes them.
pub(crate) fn subjects_to_json(subjects: &[Subject]) -> Value {
    let one = |subject: &Subject| {
        let digest: Map<String, Value> =
            subject.digest.iter().map(|(algorithm, hex)| (algorithm.to_string(), Value::from(&**hex))).collect();
        match subject.name.as_deref() {
            Some(name) => json!({ "name": name, "digest": digest }),
            None => json!({ "digest": digest }),
        }
    };
    subjects.iter().map(one).collect()
}

impl Verified<'_> {
    fn report(&self, file: &Path) -> Report {
        let state = self.key.text("state").map(plain);
        let keyid = self.key.key.keyid();
        let form = match self.form {
            Form::Envelope => "envelope",
            Form::Answer => "answer",
            Form::Sigstore => "sigstore",
        };
        let mut text = format!("verified {}\n", plain(&file.display().to_string()));
        let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<11} {value}\n"));
        match &state {
            Some(state) => line("key", &format!("{keyid} ({state})")),
            None => line("key", keyid),
        }
        line("type", &plain(&self.statement.predicate_type));
        for subject in &self.statement.subjects {
            let name = subject.name.as_deref().unwrap_or("(no name)");
            let digests: Vec<String> =
                subject.digest.iter().map(|(algorithm, hex)| format!("{}:{hex}", plain(algorithm))).collect();
            line("subject", &format!("{} {}", plain(name), digests.join(" ")));
        }
        for matched in &self.matched {
            line("compared", matched);
        }
        for unchecked in &self.unchecked {
            line("not checked", unchecked);
        }
        let json = json!({
            "verified": true,
            "form": form,
            "keyid": keyid,
            "keyState": state,
            "payloadType": PAYLOAD_TYPE,
            "predicateType": self.statement.predicate_type,
            "subject": subjects_to_json(&self.statement.subjects),
            "payloadSha256": files::hex(&self.payload_sha256),
            "compared": self.matched,
            "notChecked": self.unchecked,
        });
        Report::new(text, json)
    }
}

fn has_timestamp(material: &Value) -> bool {
    let stamps = material.pointer("/timestampVerificationData/rfc3161Timestamps").and_then(Value::as_array);
    stamps.is_some_and(|stamps| !stamps.is_empty())
}

fn has_log_entry(material: &Value) -> bool {
    material.get("tlogEntries").and_then(Value::as_array).is_some_and(|entries| !entries.is_empty())
}

/// The strict JSON reader takes no more.
const MAX_ENVELOPE_BYTES: u64 = (1 << 28) - 1;
