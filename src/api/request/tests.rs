#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

const IMAGE: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn good() -> Value {
    json!({
        "subject": [{ "name": "app", "digest": { "sha256": HEX } }],
        "predicateType": "stella.ops/sbom@v1",
        "predicate": { "components": [], "stellaops_version": "2026.1" },
        "scannerImageDigest": IMAGE,
        "poe": { "format": "jwt", "value": "a.b.c" },
        "options": { "signingMode": "kms", "expirySeconds": 600, "returnBundle": "sigstore" },
    })
}

fn parse(body: &Value) -> Result<SignRequest, RequestError> {
    SignRequest::parse(Bytes::from(body.to_string()))
}

/// The good request with one value replaced, or taken out where it is replaced by nothing.
fn changed(pointer: &str, value: Option<Value>) -> Value {
    let mut body = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match (body.pointer_mut(parent).unwrap(), value) {
        (Value::Object(members), Some(value)) => _ = members.insert(key.to_owned(), value),
        (Value::Object(members), None) => _ = members.remove(key),
        (Value::Array(elements), Some(value)) => elements[key.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer}"),
    }
    body
}

#[test]
fn a_good_request_is_read_whole() {
    let request = parse(&good()).unwrap();
    assert_eq!(request.predicate_type().uri, "stella.ops/sbom@v1");
    assert_eq!(request.scanner_image_digest(), IMAGE);
    assert_eq!(request.poe(), Some((PoeFormat::Jwt, "a.b.c")));
    assert_eq!(request.stellaops_version(), Some("2026.1"));
    let options = request.options();
    assert_eq!(options.signing_mode, Some(SigningMode::Kms));
    assert_eq!(options.expiry_seconds, Some(600));
    assert_eq!(options.return_bundle, ReturnBundle::Sigstore);

    let statement = request.into_statement();
    let expected = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "app", "digest": { "sha256": HEX } }],
        "predicateType": "stella.ops/sbom@v1",
        "predicate": { "components": [], "stellaops_version": "2026.1" },
    });
    assert_eq!(statement.subjects()[0].name.as_deref(), Some("app"));
    assert_eq!(statement.canonical(), &serde_json_canonicalizer::to_vec(&expected).unwrap());
}

#[test]
fn what_may_be_missing_has_its_default() {
    let mut body = good();
    for optional in ["poe", "options"] {
        body.as_object_mut().unwrap().remove(optional);
    }
    body["predicate"] = json!({});
    body["subject"][0].as_object_mut().unwrap().remove("name");
    let request = parse(&body).unwrap();
    assert_eq!(request.poe(), None);
    assert_eq!(request.options(), Options::default());
    assert_eq!(request.options().return_bundle, ReturnBundle::DsseCert);
    assert_eq!(request.stellaops_version(), None);
    assert_eq!(request.into_statement().subjects()[0].name, None);
    assert_eq!(parse(&changed("/options", Some(json!({})))).unwrap().options(), Options::default());
}

#[test]
fn every_digest_algorithm_of_the_list_is_accepted_in_its_length() {
    for (algorithm, length) in [
        ("sha256", 64),
        ("sha384", 96),
        ("sha512", 128),
        ("sha224", 56),
        ("sha512_224", 56),
        ("sha512_256", 64),
        ("sha3_224", 56),
        ("sha3_256", 64),
        ("sha3_384", 96),
        ("sha3_512", 128),
        ("blake2b", 128),
        ("blake2s", 64),
        ("sm3", 64),
        ("dirHash", 64),
        ("dirHash1", 64),
        ("gitCommit", 40),
        ("gitCommit", 64),
        ("gitTree", 40),
        ("gitBlob", 40),
        ("gitTag", 64),
    ] {
        let body = changed("/subject/0/digest", Some(json!({ algorithm: "a".repeat(length) })));
        assert!(parse(&body).is_ok(), "{algorithm}");
        let short = changed("/subject/0/digest", Some(json!({ algorithm: "a".repeat(length - 2) })));
        assert!(parse(&short).is_err(), "{algorithm}");
    }
    let beside = json!({ "md5": "a".repeat(32), "sha1": "a".repeat(40), "ripemd160": "a".repeat(40), "sha256": HEX });
    assert!(parse(&changed("/subject/0/digest", Some(beside))).is_ok());
}

