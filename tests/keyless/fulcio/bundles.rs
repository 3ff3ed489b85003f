//! Bundles of the appliance, with a certificate and with a key of a token, before verifiers that are not ours.
//!
//! Each is asked without a network, now, and with a clock that is an hour ahead of the certificate's ten minutes; each
//! must say no to a bundle that was tampered with and to a claim that is not true.

use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use testkit::authority::identity;
use testkit::keyless::{RealFulcio, sign};
use testkit::verifiers::{Claim, Signer, Verifier, When, prove_offline};
use testkit::{base64, from_base64, sample};

mod cosign {
    #[test]
    #[ignore = "needs fulcio, timestamp-server and cosign: cargo xtask test keyless"]
    fn accepts_our_bundles_now_and_later_and_refuses_what_was_tampered_with() {
        super::judged_by(super::Verifier::Cosign);
    }
}

mod cosign_v2 {
    #[test]
    #[ignore = "needs fulcio, timestamp-server and cosign 2: cargo xtask test keyless"]
    fn accepts_our_bundles_now_and_later_and_refuses_what_was_tampered_with() {
        super::judged_by(super::Verifier::CosignV2);
    }
}

mod sigstore_go {
    #[test]
    #[ignore = "needs fulcio, timestamp-server and sigstore-go: cargo xtask test keyless"]
    fn accepts_our_bundles_now_and_later_and_refuses_what_was_tampered_with() {
        super::judged_by(super::Verifier::SigstoreGo);
    }
}

mod sigstore_js {
    #[test]
    #[ignore = "needs fulcio, timestamp-server and @sigstore/verify: cargo xtask test keyless"]
    fn accepts_our_bundles_now_and_later_and_refuses_what_was_tampered_with() {
        super::judged_by(super::Verifier::SigstoreJs);
    }
}

mod sigstore_rs {
    #[test]
    #[ignore = "needs fulcio, timestamp-server and sigstore-verify: cargo xtask test keyless"]
    fn accepts_our_bundles_now_and_later_and_refuses_what_was_tampered_with() {
        super::judged_by(super::Verifier::SigstoreRs);
    }
}

#[test]
#[ignore = "needs fulcio and timestamp-server: cargo xtask test keyless"]
fn signerctl_accepts_them_too() {
    judged_by(Verifier::Signerctl);
}

