//! One wrong field, one reason: PoEs against the rules that hold for both ways of proof.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::testing::{ISSUER, KID, Licensing, THUMBPRINT, caller, patched, plans};
use super::*;
use crate::auth::SenderKey;
use crate::config::OfflineLicensing;
use crate::jose::testing::SigningKey;
use crate::jose::{Algorithm, base64url};

fn jwt(value: &str) -> PresentedPoe<'_> {
    PresentedPoe { format: PoeFormat::Jwt, value }
}

#[tokio::test]
async fn a_poe_entitles_to_what_it_says() {
    let licensing = Licensing::new();
    let token = licensing.sign(&licensing.claims());
    let entitlement = licensing.entitlements().entitle(jwt(&token), &caller(), None).await.unwrap();
    let expected = Entitlement {
        license_id: "lic-1".into(),
        customer_id: "customer-1".into(),
        plan: "pro".into(),
        limits: Limits { qps: 100, burst: 100, concurrency: 8, max_artifact_bytes: 100 << 20 },
        expires_at: licensing.now.plus(Duration::from_secs(3600)),
    };
    assert_eq!(*entitlement, expected);
}

#[tokio::test]
async fn one_wrong_claim_gives_one_precise_reason() {
    let licensing = Licensing::new();
    let entitlements = licensing.entitlements();
    let now = licensing.now.0;
    let other = base64url(&[8; 32]);
    let long = "x".repeat(257);
    #[rustfmt::skip]
    let cases = [
        (json!({ "iss": null }), "poe_iss_missing", "poe_invalid"),
        (json!({ "iss": "https://other.example" }), "poe_iss_mismatch", "poe_invalid"),
        (json!({ "iss": [ISSUER] }), "poe_iss_invalid", "poe_invalid"),
        (json!({ "sub": null }), "poe_sub_missing", "poe_invalid"),
        (json!({ "sub": "" }), "poe_sub_invalid", "poe_invalid"),
        (json!({ "aud": "attestor" }), "poe_aud_mismatch", "poe_invalid"),
        (json!({ "aud": ["attestor", "*"] }), "poe_aud_mismatch", "poe_invalid"),
        (json!({ "aud": 1 }), "poe_aud_invalid", "poe_invalid"),
        (json!({ "iat": null }), "poe_iat_missing", "poe_invalid"),
        (json!({ "iat": "now" }), "poe_iat_invalid", "poe_invalid"),
        (json!({ "iat": now + 40 }), "poe_issued_in_future", "poe_invalid"),
        (json!({ "nbf": true }), "poe_nbf_invalid", "poe_invalid"),
        (json!({ "nbf": now + 40 }), "poe_not_yet_valid", "poe_expired"),
        (json!({ "exp": null }), "poe_exp_missing", "poe_invalid"),
        (json!({ "exp": (now + 3600).to_string() }), "poe_exp_invalid", "poe_invalid"),
        (json!({ "exp": 1e300 }), "poe_exp_invalid", "poe_invalid"),
        (json!({ "exp": -1 }), "poe_exp_invalid", "poe_invalid"),
        (json!({ "exp": now - 31 }), "poe_expired", "poe_expired"),
        (json!({ "jti": null }), "poe_jti_missing", "poe_invalid"),
        (json!({ "jti": 17 }), "poe_jti_invalid", "poe_invalid"),
        (json!({ "tid": null }), "poe_tid_missing", "poe_invalid"),
        (json!({ "tid": { "acme": 1 } }), "poe_tid_invalid", "poe_invalid"),
        (json!({ "tid": "globex" }), "poe_tid_mismatch", "poe_binding"),
        (json!({ "tid": "ACME" }), "poe_tid_mismatch", "poe_binding"),
        (json!({ "license_id": null }), "poe_license_id_missing", "poe_invalid"),
        (json!({ "license_id": "a\nb" }), "poe_license_id_invalid", "poe_invalid"),
        (json!({ "license_id": long }), "poe_license_id_invalid", "poe_invalid"),
        (json!({ "customer_id": null }), "poe_customer_id_missing", "poe_invalid"),
        (json!({ "customer_id": 5 }), "poe_customer_id_invalid", "poe_invalid"),
        (json!({ "plan": null }), "poe_plan_missing", "poe_invalid"),
        (json!({ "plan": [] }), "poe_plan_invalid", "poe_invalid"),
        (json!({ "tier": 1 }), "poe_tier_invalid", "poe_invalid"),
        (json!({ "tier": "free" }), "poe_tier_mismatch", "poe_invalid"),
        (json!({ "plan": "gold" }), "poe_plan_unknown", "plan_unknown"),
        (json!({ "plan": "gold", "limits": { "qps": 1, "concurrency": 1 } }), "poe_plan_unknown", "plan_unknown"),
        (json!({ "valid_release_year": "2026" }), "poe_valid_release_year_invalid", "poe_invalid"),
        (json!({ "valid_release_year": 26 }), "poe_valid_release_year_invalid", "poe_invalid"),
        (json!({ "valid_release_year": 2026.5 }), "poe_valid_release_year_invalid", "poe_invalid"),
        (json!({ "max_version": "newest" }), "poe_max_version_invalid", "poe_invalid"),
        (json!({ "max_version": 2026.12 }), "poe_max_version_invalid", "poe_invalid"),
        (json!({ "limits": [] }), "poe_limits_invalid", "poe_invalid"),
        (json!({ "limits": { "qps": 0 } }), "poe_limits_qps_invalid", "poe_invalid"),
        (json!({ "limits": { "qps": 1.5 } }), "poe_limits_qps_invalid", "poe_invalid"),
        (json!({ "limits": { "qps": 4_294_967_296_u64 } }), "poe_limits_qps_invalid", "poe_invalid"),
        (json!({ "limits": { "burst": -1 } }), "poe_limits_burst_invalid", "poe_invalid"),
        (json!({ "limits": { "concurrency": "8" } }), "poe_limits_concurrency_invalid", "poe_invalid"),
        (json!({ "limits": { "max_artifact_bytes": 0 } }), "poe_limits_max_artifact_bytes_invalid", "poe_invalid"),
        (json!({ "cnf": null }), "poe_cnf_missing", "poe_binding"),
        (json!({ "cnf": base64url(&THUMBPRINT) }), "poe_cnf_invalid", "poe_invalid"),
        (json!({ "cnf": { "jkt": null } }), "poe_cnf_invalid", "poe_invalid"),
        (json!({ "cnf": { "jkt": null, "kid": "x" } }), "poe_cnf_invalid", "poe_invalid"),
        (json!({ "cnf": { "jkt": base64url(&[7; 31]) } }), "poe_cnf_invalid", "poe_invalid"),
        (json!({ "cnf": { "jkt": format!("{}=", base64url(&THUMBPRINT)) } }), "poe_cnf_invalid", "poe_invalid"),
        (json!({ "cnf": { "x5t#S256": base64url(&THUMBPRINT) } }), "poe_cnf_invalid", "poe_invalid"),
        (json!({ "cnf": { "jkt": other } }), "poe_cnf_mismatch", "poe_binding"),
        (json!({ "cnf": { "jkt": null, "x5t#S256": base64url(&THUMBPRINT) } }), "poe_cnf_kind", "poe_binding"),
    ];
    for (patch, reason, public) in cases {
        let token = licensing.sign(&patched(licensing.claims(), &patch));
        let error = entitlements.entitle_at(licensing.now, jwt(&token), &caller(), None).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{patch}: {error}");
        assert_eq!(error.public_reason(), public, "{patch}");
        assert_eq!((error.code(), error.retry_after()), ("entitlement_denied", None), "{patch}");
    }
}