#[test]
fn what_is_wrong_is_named_with_its_path_and_what_would_be_right() {
    let subject = |count: usize| json!(vec![json!({ "digest": { "sha256": HEX } }); count]);
    let digests: serde_json::Map<String, Value> = (0..33).map(|n| (format!("x{n}"), json!(HEX))).collect();
    for (pointer, value, expected) in [
        ("/subject", None, "$.subject: missing; must be an array of artifacts"),
        ("/subject", Some(json!({})), "$.subject: must be an array of 1 to 1024 artifacts"),
        ("/subject", Some(json!([])), "$.subject: must be an array of 1 to 1024 artifacts"),
        ("/subject", Some(subject(1025)), "$.subject: must be an array of 1 to 1024 artifacts"),
        ("/subject/0", Some(json!("app")), "$.subject[0]: must be an object with `name` and `digest`"),
        ("/subject/0/uri", Some(json!("x")), "$.subject[0].uri: unknown member; allowed are `name` and `digest`"),
        ("/subject/0/name", Some(json!(1)), "$.subject[0].name: must be a string of"),
        ("/subject/0/name", Some(json!("")), "$.subject[0].name: is empty"),
        ("/subject/0/name", Some(json!("a\nb")), "$.subject[0].name: has a control character"),
        ("/subject/0/name", Some(json!("x".repeat(2049))), "$.subject[0].name: longer than 2048 bytes"),
        ("/subject/0/digest", None, "$.subject[0].digest: missing; must be an object of lowercase"),
        ("/subject/0/digest", Some(json!({})), "$.subject[0].digest: must be an object of 1 to 32 digests"),
        ("/subject/0/digest", Some(json!([])), "$.subject[0].digest: must be an object of 1 to 32 digests"),
        (
            "/subject/0/digest",
            Some(Value::Object(digests)),
            "$.subject[0].digest: must be an object of 1 to 32 digests",
        ),
        (
            "/subject/0/digest/SHA256",
            Some(json!(HEX)),
            "$.subject[0].digest.SHA256: is no digest algorithm here; use sha256",
        ),
        ("/subject/0/digest/sha256", Some(json!(1)), "$.subject[0].digest.sha256: must be a string of lowercase hex"),
        ("/subject/0/digest/sha256", Some(json!("ab")), "$.subject[0].digest.sha256: must be 64 lowercase hex digits"),
        (
            "/subject/0/digest/sha256",
            Some(json!(HEX.to_uppercase())),
            "$.subject[0].digest.sha256: must be 64 lowercase hex",
        ),
        (
            "/subject/0/digest/sha256",
            Some(json!("g".repeat(64))),
            "$.subject[0].digest.sha256: must be 64 lowercase hex",
        ),
        ("/subject/0/digest/sha256", Some(json!("a".repeat(300))), "$.subject[0].digest.sha256: longer than"),
        (
            "/subject/0/digest/gitCommit",
            Some(json!("ab")),
            "$.subject[0].digest.gitCommit: must be 40 or 64 lowercase hex digits",
        ),
        (
            "/subject/0/digest",
            Some(json!({ "sha1": "a".repeat(40) })),
            "$.subject[0].digest: md5, sha1 and ripemd160 do not identify",
        ),
        ("/predicateType", None, "$.predicateType: missing"),
        ("/predicateType", Some(json!(null)), "$.predicateType: must be a predicate type"),
        ("/predicateType", Some(json!("sbom")), "$.predicateType: is not in the catalog"),
        ("/predicateType", Some(json!("x".repeat(1000))), "$.predicateType: longer than"),
        ("/predicate", None, "$.predicate: missing"),
        ("/predicate", Some(json!([])), "$.predicate: must be an object"),
        ("/predicate", Some(json!("{}")), "$.predicate: must be an object"),
        ("/predicate/stellaops_version", Some(json!(2026)), "$.predicate.stellaops_version: must be a string"),
        ("/scannerImageDigest", None, "$.scannerImageDigest: missing; must be `sha256:`"),
        ("/scannerImageDigest", Some(json!(HEX)), "$.scannerImageDigest: must be `sha256:`"),
        ("/scannerImageDigest", Some(json!(IMAGE.to_uppercase())), "$.scannerImageDigest: must be `sha256:`"),
        ("/scannerImageDigest", Some(json!("sha256:ab")), "$.scannerImageDigest: must be `sha256:`"),
        ("/scannerImageDigest", Some(json!(format!("{IMAGE}0"))), "$.scannerImageDigest: longer than 71 bytes"),
        ("/poe", Some(json!("a.b.c")), "$.poe: must be an object with `format` and `value`"),
        ("/poe", Some(json!(null)), "$.poe: must be an object with `format` and `value`"),
        ("/poe/format", None, "$.poe.format: missing; must be `jwt` or `opaque`"),
        ("/poe/format", Some(json!("JWT")), "$.poe.format: must be `jwt` or `opaque`"),
        ("/poe/value", None, "$.poe.value: missing"),
        ("/poe/value", Some(json!(7)), "$.poe.value: must be a string"),
        ("/poe/more", Some(json!(1)), "$.poe.more: unknown member; allowed are `format` and `value`"),
        (
            "/options",
            Some(json!([])),
            "$.options: must be an object with `signingMode`, `expirySeconds` and `returnBundle`",
        ),
        ("/options/signingMode", Some(json!("hsm")), "$.options.signingMode: must be `kms` or `keyless`"),
        ("/options/expirySeconds", Some(json!(59)), "$.options.expirySeconds: must be an integer from 60 to 3600"),
        ("/options/expirySeconds", Some(json!(3601)), "$.options.expirySeconds: must be an integer from 60 to 3600"),
        ("/options/expirySeconds", Some(json!(600.5)), "$.options.expirySeconds: must be an integer from 60 to 3600"),
        ("/options/expirySeconds", Some(json!("600")), "$.options.expirySeconds: must be an integer from 60 to 3600"),
        ("/options/expirySeconds", Some(json!(-600)), "$.options.expirySeconds: must be an integer from 60 to 3600"),
        (
            "/options/returnBundle",
            Some(json!("all")),
            "$.options.returnBundle: must be `dsse`, `dsse+cert` or `sigstore`",
        ),
        (
            "/options/returnBundle",
            Some(json!(null)),
            "$.options.returnBundle: must be `dsse`, `dsse+cert` or `sigstore`",
        ),
        ("/subjects", Some(json!([])), "$.subjects: unknown member; allowed are `subject`"),
        ("/odd key\n", Some(json!(1)), "$[\"odd key\\n\"]: unknown member"),
    ] {
        let error = parse(&changed(pointer, value)).unwrap_err().to_string();
        assert!(error.contains(&format!(": {expected}")), "{pointer}: {error}");
    }
}

