//! Bodies that are JSON and no signing request.

#![forbid(unsafe_code)]

use serde_json::{Map, Value, json};
use testkit::client::Call;
use testkit::sample::{self, SUBJECT_SHA256};

use crate::case::{Case, Expect};
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let member = |&(name, naming, edit): &(&str, &str, BodyEdit)| {
        let call = move |world: &World| world.sign().body(edit);
        Case::call(format!("request: {name}"), Expect::invalid(naming), call)
    };
    let accepted = |&(name, call): &(&str, fn(&World) -> Call)| {
        Case::call(format!("request: {name} (is right)"), Expect::Accepted, call)
    };
    let mut cases: Vec<Case> = MEMBERS.iter().map(member).collect();
    for (pointer, naming, right) in TYPED {
        for (kind, value) in WRONG_VALUES.into_iter().filter(|(kind, _)| *kind != right) {
            let call = move |world: &World| world.sign().body(|body| set(body, pointer, value()));
            cases.push(Case::call(format!("request: {} as {kind}", &pointer[1..]), Expect::invalid(naming), call));
        }
    }
    cases.push(Case::call("request: an array", Expect::invalid("body"), |world| {
        world.sign().body_text(|text| format!("[{text}]"))
    }));
    cases.push(Case::call("request: PoE in a format that is none", Expect::invalid("poe.format"), |world| {
        world.sign().poe_text("saml", "x")
    }));
    cases.push(Case::call(
        "request: signingMode keyless, which this appliance does not have",
        Expect::invalid("keyless"),
        |world| world.sign().body(|body| body["options"] = json!({"signingMode": "keyless"})),
    ));
    cases.push(Case::call(
        "request: a predicate type that this tenant may not have signed",
        Expect::problem(403, "predicate_not_allowed", "").recorded("predicate_not_allowed"),
        |world| world.fixture.globex().fork().sign(&sample::request_about("stella.ops/vex@v1", &json!({}))),
    ));
    cases.push(Case::call(
        "request: a scanner image that nobody vouches for",
        Expect::Problem { status: 403, code: "release_untrusted", reason: None, recorded: None, naming: None },
        |world| world.sign().body(|body| body["scannerImageDigest"] = json!(format!("sha256:{}", "00".repeat(32)))),
    ));
    cases.extend(ACCEPTED.iter().map(accepted));
    cases
}

type BodyEdit = fn(&mut Value);

/// What is wrong, what the detail names, and the change.
const MEMBERS: [(&str, &str, BodyEdit); 41] = [
    ("no subject", "subject", |b| drop(remove(b, "subject"))),
    ("no predicateType", "predicateType", |b| drop(remove(b, "predicateType"))),
    ("no predicate", "predicate", |b| drop(remove(b, "predicate"))),
    ("no scannerImageDigest", "scannerImageDigest", |b| drop(remove(b, "scannerImageDigest"))),
    ("an unknown member at the top", "surprise", |b| b["surprise"] = json!(1)),
    ("an unknown member in a subject", "subject[0]", |b| b["subject"][0]["uri"] = json!("https://x.test")),
    ("an unknown member in the options", "dryRun", |b| b["options"] = json!({"dryRun": true})),
    ("members of a statement", "_type", |b| b["_type"] = json!("https://in-toto.io/Statement/v1")),
    ("a member in other capitals", "Subject", |b| b["Subject"] = b["subject"].clone()),
    ("a thousand unknown members", "member", |b| (0..1000).for_each(|n| b[format!("m{n}")] = json!(n))),
    ("no subjects", "subject", |b| b["subject"] = json!([])),
    ("1,025 subjects", "1024", |b| b["subject"] = Value::Array(vec![b["subject"][0].clone(); 1025])),
    ("a subject without a digest", "subject[0].digest", |b| drop(remove(&mut b["subject"][0], "digest"))),
    ("a second subject without a digest", "subject[1].digest", |b| {
        b["subject"].as_array_mut().unwrap().push(json!({"name": "second"}));
    }),
    ("an empty digest", "subject[0].digest", |b| b["subject"][0]["digest"] = json!({})),
    ("33 digests", "digest", |b| b["subject"][0]["digest"] = Value::Object(many_digests(33))),
    ("a name without a character", "subject[0].name", |b| b["subject"][0]["name"] = json!("")),
    ("a name of a megabyte", "subject[0].name", |b| b["subject"][0]["name"] = json!("n".repeat(1 << 20))),
    ("a digest in capitals", "sha256", |b| digest(b, "sha256", &SUBJECT_SHA256.to_uppercase())),
    ("a digest that is too short", "sha256", |b| digest(b, "sha256", &SUBJECT_SHA256[2..])),
    ("a digest that is too long", "sha256", |b| digest(b, "sha256", &format!("{SUBJECT_SHA256}00"))),
    ("a digest of an odd length", "sha256", |b| digest(b, "sha256", &SUBJECT_SHA256[1..])),
    ("a digest that is no hexadecimal", "sha256", |b| digest(b, "sha256", &"g".repeat(64))),
    ("a digest with its algorithm in front", "sha256", |b| digest(b, "sha256", &format!("sha256:{SUBJECT_SHA256}"))),
    ("a digest in base64", "sha256", |b| digest(b, "sha256", &testkit::base64([7; 32]))),
    ("a digest in letters that look like digits", "sha256", |b| digest(b, "sha256", &"\u{ff10}".repeat(64))),
    ("an unknown digest algorithm", "rot13", |b| digest(b, "rot13", SUBJECT_SHA256)),
    ("a digest algorithm in capitals", "SHA256", |b| digest(b, "SHA256", SUBJECT_SHA256)),
    ("a sha512 of 32 bytes", "sha512", |b| digest(b, "sha512", SUBJECT_SHA256)),
    ("a predicate type outside the catalog", "catalog", |b| b["predicateType"] = json!("https://attacker.test/v1")),
    ("a predicate type in other capitals", "catalog", |b| b["predicateType"] = json!("Stella.ops/sbom@v1")),
    ("a predicate type of another version", "catalog", |b| b["predicateType"] = json!("stella.ops/sbom@v2")),
    ("the wildcard as a predicate type", "catalog", |b| b["predicateType"] = json!("*")),
    ("an empty predicate type", "catalog", |b| b["predicateType"] = json!("")),
    ("a scanner digest without its algorithm", "scannerImageDigest", |b| {
        b["scannerImageDigest"] = json!(SUBJECT_SHA256);
    }),
    ("a scanner digest by sha512", "scannerImageDigest", |b| {
        b["scannerImageDigest"] = json!(format!("sha512:{}", "0".repeat(128)));
    }),
    ("a scanner digest in capitals", "scannerImageDigest", |b| {
        b["scannerImageDigest"] = json!(sample::SCANNER_IMAGE.to_uppercase());
    }),
    ("a scanner digest with a tag", "scannerImageDigest", |b| {
        b["scannerImageDigest"] = json!(format!("scanner:1.0@{}", sample::SCANNER_IMAGE));
    }),
    ("an unknown signing mode", "options.signingMode", |b| b["options"] = json!({"signingMode": "hsm"})),
    ("an expiry of 59 seconds", "options.expirySeconds", |b| b["options"] = json!({"expirySeconds": 59})),
    ("an expiry of 3,601 seconds", "options.expirySeconds", |b| b["options"] = json!({"expirySeconds": 3601})),
];

