#![allow(clippy::unwrap_used)]

use std::fs::File;

use serde_json::{Value, json};

use super::*;
use crate::entitlement::testing::{ISSUER, Licensing, caller, patched, plans, replace};
use crate::entitlement::{Entitlements, PoeFormat, PresentedPoe};
use crate::jose::Algorithm;
use crate::jose::testing::SigningKey;

const FRESH: Duration = Duration::from_secs(3600);
const SKEW: Duration = Duration::from_secs(30);

/// The reason why the PoE with nothing wrong is refused at `now`, if it is.
async fn refusal(entitlements: &Entitlements, licensing: &Licensing, now: UnixTime) -> Option<&'static str> {
    let exp = json!({ "exp": licensing.now.0 + 1_000_000 });
    let token = licensing.sign(&patched(licensing.claims(), &exp));
    let poe = PresentedPoe { format: PoeFormat::Jwt, value: &token };
    entitlements.entitle_at(now, poe, &caller(), None).await.err().map(|error| error.reason())
}

fn entitlements(licensing: &Licensing) -> Entitlements {
    Entitlements::new(&licensing.config(), plans(), None).unwrap()
}

fn list(licensing: &Licensing, patch: &Value) -> Value {
    patched(licensing.list(), patch)
}

#[tokio::test]
async fn what_the_list_names_is_revoked_as_soon_as_the_file_is_replaced() {
    let licensing = Licensing::new();
    let entitlements = entitlements(&licensing);
    let now = licensing.now;
    assert_eq!(refusal(&entitlements, &licensing, now).await, None);
    assert_eq!(entitlements.refresh().unwrap(), Refreshed::Unchanged);
    let steps = [
        (json!({ "seq": 2, "revoked": { "license_ids": ["lic-0", "lic-1"] } }), Some("poe_license_revoked")),
        (json!({ "seq": 3, "revoked": { "jtis": ["poe-1"] } }), Some("poe_jti_revoked")),
        (json!({ "seq": 4, "revoked": { "license_ids": ["poe-1"], "jtis": ["lic-1"] } }), None),
        (json!({ "seq": 5, "revoked": { "license_ids": ["lic-10", "LIC-1"], "jtis": ["poe-"] } }), None),
    ];
    for (patch, reason) in steps {
        licensing.publish_list(&list(&licensing, &patch));
        let sequence = patch["seq"].as_u64().unwrap();
        assert_eq!(entitlements.refresh().unwrap(), Refreshed::Replaced { sequence });
        assert_eq!(entitlements.refresh().unwrap(), Refreshed::Unchanged);
        assert_eq!(entitlements.revocation_list().unwrap().sequence, sequence);
        assert_eq!(refusal(&entitlements, &licensing, now).await, reason, "{patch}");
    }
}

#[tokio::test]
async fn a_revoked_poe_is_not_told_apart_by_its_caller() {
    let licensing = Licensing::new();
    for revoked in [json!({ "license_ids": ["lic-1"] }), json!({ "jtis": ["poe-1"] })] {
        licensing.publish_list(&list(&licensing, &json!({ "revoked": revoked })));
        let token = licensing.sign(&licensing.claims());
        let poe = PresentedPoe { format: PoeFormat::Jwt, value: &token };
        let error = entitlements(&licensing).entitle(poe, &caller(), None).await.unwrap_err();
        assert_eq!((error.code(), error.public_reason()), ("entitlement_denied", "poe_revoked"));
    }
}

