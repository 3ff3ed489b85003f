//! Whose signature counts, and for what.

use serde_json::json;
use stellaops_signer::release::Evidence;

use crate::stage::{
    self, SIGN, Stage, bundle, check, key_identity, releases, sign_dsse, signature_sha256, simple_payload, statement,
};
use rcgen::{KeyPair, SigningKey as _};
use testkit::registry::{BUNDLE, manifest};
use testkit::{hex, sha256};

#[test]
fn a_bundle_of_a_release_key_is_trusted_and_names_its_signature() {
    let stage = Stage::new();
    let good = stage.good();
    let signature = stage.attach(&good);
    stage.registry.referrers(&stage.image, std::slice::from_ref(&signature));
    let release = stage.check().unwrap();
    assert_eq!((release.digest(), release.signed_by()), (&*stage.image, "release team"));
    assert_eq!(release.evidence().kind(), "sigstore_bundle");
    assert_eq!(release.evidence().signature(), Some(signature.digest()));
    assert_eq!(release.evidence().signature_sha256(), Some(&*signature_sha256(&good)));
    let Evidence::Signature { found_in, time, .. } = release.evidence() else { panic!("a signature") };
    assert_eq!((found_in.ends_with("/team/scanner"), *time), (true, None));
}

#[test]
fn simple_signing_counts_under_cosigns_tag_and_as_a_referrer_of_its_old_oci_mode() {
    let stage = Stage::new();
    let payload = simple_payload(&stage.image);
    let layer = stage.simple(&payload, &stage.key.sign(payload.as_bytes()).unwrap());
    stage.tag(std::slice::from_ref(&layer));
    assert_eq!(stage.check().unwrap().evidence().kind(), "simple_signing");

    let other = Stage { image: stage.image.clone(), ..Stage::new() };
    std::fs::write(other.file("release.pub"), stage.key.public_key_pem()).unwrap();
    let layer = other.simple(&payload, &stage.key.sign(payload.as_bytes()).unwrap());
    let kind = "application/vnd.dev.cosign.artifact.sig.v1+json";
    let text = manifest(kind, Some(&other.image), &[layer]).to_string();
    let descriptor = other.registry.manifest(text.as_bytes()).with("artifactType", kind);
    other.registry.referrers(&other.image, &[descriptor]);
    assert_eq!(other.check().unwrap().evidence().kind(), "simple_signing");
}

#[test]
fn of_several_signatures_in_one_manifest_the_one_that_counts_is_named() {
    let stage = Stage::new();
    let (payload, stranger) = (simple_payload(&stage.image), KeyPair::generate().unwrap());
    let [other, good, last] = [&stranger, &stage.key, &stranger].map(|key| key.sign(payload.as_bytes()).unwrap());
    // One payload, which is one blob: what tells the layers apart is the signature in their annotations.
    stage.tag(&[&other, &good, &last].map(|signature| stage.simple(&payload, signature)));
    let release = stage.check().unwrap();
    assert_eq!(release.evidence().signature_sha256(), Some(&*hex(sha256(&good))));
}