/// Members with the place that the detail names and the only kind of value that they may have.
const TYPED: [(&str, &str, &str); 10] = [
    ("/subject", "subject", "an array"),
    ("/subject/0", "subject[0]", "an object"),
    ("/subject/0/name", "subject[0].name", "text"),
    ("/subject/0/digest", "subject[0].digest", "an object"),
    ("/subject/0/digest/sha256", "sha256", "text"),
    ("/predicateType", "predicateType", "text"),
    ("/predicate", "predicate", "an object"),
    ("/scannerImageDigest", "scannerImageDigest", "text"),
    ("/options", "options", "an object"),
    ("/options/returnBundle", "options.returnBundle", ""),
];

const WRONG_VALUES: [(&str, fn() -> Value); 5] = [
    ("null", || Value::Null),
    ("a number", || json!(1.5)),
    ("text", || json!("text")),
    ("an array", || json!(["text"])),
    ("an object", || json!({"sha1": "x"})),
];

const ACCEPTED: [(&str, fn(&World) -> Call); 4] = [
    ("1,024 subjects", |w| w.sign().body(|b| b["subject"] = Value::Array(vec![b["subject"][0].clone(); 1024]))),
    ("a subject without a name", |w| w.sign().body(|b| drop(remove(&mut b["subject"][0], "name")))),
    ("an empty predicate", |w| w.sign().body(|b| b["predicate"] = json!({}))),
    ("a predicate with members of ours", |w| {
        w.sign().body(|b| b["predicate"] = json!({"subject": [], "poe": {"format": 1}, "options": null}))
    }),
];

fn digest(body: &mut Value, algorithm: &str, value: &str) {
    body["subject"][0]["digest"] = json!({algorithm: value});
}

fn remove(object: &mut Value, name: &str) -> Option<Value> {
    object.as_object_mut()?.remove(name)
}

fn many_digests(count: usize) -> Map<String, Value> {
    (0..count).map(|n| (format!("alg{n}"), json!(SUBJECT_SHA256))).collect()
}

fn set(body: &mut Value, pointer: &str, value: Value) {
    if pointer.starts_with("/options/") {
        body["options"] = json!({});
    }
    let (parent, name) = pointer.rsplit_once('/').expect("pointers begin with a slash");
    let parent = body.pointer_mut(parent).expect("the sample has it");
    match name.parse::<usize>() {
        Ok(index) => parent[index] = value,
        Err(_) => parent[name] = value,
    }
}