#[test]
fn what_is_not_strict_json_is_refused_before_its_content_is_looked_at() {
    let good = good().to_string();
    for (body, expected) in [
        (String::new(), "the body is not accepted as JSON: line 1, column 1 (byte 0), in $: the document is empty"),
        ("[]".to_owned(), "the body is not what this route reads: $: must be an object with `subject`"),
        (format!("{good}x"), "the body is not accepted as JSON:"),
        (good.replacen('{', "{\"poe\":1,", 1), "the body is not accepted as JSON:"),
        (good.replace("\"components\":[]", "\"a\":1,\"\\u0061\":2"), "the body is not accepted as JSON:"),
        (good.replace("\"components\":[]", "\"n\":9007199254740993"), "the body is not accepted as JSON:"),
    ] {
        let error = SignRequest::parse(Bytes::from(body)).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let error =
        SignRequest::parse(Bytes::from(good.replace("\"components\":[]", "\"a\":[{\"n\":1e999}]"))).unwrap_err();
    assert!(error.to_string().contains("in $.predicate.a[0].n: a number"), "{error}");
}

#[test]
fn neither_evidence_nor_poe_shows_in_debug_output_or_errors() {
    let mut body = good();
    body["predicate"] = json!({ "note": "evidence-text" });
    let shown = format!("{:?}", parse(&body).unwrap());
    assert!(!shown.contains("evidence-text") && !shown.contains("a.b.c"), "{shown}");
    body["poe"]["format"] = json!("secret token");
    let error = format!("{:?}", parse(&body).unwrap_err());
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_verify_request_holds_one_envelope() {
    let envelope = json!({ "payloadType": "application/vnd.in-toto+json", "payload": "e30=", "signatures": [{ "keyid": "k", "sig": "AQ==" }] });
    let parse = |body: &Value| VerifyRequest::parse(Bytes::from(body.to_string()));
    let read = parse(&json!({ "envelope": envelope })).unwrap().envelope;
    assert_eq!((&read.payload[..], read.keyid.as_deref(), &read.signature[..]), (&b"{}"[..], Some("k"), &[1][..]));
    for (body, expected) in [
        (json!({}), "$.envelope: missing"),
        (envelope.clone(), "$.payload: unknown member; allowed are `envelope`"),
        (json!({ "envelope": envelope, "key": 1 }), "$.key: unknown member"),
    ] {
        let error = parse(&body).unwrap_err().to_string();
        assert!(error.contains(&format!(": {expected}")), "{error}");
    }
    let many = json!([{ "sig": "AA==" }, { "sig": "AA==" }]);
    for (pointer, value, expected) in [
        ("payloadType", Some(json!("text/plain")), "$.envelope.payloadType: must be `application/vnd.in-toto+json`"),
        ("payloadType", None, "$.envelope.payloadType: missing"),
        ("payload", Some(json!("e30")), "$.envelope.payload: must be padded base64"),
        ("payload", Some(json!("e31=")), "$.envelope.payload: must be padded base64"),
        ("payload", Some(json!("e30=\n")), "$.envelope.payload: must be padded base64"),
        ("payload", Some(json!(7)), "$.envelope.payload: must be padded base64"),
        ("signatures", Some(json!({})), "$.envelope.signatures: must be an array of 1 signature"),
        ("signatures", Some(json!([])), "$.envelope.signatures: must be an array of 1 signature"),
        ("signatures", Some(many), "$.envelope.signatures: must be an array of 1 signature"),
        ("signatures", Some(json!(["AA=="])), "$.envelope.signatures[0]: must be an object"),
        ("signatures", Some(json!([{ "keyid": "k" }])), "$.envelope.signatures[0].sig: missing"),
        ("signatures", Some(json!([{ "sig": "?" }])), "$.envelope.signatures[0].sig: must be padded base64"),
        (
            "signatures",
            Some(json!([{ "keyid": 7, "sig": "AA==" }])),
            "$.envelope.signatures[0].keyid: must be a string",
        ),
        ("signatures", Some(json!([{ "sig": "AA==", "cert": "x" }])), "$.envelope.signatures[0].cert: unknown member"),
        ("extra", Some(json!(1)), "$.envelope.extra: unknown member"),
    ] {
        let mut wrong = envelope.clone();
        match value {
            Some(value) => wrong[pointer] = value,
            None => _ = wrong.as_object_mut().unwrap().remove(pointer),
        }
        let error = parse(&json!({ "envelope": wrong })).unwrap_err().to_string();
        assert!(error.contains(&format!(": {expected}")), "{error}");
    }
}
