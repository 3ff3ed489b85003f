//! Keyless signing: with a real Fulcio, a real timestamp authority and real verifiers, and with a Fulcio that is hostile.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod fulcio;
mod helper;
mod hostile;
mod identity;
mod outages;
mod privileged;
mod reuse;
mod stamps;

use serde_json::Value;
use testkit::Fixture;
use testkit::client::Answer;

/// That an answer is a refusal with this status and code, and that its record says why.
#[track_caller]
fn assert_refused(fixture: &Fixture, answer: &Answer, code: &str, reason: &str) -> Value {
    assert_eq!(answer.refusal(), (503, code.to_owned()), "{answer}");
    assert!(!answer.text().contains("BEGIN CERTIFICATE") && !answer.text().contains("signatures"), "{answer}");
    let records = fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
    let refusal = records.iter().find(|record| record["reason"].is_string());
    let refusal = refusal.unwrap_or_else(|| panic!("no record says why: {records:?}"));
    assert_eq!(refusal["reason"], reason, "{refusal}");
    refusal.clone()
}
