//! Signatures by a Fulcio certificate, with a CA, a CT log and a transparency log of our own: every lie in turn.

use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};
use stellaops_signer::config::Release;
use testkit::ct_log::LogKey;
use testkit::fulcio_ca::{FulcioCa, Profile, Vouching};
use testkit::{base64, now};

use crate::stage::{
    SIGN, Stage, bundle, check, log_annotation, log_entry, releases, sign_dsse, simple_payload, statement, trusted_root,
};

struct World {
    stage: Stage,
    ca: FulcioCa,
    ct: LogKey,
    log: KeyPair,
}

impl World {
    fn new() -> Self {
        let world = Self {
            stage: Stage::new(),
            ca: FulcioCa::generate("test").unwrap(),
            ct: LogKey::generate(),
            log: KeyPair::generate().unwrap(),
        };
        let root = trusted_root(&world.ca, &world.ct, Some(&world.log));
        std::fs::write(world.stage.file("root.json"), root.to_string()).unwrap();
        world
    }

    fn config(&self) -> Release {
        let mut config = self.stage.config();
        let identity = &mut config.identity[0];
        identity.public_key = None;
        identity.san = Some(SAN.to_owned());
        identity.issuer = Some(ISSUER.to_owned());
        identity.trusted_root = Some(self.stage.file("root.json"));
        config
    }

    /// A certificate, and a bundle that it signs, logged so many seconds from now.
    fn signed(&self, ca: &FulcioCa, profile: &Profile, ct: Option<Vouching<'_>>, logged: Option<i64>) -> Value {
        let key = KeyPair::generate().unwrap();
        let certificate = ca.issue(&key, profile, ct).unwrap();
        let payload = statement(&self.stage.image, SIGN);
        let signature = sign_dsse(&key, &payload);
        let mut material = json!({ "certificate": { "rawBytes": base64(&certificate) } });
        if let Some(after) = logged {
            let entry = log_entry(&self.log, &payload, &signature, &certificate, now() + after);
            material["tlogEntries"] = json!([entry]);
        }
        bundle(&payload, &signature, &material)
    }

    fn good(&self) -> Value {
        self.signed(&self.ca, &Profile::fulcio(SAN, ISSUER), Some(self.vouching()), Some(5))
    }

    fn vouching(&self) -> Vouching<'_> {
        Vouching { log: &self.ct, falsely: false }
    }

    /// `trusted`, or the reason why not.
    fn verdict(&self, bundle: Value) -> &'static str {
        self.stage.attach_all(&[bundle]);
        check(&releases(&self.config()), &self.stage.image).map_or_else(|error| error.reason(), |_| "trusted")
    }
}

#[test]
fn a_certificate_counts_with_its_identity_its_sct_and_a_log_entry_from_its_ten_minutes() {
    let world = World::new();
    assert_eq!(world.verdict(world.good()), "trusted");
    let release = check(&releases(&world.config()), &world.stage.image).unwrap();
    let stellaops_signer::release::Evidence::Signature { time: Some(time), .. } = release.evidence() else {
        panic!("it has a time")
    };
    assert_eq!(time.by, "log_entry");
}

#[test]
fn simple_signing_with_a_certificate_counts_by_the_log_entry_in_its_annotation() {
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    let certificate = world.ca.issue(&key, &Profile::fulcio(SAN, ISSUER), Some(world.vouching())).unwrap();
    let payload = simple_payload(&world.stage.image);
    let signature = key.sign(payload.as_bytes()).unwrap();
    let layer = world.stage.simple(&payload, &signature);
    let layer = layer.annotated("dev.sigstore.cosign/certificate", &testkit::pem("CERTIFICATE", &certificate));
    let entry = |payload: &str| log_annotation(&world.log, payload, &signature, &certificate, now() + 5).to_string();
    for (entry, verdict) in [
        (Some(entry(&payload)), "trusted"),
        (Some(entry("something else")), "release_log_entry"),
        (Some("{}".to_owned()), "release_signature_malformed"),
        (None, "release_time_missing"),
    ] {
        let layer = match entry {
            Some(entry) => layer.clone().annotated("dev.sigstore.cosign/bundle", &entry),
            None => layer.clone(),
        };
        world.stage.tag(&[layer]);
        let found = check(&releases(&world.config()), &world.stage.image);
        assert_eq!(found.map_or_else(|error| error.reason(), |_| "trusted"), verdict);
    }
}

