#![allow(clippy::unwrap_used)]

use crate::config::SigningMode;
use crate::custody::testing::{GOOD, Place, key_pair};
use crate::custody::wire::{KeyHandle, OpenedKey};
use crate::custody::{Custody, CustodyEvent, GateAttribute, KeyAttributes, Lane, OutOfService, ResolveError, setup};

use super::{Entry, PublicKey, Registry};
use crate::custody::evidence::Device;

fn registry(extra: &str) -> Registry {
    setup::build(&Place::new().config(extra)).unwrap().registry
}

fn opened(public_key: PublicKey) -> OpenedKey {
    OpenedKey { handle: KeyHandle(0), public_key, attributes: GOOD, attestation: Vec::new() }
}

fn judge(entry: &Entry, opened: OpenedKey) -> Result<(), OutOfService> {
    entry.judge(&entry.replicas[0], opened, Device::default())
}

#[test]
fn the_signing_key_is_the_active_one_inside_its_window() {
    let keys = r#"
        [keys.old]
        token = "main"
        uri = "pkcs11:object=old"
        state = "active"
        not_after = "2026-06-01T00:00:00Z"
        [keys.new]
        token = "main"
        uri = "pkcs11:object=new"
        state = "active"
        not_before = "2026-06-01T00:00:00Z"
        not_after = "2027-01-01T00:00:00Z"
        [keys.open]
        token = "main"
        uri = "pkcs11:object=open"
        state = "active"
        [keys.next]
        token = "main"
        uri = "pkcs11:object=next"
        state = "next"
        [keys.gone]
        token = "main"
        uri = "pkcs11:object=gone"
        state = "retired"
        [keys.later]
        token = "main"
        uri = "pkcs11:object=later"
        state = "active"
        not_before = "2028-01-01T00:00:00Z"
        [tenants.rotating]
        keys = ["old", "new", "next", "gone"]
        predicate_types = ["*"]
        [tenants.overlapping]
        keys = ["old", "open"]
        predicate_types = ["*"]
        [tenants.idle]
        keys = ["next", "gone"]
        predicate_types = ["*"]
        [tenants.early]
        keys = ["later", "old"]
        predicate_types = ["*"]
    "#;
    let registry = registry(keys);
    for entry in &registry.entries {
        entry.pin(key_pair().1).unwrap();
    }
    let table = [
        ("rotating", "2026-05-31T23:59:59Z", Ok("old")),
        ("rotating", "2026-06-01T00:00:00Z", Ok("new")),
        ("rotating", "2026-12-31T23:59:59Z", Ok("new")),
        ("rotating", "2027-01-01T00:00:00Z", Err("key_expired")),
        ("overlapping", "2026-05-01T00:00:00Z", Err("several_active_keys")),
        ("overlapping", "2026-07-01T00:00:00Z", Ok("open")),
        ("idle", "2026-05-01T00:00:00Z", Err("no_active_key")),
        ("early", "2026-07-01T00:00:00Z", Err("key_not_yet_valid")),
        ("early", "2028-07-01T00:00:00Z", Ok("later")),
        ("nobody", "2026-05-01T00:00:00Z", Err("unknown_tenant")),
        ("acme", "2026-05-01T00:00:00Z", Ok("a")),
    ];
    for (tenant, now, expected) in table {
        let resolved = registry.resolve(tenant, SigningMode::Kms, now.parse().unwrap());
        let got = resolved.as_ref().map(|key| &**key.name()).map_err(ResolveError::reason);
        assert_eq!(got, expected, "{tenant} at {now}");
    }
    let keyless = registry.resolve("acme", SigningMode::Keyless, "2026-05-01T00:00:00Z".parse().unwrap());
    assert_eq!(keyless.unwrap_err(), ResolveError::ModeUnavailable(SigningMode::Keyless));
}

#[test]
fn tenants_that_share_a_key_have_lanes_of_their_own_and_so_has_the_appliance() {
    let registry = registry("[tenants.globex]\nkeys = [\"a\"]\npredicate_types = [\"*\"]");
    registry.entries[0].pin(key_pair().1).unwrap();
    let now = jiff::Timestamp::now();
    let lane = |tenant| registry.resolve(tenant, SigningMode::Kms, now).unwrap().lane;
    assert_ne!(lane("acme"), lane("globex"));
    assert_eq!(lane("acme"), registry.named(Some("acme"), "a", now).unwrap().lane);
    assert_eq!(registry.named(None, "a", now).unwrap().lane, Lane::APPLIANCE);
    for tenant in ["acme", "globex"] {
        assert_ne!(lane(tenant), Lane::APPLIANCE);
    }
    assert_eq!(registry.named(Some("nobody"), "a", now).unwrap_err().code(), "not_found");
    assert_eq!(registry.named(Some("acme"), "b", now).unwrap_err().code(), "not_found");
}

#[test]
fn a_key_that_was_not_seen_has_no_keyid_and_does_not_resolve() {
    let registry = registry("");
    let now = jiff::Timestamp::now();
    let error = registry.resolve("acme", SigningMode::Kms, now).unwrap_err();
    assert_eq!((error.reason(), error.code()), ("key_not_seen", "signing_unavailable"));
    let (_, public_key) = key_pair();
    judge(&registry.entries[0], opened(public_key)).unwrap();
    let key = registry.resolve("acme", SigningMode::Kms, now).unwrap();
    assert_eq!(**key.keyid(), *public_key.keyid());
    assert_eq!(key.custody(), "generated on the device, never readable or extractable");
}

