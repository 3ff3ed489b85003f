//! The control of the experiment: no part of the signer takes part in it.

use std::path::Path;
use std::process::Command;

use testkit::authority::{Authority, identity};
use testkit::ct_log::CtLog;
use testkit::envelope::Envelope;
use testkit::fulcio::{Fulcio, OidcIssuer};
use testkit::fulcio_client::{Applicant, Target, bundle};
use testkit::pki::Pki;
use testkit::trusted_root::TrustedRoot;
use testkit::tsa::TimestampServer;
use testkit::verifiers::{self, Claim, Signer, Verifier, When, prove_offline};
use testkit::{later, sample};

#[test]
#[ignore = "needs fulcio, timestamp-server and all verifiers: cargo xtask test keyless"]
fn all_verifiers_accept_a_plain_clients_bundle_now_and_later_and_refuse_another_payload() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::generate(&dir.path().join("pki")).unwrap();
    let authority = Authority::start(&pki).unwrap();
    let log = CtLog::start(&pki).unwrap();
    let issuer = OidcIssuer { url: authority.issuer(), ca: pki.server_ca.certificate.clone() };
    let fulcio = Fulcio::start(&pki, dir.path(), Some(&log), &[issuer]).unwrap();
    let tsa = TimestampServer::start(&pki, dir.path(), "tsa").unwrap();

    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "app", "digest": {"sha256": sample::SUBJECT_SHA256}}],
        "predicateType": "stella.ops/sbom@v1",
        "predicate": sample::sbom(1),
    });
    let payload = statement.to_string().into_bytes();
    let envelope = Envelope {
        payload_type: "application/vnd.in-toto+json".into(),
        payload: payload.clone(),
        keyid: String::new(),
        signature: vec![],
    };
    let applicant = Applicant::new().unwrap();
    let token = authority.mint_identity("acme").encode();
    let target = Target::new(&fulcio.url(), pki.server_roots()).unwrap();
    let chain = target.certify(&token, &applicant.csr).unwrap_or_else(|error| panic!("{error}\n{}", fulcio.log()));
    let signature = applicant.sign(&envelope.pae()).unwrap();
    let timestamp = Target::new(&tsa.url(), pki.server_roots()).unwrap().timestamp(&signature).unwrap();

    let root = TrustedRoot::new().certificate_authority(&fulcio.ca.chain()).timestamp_authority(&tsa.chain);
    let trusted_root = dir.path().join("trusted_root.json");
    root.ct_log(&log.key).write(&trusted_root).unwrap();
    let good = dir.path().join("good.sigstore.json");
    std::fs::write(&good, bundle(&payload, &signature, &chain[0], &timestamp).to_string()).unwrap();
    let bad = dir.path().join("bad.sigstore.json");
    let tampered = String::from_utf8(payload).unwrap().replace("component-000000", "component-000009").into_bytes();
    std::fs::write(&bad, bundle(&tampered, &signature, &chain[0], &timestamp).to_string()).unwrap();

    prove_offline().unwrap();
    let mut wrong = Vec::new();
    for verifier in VERIFIERS {
        for (bundle, when, expected) in
            [(&good, When::Now, true), (&good, When::Later(3600), true), (&bad, When::Now, false)]
        {
            let claim = Claim {
                bundle: bundle.clone(),
                trusted_root: trusted_root.clone(),
                digest: sample::SUBJECT_SHA256.into(),
                predicate_type: "stella.ops/sbom@v1".into(),
                by: Signer::Identity { san: identity("acme"), issuer: authority.issuer() },
            };
            let started = std::time::Instant::now();
            let output = verifier.ask(&claim, when).unwrap();
            println!("{verifier:?} {when:?} {expected}: {} in {:?}", output.status, started.elapsed());
            if output.status.success() != expected {
                wrong.push(format!("{verifier:?} {when:?} {expected}: {output:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cosign_believes_the_moved_clock(dir.path(), &trusted_root, &good, &authority.issuer());
}

/// That the clock was moved for programs in Go as well: without the timestamp, cosign judges by its clock.
fn cosign_believes_the_moved_clock(dir: &Path, trusted_root: &Path, bundle: &Path, issuer: &str) {
    let mut unstamped: serde_json::Value = serde_json::from_slice(&std::fs::read(bundle).unwrap()).unwrap();
    unstamped["verificationMaterial"].as_object_mut().unwrap().remove("timestampVerificationData");
    let file = dir.join("unstamped.sigstore.json");
    std::fs::write(&file, unstamped.to_string()).unwrap();
    let mut cosign = Command::new(testkit::peers::cosign().unwrap());
    cosign
        .args(["verify-blob-attestation", "--insecure-ignore-tlog", "--type", "stella.ops/sbom@v1", "--digestAlg"])
        .args(["sha256", "--digest", sample::SUBJECT_SHA256, "--certificate-identity", &identity("acme")])
        .args(["--certificate-oidc-issuer", issuer, "--trusted-root"])
        .arg(trusted_root)
        .arg("--bundle")
        .arg(file)
        .env("HOME", dir);
    let cosign = verifiers::offline(&cosign);
    for (seconds, expected) in [(0, true), (300, true), (900, false), (-900, false)] {
        let output = later::run(&cosign, seconds).unwrap();
        assert_eq!(output.status.success(), expected, "{seconds} s later: {output:?}");
    }
}

const VERIFIERS: [Verifier; 5] =
    [Verifier::Cosign, Verifier::CosignV2, Verifier::SigstoreGo, Verifier::SigstoreJs, Verifier::SigstoreRs];