#[test]
fn each_lie_of_a_certificate_has_its_name() {
    let world = World::new();
    let other_ca = FulcioCa::generate("other").unwrap();
    let other_ct = LogKey::generate();
    let profile = Profile::fulcio(SAN, ISSUER);
    let (ca, ct) = (&world.ca, Some(world.vouching()));
    let old = |from: i64| Profile { valid: (from, from + 600), ..profile.clone() };
    for (lie, bundle, reason) in [
        ("no time", world.signed(ca, &profile, ct, None), "release_time_missing"),
        ("logged after it expired", world.signed(ca, &old(-7200), ct, Some(-60)), "release_certificate_expired"),
        ("logged before it began", world.signed(ca, &profile, ct, Some(-60)), "release_certificate_expired"),
        ("logged in the future", world.signed(ca, &old(3600), ct, Some(3700)), "release_log_entry"),
        ("of another CA", world.signed(&other_ca, &profile, ct, Some(5)), "release_certificate_untrusted"),
        (
            "another identity",
            world.signed(ca, &Profile::fulcio("spiffe://evil/x", ISSUER), ct, Some(5)),
            "release_identity_mismatch",
        ),
        (
            "a longer identity",
            world.signed(ca, &Profile::fulcio(&format!("{SAN}x"), ISSUER), ct, Some(5)),
            "release_identity_mismatch",
        ),
        (
            "another issuer",
            world.signed(ca, &Profile::fulcio(SAN, "https://evil.test"), ct, Some(5)),
            "release_identity_mismatch",
        ),
        ("no SCT", world.signed(ca, &profile, None, Some(5)), "release_sct"),
        (
            "a false SCT",
            world.signed(ca, &profile, Some(Vouching { log: &world.ct, falsely: true }), Some(5)),
            "release_sct",
        ),
        (
            "the SCT of a stranger",
            world.signed(ca, &profile, Some(Vouching { log: &other_ct, falsely: false }), Some(5)),
            "release_sct",
        ),
        (
            "a day's certificate",
            world.signed(ca, &Profile { valid: (0, 86400), ..profile.clone() }, ct, Some(5)),
            "release_certificate",
        ),
        (
            "a CA's certificate",
            world.signed(ca, &Profile { is_ca: true, ..profile.clone() }, ct, Some(5)),
            "release_certificate",
        ),
    ] {
        assert_eq!(world.verdict(bundle), reason, "{lie}");
    }
}

#[test]
fn a_log_entry_counts_for_its_own_signature_only() {
    let world = World::new();
    let (good, other) = (world.good(), world.good());
    let entries = "tlogEntries";
    let mut swapped = good.clone();
    swapped["verificationMaterial"][entries] = other["verificationMaterial"][entries].clone();
    let mut later = good.clone();
    later["verificationMaterial"][entries][0]["integratedTime"] = (now() + 9).to_string().into();
    for lie in [swapped, later] {
        assert_eq!(world.verdict(lie), "release_log_entry");
    }
    // Of a log that nobody pinned nothing is believed, so nothing proves the time.
    let stranger = World { log: KeyPair::generate().unwrap(), ..World::new() };
    let unknown = stranger.signed(&world.ca, &Profile::fulcio(SAN, ISSUER), Some(world.vouching()), Some(5));
    let payload = statement(&stranger.stage.image, SIGN);
    assert_ne!(payload, statement(&world.stage.image, SIGN));
    assert_eq!(world.verdict(unknown), "release_time_missing");
}

