//! Against a real HTTP server on loopback that counts what it is asked.
#![allow(clippy::unwrap_used)]

mod service;

use std::num::NonZeroU32;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;

use service::Service;

use super::*;
use crate::auth::Caller;
use crate::config::{Licensing as Config, Span};
use crate::entitlement::testing::{Licensing, caller, patched, plans};
use crate::entitlement::{Entitlement, Entitlements, PoeFormat, PresentedPoe};
use crate::outbound::{OutboundLimits, OutboundTls};

fn config(licensing: &Licensing, url: String) -> Config {
    Config {
        offline: None,
        online: Some(OnlineLicensing {
            introspection_url: url,
            ca: "unused".into(),
            certificate: "unused".into(),
            private_key: "unused".into(),
            cache_ttl: Span::seconds(120),
            negative_cache_ttl: Span::seconds(10),
            max_cache_entries: NonZeroU32::new(4).unwrap(),
            timeout: Span::seconds(5),
        }),
        ..licensing.config()
    }
}

fn outbound(tls: OutboundTls, timeout: Duration) -> Outbound {
    Outbound::new(tls, OutboundLimits { timeout, max_body_bytes: 64 * 1024 }, Handle::current()).unwrap()
}

fn entitlements(licensing: &Licensing, service: &Service) -> Arc<Entitlements> {
    let config = config(licensing, format!("http://{}/license/introspect", service.address));
    let outbound = outbound(OutboundTls::default(), Duration::from_secs(30));
    Arc::new(Entitlements::new(&config, plans(), Some(outbound)).unwrap())
}

/// What the service says of a valid PoE: as RFC 7662 lets it, without the claims that only a JWT needs.
fn active(licensing: &Licensing) -> Value {
    let no = Value::Null;
    patched(licensing.claims(), &json!({ "active": true, "iss": no, "sub": no, "iat": no, "jti": no }))
}

async fn ask(entitlements: &Entitlements, token: &str) -> Result<Arc<Entitlement>, PoeError> {
    ask_as(entitlements, &caller(), token).await
}

async fn ask_as(entitlements: &Entitlements, caller: &Caller, token: &str) -> Result<Arc<Entitlement>, PoeError> {
    let poe = PresentedPoe { format: PoeFormat::Opaque, value: token };
    entitlements.entitle(poe, caller, None).await
}

async fn refusal(entitlements: &Entitlements, token: &str) -> (&'static str, &'static str) {
    let error = ask(entitlements, token).await.unwrap_err();
    (error.code(), error.reason())
}

#[tokio::test]
async fn an_active_poe_entitles_and_the_answer_is_remembered() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let entitlements = entitlements(&licensing, &service);
    for _ in 0..3 {
        let entitlement = ask(&entitlements, "handle+1/=").await.unwrap();
        assert_eq!((&*entitlement.license_id, &*entitlement.plan), ("lic-1", "pro"));
    }
    assert_eq!(service.asked(), 1);
    let expected = "POST /license/introspect \"application/x-www-form-urlencoded\" \"application/json\" \
                    token=handle%2B1%2F%3D&token_type_hint=poe";
    assert_eq!(service.last_request(), expected);
    ask(&entitlements, "handle-2").await.unwrap();
    assert_eq!(service.asked(), 2, "another token is another question");
}

#[tokio::test]
async fn a_jwt_is_introspected_where_offline_proof_is_not_configured() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let token = licensing.sign(&licensing.claims());
    let poe = PresentedPoe { format: PoeFormat::Jwt, value: &token };
    entitlements(&licensing, &service).entitle(poe, &caller(), None).await.unwrap();
    assert_eq!(service.asked(), 1);
}

#[tokio::test]
async fn with_both_ways_a_jwt_is_proven_offline_and_the_list_holds_for_both() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let config = config(&licensing, format!("http://{}/", service.address));
    let config = Config { offline: licensing.config().offline, ..config };
    let outbound = outbound(OutboundTls::default(), Duration::from_secs(30));
    let entitlements = Entitlements::new(&config, plans(), Some(outbound)).unwrap();
    let token = licensing.sign(&licensing.claims());
    let poe = PresentedPoe { format: PoeFormat::Jwt, value: &token };
    entitlements.entitle(poe, &caller(), None).await.unwrap();
    assert_eq!(service.asked(), 0);
    ask(&entitlements, "handle").await.unwrap();
    licensing.publish_list(&patched(licensing.list(), &json!({ "seq": 2, "revoked": { "license_ids": ["lic-1"] } })));
    entitlements.refresh().unwrap();
    assert_eq!(refusal(&entitlements, "handle").await, ("entitlement_denied", "poe_license_revoked"));
}

