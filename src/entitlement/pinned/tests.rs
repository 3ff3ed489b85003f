#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use crate::clock::UnixTime;
use crate::entitlement::testing::{Licensing, caller, patched, replace};
use crate::entitlement::{Entitlements, PoeFormat, PresentedPoe, Refreshed};
use crate::jose::Algorithm;
use crate::jose::testing::SigningKey;

/// A second key of the Licensing Service, and what it signs.
struct Successor(SigningKey);

impl Successor {
    fn new() -> Self {
        Self(SigningKey::generate(Algorithm::Es256))
    }

    fn jwk(&self) -> Value {
        patched(self.0.jwk(), &json!({ "kid": "licensing-2" }))
    }

    fn sign(&self, claims: &Value) -> String {
        self.0.token(Algorithm::Es256, &json!({ "alg": "ES256", "kid": "licensing-2" }), claims)
    }
}

fn publish(licensing: &Licensing, keys: &[Value]) {
    replace(&licensing.path("keys.json"), &json!({ "keys": keys }).to_string());
}

/// Why `token` is refused, if it is.
async fn refusal(entitlements: &Entitlements, token: &str) -> Option<&'static str> {
    let poe = PresentedPoe { format: PoeFormat::Jwt, value: token };
    entitlements.entitle_at(UnixTime::now(), poe, &caller(), None).await.err().map(|error| error.reason())
}

#[tokio::test]
async fn a_rotation_of_the_licensing_keys_needs_no_restart() {
    let (licensing, successor) = (Licensing::new(), Successor::new());
    let entitlements = licensing.entitlements();
    let (old, new) = (licensing.sign(&licensing.claims()), successor.sign(&licensing.claims()));
    assert!(!entitlements.refresh_keys().unwrap());
    assert_eq!(refusal(&entitlements, &old).await, None);
    assert_eq!(refusal(&entitlements, &new).await, Some("poe_kid_unknown"));

    publish(&licensing, &[licensing.key_under("licensing-1"), successor.jwk()]);
    assert!(entitlements.refresh_keys().unwrap());
    assert!(!entitlements.refresh_keys().unwrap());
    assert_eq!(refusal(&entitlements, &old).await, None);
    assert_eq!(refusal(&entitlements, &new).await, None);

    // The list is signed anew, then the old key goes, and with it whatever it had proven.
    replace(&licensing.path("revoked.jwt"), &successor.sign(&patched(licensing.list(), &json!({ "seq": 2 }))));
    assert_eq!(entitlements.refresh().unwrap(), Refreshed::Replaced { sequence: 2 });
    publish(&licensing, &[successor.jwk()]);
    assert!(entitlements.refresh_keys().unwrap());
    assert_eq!(refusal(&entitlements, &old).await, Some("poe_kid_unknown"));
    assert_eq!(refusal(&entitlements, &new).await, None);
}

#[tokio::test]
async fn a_list_of_a_key_that_is_gone_lets_nothing_pass_until_there_is_another() {
    let (licensing, successor) = (Licensing::new(), Successor::new());
    let entitlements = licensing.entitlements();
    publish(&licensing, &[successor.jwk()]);
    assert!(entitlements.refresh_keys().unwrap());
    let error = entitlements.refresh().unwrap_err().to_string();
    assert!(error.contains("is not signed by a pinned licensing key"), "{error}");
    let status = entitlements.revocation_list().unwrap();
    assert!(status.disowned && status.fresh_until == UnixTime(0), "{status:?}");
    let new = successor.sign(&licensing.claims());
    assert_eq!(refusal(&entitlements, &new).await, Some("revocation_list_disowned"));

    // The list lay there before the keys did: it is judged anew for them.
    replace(&licensing.path("revoked.jwt"), &successor.sign(&licensing.list()));
    publish(&licensing, &[licensing.key_under("licensing-1")]);
    entitlements.refresh_keys().unwrap();
    assert!(entitlements.refresh().is_err());
    assert_eq!(entitlements.refresh().unwrap(), Refreshed::Unchanged, "judged once");
    publish(&licensing, &[successor.jwk()]);
    entitlements.refresh_keys().unwrap();
    assert_eq!(entitlements.refresh().unwrap(), Refreshed::Replaced { sequence: 1 });
    assert_eq!(refusal(&entitlements, &new).await, None);
}

#[tokio::test]
async fn keys_that_cannot_be_used_leave_those_in_force() {
    let licensing = Licensing::new();
    let entitlements = licensing.entitlements();
    let good = licensing.sign(&licensing.claims());
    let ed25519 = SigningKey::generate(Algorithm::EdDsa).jwk();
    let path = licensing.path("keys.json");
    #[rustfmt::skip]
    let cases = [
        ("nothing", String::new(), "are not a JWK set"),
        ("half a file", json!({ "keys": [licensing.key_under("k")] }).to_string()[..60].to_owned(), "are not a JWK set"),
        ("no keys", json!({ "keys": [] }).to_string(), "none of the licensing keys"),
        ("keys of no accepted algorithm", json!({ "keys": [ed25519] }).to_string(), "none of the licensing keys"),
        ("more than any set of keys", " ".repeat(1024 * 1024 + 1), "it is not a regular file of at most"),
    ];
    for (name, text, message) in cases {
        replace(&path, &text);
        let error = entitlements.refresh_keys().unwrap_err().to_string();
        assert!(error.contains(message), "{name}: {error}");
        assert_eq!(refusal(&entitlements, &good).await, None, "{name}");
    }
    std::fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        let error = entitlements.refresh_keys().unwrap_err().to_string();
        assert!(error.contains("cannot read the licensing keys"), "{error}");
        assert_eq!(refusal(&entitlements, &good).await, None);
    }
    publish(&licensing, &[licensing.key_under("licensing-1")]);
    assert!(entitlements.refresh_keys().unwrap(), "the next good file is taken");
}
