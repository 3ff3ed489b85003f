//! What each kind of record says.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::*;
use super::{lines, open, wait};
use crate::auth::{Caller, PeerCertificate, SenderKey};
use crate::clock::UnixTime;
use crate::config::SigningMode;
use crate::entitlement::{Entitlement, Limits};

#[test]
fn each_kind_of_record_says_what_an_auditor_needs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let audit_id = AuditId::new();
    let peer = PeerCertificate { thumbprint: [1; 32], subject: "CN=scanner \"7\"".into() };
    let caller = Caller {
        tenant: "acme".into(),
        subject: "scanner-7".into(),
        client_id: Some("client".into()),
        token_id: "jti-1".into(),
        installation: None,
        sender: SenderKey::Dpop([2; 32]),
        expires_at: UnixTime(0),
    };
    let entitlement = Entitlement {
        license_id: "lic-1".into(),
        customer_id: "cust-1".into(),
        plan: "pro".into(),
        limits: Limits { qps: 1, burst: 1, concurrency: 1, max_artifact_bytes: 1 },
        expires_at: UnixTime(0),
    };
    let subjects = [("sha256", "aa"); 20];
    let facts = Facts {
        remote: Some("192.0.2.1:4711".parse().unwrap()),
        peer: Some(&peer),
        caller: Some(&caller),
        entitlement: Some(&entitlement),
        image: Some("sha256:bb"),
        release: Some(ReleaseFacts {
            signed_by: "release@stella-ops.org",
            evidence: "sigstore_bundle",
            signature: Some("sha256:cc"),
            signature_sha256: Some("dd"),
        }),
        statement: Some(StatementFacts {
            predicate_type: "stella.ops/sbom@v1",
            subjects: &subjects,
            subject_count: 20,
            payload_sha256: &[3; 32],
            pae_sha256: &[4; 32],
        }),
        key: Some(KeyFacts { name: "acme-2026", keyid: "SHA256:x", token: "main" }),
        mode: Some(SigningMode::Kms),
        ..Facts::new(audit_id, "sign")
    };
    let refused = Refused {
        status: 503,
        code: "signing_unavailable",
        reason: "token_lost",
        step: None,
        detail: Some("no session"),
    };
    let latency = Duration::from_micros(1234);
    let (log, recovery) = open(&path);
    assert_eq!(recovery, Recovery { next_seq: 1, torn: None });
    for record in [
        Record::Intent(&facts),
        Record::Outcome { facts: &facts, refused: None, latency },
        Record::Outcome { facts: &facts, refused: Some(refused), latency },
        Record::Refusal { facts: &Facts::new(audit_id, "sign"), refused, latency },
        Record::ConnectionRefused {
            remote: "[2001:db8::1]:1".parse().unwrap(),
            reason: "no_certificate",
            detail: None,
        },
        Record::Event { event: "started", details: &[("version", Detail::Text("0.1.0")), ("pid", Detail::Number(7))] },
    ] {
        wait(log.append(&record)).unwrap();
    }
    let mut written = lines(&path);
    for line in &mut written {
        let time: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        assert!(jiff::Timestamp::now().duration_since(time).abs() < jiff::SignedDuration::from_mins(5));
        assert_eq!(line["time"].as_str().unwrap().len(), "2026-01-01T00:00:00.000000Z".len());
        line.as_object_mut().unwrap().remove("time");
    }
    let id = audit_id.to_string();
    let two = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";
    assert_eq!(
        written[0],
        json!({
            "seq": 1, "kind": "intent", "auditId": id, "operation": "sign", "remote": "192.0.2.1:4711",
            "peer": "CN=scanner \"7\"", "peerThumbprint": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
            "tenant": "acme", "subject": "scanner-7", "clientId": "client", "tokenId": "jti-1", "senderJkt": two,
            "license": "lic-1", "customer": "cust-1", "plan": "pro",
            "imageDigest": "sha256:bb", "releaseSignedBy": "release@stella-ops.org",
            "releaseEvidence": "sigstore_bundle", "releaseSignature": "sha256:cc", "releaseSignatureSha256": "dd",
            "predicateType": "stella.ops/sbom@v1", "subjects": vec!["sha256:aa"; 16], "subjectCount": 20,
            "payloadSha256": "03".repeat(32), "paeSha256": "04".repeat(32),
            "key": "acme-2026", "keyid": "SHA256:x", "token": "main", "mode": "kms",
        })
    );
    let outcome = json!({
        "seq": 2, "kind": "outcome", "auditId": id, "operation": "sign", "tenant": "acme", "subject": "scanner-7",
        "license": "lic-1", "customer": "cust-1", "plan": "pro", "key": "acme-2026", "keyid": "SHA256:x",
        "token": "main", "mode": "kms", "payloadSha256": "03".repeat(32), "outcome": "signed", "latencyMicros": 1234,
    });
    assert_eq!(written[1], outcome);
    assert_eq!(written[2]["outcome"], "failed");
    assert_eq!(written[2]["reason"], "token_lost");
    assert_eq!(
        written[3],
        json!({
            "seq": 4, "kind": "refusal", "auditId": id, "operation": "sign", "outcome": "refused", "status": 503,
            "code": "signing_unavailable", "reason": "token_lost", "detail": "no session", "latencyMicros": 1234,
        })
    );
    assert_eq!(
        written[4],
        json!({ "seq": 5, "kind": "connection_refused", "remote": "[2001:db8::1]:1", "reason": "no_certificate" })
    );
    assert_eq!(written[5], json!({ "seq": 6, "kind": "event", "event": "started", "version": "0.1.0", "pid": 7 }));
}

