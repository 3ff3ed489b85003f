//! The Signer API over mTLS: signing by both bindings, keys, verification, readiness, both HTTP versions, and curl.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::process::Command;

use http::Version;
use serde_json::{Value, json};
use testkit::client::Answer;
use testkit::{Fixture, base64, envelope, sample, schema, shell};

#[test]
fn a_dpop_bound_caller_gets_a_statement_signed_by_the_tenants_key() {
    let fixture = Fixture::start();
    let answer = fixture.client().sign(&sample::request()).send().expect(200);
    let envelope = answer.envelope();
    envelope.verify(&fixture.keys.acme.point).unwrap();
    assert_eq!(envelope.keyid, envelope::keyid(&fixture.keys.acme.point));
    assert_eq!(envelope.payload_type, "application/vnd.in-toto+json");
    assert_eq!(
        envelope.statement().unwrap(),
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": sample::request()["subject"],
            "predicateType": "stella.ops/sbom@v1",
            "predicate": sample::request()["predicate"],
        })
    );
    let body = answer.json();
    assert_eq!((&body["bundle"]["mode"], &body["policy"]["plan"]), (&json!("kms"), &json!("pro")));
    assert_eq!(body["policy"]["maxArtifactBytes"], 32 * 1024 * 1024);
}

#[test]
fn a_certificate_bound_caller_gets_the_same() {
    let fixture = Fixture::start();
    let answer = fixture.client().bound_by_certificate().sign(&sample::request()).send().expect(200);
    answer.envelope().verify(&fixture.keys.acme.point).unwrap();
}

#[test]
fn each_tenant_signs_by_its_own_key() {
    let fixture = Fixture::start();
    let envelope = fixture.globex().sign(&sample::request()).send().expect(200).envelope();
    envelope.verify(&fixture.keys.globex.point).unwrap();
    assert!(envelope.verify(&fixture.keys.acme.point).is_err());
}

#[test]
fn the_poe_may_come_in_the_header_and_may_be_proven_online() {
    let fixture = Fixture::start();
    let client = fixture.client();
    client.sign(&sample::request()).poe_in_header().send().expect(200);
    let opaque = fixture.licensing.register(&client.poe());
    for _ in 0..3 {
        client.sign(&sample::request()).poe_text("opaque", opaque.as_str()).send().expect(200);
    }
    assert_eq!(fixture.licensing.introspections(), 1, "the answer is cached");
}

#[test]
fn http_1_1_and_http_2_answer_alike() {
    let fixture = Fixture::start();
    let over_1 = fixture.client().sign(&sample::request()).send().expect(200);
    let over_2 = fixture.client().over_http2().sign(&sample::request()).send().expect(200);
    assert_eq!((over_1.version, over_2.version), (Version::HTTP_11, Version::HTTP_2));
    assert_eq!(over_1.envelope().payload, over_2.envelope().payload);
}

#[test]
fn keys_lists_active_next_and_retired_keys_with_their_state() {
    let fixture = Fixture::start();
    let listed = fixture.client().keys().send().expect(200).json();
    let listed = listed["keys"].as_array().unwrap();
    for (key, state) in
        [(&fixture.keys.acme, "active"), (&fixture.keys.acme_next, "next"), (&fixture.keys.acme_retired, "retired")]
    {
        let keyid = envelope::keyid(&key.point);
        let entry = listed
            .iter()
            .find(|entry| entry["kid"] == keyid.as_str())
            .unwrap_or_else(|| panic!("{keyid} in {listed:?}"));
        assert_eq!((&entry["state"], &entry["name"]), (&json!(state), &json!(key.label)), "{entry}");
        assert_eq!((&entry["kty"], &entry["crv"]), (&json!("EC"), &json!("P-256")), "{entry}");
    }
}

#[test]
fn verify_accepts_what_was_signed_and_refuses_what_was_changed() {
    let fixture = Fixture::start();
    let client = fixture.client();
    let mut envelope = client.sign(&sample::request()).send().expect(200).envelope_json();
    assert_eq!(client.verify(&envelope).send().expect(200).json()["verified"], true);
    envelope["payload"] = json!(base64("{}"));
    let verdict = client.verify(&envelope).send().expect(200).json();
    assert_eq!((&verdict["verified"], &verdict["reason"]), (&json!(false), &json!("signature_mismatch")));
}

#[test]
fn what_signs_nothing_has_a_rate_of_its_own_for_each_tenant() {
    let fixture = Fixture::builder().set("server.limits.reads_per_second", 3).start();
    let client = fixture.client();
    for _ in 0..3 {
        client.keys().send().expect(200);
    }
    let refused = client.keys().send().expect(429);
    assert_eq!(refused.json()["code"], "plan_throttled");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Another tenant's rate, and signing, are untouched.
    fixture.globex().keys().send().expect(200);
    client.sign(&sample::request()).send().expect(200);
}