#[test]
fn what_is_signed_must_be_a_release_of_this_image() {
    let stage = Stage::new();
    let other = format!("sha256:{}", "ab".repeat(32));
    for (bundle, reason) in [
        (stage.bundle(&other, SIGN), "release_other_image"),
        (stage.bundle(&stage.image, "https://slsa.dev/provenance/v1"), "release_predicate_type"),
        (stage.bundle(&stage.image, "https://sigstore.dev/cosign/sign/v1/"), "release_predicate_type"),
        (stage.bundle(&stage.image, "https://sigstore.dev/cosign/sign/v2"), "release_predicate_type"),
    ] {
        stage.attach_all(&[bundle]);
        assert_eq!(stage.refusal(), reason);
    }
    // What is signed is read strictly where it decides, and may say more where it does not.
    let said = statement(&stage.image, SIGN);
    let annotated = said.replace("{\"digest\"", "{\"annotations\":{\"a\":\"b\"},\"digest\"");
    for (payload, verdict) in [
        (annotated, "trusted"),
        (said.replace("Statement/v1", "Statement/v0.1"), "release_payload"),
        (said.replacen('{', "{\"predicateType\":\"x\",", 1), "release_payload"),
        (said.replace("sha256", "sha512"), "release_payload"),
        (said.replace(":[{", ":[").replace("}}]", "}]"), "release_payload"),
        ("[]".to_owned(), "release_payload"),
    ] {
        let material = json!({ "publicKey": { "hint": "x" } });
        stage.attach_all(&[bundle(&payload, &sign_dsse(&stage.key, &payload), &material)]);
        let found = stage.check().map_or_else(|error| error.reason(), |_| "trusted");
        assert_eq!(found, verdict, "{payload}");
    }
    let good = simple_payload(&stage.image);
    for (payload, reason) in [
        (simple_payload(&other), "release_other_image"),
        (good.replace("cosign container", "atomic container"), "release_predicate_type"),
        ("{}".to_owned(), "release_payload"),
        (good.replace("\"optional\"", "\"critical\""), "release_payload"),
        (good.replace("\"optional\"", "\"more\""), "release_payload"),
    ] {
        stage.registry.referrers(&stage.image, &[]);
        let layer = stage.simple(&payload, &stage.key.sign(payload.as_bytes()).unwrap());
        stage.tag(&[layer]);
        assert_eq!(stage.refusal(), reason, "{payload}");
    }
}

#[test]
fn a_signature_counts_by_its_key_alone() {
    let stage = Stage::new();
    let stranger = KeyPair::generate().unwrap();
    let payload = statement(&stage.image, SIGN);
    let by = |key: &KeyPair| bundle(&payload, &sign_dsse(key, &payload), &json!({ "publicKey": { "hint": "x" } }));
    let mut lying = by(&stranger);
    // A keyid and a hint that nobody signed make no difference.
    lying["dsseEnvelope"]["signatures"][0]["keyid"] = "SHA256:x".into();
    let mut altered = by(&stage.key);
    altered["dsseEnvelope"]["payload"] = testkit::base64(payload.replace("{}", "{\"a\":1}")).into();
    for bundle in [by(&stranger), lying, altered] {
        stage.attach_all(&[bundle]);
        assert_eq!(stage.refusal(), "release_signer_unknown");
    }
}

#[test]
fn a_hundred_bad_signatures_hide_no_good_one() {
    let stage = Stage::new();
    let stranger = KeyPair::generate().unwrap();
    let bad = |number: usize| {
        let payload = statement(&stage.image, SIGN).replace("{}", &format!("{{\"n\":{number}}}"));
        bundle(&payload, &sign_dsse(&stranger, &payload), &json!({ "publicKey": { "hint": "x" } }))
    };
    let mut bundles: Vec<_> = (0..100).map(bad).collect();
    bundles.push(json!({ "mediaType": "something else" }));
    bundles.push(stage.bundle(&stage.image, "https://slsa.dev/provenance/v1"));
    bundles.push(stage.good());
    stage.attach_all(&bundles);
    assert_eq!(stage.check().unwrap().signed_by(), "release team");
}

#[test]
fn repositories_are_asked_in_their_order_and_one_that_is_down_hides_none() {
    let (first, second) = (Stage::new(), Stage::new());
    let second = Stage { image: first.image.clone(), ..second };
    std::fs::write(second.file("release.pub"), first.key.public_key_pem()).unwrap();
    second.attach_all(&[first.good()]);
    let mut config = first.config();
    config.repository.push(stage::repository(&second.registry.repository()));
    assert_eq!(check(&releases(&config), &first.image).unwrap().signed_by(), "release team");
    assert_eq!(first.registry.count("/referrers/"), 1, "the first one was asked first");

    config.repository.insert(0, stage::repository("http://127.0.0.1:1/team/scanner"));
    assert_eq!(check(&releases(&config), &first.image).unwrap().signed_by(), "release team");

    // And where the others know nothing, what the one that is down would have said is not guessed.
    second.registry.referrers(&second.image, &[]);
    let error = check(&releases(&config), &first.image).unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_unreachable"));
}