#[tokio::test]
async fn however_many_ask_there_is_one_look_up() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let entitlements = entitlements(&licensing, &service);
    service.hold();
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let entitlements = Arc::clone(&entitlements);
            tokio::spawn(async move { ask(&entitlements, "handle").await })
        })
        .collect();
    service.until_asked(1).await;
    for _ in 0..200 {
        tokio::task::yield_now().await; // everybody has had a turn, and the answer is still out
    }
    service.let_go();
    for one in asking {
        one.await.unwrap().unwrap();
    }
    assert_eq!(service.asked(), 1);
}

#[tokio::test]
async fn a_refusal_is_shared_by_all_who_ask() {
    let licensing = Licensing::new();
    let service = Service::start(&json!({ "active": false })).await;
    let entitlements = entitlements(&licensing, &service);
    service.hold();
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let entitlements = Arc::clone(&entitlements);
            tokio::spawn(async move { refusal(&entitlements, "handle").await })
        })
        .collect();
    service.until_asked(1).await;
    service.let_go();
    for one in asking {
        assert_eq!(one.await.unwrap(), ("entitlement_denied", "poe_inactive"));
    }
    assert_eq!(service.asked(), 1);
}

#[tokio::test]
async fn a_caller_who_goes_away_takes_nobodys_answer_along() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let entitlements = entitlements(&licensing, &service);
    service.hold();
    let spawn = || {
        let entitlements = Arc::clone(&entitlements);
        tokio::spawn(async move { ask(&entitlements, "handle").await })
    };
    let first = spawn();
    service.until_asked(1).await;
    let second = spawn();
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    service.let_go();
    second.await.unwrap().unwrap();
    assert_eq!(service.asked(), 1, "the look-up that the first caller began was finished");
}

#[tokio::test]
async fn an_inactive_poe_is_denied_and_that_is_remembered_apart() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let entitlements = entitlements(&licensing, &service);
    ask(&entitlements, "valid").await.unwrap();
    service.answers(200, &json!({ "active": false }));
    for token in 0..100 {
        let expected = ("entitlement_denied", "poe_inactive");
        assert_eq!(refusal(&entitlements, &format!("made-up-{token}")).await, expected);
        assert_eq!(refusal(&entitlements, &format!("made-up-{token}")).await, expected);
    }
    assert_eq!(service.asked(), 101, "each made-up token was looked up once");
    ask(&entitlements, "valid").await.unwrap();
    assert_eq!(service.asked(), 101, "and none displaced the valid one");
}

#[tokio::test]
async fn the_caches_stay_within_their_bounds() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let entitlements = entitlements(&licensing, &service);
    let online = entitlements.online.as_ref().unwrap();
    for token in 0..50 {
        ask(&entitlements, &format!("handle-{token}")).await.unwrap();
    }
    service.answers(200, &json!({ "active": false }));
    for token in 0..50 {
        ask(&entitlements, &format!("made-up-{token}")).await.unwrap_err();
    }
    online.granted.run_pending_tasks().await;
    online.refused.run_pending_tasks();
    assert!((1..=4).contains(&online.granted.entry_count()));
    assert!((1..=4).contains(&online.refused.entry_count()));
}

#[tokio::test]
async fn an_answer_is_kept_no_longer_than_it_is_valid() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let entitlements = entitlements(&licensing, &service);
    let online = entitlements.online.as_ref().unwrap();
    let now = licensing.now;
    for (exp, keep) in [(now.0 + 3600, 120), (now.0 + 120, 120), (now.0 + 7, 7), (now.0, 0), (now.0 - 20, 0)] {
        let claims = patched(licensing.claims(), &json!({ "exp": exp }));
        let grant = online.rules.grant(Claims::parse(claims.to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(online.keep_grant(&grant, now), Duration::from_secs(keep));
    }

    service.answers(200, &patched(active(&licensing), &json!({ "exp": now.0 - 5 })));
    for times in 1..=3 {
        let poe = PresentedPoe { format: PoeFormat::Opaque, value: "handle" };
        entitlements.entitle_at(now, poe, &caller(), None).await.unwrap();
        assert_eq!(service.asked(), times, "past its exp an answer is used once");
    }
}

#[tokio::test]
async fn a_remembered_answer_is_still_judged_by_time_and_caller() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let entitlements = entitlements(&licensing, &service);
    let poe = PresentedPoe { format: PoeFormat::Opaque, value: "handle" };
    entitlements.entitle_at(licensing.now, poe, &caller(), None).await.unwrap();
    let end = licensing.now.plus(Duration::from_secs(3600 + 30));
    let late = entitlements.entitle_at(end, poe, &caller(), None).await.unwrap_err();
    assert_eq!(late.reason(), "poe_expired");
    let neighbour = Caller { tenant: "globex".into(), ..caller() };
    let other = entitlements.entitle_at(licensing.now, poe, &neighbour, None).await.unwrap_err();
    assert_eq!((other.reason(), other.public_reason()), ("poe_tid_mismatch", "poe_binding"));
    assert_eq!(service.asked(), 1);
}