#[test]
fn the_local_listener_tells_life_readiness_and_metrics() {
    let fixture = Fixture::start();
    fixture.client().sign(&sample::request()).send().expect(200);
    let local = |path: &str| fixture.appliance.local(path).unwrap().expect(200);
    local("/livez");
    assert_eq!(local("/readyz").json()["ready"], true);
    assert_eq!(fixture.appliance.token_status("main").unwrap()["name"], "main");
    local("/metrics");
    let metrics = fixture.appliance.metrics().unwrap();
    assert_eq!(metrics.count("signer_requests_total", &[("result", "signed")]), 1);
    assert_eq!(metrics.count("signer_kms_sign_total", &[]), 1);
}

#[test]
fn every_answer_has_its_intent_and_outcome_in_the_audit_log() {
    let fixture = Fixture::start();
    let answer = fixture.client().sign(&sample::request()).send().expect(200);
    let records = fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
    assert_eq!(records.len(), 2, "{records:?}");
    let refused = fixture.client().sign(&sample::request()).without_poe().send();
    let records = fixture.appliance.audit_of(&refused.problem().audit_id.unwrap()).unwrap();
    assert!(!records.is_empty());
    let all: String = fixture.appliance.audit().unwrap().iter().map(Value::to_string).collect();
    assert!(!all.contains("component-000000"), "no payload in the audit log");
}

#[test]
fn curl_signs_with_a_client_certificate_as_the_documents_show() {
    let fixture = Fixture::start();
    let client = fixture.client().bound_by_certificate();
    let request = fixture.dir().join("request.json");
    std::fs::write(&request, client.sign(&sample::request()).without_poe().body_bytes()).unwrap();
    let token_url = fixture.authority.token_url();
    let credentials = "grant_type=client_credentials&client_id=acme-ci&scope=signer.sign";
    let token = curl(&fixture, &[&token_url, "--data", credentials]);
    let token = token["access_token"].as_str().unwrap();
    let answer = curl(
        &fixture,
        &[
            "-H",
            &format!("Authorization: Bearer {token}"),
            "-H",
            &format!("X-PoE: {}", client.poe().encode()),
            "-H",
            "Content-Type: application/json",
            "--data",
            &format!("@{}", request.display()),
            &format!("{}/api/v1/signer/sign/dsse", fixture.appliance.url()),
        ],
    );
    let envelope = envelope::Envelope::read(&answer["bundle"]["dsse"]).unwrap();
    envelope.verify(&fixture.keys.acme.point).unwrap();
}

fn curl(fixture: &Fixture, arguments: &[&str]) -> Value {
    let pki = &fixture.pki;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail-with-body", "--cacert"]).arg(&pki.server_ca.certificate);
    curl.arg("--cert").arg(pki.acme.certificate()).arg("--key").arg(pki.acme.private_key()).args(arguments);
    serde_json::from_slice(&shell::run(&mut curl).unwrap()).unwrap()
}

#[test]
fn every_answer_is_what_the_openapi_document_says() {
    let document: Value = serde_json::from_str(include_str!("../docs/openapi.json")).unwrap();
    let described = |method: &str, path: &str, answer: &Answer| {
        let response = &document["paths"][path][method]["responses"][answer.status.to_string()];
        let media_type = answer.header("content-type").unwrap();
        let schema = &response["content"][media_type]["schema"];
        assert!(schema.is_object(), "{method} {path} answers {} {media_type}, which is not described", answer.status);
        schema::conforms(&answer.json(), schema, &document).unwrap_or_else(|error| panic!("{error}: {answer}"));
    };
    let fixture = Fixture::start();
    let client = fixture.client();
    let (sign, verify, keys) = ("/api/v1/signer/sign/dsse", "/api/v1/signer/verify/dsse", "/api/v1/signer/keys");
    for form in ["dsse", "dsse+cert", "sigstore"] {
        let call = client.sign(&sample::request()).body(|body| body["options"] = json!({ "returnBundle": form }));
        described("post", sign, &call.send().expect(200));
    }
    described("get", keys, &client.keys().send().expect(200));
    let envelope = client.sign(&sample::request()).send().expect(200).envelope_json();
    described("post", verify, &client.verify(&envelope).send().expect(200));
    let mut tampered = envelope.clone();
    tampered["payload"] = base64("{}").into();
    described("post", verify, &client.verify(&tampered).send().expect(200));
    let referrers = "/api/v1/signer/verify/referrers";
    let ask = |image: &str| client.referrers(&format!("?imageDigest={image}")).send();
    described("get", referrers, &ask(sample::SCANNER_IMAGE).expect(200));
    described("get", referrers, &ask(&format!("sha256:{}", "ab".repeat(32))).expect(200));
    for (method, path, status, refused) in [
        ("get", referrers, 400, ask("latest")),
        ("post", sign, 400, client.sign(&json!({})).send()),
        ("post", verify, 400, client.verify(&json!({})).send()),
        ("post", sign, 401, client.sign(&sample::request()).without_token().send()),
        ("get", keys, 401, client.keys().without_token().send()),
        ("post", sign, 403, client.sign(&sample::request()).without_poe().send()),
    ] {
        described(method, path, &refused.expect(status));
    }
}
