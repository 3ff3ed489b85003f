//! `POST /verify/dsse`: JSON that is no envelope, and envelopes that prove nothing.

#![forbid(unsafe_code)]

use serde_json::{Value, json};
use testkit::{base64, client::Call};

use crate::case::{Case, Expect};
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let malformed = |&(name, naming, edit): &(&str, &str, fn(&mut Value))| {
        let call = move |world: &World| {
            let mut envelope = envelope();
            edit(&mut envelope);
            world.client().verify(&envelope)
        };
        Case::call(format!("verify: {name}"), Expect::invalid(naming), call)
    };
    let mut cases: Vec<Case> = MALFORMED.iter().map(malformed).collect();
    cases.extend(CALLS.iter().map(|&(name, ref expect, call)| Case::call(format!("verify: {name}"), expect(), call)));
    cases
}

const MALFORMED: [(&str, &str, fn(&mut Value)); 15] = [
    ("text for an envelope", "envelope", |e| *e = json!("envelope")),
    ("no payloadType", "payloadType", |e| drop(e.as_object_mut().unwrap().remove("payloadType"))),
    ("another payloadType", "payloadType", |e| e["payloadType"] = json!("text/plain")),
    ("no payload", "payload", |e| drop(e.as_object_mut().unwrap().remove("payload"))),
    ("a payload that is no base64", "payload", |e| e["payload"] = json!("{}")),
    ("a payload with bits behind its end", "payload", |e| e["payload"] = json!("e31=")),
    ("a payload with a line feed", "payload", |e| e["payload"] = json!("e30=\n")),
    ("no signatures", "signatures", |e| e["signatures"] = json!([])),
    ("two signatures", "signatures", |e| e["signatures"] = json!([{"sig": "AA=="}, {"sig": "AA=="}])),
    ("a signature that is text", "signatures[0]", |e| e["signatures"] = json!(["AA=="])),
    ("a signature without sig", "sig", |e| e["signatures"] = json!([{"keyid": "x"}])),
    ("a sig that is no base64", "sig", |e| e["signatures"][0]["sig"] = json!("?")),
    ("a keyid that is a number", "keyid", |e| e["signatures"][0]["keyid"] = json!(7)),
    ("an unknown member", "verified", |e| e["verified"] = json!(true)),
    ("an unknown member in the signature", "cert", |e| e["signatures"][0]["cert"] = json!("x")),
];

type Row = (&'static str, fn() -> Expect, fn(&World) -> Call);

const CALLS: [Row; 5] = [
    (
        "a member beside the envelope",
        || Expect::invalid("key"),
        |w| w.client().verify(&envelope()).body(|body| body["key"] = json!("trust me")),
    ),
    (
        "a body that breaks off",
        || Expect::invalid("too early"),
        |w| w.client().verify(&envelope()).raw_body("{\"envelope\":"),
    ),
    (
        "a token without a scope",
        || Expect::problem(403, "insufficient_scope", "optok_scope"),
        |w| w.client().verify(&envelope()).token(|token| token.claim("scope", "openid")),
    ),
    ("a signature that is no DER", || Expect::Unverified, |w| w.client().verify(&envelope())),
    (
        "a signature of another tenant's key",
        || Expect::Unverified,
        |w| {
            let answer = w.expect_signed(w.fixture.globex().sign(&testkit::sample::request()));
            w.client().verify(&answer.envelope_json())
        },
    ),
];

/// Well-formed, and signed by nobody.
fn envelope() -> Value {
    json!({
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64("{}"),
        "signatures": [{"keyid": "SHA256:unknown", "sig": "AA=="}],
    })
}