#[tokio::test]
async fn one_wrong_thing_in_the_answer_gives_one_precise_reason() {
    let licensing = Licensing::new();
    let service = Service::start(&json!({})).await;
    let entitlements = entitlements(&licensing, &service);
    let now = licensing.now.0;
    let (denied, unavailable) = ("entitlement_denied", "dependency_unavailable");
    #[rustfmt::skip]
    let cases = [
        (json!({ "active": false }), denied, "poe_inactive"),
        (json!({ "active": "true" }), unavailable, "licensing_answer_invalid"),
        (json!({ "active": 1 }), unavailable, "licensing_answer_invalid"),
        (json!({ "active": null }), unavailable, "licensing_answer_invalid"),
        (json!({ "exp": null }), denied, "poe_exp_missing"),
        (json!({ "exp": "soon" }), denied, "poe_exp_invalid"),
        (json!({ "exp": now - 31 }), denied, "poe_expired"),
        (json!({ "nbf": now + 60 }), denied, "poe_not_yet_valid"),
        (json!({ "iat": now + 60 }), denied, "poe_issued_in_future"),
        (json!({ "tid": null }), denied, "poe_tid_missing"),
        (json!({ "tid": "globex" }), denied, "poe_tid_mismatch"),
        (json!({ "license_id": null }), denied, "poe_license_id_missing"),
        (json!({ "customer_id": null }), denied, "poe_customer_id_missing"),
        (json!({ "plan": null }), denied, "poe_plan_missing"),
        (json!({ "plan": "gold" }), denied, "poe_plan_unknown"),
        (json!({ "aud": "attestor" }), denied, "poe_aud_mismatch"),
        (json!({ "cnf": null }), denied, "poe_cnf_missing"),
        (json!({ "cnf": { "jkt": crate::jose::base64url(&[8; 32]) } }), denied, "poe_cnf_mismatch"),
        (json!({ "limits": { "qps": 0 } }), denied, "poe_limits_qps_invalid"),
    ];
    for (index, (patch, code, reason)) in cases.into_iter().enumerate() {
        service.answers(200, &patched(active(&licensing), &patch));
        assert_eq!(refusal(&entitlements, &format!("handle-{index}")).await, (code, reason), "{patch}");
    }
}

#[tokio::test]
async fn whatever_is_no_answer_fails_closed_and_says_when_to_come_back() {
    let licensing = Licensing::new();
    let service = Service::start(&json!({})).await;
    let entitlements = entitlements(&licensing, &service);
    let good = active(&licensing).to_string();
    let twice = good.replacen('{', r#"{"active":false,"#, 1);
    let large = format!("{good}{}", " ".repeat(64 * 1024));
    #[rustfmt::skip]
    let cases = [
        (200, "", "", "licensing_answer_invalid", 2),
        (200, "", "[]", "licensing_answer_invalid", 2),
        (200, "", "<html>", "licensing_answer_invalid", 2),
        (200, "", &*twice, "licensing_answer_invalid", 2),
        (200, "", &*large, "licensing_unreachable", 2),
        (204, "", "", "licensing_status", 2),
        (302, "", &good, "licensing_status", 2),
        (400, "", &good, "licensing_status", 2),
        (401, "", &good, "licensing_status", 2),
        (404, "", &good, "licensing_status", 2),
        (429, "7", &good, "licensing_status", 7),
        (500, "", &good, "licensing_status", 2),
        (503, "86400", &good, "licensing_status", 60),
        (503, "Wed, 21 Oct 2026 07:28:00 GMT", &good, "licensing_status", 2),
    ];
    for (index, (status, retry_after, body, reason, seconds)) in cases.into_iter().enumerate() {
        service.answers_with(status, retry_after, body);
        let error = ask(&entitlements, &format!("handle-{index}")).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), ("dependency_unavailable", reason), "{status} {error}");
        assert_eq!(error.public_reason(), "licensing_unavailable");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(seconds)), "{status}");
    }
}

#[tokio::test]
async fn a_service_in_trouble_is_not_asked_by_every_request_and_welcomed_back_soon() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let entitlements = entitlements(&licensing, &service);
    let online = entitlements.online.as_ref().unwrap();
    let trouble = PoeError::Unavailable(Unavailable::Aborted);
    assert_eq!(online.keep_refusal(&trouble), Duration::from_secs(1));
    assert_eq!(online.keep_refusal(&PoeError::Inactive), Duration::from_secs(10));

    service.answers(500, &json!({}));
    service.hold();
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let entitlements = Arc::clone(&entitlements);
            tokio::spawn(async move { refusal(&entitlements, "handle").await })
        })
        .collect();
    service.until_asked(1).await;
    service.let_go();
    for one in asking {
        assert_eq!(one.await.unwrap(), ("dependency_unavailable", "licensing_status"));
    }
    assert_eq!(service.asked(), 1);

    service.answers(200, &active(&licensing));
    online.refused.invalidate_all(); // as the second that an error is kept for does
    ask(&entitlements, "handle").await.unwrap();
}

