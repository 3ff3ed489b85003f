//! When a signature was made, and until when it counts.

use stellaops_signer::config::{Notation, Release};
use stellaops_signer::release::Evidence;
use testkit::notary::{COSE, Draft, ca_template, leaf_template};
use testkit::now;
use testkit::sigstore::Tsa;
use testkit::sigstore::tsa::{Answer, signer_template};
use testkit::sigstore::x509::{Issuer, SigningKey, Template};

use super::{DAY, World, token};
use crate::stage::{check, releases};

#[test]
fn a_signature_ends_when_its_maker_says() {
    let world = World::new();
    assert_eq!(world.verdict(&world.draft().expiring(now() - 1)), "release_signature_expired");
    // A verdict is used no longer than the signature counts, whatever `trusted_ttl` says.
    world.attach(COSE, &world.draft().expiring(now() + 2).cose());
    let releases = releases(&world.config(world.notation()));
    assert!(check(&releases, &world.stage.image).is_ok());
    let begun = std::time::Instant::now();
    let refused = loop {
        match check(&releases, &world.stage.image) {
            Ok(_) if begun.elapsed().as_secs() < 20 => std::thread::sleep(std::time::Duration::from_millis(50)),
            other => break other.unwrap_err(),
        }
    };
    assert_eq!(refused.reason(), "release_signature_expired");
}

#[test]
fn certificates_are_valid_now_or_when_somebody_pinned_says_that_it_was_signed() {
    let at = now();
    let world = World::new();
    // The leaf ended yesterday.
    let expired =
        Template { not_before: at - 90 * DAY, not_after: at - DAY, ..leaf_template(world.notary.key.spki(), at) };
    let chain = vec![world.notary.root.sign(&expired), world.notary.root.certificate.clone()];
    let draft = || Draft { chain: chain.clone(), ..world.draft() };
    let (tsa, stranger) = (Tsa::new(at), Tsa::new(at));
    let roots = Some(world.write_store("tsa.pem", &[&tsa.root.certificate]));
    let config = world.config(Notation { tsa: roots, ..world.notation() });
    let stamped = |tsa: &Tsa, when: i64| -> &'static str {
        let draft = draft().stamped(|signature| token(&tsa.stamp(signature, &Answer::at(when))));
        world.verdict_by(&config, &draft)
    };
    assert_eq!(world.verdict_by(&config, &draft()), "release_certificate_expired");
    assert_eq!(stamped(&tsa, at - 2 * DAY), "trusted");
    // This authority is right to a second, so what it says of the last second is not certain (accuracy in the testkit: 1 s).
    assert_eq!(stamped(&tsa, at - DAY), "release_certificate_expired");
    assert_eq!(stamped(&tsa, at - DAY - 1), "trusted");
    assert_eq!(stamped(&tsa, at - 90 * DAY), "release_certificate_expired");
    assert_eq!(stamped(&tsa, at + DAY), "release_timestamp");
    assert_eq!(stamped(&stranger, at - 2 * DAY), "release_certificate_expired");
    let false_one = draft().stamped(|_| token(&tsa.stamp(b"another signature", &Answer::at(at - 2 * DAY))));
    assert_eq!(world.verdict_by(&config, &false_one), "release_timestamp");
    let broken = draft().stamped(|_| b"no token".to_vec());
    assert_eq!(world.verdict_by(&config, &broken), "release_timestamp");
    // Where no authority is pinned, none is believed.
    let late = draft().stamped(|signature| token(&tsa.stamp(signature, &Answer::at(at - 2 * DAY))));
    assert_eq!(world.verdict(&late), "release_certificate_expired");

    // Nor one whose key, or whose CA's, is withdrawn.
    for key in [tsa.signer.key.spki(), tsa.root.key.spki()] {
        let mut config = config.clone();
        let notation = config.identity[0].notation.as_mut().unwrap();
        notation.revoked = vec![format!("sha256:{}", testkit::hex(testkit::sha256(key)))];
        let late = draft().stamped(|signature| token(&tsa.stamp(signature, &Answer::at(at - 2 * DAY))));
        assert_eq!(world.verdict_by(&config, &late), "release_certificate_revoked");
    }

    // Demanded, it must be there; and what it proves is held against the identity's window.
    let mut config = config.clone();
    config.identity[0].require_time = true;
    assert_eq!(world.verdict_by(&config, &world.draft()), "release_time_required");
    let good = draft().stamped(|signature| token(&tsa.stamp(signature, &Answer::at(at - 2 * DAY))));
    assert_eq!(world.verdict_by(&config, &good), "trusted");
    config.identity[0].not_after = Some(jiff::Timestamp::from_second(at - 3 * DAY).unwrap());
    assert_eq!(world.verdict_by(&config, &good), "release_identity_window");
}

#[test]
fn certificates_in_a_time_stamp_may_lead_to_its_pinned_root() {
    let at = now();
    let world = World::new();
    let key = SigningKey::p256();
    let root = Issuer::root("tsa root", SigningKey::p384(), at);
    let between = root.below(ca_template("tsa ca", &SigningKey::p384(), None, at), SigningKey::p384());
    // Its certificate must be for the key that signs with it.
    let between_key = SigningKey::p384();
    let between =
        Issuer { certificate: root.sign(&ca_template("tsa ca", &between_key, None, at)), key: between_key, ..between };
    let signer = between.below(signer_template(&key, at), key);
    let tsa = Tsa { uri: String::new(), root, signer };
    let roots = Some(world.write_store("tsa.pem", &[&tsa.root.certificate]));
    let mut config = world.config(Notation { tsa: roots, ..world.notation() });
    config.identity[0].require_time = true;
    let stamped = |certificates: Vec<Vec<u8>>| {
        let answer = Answer { certificates: Some(certificates), ..Answer::at(at) };
        world.verdict_by(&config, &world.draft().stamped(|signature| token(&tsa.stamp(signature, &answer))))
    };
    let own = tsa.signer.certificate.clone();
    assert_eq!(stamped(vec![own.clone(), between.certificate.clone()]), "trusted");
    assert_eq!(stamped(vec![own]), "release_time_required", "nothing leads to the pinned root");
}

#[test]
fn a_signing_authority_has_a_trust_store_and_a_clock_of_its_own() {
    let at = now();
    let world = World::new();
    let authority = Some(world.stage.file("ca.pem"));
    let config = world.config(Notation { ca: None, signing_authority: authority.clone(), ..world.notation() });
    let by = |config: &Release, when| world.verdict_by(config, &world.draft().by_authority(when));
    assert_eq!(by(&config, at - DAY), "trusted");
    world.attach(COSE, &world.draft().by_authority(at - DAY).cose());
    let release = check(&releases(&config), &world.stage.image).unwrap();
    let Evidence::Signature { time: Some(time), .. } = release.evidence() else { panic!("it has a time") };
    assert_eq!((time.by, time.at.0), ("signing_authority", at - DAY));
    assert_eq!(by(&config, at - 181 * DAY), "release_certificate_expired");
    assert_eq!(by(&config, at + DAY), "release_timestamp");
    // The stores are apart, so that whoever has a certificate of a CA is no authority.
    assert_eq!(by(&world.config(world.notation()), at), "release_certificate_untrusted");
    assert_eq!(world.verdict_by(&config, &world.draft()), "release_certificate_untrusted");
    let both = world.config(Notation { signing_authority: authority, ..world.notation() });
    assert_eq!((by(&both, at), world.verdict_by(&both, &world.draft())), ("trusted", "trusted"));
}