#[test]
fn keys_count_up_to_their_end_only() {
    let stage = Stage::new();
    stage.attach_all(&[stage.good()]);
    for (not_after, trusted) in [("2020-01-01T00:00:00Z", false), ("2990-01-01T00:00:00Z", true)] {
        let mut config = stage.config();
        config.identity[0].not_after = Some(not_after.parse().unwrap());
        match check(&releases(&config), &stage.image) {
            Ok(_) => assert!(trusted),
            Err(error) => assert_eq!((error.reason(), trusted), ("release_identity_window", false)),
        }
    }
    // The next key is there before the old one ends, and either may have signed.
    let next = KeyPair::generate().unwrap();
    std::fs::write(stage.file("next.pub"), next.public_key_pem()).unwrap();
    let mut config = stage.config();
    config.identity.insert(0, key_identity("next team", stage.file("next.pub")));
    assert_eq!(check(&releases(&config), &stage.image).unwrap().signed_by(), "release team");
}

#[test]
fn keys_of_other_kinds_count_as_well() {
    for (name, algorithm) in [
        ("Ed25519", &rcgen::PKCS_ED25519),
        ("RSA", &rcgen::PKCS_RSA_SHA256),
        ("P-384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("P-521", &rcgen::PKCS_ECDSA_P521_SHA512),
        ("P-521 with SHA-256", &rcgen::PKCS_ECDSA_P521_SHA256),
    ] {
        let stage = Stage::new();
        let key = KeyPair::generate_for(algorithm).unwrap();
        std::fs::write(stage.file("release.pub"), key.public_key_pem()).unwrap();
        let stage = Stage { key, ..stage };
        stage.attach_all(&[stage.good()]);
        assert_eq!(stage.check().unwrap().signed_by(), "release team", "{name}");
    }
}

#[test]
fn a_time_that_is_demanded_of_a_key_must_be_proven() {
    let stage = Stage::new();
    stage.attach_all(&[stage.good()]);
    let ca = testkit::fulcio_ca::FulcioCa::generate("x").unwrap();
    let root = stage::trusted_root(&ca, &testkit::ct_log::LogKey::generate(), None);
    std::fs::write(stage.file("root.json"), root.to_string()).unwrap();
    let mut config = stage.config();
    config.identity[0].trusted_root = Some(stage.file("root.json"));
    config.identity[0].require_time = true;
    assert_eq!(check(&releases(&config), &stage.image).unwrap_err().reason(), "release_time_required");
}

#[test]
fn a_bundle_is_read_strictly() {
    let stage = Stage::new();
    let good = stage.good();
    let mut unknown = good.clone();
    unknown["surprise"] = true.into();
    let mut version = good.clone();
    version["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.4+json".into();
    let mut two = good.clone();
    let signature = two["dsseEnvelope"]["signatures"][0].clone();
    two["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(signature);
    for wrong in [unknown, version, two, json!([])] {
        stage.attach_all(&[wrong]);
        assert_eq!(stage.refusal(), "release_signature_malformed");
    }
    let twice = good.to_string().replacen('{', &format!("{{\"mediaType\":\"{BUNDLE}\","), 1);
    let layer = stage.registry.blob(BUNDLE, twice.as_bytes());
    let text = manifest(BUNDLE, Some(&stage.image), &[layer]).to_string();
    let descriptor = stage.registry.manifest(text.as_bytes());
    stage.registry.referrers(&stage.image, &[descriptor]);
    assert_eq!(stage.refusal(), "release_signature_malformed");
}