#[tokio::test]
async fn a_service_that_is_down_refuses_what_is_not_remembered() {
    let licensing = Licensing::new();
    let mut service = Service::start(&active(&licensing)).await;
    let entitlements = entitlements(&licensing, &service);
    ask(&entitlements, "known").await.unwrap();
    service.stop().await;
    ask(&entitlements, "known").await.unwrap();
    let error = ask(&entitlements, "unknown").await.unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "licensing_unreachable"));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
}

#[tokio::test]
async fn a_service_that_never_answers_is_given_up() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    service.hold();
    let config = config(&licensing, format!("http://{}/", service.address));
    let outbound = outbound(OutboundTls::default(), Duration::from_millis(50));
    let entitlements = Entitlements::new(&config, plans(), Some(outbound)).unwrap();
    assert_eq!(refusal(&entitlements, "handle").await, ("dependency_unavailable", "licensing_timeout"));
}

#[tokio::test]
async fn look_ups_in_progress_are_bounded_and_no_tenant_takes_the_turns_of_others() {
    let licensing = Licensing::new();
    let service = Service::start(&active(&licensing)).await;
    let entitlements = entitlements(&licensing, &service);
    let of_tenant = |name: String| Caller { tenant: name.into(), ..caller() };
    service.hold();
    let begin = |tenant: String, token: String| {
        let entitlements = Arc::clone(&entitlements);
        let caller = of_tenant(tenant);
        tokio::spawn(async move { ask_as(&entitlements, &caller, &token).await })
    };
    let greedy: Vec<_> =
        (0..MAX_LOOK_UPS_OF_TENANT).map(|n| begin("greedy".to_owned(), format!("greedy-{n}"))).collect();
    service.until_asked(MAX_LOOK_UPS_OF_TENANT).await;
    let busy = async |tenant: &str, token: &str| {
        let error = ask_as(&entitlements, &of_tenant(tenant.to_owned()), token).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "licensing_busy"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    };
    busy("greedy", "greedy-more").await;
    let others: Vec<_> =
        (MAX_LOOK_UPS_OF_TENANT..MAX_LOOK_UPS).map(|n| begin(format!("tenant-{n}"), format!("handle-{n}"))).collect();
    service.until_asked(MAX_LOOK_UPS).await;
    busy("latecomer", "one-too-many").await;
    service.let_go();
    // The licence belongs to another tenant than most of these.
    let had_its_turn = |answer: &Result<Arc<Entitlement>, PoeError>| {
        let refused = answer.as_ref().err().map(PoeError::reason);
        assert_ne!(refused, Some("licensing_busy"));
    };
    for one in greedy.into_iter().chain(others) {
        had_its_turn(&one.await.unwrap());
    }
    // That there was no turn is not held against the token.
    had_its_turn(&ask_as(&entitlements, &of_tenant("greedy".to_owned()), "greedy-more").await);
    had_its_turn(&ask_as(&entitlements, &of_tenant("latecomer".to_owned()), "one-too-many").await);
}

#[test]
fn introspection_needs_a_connection_of_its_own() {
    let licensing = Licensing::new();
    let error = Entitlements::new(&config(&licensing, "http://127.0.0.1:1/".to_owned()), plans(), None).unwrap_err();
    assert!(error.to_string().starts_with("[licensing.online] needs an outbound connection"));
}

#[tokio::test]
async fn the_service_may_demand_a_client_certificate() {
    let licensing = Licensing::new();
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    };
    let root: CertificateDer<'static> = ca_certificate.der().clone();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let (chain, key) = issue("localhost");
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let service = Service::start_with(&active(&licensing), Some(TlsAcceptor::from(Arc::new(tls)))).await;

    let config = config(&licensing, format!("https://localhost:{}/license/introspect", service.address.port()));
    for (identity, outcome) in [(Some(issue("signer")), None), (None, Some("licensing_unreachable"))] {
        let outbound = outbound(OutboundTls { roots: vec![root.clone()], identity }, Duration::from_secs(30));
        let entitlements = Entitlements::new(&config, plans(), Some(outbound)).unwrap();
        assert_eq!(ask(&entitlements, "handle").await.err().map(|error| error.reason()), outcome);
    }
    assert_eq!(service.asked(), 1);
}
