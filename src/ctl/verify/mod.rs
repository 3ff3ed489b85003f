//! `signerctl verify`: one envelope against one public key or one identity, offline.

pub(crate) mod cli;
mod evidence;
mod fault;
pub(crate) mod form;
pub(crate) mod key;
mod report;

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

pub(crate) use fault::Fault;

use self::cli::VerifyArgs;
use self::evidence::Brought;
use self::form::{EnvelopeSignature, Form, Found};
use self::key::{KeySource, PublishedKey};
use super::error::CtlError;
use super::files;
use super::output::{Report, plain};
use super::request;
use super::subject::Digest;
use crate::clock::UnixTime;
use crate::config::Span;
use crate::dsse::PAYLOAD_TYPE;
use crate::sigstore::verify::{Demands as Proofs, Trusted, verify};
use crate::sigstore::{
    CertificatePolicy, Identity, SctPolicy, TrustedRoot, certificate_key, verify as sigstore_verify,
};
use crate::statement::{ReadStatement, Subject};

/// What a caller demands.
struct Demands {
    signer: Signer,
    root: Option<TrustedRoot>,
    require_timestamp: bool,
    at: Option<UnixTime>,
    max_certificate_lifetime: Duration,
    predicate_type: Option<String>,
    digests: Vec<Digest>,
    files: Vec<std::path::PathBuf>,
}

/// Whose signature it must be.
enum Signer {
    Key(KeySource),
    Identity(Identity, SctPolicy),
}

/// An envelope that passed every check. Only [`check`] makes one.
struct Verified<'k> {
    form: Form,
    key: Option<&'k PublishedKey>,
    proven: sigstore_verify::Verified,
    payload_sha256: [u8; 32],
    matched: Vec<String>,
    checked: Vec<(&'static str, String)>,
    unchecked: Vec<&'static str>,
}

pub(crate) fn run(args: &VerifyArgs) -> Result<Report, CtlError> {
    let demands = Demands::read(args)?;
    let json = files::read(&args.file, MAX_ENVELOPE_BYTES)?;
    let verified = check(&json, &demands).map_err(|failed| match failed {
        Failed::Fault(fault) => CtlError::NotVerified { path: args.file.clone(), fault },
        Failed::Other(error) => error,
    })?;
    Ok(verified.report(&args.file))
}

impl Demands {
    fn read(args: &VerifyArgs) -> Result<Self, CtlError> {
        let signer = match (&args.key, &args.keys, &args.certificate_identity, &args.certificate_oidc_issuer) {
            (Some(pem), ..) => Signer::Key(KeySource::pem(pem)?),
            (None, Some(set), ..) => Signer::Key(KeySource::set(set)?),
            (None, None, Some(san), Some(issuer)) => {
                let identity = Identity { san: san.clone(), issuer: issuer.clone() };
                Signer::Identity(identity, SctPolicy { required: usize::from(!args.insecure_ignore_sct) })
            }
            _ => return Err(CtlError::Usage("give --key, --keys, or --certificate-identity".to_owned())),
        };
        Ok(Self {
            signer,
            root: args.trusted_root.as_deref().map(trusted_root).transpose()?,
            require_timestamp: args.require_timestamp,
            at: args.at.map(|at| UnixTime(at.as_second())),
            max_certificate_lifetime: args
                .max_certificate_lifetime
                .map_or(CertificatePolicy::OFFLINE.max_lifetime, Span::get),
            predicate_type: args.predicate_type.as_deref().map(request::predicate_type).transpose()?,
            digests: args.digest.iter().map(|text| Digest::parse(text, "digest")).collect::<Result<_, _>>()?,
            files: args.subject_file.clone(),
        })
    }
}

/// Reads a trusted root.
pub(crate) fn trusted_root(path: &Path) -> Result<TrustedRoot, CtlError> {
    let json = files::read(path, MAX_ROOT_BYTES)?;
    TrustedRoot::from_json(&json).map_err(|error| CtlError::content(path, plain(&error.to_string())))
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
fn check<'d>(json: &[u8], demands: &'d Demands) -> Result<Verified<'d>, Failed> {
    let holder = form::read(json)?;
    let found = holder.found()?;
    let signature = sole_signature(&found)?;
    let (key, trusted) = match &demands.signer {
        Signer::Key(keys) => {
            let key = keys.find(named_key(&found, signature)?)?;
            (Some(key), Trusted::Key(&key.key))
        }
        Signer::Identity(identity, policy) => (None, Trusted::Identity(identity, *policy)),
    };
    let brought = Brought::read(json, &found, signature)?;
    let proofs = Proofs {
        signer: trusted,
        root: demands.root.as_ref(),
        require_timestamp: demands.require_timestamp,
        asserted_time: demands.at,
        max_certificate_lifetime: demands.max_certificate_lifetime,
        now: UnixTime::now(),
        digests: &[],
    };
    let proven = verify(&brought.evidence(), &proofs).map_err(Fault::from)?;
    if let Some(key) = key {
        key.in_use(proven.timestamps.iter().map(|stamp| stamp.time).min())?;
    }
    if let (Some(key), Some(leaf)) = (key, brought.leaf())
        && certificate_key(leaf).as_ref() != Some(key.key.sec1())
    {
        return Err(Fault::ForeignCertificate.into());
    }
    let payload_sha256 = digest(&SHA256, brought.payload()).as_ref().try_into().unwrap_or([0; 32]);
    let matched = meets(&proven.statement, demands)?;
    let mut unchecked = unchecked(demands, &brought, &matched);
    if key.is_some_and(PublishedKey::has_an_end) && proven.timestamps.is_empty() {
        unchecked.push("that the key was in use when it signed; a timestamp does that, with --trusted-root");
    }
    let mut verified =
        Verified { form: found.form, key, proven, payload_sha256, matched, checked: Vec::new(), unchecked };
    verified.tell(&found, demands, &brought);
    Ok(verified)
}

/// What nobody asked for, or could not be done.
fn unchecked(demands: &Demands, brought: &Brought, matched: &[String]) -> Vec<&'static str> {
    let mut unchecked = Vec::new();
    if matched.is_empty() {
        unchecked.push("no artifact was compared with the subjects; --subject-file or --digest does that");
    }
    if brought.has_timestamps() && demands.root.is_none() {
        unchecked.push("the RFC 3161 timestamp in the bundle; --trusted-root does that");
    }
    if brought.log_entries > 0 {
        unchecked.push("the transparency log entry in the bundle");
    }
    if brought.leaf().is_some() && matches!(demands.signer, Signer::Key(_)) {
        unchecked.push("who issued the certificate of the key; the key itself was given");
    }
    unchecked
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

/// The strict JSON reader takes no more.
const MAX_ENVELOPE_BYTES: u64 = (1 << 28) - 1;

/// Sigstore's own has 10 kilobytes.
const MAX_ROOT_BYTES: u64 = 4 * 1024 * 1024;
