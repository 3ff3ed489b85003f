//! What came back, held against what was sent.

use serde_json::Value;

use super::error::CtlError;
use super::output::plain;
use super::request::{Expected, canonical_sha256};
use super::settings::BundleForm;
use super::verify::form::{self, ApiAnswer};
use super::verify::{named_key, sole_signature, statement};

/// Reads the answer's body. Its statement says what the request asked for, subject by subject and predicate by hash,
/// or this is an error. Its signature is not verified: no key is pinned here.
pub(crate) fn check<'a>(body: &'a [u8], expected: &Expected) -> Result<ApiAnswer<'a>, CtlError> {
    let wrong = |why: String| CtlError::Unexpected(format!("the appliance's answer is not what was asked for: {why}"));
    let answer: ApiAnswer<'a> = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    if answer.audit_id.as_deref().unwrap_or_default().is_empty() {
        return Err(wrong("it has no auditId".to_owned()));
    }
    let is_sigstore = answer.bundle.sigstore.is_some();
    if is_sigstore != (expected.bundle == BundleForm::Sigstore) {
        return Err(wrong(format!("it does not hold the form `{}`", expected.bundle.name())));
    }
    let found = answer.bundle.found().map_err(|fault| wrong(fault.to_string()))?;
    let signature = sole_signature(&found).map_err(|fault| wrong(fault.to_string()))?;
    if answer.bundle.mode.as_deref() != Some("keyless") {
        named_key(&found, signature).map_err(|fault| wrong(fault.to_string()))?;
    }
    let payload = form::decode(&found.envelope.payload, "payload").map_err(|fault| wrong(fault.to_string()))?;
    let document = statement::parse(payload).map_err(|fault| wrong(fault.to_string()))?;
    let (head, predicate) = statement::head(&document).map_err(|fault| wrong(fault.to_string()))?;
    if head.predicate_type != expected.predicate_type {
        return Err(wrong(format!("its predicate type is `{}`", plain(&head.predicate_type))));
    }
    let asked: Vec<Value> = expected.subjects.iter().map(super::subject::Subject::to_json).collect();
    let signed: Vec<Value> = head.subjects.iter().map(statement::StatementSubject::to_json).collect();
    if asked != signed {
        return Err(wrong("its subjects are others".to_owned()));
    }
    if canonical_sha256(predicate) != expected.predicate_sha256 {
        return Err(wrong("its predicate is another".to_owned()));
    }
    Ok(answer)
}