#[tokio::test]
async fn a_list_that_is_too_old_refuses_every_poe_until_there_is_a_new_one() {
    let licensing = Licensing::new();
    let cases = [
        (json!({}), FRESH),
        (json!({ "exp": licensing.now.0 + 100_000 }), FRESH),
        (json!({ "exp": licensing.now.0 + 60 }), Duration::from_secs(60)),
    ];
    for (patch, lives) in cases {
        licensing.publish_list(&list(&licensing, &patch));
        let entitlements = entitlements(&licensing);
        let end = licensing.now.plus(lives);
        assert_eq!(entitlements.revocation_list().unwrap().fresh_until, end);
        assert_eq!(refusal(&entitlements, &licensing, UnixTime(end.plus(SKEW).0 - 1)).await, None, "{patch}");
        assert_eq!(refusal(&entitlements, &licensing, end.plus(SKEW)).await, Some("revocation_list_stale"), "{patch}");

        let token = licensing.sign(&licensing.claims());
        let poe = PresentedPoe { format: PoeFormat::Jwt, value: &token };
        let error = entitlements.entitle_at(end.plus(SKEW), poe, &caller(), None).await.unwrap_err();
        assert_eq!((error.code(), error.public_reason()), ("dependency_unavailable", "licensing_unavailable"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    }
}

#[tokio::test]
async fn a_start_with_an_old_list_comes_up_and_lets_nothing_pass() {
    let licensing = Licensing::new();
    licensing.publish_list(&list(&licensing, &json!({ "iat": licensing.now.0 - 7200 })));
    let entitlements = entitlements(&licensing);
    assert_eq!(refusal(&entitlements, &licensing, licensing.now).await, Some("revocation_list_stale"));
    licensing.publish_list(&licensing.list());
    entitlements.refresh().unwrap();
    assert_eq!(refusal(&entitlements, &licensing, licensing.now).await, None);
}

#[tokio::test]
async fn a_list_that_is_not_taken_leaves_the_one_in_force() {
    let licensing = Licensing::new();
    let now = licensing.now.0;
    let in_force = json!({ "seq": 5, "iat": now - 100, "revoked": { "license_ids": ["lic-1"] } });
    let harmless = |patch: &Value| list(&licensing, &patched(json!({ "seq": 6 }), patch));
    let stranger = SigningKey::generate(Algorithm::Es256);
    let header = json!({ "alg": "ES256", "kid": "licensing-1" });
    let typed = |typ: &str| patched(header.clone(), &json!({ "typ": typ }));
    let sign = |header: &Value| licensing.key.token(Algorithm::Es256, header, &harmless(&json!({})));
    #[rustfmt::skip]
    let cases = [
        ("nothing", String::new(), "is not signed by"),
        ("half a file", licensing.sign(&harmless(&json!({})))[..200].to_owned(), "is not signed by"),
        ("claims without a signature", harmless(&json!({})).to_string(), "is not signed by"),
        ("a stranger's", stranger.token(Algorithm::Es256, &header, &harmless(&json!({}))), "is not signed by"),
        ("a PoE by type", sign(&typed("poe+jwt")), "is not signed by"),
        ("a PoE", licensing.sign(&licensing.claims()), "is not `iss`"),
        ("no seq", licensing.sign(&harmless(&json!({ "seq": null }))), "is not `iss`"),
        ("no iat", licensing.sign(&harmless(&json!({ "iat": null }))), "is not `iss`"),
        ("no list", licensing.sign(&harmless(&json!({ "revoked": null }))), "is not `iss`"),
        ("ids that are numbers", licensing.sign(&harmless(&json!({ "revoked": { "jtis": [1] } }))), "is not `iss`"),
        ("ids of a new kind", licensing.sign(&harmless(&json!({ "revoked": { "customer_ids": [] } }))), "is not `iss`"),
        ("another issuer", licensing.sign(&harmless(&json!({ "iss": "https://other.example" }))), "is not of the issuer"),
        ("from the future", licensing.sign(&harmless(&json!({ "iat": now + 120 }))), "was issued in the future"),
        ("a lower sequence", licensing.sign(&harmless(&json!({ "seq": 4 }))), "(sequence 4) is older than the one in force (sequence 5)"),
        ("the same sequence, issued earlier", licensing.sign(&harmless(&json!({ "seq": 5, "iat": now - 200 }))), "is older than"),
    ];
    for (name, file, message) in cases {
        licensing.publish_list(&list(&licensing, &in_force));
        let entitlements = entitlements(&licensing);
        replace(&licensing.path("revoked.jwt"), &file);
        let error = entitlements.refresh().unwrap_err().to_string();
        assert!(error.contains(message), "{name}: {error}");
        // The future comes by itself; everything else needs another file.
        match name {
            "from the future" => assert!(entitlements.refresh().is_err(), "{name}: judged again"),
            _ => assert_eq!(entitlements.refresh().unwrap(), Refreshed::Unchanged, "{name}: judged once"),
        }
        assert_eq!(entitlements.revocation_list().unwrap().sequence, 5, "{name}");
        assert_eq!(refusal(&entitlements, &licensing, licensing.now).await, Some("poe_license_revoked"), "{name}");
        let end = UnixTime(now - 100).plus(FRESH).plus(SKEW);
        assert_eq!(refusal(&entitlements, &licensing, end).await, Some("revocation_list_stale"), "{name}");
    }
}

#[tokio::test]
async fn the_same_sequence_signed_anew_is_fresh_for_longer() {
    let licensing = Licensing::new();
    licensing.publish_list(&list(&licensing, &json!({ "iat": licensing.now.0 - 100 })));
    let entitlements = entitlements(&licensing);
    licensing.publish_list(&licensing.list());
    assert_eq!(entitlements.refresh().unwrap(), Refreshed::Replaced { sequence: 1 });
    assert_eq!(entitlements.revocation_list().unwrap().fresh_until, licensing.now.plus(FRESH));
}

#[tokio::test]
async fn a_newer_list_wins_even_when_it_is_too_old_already() {
    let licensing = Licensing::new();
    let entitlements = entitlements(&licensing);
    licensing.publish_list(&list(&licensing, &json!({ "seq": 2, "iat": licensing.now.0 - 7200 })));
    assert_eq!(entitlements.refresh().unwrap(), Refreshed::Replaced { sequence: 2 });
    assert_eq!(refusal(&entitlements, &licensing, licensing.now).await, Some("revocation_list_stale"));
}

#[test]
fn a_file_that_cannot_be_read_is_tried_again() {
    let licensing = Licensing::new();
    let entitlements = entitlements(&licensing);
    let path = licensing.path("revoked.jwt");
    std::fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        assert!(matches!(entitlements.refresh(), Err(RevocationListError::Read { .. })));
    }
    std::fs::create_dir(&path).unwrap();
    for _ in 0..2 {
        assert!(matches!(entitlements.refresh(), Err(RevocationListError::NotAFile { .. })));
    }
    std::fs::remove_dir(&path).unwrap();
    licensing.publish_list(&list(&licensing, &json!({ "seq": 2 })));
    assert_eq!(entitlements.refresh().unwrap(), Refreshed::Replaced { sequence: 2 });
}

#[test]
fn a_list_larger_than_any_is_not_read() {
    let licensing = Licensing::new();
    let entitlements = entitlements(&licensing);
    let huge = File::create(licensing.path("huge")).unwrap();
    huge.set_len(MAX_LIST_BYTES + 1).unwrap();
    std::fs::rename(licensing.path("huge"), licensing.path("revoked.jwt")).unwrap();
    assert!(matches!(entitlements.refresh(), Err(RevocationListError::NotAFile { .. })));
}

#[test]
fn a_list_of_a_hundred_thousand_is_taken_and_may_end_with_a_line_feed() {
    let licensing = Licensing::new();
    let entitlements = entitlements(&licensing);
    let ids: Vec<String> = (0..100_000).map(|n| format!("550e8400-e29b-41d4-a716-{n:012}")).collect();
    let big = list(&licensing, &json!({ "iss": ISSUER, "seq": 2, "revoked": { "license_ids": ids } }));
    replace(&licensing.path("revoked.jwt"), &format!("{}\n", licensing.sign(&big)));
    assert_eq!(entitlements.refresh().unwrap(), Refreshed::Replaced { sequence: 2 });
}

#[tokio::test]
async fn the_watch_takes_a_new_list_without_being_told() {
    let licensing = Licensing::new();
    let entitlements = Arc::new(entitlements(&licensing));
    licensing.publish_list(&list(&licensing, &json!({ "seq": 2 })));
    let watch = tokio::spawn(Arc::clone(&entitlements).watch(|_| {}));
    let taken = async {
        while entitlements.revocation_list().unwrap().sequence != 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), taken).await.unwrap();
    assert!(!watch.is_finished(), "it goes on for ever");
    watch.abort();
}