#[tokio::test]
async fn a_claim_at_the_edge_of_what_is_allowed_passes() {
    let licensing = Licensing::new();
    let entitlements = licensing.entitlements();
    let now = licensing.now.0;
    let cases = [
        json!({ "exp": now - 29 }),
        json!({ "exp": f64::from(u32::try_from(now).unwrap()) + 0.5 }),
        json!({ "iat": now + 30 }),
        json!({ "nbf": now + 30 }),
        json!({ "nbf": null, "limits": null, "max_version": null, "valid_release_year": null }),
        json!({ "plan": null, "tier": "pro" }),
        json!({ "tier": "pro" }),
        json!({ "aud": "signer" }),
        json!({ "aud": ["attestor", "signer"] }),
        json!({ "limits": {} }),
        json!({ "license_id": "x".repeat(256) }),
        json!({ "something_new": { "a": [1] } }),
    ];
    for patch in cases {
        let token = licensing.sign(&patched(licensing.claims(), &patch));
        let outcome = entitlements.entitle_at(licensing.now, jwt(&token), &caller(), None).await;
        assert!(outcome.is_ok(), "{patch}: {outcome:?}");
    }
}

#[tokio::test]
async fn one_wrong_thing_about_the_token_gives_one_precise_reason() {
    let licensing = Licensing::new();
    let entitlements = licensing.entitlements();
    let claims = licensing.claims();
    let (good, es256) = (licensing.sign(&claims), Algorithm::Es256);
    let with_header = |header: Value| licensing.key.token(es256, &header, &claims);
    let of_payload = |payload: &str| licensing.key.token_of(es256, br#"{"alg":"ES256"}"#, payload.as_bytes());
    let rsa = SigningKey::generate(Algorithm::Ps256);
    let stranger = SigningKey::generate(es256);
    let mut tampered = good.clone().into_bytes();
    let middle = good.find('.').unwrap() + 10;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let duplicate = claims.to_string().replacen('{', r#"{"tid":"acme","#, 1);
    let duplicate_limit = patched(claims.clone(), &json!({ "limits": { "qps": 1 } }))
        .to_string()
        .replace(r#""qps":1"#, r#""qps":1,"qps":9"#);

    #[rustfmt::skip]
    let cases = [
        ("nothing", String::new(), "poe_missing"),
        ("two parts", good.rsplit_once('.').unwrap().0.to_owned(), "poe_malformed"),
        ("four parts", format!("{good}.x"), "poe_malformed"),
        ("a space at the end", format!("{good} "), "poe_characters"),
        ("a line feed inside", good.replacen('.', "\n.", 1), "poe_characters"),
        ("letters beyond ASCII", format!("ä{good}"), "poe_characters"),
        ("padding", format!("{good}="), "poe_malformed"),
        ("a megabyte", "x".repeat(1 << 20), "poe_too_large"),
        ("alg none", with_header(json!({ "alg": "none" })), "poe_algorithm"),
        ("alg HS256", with_header(json!({ "alg": "HS256", "kid": KID })), "poe_algorithm"),
        ("no alg", with_header(json!({ "kid": KID })), "poe_algorithm"),
        ("an algorithm that is not configured", rsa.token(Algorithm::Ps256, &json!({ "alg": "PS256" }), &claims), "poe_algorithm"),
        ("an algorithm without a key", rsa.token(Algorithm::Rs256, &json!({ "alg": "RS256" }), &claims), "poe_kid_missing"),
        ("an access token", with_header(json!({ "alg": "ES256", "kid": KID, "typ": "at+jwt" })), "poe_typ"),
        ("a revocation list by type", with_header(json!({ "alg": "ES256", "kid": KID, "typ": "poe-revocations+jwt" })), "poe_typ"),
        ("an extension", with_header(json!({ "alg": "ES256", "kid": KID, "crit": ["exp"] })), "poe_critical_header"),
        ("an unknown key", with_header(json!({ "alg": "ES256", "kid": "licensing-2" })), "poe_kid_unknown"),
        ("another key's signature", stranger.token(es256, &json!({ "alg": "ES256", "kid": KID }), &claims), "poe_signature"),
        ("another key's signature, its key attached", stranger.token(es256, &json!({ "alg": "ES256", "jwk": stranger.jwk() }), &claims), "poe_signature"),
        ("a changed payload", String::from_utf8(tampered).unwrap(), "poe_signature"),
        ("no JSON", of_payload("lic-1"), "poe_payload_unreadable"),
        ("an array", of_payload("[]"), "poe_payload_unreadable"),
        ("a claim twice", of_payload(&duplicate), "poe_payload_unreadable"),
        ("a limit twice", of_payload(&duplicate_limit), "poe_limits_invalid"),
        ("the revocation list itself", licensing.sign(&licensing.list()), "poe_sub_missing"),
    ];
    for (name, token, reason) in cases {
        let error = entitlements.entitle_at(licensing.now, jwt(&token), &caller(), None).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{name}: {error}");
        assert_eq!(error.code(), "entitlement_denied", "{name}");
    }
    for header in [
        json!({ "alg": "ES256" }),
        json!({ "alg": "ES256", "typ": "JWT" }),
        json!({ "alg": "ES256", "typ": "poe+jwt" }),
        json!({ "alg": "ES256", "typ": "application/POE+JWT" }),
    ] {
        entitlements.entitle_at(licensing.now, jwt(&with_header(header)), &caller(), None).await.unwrap();
    }
}

#[tokio::test]
async fn without_a_kid_only_one_key_may_fit() {
    let licensing = Licensing::new();
    let second = patched(SigningKey::generate(Algorithm::Es256).jwk(), &json!({ "kid": "licensing-2" }));
    licensing.publish_keys(&[licensing.key_under(KID), second]);
    let entitlements = licensing.entitlements();
    let unnamed = licensing.key.token(Algorithm::Es256, &json!({ "alg": "ES256" }), &licensing.claims());
    let error = entitlements.entitle(jwt(&unnamed), &caller(), None).await.unwrap_err();
    assert_eq!(error.reason(), "poe_kid_missing");
    let named = licensing.sign(&licensing.claims());
    entitlements.entitle(jwt(&named), &caller(), None).await.unwrap();
}

#[tokio::test]
async fn an_rsa_signature_proves_as_well() {
    let licensing = Licensing::new();
    let rsa = SigningKey::generate(Algorithm::Rs256);
    licensing.publish_keys(&[licensing.key_under(KID), rsa.jwk()]);
    let token = rsa.token(Algorithm::Rs256, &json!({ "alg": "RS256" }), &licensing.claims());
    licensing.entitlements().entitle(jwt(&token), &caller(), None).await.unwrap();
}

#[tokio::test]
async fn a_limit_is_the_poes_own_and_the_plans_where_it_is_silent() {
    let licensing = Licensing::new();
    let entitlements = licensing.entitlements();
    let all = json!({ "qps": 1, "burst": 2, "concurrency": 3, "max_artifact_bytes": 4 });
    let cases = [
        (json!({}), (100, 100, 8, 100 << 20)),
        (json!({ "limits": { "qps": 10 } }), (10, 10, 8, 100 << 20)),
        (json!({ "limits": { "qps": 1000 } }), (1000, 1000, 8, 100 << 20)),
        (json!({ "limits": { "burst": 7 } }), (100, 7, 8, 100 << 20)),
        (json!({ "limits": { "concurrency": 1, "max_artifact_bytes": 5 } }), (100, 100, 1, 5)),
        (json!({ "plan": "bursty" }), (100, 500, 8, 100 << 20)),
        (json!({ "plan": "bursty", "limits": { "qps": 10 } }), (10, 500, 8, 100 << 20)),
        (json!({ "plan": "gold", "limits": all }), (1, 2, 3, 4)),
        (json!({ "plan": "gold", "limits": patched(all, &json!({ "burst": null })) }), (1, 1, 3, 4)),
    ];
    for (patch, (qps, burst, concurrency, max_artifact_bytes)) in cases {
        let token = licensing.sign(&patched(licensing.claims(), &patch));
        let entitlement = entitlements.entitle(jwt(&token), &caller(), None).await.unwrap();
        assert_eq!(entitlement.limits, Limits { qps, burst, concurrency, max_artifact_bytes }, "{patch}");
    }
}

#[tokio::test]
async fn a_licence_covers_versions_up_to_the_one_it_names() {
    let licensing = Licensing::new();
    let entitlements = licensing.entitlements();
    let year = json!({ "valid_release_year": 2026 });
    let version = json!({ "max_version": "2026.06" });
    let semantic = json!({ "max_version": "2.5.0" });
    let both = json!({ "valid_release_year": 2027, "max_version": "2026.06.2" });
    let nothing = json!({});
    let (newer, unreadable, scheme) =
        ("poe_max_version_exceeded", "poe_stellaops_version_unreadable", "poe_stellaops_version_scheme");
    let cases = [
        (&nothing, Some("2099.12"), None),
        (&nothing, Some("whatever"), None),
        (&year, None, None),
        (&year, Some("2025.12.9"), None),
        (&year, Some("2026.12.9"), None),
        (&year, Some("2027.01"), Some("poe_release_year_exceeded")),
        (&year, Some("2027.01-rc1"), Some("poe_release_year_exceeded")),
        (&year, Some("2.0.0"), Some(scheme)),
        (&year, Some("latest"), Some(unreadable)),
        (&year, Some(""), Some(unreadable)),
        (&version, None, None),
        (&version, Some("2026.05.99"), None),
        (&version, Some("2026.06"), None),
        (&version, Some("2026.06-rc1"), None),
        (&version, Some("2026.06.1"), Some(newer)),
        (&version, Some("2026.07-alpha"), Some(newer)),
        (&version, Some("1.0.0"), Some(scheme)),
        (&version, Some("2026.6.x"), Some(unreadable)),
        (&semantic, Some("2.5.0"), None),
        (&semantic, Some("2.5.0-rc.1"), None),
        (&semantic, Some("2.5.1"), Some(newer)),
        (&semantic, Some("2.10.0"), Some(newer)),
        (&semantic, Some("2026.01"), Some(scheme)),
        (&both, Some("2026.06.2"), None),
        (&both, Some("2026.06.3"), Some(newer)),
        (&both, Some("2028.01"), Some("poe_release_year_exceeded")),
    ];
    for (patch, asked, reason) in cases {
        let token = licensing.sign(&patched(licensing.claims(), patch));
        let outcome = entitlements.entitle(jwt(&token), &caller(), asked).await;
        assert_eq!(outcome.err().map(|error| error.reason()), reason, "{patch} {asked:?}");
    }
}

#[tokio::test]
async fn a_proven_poe_is_still_judged_for_every_caller_version_and_moment() {
    let licensing = Licensing::new();
    let entitlements = licensing.entitlements();
    let token = licensing.sign(&patched(licensing.claims(), &json!({ "valid_release_year": 2026 })));
    let first = entitlements.entitle_at(licensing.now, jwt(&token), &caller(), None).await.unwrap();
    let again = entitlements.entitle_at(licensing.now, jwt(&token), &caller(), None).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again), "the signature was verified once");

    let certificate = Caller { sender: SenderKey::Certificate(THUMBPRINT), ..caller() };
    let thief = Caller { sender: SenderKey::Dpop([8; 32]), ..caller() };
    let neighbour = Caller { tenant: "globex".into(), ..caller() };
    let end = licensing.now.plus(Duration::from_secs(3600 + 30));
    let at = |now, who, version| {
        let (entitlements, token) = (&entitlements, &token);
        async move { entitlements.entitle_at(now, jwt(token), &who, version).await.unwrap_err().reason() }
    };
    assert_eq!(at(licensing.now, certificate, None).await, "poe_cnf_kind");
    assert_eq!(at(licensing.now, thief, None).await, "poe_cnf_mismatch");
    assert_eq!(at(licensing.now, neighbour, None).await, "poe_tid_mismatch");
    assert_eq!(at(licensing.now, caller(), Some("2027.01")).await, "poe_release_year_exceeded");
    licensing
        .publish_list(&patched(licensing.list(), &json!({ "seq": 2, "exp": end.0 + 1, "iat": licensing.now.0 + 29 })));
    entitlements.refresh().unwrap();
    assert_eq!(at(end, caller(), None).await, "poe_expired");
}

#[tokio::test]
async fn a_poe_bound_to_a_certificate_is_the_certificates() {
    let licensing = Licensing::new();
    let entitlements = licensing.entitlements();
    let cnf = json!({ "cnf": { "jkt": null, "x5t#S256": base64url(&[9; 32]) } });
    let token = licensing.sign(&patched(licensing.claims(), &cnf));
    let with = |sender| Caller { sender, ..caller() };
    entitlements.entitle(jwt(&token), &with(SenderKey::Certificate([9; 32])), None).await.unwrap();
    for sender in [SenderKey::Certificate([8; 32]), SenderKey::Dpop([9; 32])] {
        let error = entitlements.entitle(jwt(&token), &with(sender), None).await.unwrap_err();
        assert_eq!(error.public_reason(), "poe_binding");
    }
}

#[tokio::test]
async fn an_unbound_poe_passes_only_where_the_operator_allows_it() {
    let licensing = Licensing::new();
    let config = config::Licensing { require_cnf: false, ..licensing.config() };
    let entitlements = Entitlements::new(&config, plans(), None).unwrap();
    let unbound = licensing.sign(&patched(licensing.claims(), &json!({ "cnf": null })));
    entitlements.entitle(jwt(&unbound), &caller(), None).await.unwrap();
    for (cnf, reason) in [(json!({ "jkt": base64url(&[8; 32]) }), "poe_cnf_mismatch"), (json!("x"), "poe_cnf_invalid")]
    {
        let bound = licensing.sign(&patched(licensing.claims(), &json!({ "cnf": cnf })));
        assert_eq!(entitlements.entitle(jwt(&bound), &caller(), None).await.unwrap_err().reason(), reason);
    }
}

#[tokio::test]
async fn an_opaque_poe_needs_the_licensing_service() {
    let licensing = Licensing::new();
    let poe = PresentedPoe { format: PoeFormat::Opaque, value: &licensing.sign(&licensing.claims()) };
    let error = licensing.entitlements().entitle(poe, &caller(), None).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), ("entitlement_denied", "poe_format_not_accepted"));
}

