//! What came back, held against what was sent.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use serde_json::Value;

use super::error::CtlError;
use super::output::plain;
use super::request::Expected;
use super::settings::BundleForm;
use super::subject::Subject;
use super::verify::form::{self, ApiAnswer};
use super::verify::{named_key, sole_signature, subjects_to_json};
use crate::statement::ReadStatement;

/// Reads the answer's body. Its payload is, byte for byte, the statement that the request asked for, or this is an
/// error. Its signature is not verified: no key is pinned here.
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
    if digest(&SHA256, &payload).as_ref() != expected.payload_sha256 {
        return Err(wrong(difference(payload, expected)));
    }
    Ok(answer)
}

/// In what a payload of another hash differs.
fn difference(payload: Vec<u8>, expected: &Expected) -> String {
    let statement = match ReadStatement::parse(Bytes::from(payload)) {
        Ok(statement) => statement,
        Err(error) => return plain(&error.to_string()),
    };
    let asked: Value = expected.subjects.iter().map(Subject::to_json).collect();
    if statement.predicate_type != expected.predicate_type {
        format!("its predicate type is `{}`", plain(&statement.predicate_type))
    } else if subjects_to_json(&statement.subjects) != asked {
        "its subjects are others".to_owned()
    } else {
        "its predicate is another, or is not in canonical form".to_owned()
    }
}