/// One appliance, one bundle of each kind, and what a verifier says of them.
fn judged_by(verifier: Verifier) {
    prove_offline().unwrap();
    let world = RealFulcio::start(|builder| builder);
    let client = world.fixture.client();
    let keyless = sign(&client, "sigstore").send().expect(200).json()["bundle"].clone();
    let keyful = client.sign(&sample::request()).body(|body| body["options"] = json!({"returnBundle": "sigstore"}));
    let keyful = keyful.send().expect(200).json()["bundle"]["sigstore"].clone();
    assert_eq!(keyless["mode"], "keyless");
    assert_eq!(keyless["signingIdentity"]["san"], identity("acme").as_str());
    let keyless = keyless["sigstore"].clone();

    let by_identity = |san: &str| Signer::Identity { san: san.into(), issuer: world.fixture.authority.issuer() };
    let (acme, globex) = (by_identity(&identity("acme")), by_identity(&identity("globex")));
    let elsewhere = Signer::Identity { san: identity("acme"), issuer: "https://elsewhere.test".into() };
    let key = |key: &testkit::device::TokenKey| Signer::Key(key.public_key.clone());
    let (own_key, other_key) = (key(&world.fixture.keys.acme), key(&world.fixture.keys.globex));

    let mut cases: Vec<(String, Value, Signer, When, bool)> = Vec::new();
    for when in [When::Now, When::Later(AN_HOUR)] {
        cases.push((format!("keyless, {when:?}"), keyless.clone(), acme.clone(), when, true));
        cases.push((format!("keyful, {when:?}"), keyful.clone(), own_key.clone(), when, true));
    }
    for (what, tampered) in tampered(&keyless) {
        cases.push((format!("keyless, {what}"), tampered, acme.clone(), When::Now, false));
    }
    for (what, tampered) in tampered(&keyful) {
        cases.push((format!("keyful, {what}"), tampered, own_key.clone(), When::Now, false));
    }
    let other = sign(&world.fixture.globex(), "sigstore").send().expect(200).json()["bundle"]["sigstore"].clone();
    let mut borrowed = keyless.clone();
    borrowed["verificationMaterial"]["certificate"] = other["verificationMaterial"]["certificate"].clone();
    cases.push(("another's certificate".into(), borrowed, globex.clone(), When::Now, false));
    let mut borrowed = keyless.clone();
    let timestamps = "timestampVerificationData";
    borrowed["verificationMaterial"][timestamps] = other["verificationMaterial"][timestamps].clone();
    cases.push(("another's timestamp".into(), borrowed, acme, When::Now, false));
    cases.push(("keyless, another subject".into(), keyless.clone(), globex, When::Now, false));
    cases.push(("keyless, another issuer".into(), keyless, elsewhere, When::Now, false));
    cases.push(("keyful, another key".into(), keyful, other_key, When::Now, false));

    let mut wrong = Vec::new();
    for (what, bundle, by, when, expected) in cases {
        let output = ask(&world, verifier, &bundle, by, when);
        let said = [String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout)].concat();
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        println!("{verifier:?}: {what}: {} {}", output.status, last.chars().take(160).collect::<String>());
        if output.status.success() != expected {
            wrong.push(format!("{what}: expected {expected}: {} {said}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{verifier:?}\n{}", wrong.join("\n"));
}

/// A bundle with one thing changed that a signature, a timestamp or a certificate holds.
fn tampered(bundle: &Value) -> Vec<(&'static str, Value)> {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut bundle = bundle.clone();
        change(&mut bundle);
        bundle
    };
    let flipped = |value: &Value, at: usize| {
        let mut bytes = from_base64(value.as_str().unwrap()).unwrap();
        let at = bytes.len() - at;
        bytes[at] ^= 1;
        json!(base64(bytes))
    };
    let mut all = vec![
        (
            "another payload",
            changed(&|bundle| {
                let payload = from_base64(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
                let other = String::from_utf8(payload).unwrap().replace("component-000001", "component-000009");
                bundle["dsseEnvelope"]["payload"] = json!(base64(other));
            }),
        ),
        (
            "another signature",
            changed(&|bundle| {
                let signature = &mut bundle["dsseEnvelope"]["signatures"][0]["sig"];
                *signature = flipped(signature, 1);
            }),
        ),
        (
            "another payload type",
            changed(&|bundle| {
                bundle["dsseEnvelope"]["payloadType"] = json!("application/vnd.in-toto+jsom");
            }),
        ),
        (
            "another timestamp",
            changed(&|bundle| {
                let stamps = &mut bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"];
                stamps[0]["signedTimestamp"] = flipped(&stamps[0]["signedTimestamp"], 1);
            }),
        ),
        (
            "no timestamp",
            changed(&|bundle| {
                bundle["verificationMaterial"]["timestampVerificationData"] = json!({"rfc3161Timestamps": []});
            }),
        ),
    ];
    if bundle["verificationMaterial"]["certificate"].is_object() {
        all.push((
            "another certificate",
            changed(&|bundle| {
                let certificate = &mut bundle["verificationMaterial"]["certificate"]["rawBytes"];
                *certificate = flipped(certificate, 1);
            }),
        ));
        all.push((
            "no certificate",
            changed(&|bundle| {
                bundle["verificationMaterial"].as_object_mut().unwrap().remove("certificate");
            }),
        ));
    }
    all
}

fn ask(world: &RealFulcio, verifier: Verifier, bundle: &Value, by: Signer, when: When) -> Output {
    let file: PathBuf = world.fixture.dir().join("judged.sigstore.json");
    std::fs::write(&file, bundle.to_string()).unwrap();
    let claim = Claim {
        bundle: file,
        trusted_root: world.trusted_root.clone(),
        digest: sample::SUBJECT_SHA256.into(),
        predicate_type: "stella.ops/sbom@v1".into(),
        by,
    };
    verifier.ask(&claim, when).unwrap()
}

const AN_HOUR: i64 = 3600;