#[test]
fn the_longest_record_a_stranger_can_cause_fits_an_entry_of_64_kib() {
    // The worst of 256 bytes: each becomes an escape of six.
    let long: Arc<str> = "\u{1}".repeat(5000).into();
    let peer = PeerCertificate { thumbprint: [1; 32], subject: Arc::clone(&long) };
    let caller = Caller {
        tenant: Arc::clone(&long),
        subject: Arc::clone(&long),
        client_id: Some(Arc::clone(&long)),
        token_id: Arc::clone(&long),
        installation: Some(Arc::clone(&long)),
        sender: SenderKey::Certificate([2; 32]),
        expires_at: UnixTime(0),
    };
    let entitlement = Entitlement {
        license_id: Arc::clone(&long),
        customer_id: Arc::clone(&long),
        plan: Arc::clone(&long),
        limits: Limits { qps: 1, burst: 1, concurrency: 1, max_artifact_bytes: 1 },
        expires_at: UnixTime(0),
    };
    let digest = "f".repeat(128);
    let subjects = vec![("sha512_256", digest.as_str()); 1024];
    let facts = Facts {
        remote: Some("[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap()),
        peer: Some(&peer),
        caller: Some(&caller),
        entitlement: Some(&entitlement),
        image: Some(&long),
        release: Some(ReleaseFacts {
            signed_by: &long,
            evidence: "sigstore_bundle",
            signature: Some(&long),
            signature_sha256: Some(&digest),
        }),
        statement: Some(StatementFacts {
            predicate_type: &long,
            subjects: &subjects,
            subject_count: 1024,
            payload_sha256: &[3; 32],
            pae_sha256: &[4; 32],
        }),
        key: Some(KeyFacts { name: &long, keyid: &long, token: &long }),
        mode: Some(SigningMode::Keyless),
        ..Facts::new(AuditId::new(), "sign")
    };
    let refused = Refused { status: 503, code: "x", reason: "x", step: None, detail: Some(&long) };
    let mut line = Vec::new();
    file::push(&mut line, u64::MAX, &Record::Refusal { facts: &facts, refused, latency: Duration::MAX });
    assert!(line.len() < 65_535, "{}", line.len());
    assert!(line.len() > 20_000, "the test has lost its teeth: {}", line.len());
}