#[test]
fn another_key_under_the_uri_is_out_of_service_until_the_pinned_one_is_back() {
    let registry = registry("");
    let (entry, now) = (&registry.entries[0], jiff::Timestamp::now());
    let ((_, ours), (_, other)) = (key_pair(), key_pair());
    judge(entry, opened(ours)).unwrap();
    assert!(matches!(judge(entry, opened(other)), Err(OutOfService::Mismatch { .. })));
    let error = registry.resolve("acme", SigningMode::Kms, now).unwrap_err();
    assert_eq!(error.reason(), "key_out_of_service");
    judge(entry, opened(ours)).unwrap();
    assert_eq!(*registry.resolve("acme", SigningMode::Kms, now).unwrap().public_key(), ours);
}

#[test]
fn a_bad_signature_is_never_forgotten() {
    let registry = registry("");
    let entry = &registry.entries[0];
    let (_, ours) = key_pair();
    judge(entry, opened(ours)).unwrap();
    entry.take_out(&entry.replicas[0], OutOfService::BadSignature);
    judge(entry, opened(ours)).unwrap();
    judge(entry, opened(key_pair().1)).unwrap_err();
    assert_eq!(entry.out_of_service(), Some(OutOfService::BadSignature));
}

#[test]
fn a_worker_that_offers_an_extractable_key_is_not_believed() {
    let registry = registry("");
    let mut offer = opened(key_pair().1);
    offer.attributes.extractable = true;
    assert!(matches!(judge(&registry.entries[0], offer), Err(OutOfService::Refused(_))));
}

#[test]
fn a_certificate_chain_pins_its_key_and_must_agree_with_the_public_key() {
    let place = Place::new();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap().self_signed(&pair).unwrap();
    std::fs::write(place.path("chain.pem"), certificate.pem()).unwrap();
    std::fs::write(place.path("same.pem"), pair.public_key_pem()).unwrap();
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    std::fs::write(place.path("other.pem"), other.public_key_pem()).unwrap();
    let dir = place.dir.path().display();
    let with = |more: &str| place.config(&format!("certificate_chain = \"{dir}/chain.pem\"\n{more}"));
    for agreeing in ["", &format!("public_key = \"{dir}/same.pem\"")] {
        let registry = setup::build(&with(agreeing)).unwrap().registry;
        let key = registry.entries[0].pinned.get().unwrap();
        assert_eq!(*key.public_key(), PublicKey::from_pem(pair.public_key_pem().as_bytes()).unwrap());
        assert_eq!(key.certificate_chain(), [certificate.pem().replace("\r\n", "\n")]);
    }
    let error = setup::build(&with(&format!("public_key = \"{dir}/other.pem\""))).unwrap_err();
    assert!(matches!(error, crate::custody::CustodySetupError::ChainMismatch { .. }), "{error}");
    let error = setup::build(&place.config(&format!("certificate_chain = \"{dir}/same.pem\""))).unwrap_err();
    assert!(matches!(error, crate::custody::CustodySetupError::Chain { .. }), "{error}");
}

#[test]
fn a_written_exception_lets_pass_what_it_names_and_is_told_to_the_auditor() {
    let imported = || OpenedKey { attributes: KeyAttributes { local: false, ..GOOD }, ..opened(key_pair().1) };
    let refused = judge(&registry("").entries[0], imported()).unwrap_err();
    assert!(refused.to_string().contains("CKA_LOCAL"), "{refused}");

    let exception = "[[keys.a.custody_exception]]\nattribute = \"CKA_LOCAL\"\nreason = \"imported, CR 4711\"";
    let custody = Custody::new(&Place::new().config(exception)).unwrap();
    let entry = &custody.registry.entries[0];
    judge(entry, imported()).unwrap();
    let worse = OpenedKey { attributes: KeyAttributes { local: false, unwrap: true, ..GOOD }, ..imported() };
    let refused = judge(entry, worse).unwrap_err().to_string();
    assert!(refused.contains("CKA_UNWRAP") && !refused.contains("CKA_LOCAL"), "{refused}");
    let told = custody.events().unwrap().try_recv().unwrap();
    let (key, reason) = ("a".into(), "imported, CR 4711".into());
    assert_eq!(told, CustodyEvent::Exception { key, attribute: GateAttribute::Local, reason });
}

#[test]
fn a_device_that_changes_its_mind_is_told_to_the_auditor_even_where_the_key_still_passes() {
    let exception = "[[keys.a.custody_exception]]\nattribute = \"CKA_LOCAL\"\nreason = \"x\"";
    let registry = registry(exception);
    let (entry, ours) = (&registry.entries[0], key_pair().1);
    let mut events = entry.events.take().unwrap();
    let changed = KeyAttributes { local: false, ..GOOD };
    for attributes in [GOOD, GOOD, changed, changed] {
        judge(entry, OpenedKey { attributes, ..opened(ours) }).unwrap();
    }
    let (key, token) = ("a".into(), "main".into());
    let expected = CustodyEvent::AttributesChanged { key, token, before: GOOD, now: changed };
    assert_eq!(events.try_recv().unwrap(), expected);
    assert!(events.try_recv().is_err(), "once");
}