#[test]
fn a_signature_by_another_key_than_the_certificates_is_none() {
    let world = World::new();
    let mut swapped = world.good();
    swapped["verificationMaterial"] = world.good()["verificationMaterial"].clone();
    // Whoever has not the certificate's key is told so before any log entry is looked at.
    assert_eq!(world.verdict(swapped.clone()), "release_signer_unknown");
    let key = KeyPair::generate().unwrap();
    let certificate = world.ca.issue(&key, &Profile::fulcio(SAN, ISSUER), Some(world.vouching())).unwrap();
    let payload = statement(&world.stage.image, SIGN);
    let forged = sign_dsse(&KeyPair::generate().unwrap(), &payload);
    let entry = log_entry(&world.log, &payload, &forged, &certificate, now() + 5);
    let material = json!({ "certificate": { "rawBytes": base64(&certificate) }, "tlogEntries": [entry] });
    assert_eq!(world.verdict(bundle(&payload, &forged, &material)), "release_signer_unknown");
    // Of whoever has not the certificate's key, no time stamp is looked at; of whoever has it, each must hold.
    let stamped = |material: &Value| {
        let mut material = material.clone();
        let stamps = json!({ "rfc3161Timestamps": [{ "signedTimestamp": base64("no time stamp") }] });
        material["timestampVerificationData"] = stamps;
        material
    };
    assert_eq!(world.verdict(bundle(&payload, &forged, &stamped(&material))), "release_signer_unknown");
    let mut good = world.good();
    good["verificationMaterial"] = stamped(&good["verificationMaterial"]);
    assert_eq!(world.verdict(good), "release_timestamp");
}

#[test]
fn the_window_of_an_identity_is_judged_by_the_proven_time() {
    let world = World::new();
    let profile = Profile { valid: (-7200, -6600), ..Profile::fulcio(SAN, ISSUER) };
    // Without an SCT, because a log of today does not vouch for a certificate of two hours ago.
    world.stage.attach_all(&[world.signed(&world.ca, &profile, None, Some(-7000))]);
    let mut config = world.config();
    config.identity[0].require_sct = false;
    let moment = |seconds: i64| Some(jiff::Timestamp::from_second(now() + seconds).unwrap());
    for (not_before, not_after, verdict) in [
        (None, moment(-3600), "trusted"),
        (None, moment(-7100), "release_identity_window"),
        (moment(-7100), None, "trusted"),
        (moment(-6900), None, "release_identity_window"),
    ] {
        config.identity[0].not_before = not_before;
        config.identity[0].not_after = not_after;
        let found = check(&releases(&config), &world.stage.image).map_or_else(|error| error.reason(), |_| "trusted");
        assert_eq!(found, verdict);
    }
}

