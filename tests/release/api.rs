//! The appliance: what it signs, what it answers, records and counts, by a registry's word.

use serde_json::{Value, json};
use testkit::registry::{Reply, referrers_path};
use testkit::{Fixture, sample};

use crate::stage::{Stage, signature_sha256};

/// An appliance that trusts the stage's release key and asks its registry.
fn appliance(stage: &Stage) -> Fixture {
    let (key, url) = (stage.file("release.pub").display().to_string(), stage.registry.repository());
    Fixture::builder()
        .settings(move |settings, _| {
            let table = |text: &str| toml::Value::Table(text.parse().unwrap());
            let identity = table(&format!("name = \"release team\"\npublic_key = \"{key}\""));
            settings.set("release.identity", toml::Value::Array(vec![identity]));
            settings.set("release.repository", toml::Value::Array(vec![table(&format!("url = \"{url}\""))]));
            settings.set("release.untrusted_ttl", "1s");
        })
        .start()
}

fn request(image: &str) -> Value {
    let mut request = sample::request();
    request["scannerImageDigest"] = image.into();
    request
}

fn ask(fixture: &Fixture, query: &str) -> testkit::client::Answer {
    fixture.client().referrers(query).send()
}

#[test]
fn evidence_is_signed_for_a_scanner_that_is_released_and_the_record_names_its_signature() {
    let stage = Stage::new();
    let good = stage.good();
    let signature = stage.attach(&good);
    stage.registry.referrers(&stage.image, std::slice::from_ref(&signature));
    let fixture = appliance(&stage);
    let answer = fixture.client().sign(&request(&stage.image)).send().expect(200);
    let records = fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
    let intent = records.iter().find(|record| record["kind"] == "intent").unwrap();
    assert_eq!(intent["imageDigest"], stage.image.as_str());
    assert_eq!(intent["releaseSignedBy"], "release team");
    assert_eq!(intent["releaseEvidence"], "sigstore_bundle");
    assert_eq!(intent["releaseSignature"], signature.digest());
    assert_eq!(intent["releaseSignatureSha256"], signature_sha256(&good));
    // Once more, and nobody is asked.
    let asked = stage.registry.exchanges().len();
    fixture.client().sign(&request(&stage.image)).send().expect(200);
    assert_eq!(stage.registry.exchanges().len(), asked);
    let metrics = fixture.appliance.metrics().unwrap();
    assert_eq!(metrics.count("signer_release_verdicts_at_hand_total", &[]), 1);
    assert_eq!(metrics.count("signer_release_look_ups_total", &[("result", "trusted")]), 1);
    // The operator's own list needs no registry.
    fixture.client().sign(&sample::request()).send().expect(200);
}

#[test]
fn no_signature_for_a_scanner_that_nobody_released() {
    let stage = Stage::new();
    stage.attach_all(&[stage.bundle(&stage.image, "https://slsa.dev/provenance/v1")]);
    let fixture = appliance(&stage);
    let answer = fixture.client().sign(&request(&stage.image)).send();
    let problem = answer.problem();
    assert_eq!((answer.status, &*problem.code), (403, "release_untrusted"));
    let records = fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
    assert_eq!(records.len(), 1, "no intent");
    assert_eq!(records[0]["reason"], "release_predicate_type");
    assert_eq!(records[0]["imageDigest"], stage.image.as_str());
    let metrics = fixture.appliance.metrics().unwrap();
    let labels = [("reason", "release_predicate_type")];
    assert_eq!(metrics.count("signer_release_verify_failures_total", &labels), 1);
}

#[test]
fn a_registry_that_cannot_be_asked_is_a_503_and_never_a_pass() {
    let stage = Stage::new();
    stage.registry.answer(&referrers_path(&stage.image), Reply::status(502));
    let fixture = appliance(&stage);
    let answer = fixture.client().sign(&request(&stage.image)).send();
    assert_eq!((answer.status, &*answer.problem().code), (503, "dependency_unavailable"));
    assert!(answer.header("retry-after").is_some());
    let answer = ask(&fixture, &format!("?imageDigest={}", stage.image));
    assert_eq!((answer.status, &*answer.problem().code), (503, "dependency_unavailable"));
    let metrics = fixture.appliance.metrics().unwrap();
    let labels = [("reason", "release_registry_status")];
    assert!(metrics.count("signer_release_verify_failures_total", &labels) >= 2);
    // It comes back, and so does the appliance.
    stage.attach_all(&[stage.good()]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while fixture.client().sign(&request(&stage.image)).send().status != 200 {
        assert!(std::time::Instant::now() < deadline, "the outage outlasts the registry's");
    }
}

#[test]
fn whoever_may_read_can_ask_for_the_verdict() {
    let stage = Stage::new();
    let good = stage.good();
    let (signature, sha256) = (stage.attach(&good), signature_sha256(&good));
    stage.registry.referrers(&stage.image, std::slice::from_ref(&signature));
    let fixture = appliance(&stage);
    let escaped = stage.image.replace(':', "%3A");
    for query in [format!("?imageDigest={}", stage.image), format!("?imageDigest={escaped}")] {
        let answer = ask(&fixture, &query).expect(200);
        let mut body = answer.json();
        let audit_id = body["auditId"].take();
        body.as_object_mut().unwrap().remove("auditId");
        assert_eq!(
            body,
            json!({
                "trusted": true, "imageDigest": stage.image,
                "signatures": [{
                    "type": "cosign", "digest": signature.digest(), "signatureSha256": sha256,
                    "signedBy": "release team",
                }],
            })
        );
        let records = fixture.appliance.audit_of(audit_id.as_str().unwrap()).unwrap();
        assert_eq!(
            (&records[0]["operation"], &records[0]["outcome"]),
            (&json!("verify_referrers"), &json!("answered"))
        );
        assert_eq!(records[0]["releaseSignature"], signature.digest());
        assert_eq!(records[0]["releaseSignatureSha256"], *sha256);
    }
    let other = format!("sha256:{}", "ab".repeat(32));
    let answer = ask(&fixture, &format!("?imageDigest={other}")).expect(200);
    let body = answer.json();
    assert_eq!((&body["trusted"], &body["reason"]), (&json!(false), &json!("release_not_signed")));
    assert_eq!(body["signatures"], json!([]));
    let records = fixture.appliance.audit_of(body["auditId"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&records[0]["imageDigest"], &records[0]["releaseUntrusted"]),
        (&json!(other), &json!("release_not_signed"))
    );
    // By the operator's own word.
    let body = ask(&fixture, &format!("?imageDigest={}", sample::SCANNER_IMAGE)).expect(200).json();
    assert_eq!((&body["trusted"], &body["signatures"][0]["type"]), (&json!(true), &json!("operator")));

    for wrong in
        ["", "?imageDigest=", "?imageDigest=latest", "?imageDigest=sha256:AB", "?x=y", "?imageDigest=a&imageDigest=b"]
    {
        let answer = ask(&fixture, wrong);
        assert_eq!((answer.status, &*answer.problem().code), (400, "invalid_request"), "{wrong}");
    }
}