#[test]
fn the_header_form_of_a_poe_tells_its_format() {
    for (value, format) in [
        ("a.b.c", PoeFormat::Jwt),
        ("eyJ-_.eyJ.c2ln", PoeFormat::Jwt),
        ("a.b", PoeFormat::Opaque),
        ("a..c", PoeFormat::Opaque),
        ("a.b.c.d", PoeFormat::Opaque),
        ("a.b.c=", PoeFormat::Opaque),
        ("a.b.+", PoeFormat::Opaque),
        ("550e8400-e29b-41d4-a716-446655440000", PoeFormat::Opaque),
    ] {
        assert_eq!(PresentedPoe::from_header(value).format, format, "{value}");
        assert_eq!(PoeFormat::from_name(format.name()), Some(format));
    }
}

#[tokio::test]
async fn nothing_printed_shows_a_token_or_what_it_says() {
    let licensing = Licensing::new();
    let token = licensing.sign(&patched(licensing.claims(), &json!({ "exp": "s3cret-s3cret" })));
    let error = licensing.entitlements().entitle(jwt(&token), &caller(), None).await.unwrap_err();
    for text in [format!("{error} {error:?}"), format!("{:?}", jwt(&token))] {
        assert!(!text.contains("s3cret") && !text.contains(&token[..20]), "{text}");
    }
}

#[test]
fn a_configuration_that_cannot_prove_anything_is_refused() {
    let licensing = Licensing::new();
    let fails = |config: &config::Licensing| Entitlements::new(config, plans(), None).unwrap_err().to_string();
    assert!(fails(&config::Licensing { offline: None, ..licensing.config() }).starts_with("no PoE can be proven"));

    let edited = |edit: fn(&mut OfflineLicensing)| {
        let mut config = licensing.config();
        edit(config.offline.as_mut().unwrap());
        fails(&config)
    };
    assert!(edited(|offline| offline.keys = "/nonexistent".into()).starts_with("cannot read the licensing keys"));
    assert!(edited(|offline| offline.keys = offline.revocation_list.clone()).contains("are not a JWK set"));
    assert!(edited(|offline| offline.algorithms = vec![Algorithm::Rs256]).starts_with("none of the licensing keys"));
    assert!(
        edited(|offline| offline.revocation_list = "/nonexistent".into()).starts_with("cannot read the revocation")
    );
    assert!(edited(|offline| offline.issuer = "x".to_owned()).contains("is not of the issuer x"));
}