#[test]
fn every_proven_time_must_lie_in_the_certificate_and_in_the_window() {
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    let profile = Profile { valid: (-7200, -6600), ..Profile::fulcio(SAN, ISSUER) };
    // Issued within one second, so that its last one is known.
    let (at, certificate) = std::iter::repeat_with(|| {
        let at = now();
        (at, world.ca.issue(&key, &profile, None).unwrap())
    })
    .find(|(at, _)| *at == now())
    .unwrap();
    let (begin, end) = (at - 7200, at - 6600);
    let tsa = testkit::sigstore::Tsa::new(at);
    let mut root = trusted_root(&world.ca, &world.ct, Some(&world.log));
    root["timestampAuthorities"] =
        testkit::sigstore::trusted_root(None, &[], &[&tsa], at)["timestampAuthorities"].clone();
    std::fs::write(world.stage.file("root.json"), root.to_string()).unwrap();
    let payload = statement(&world.stage.image, SIGN);
    let signature = sign_dsse(&key, &payload);
    let entry = |when| log_entry(&world.log, &payload, &signature, &certificate, when);
    let stamp = |when, fraction| {
        let answer = testkit::sigstore::tsa::Answer { fraction, ..testkit::sigstore::tsa::Answer::at(when) };
        json!({ "signedTimestamp": base64(tsa.stamp(&signature, &answer)) })
    };
    // The log promises now, and the certificate is two hours old.
    let mut config = world.config();
    config.identity[0].require_sct = false;
    let verdict = |config: &Release, material: Value| {
        world.stage.attach_all(&[bundle(&payload, &signature, &material)]);
        check(&releases(config), &world.stage.image).map_or_else(|error| error.reason(), |_| "trusted")
    };
    let proven = |entries: Vec<Value>, stamps: Vec<Value>| {
        let material = json!({
            "certificate": { "rawBytes": base64(&certificate) }, "tlogEntries": entries,
            "timestampVerificationData": { "rfc3161Timestamps": stamps },
        });
        verdict(&config, material)
    };
    assert_eq!(proven(vec![entry(begin + 10), entry(begin + 60)], vec![stamp(begin + 30, None)]), "trusted");
    // One clock that disagrees is enough, whichever is the earliest.
    assert_eq!(proven(vec![entry(begin + 10), entry(at - 60)], vec![]), "release_certificate_expired");
    assert_eq!(proven(vec![entry(begin + 10)], vec![stamp(at - 60, None)]), "release_certificate_expired");
    assert_eq!(proven(vec![entry(begin - 10)], vec![stamp(begin + 30, None)]), "release_certificate_expired");
    // A fraction after the last second is after it.
    assert_eq!(proven(vec![], vec![stamp(end, None)]), "trusted");
    assert_eq!(proven(vec![], vec![stamp(end, Some("5"))]), "release_certificate_expired");
    // The same proof twice proves no more.
    let one = stamp(begin + 30, None);
    assert_eq!(proven(vec![], vec![one.clone(), one]), "release_timestamp_duplicate");
    assert_eq!(proven(vec![entry(end), entry(end)], vec![]), "trusted", "signed anew each time, so not the same");
    let one = entry(begin + 30);
    assert_eq!(proven(vec![one.clone(), one], vec![]), "release_timestamp_duplicate");

    let mut config = config.clone();
    config.identity[0].not_after = Some(jiff::Timestamp::from_second(begin + 40).unwrap());
    for (second, expected) in [(begin + 40, "trusted"), (begin + 41, "release_identity_window")] {
        let material = json!({
            "certificate": { "rawBytes": base64(&certificate) }, "tlogEntries": [entry(begin + 10), entry(second)],
        });
        assert_eq!(verdict(&config, material), expected);
    }
}

const SAN: &str = "spiffe://stella-ops.test/release";
const ISSUER: &str = "https://issuer.test";

mod cosign {
    use std::process::Command;

    use super::*;

    /// What the tests above call a log entry is one to others, too.
    #[test]
    #[ignore = "needs cosign 3: cargo xtask test release"]
    fn cosign_believes_the_log_entries_of_these_tests() {
        let world = World::new();
        let verify = |bundle: &Value| {
            std::fs::write(world.stage.file("bundle.json"), bundle.to_string()).unwrap();
            let mut cosign = Command::new(testkit::peers::cosign().unwrap());
            cosign.args(["verify-blob-attestation", "--type", SIGN, "--digestAlg", "sha256", "--digest"]);
            cosign.arg(world.stage.image.strip_prefix("sha256:").unwrap());
            cosign.args(["--certificate-identity", SAN, "--certificate-oidc-issuer", ISSUER, "--trusted-root"]);
            cosign.arg(world.stage.file("root.json")).arg("--bundle").arg(world.stage.file("bundle.json"));
            cosign.env("HOME", world.stage.dir.path()).output().unwrap()
        };
        let output = verify(&world.good());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut later = world.good();
        later["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = (now() + 9).to_string().into();
        assert!(!verify(&later).status.success(), "it verifies nothing");
    }
}
