//! Proofs of Entitlement: the caller hears a coarse reason, the audit log has the precise one.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::{Map, Value, json};
use testkit::client::Call;
use testkit::https::Mode;
use testkit::jwt::Jwt;
use testkit::key::Key;
use testkit::{base64url, now, sample};

use crate::case::{Case, Expect};
use crate::world::{REVOKED_LICENSE, REVOKED_POE, World};

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let offline = |&(name, public, precise, edit): &(&str, &'static str, &'static str, PoeEdit)| {
        let call = move |world: &World| {
            let versioned = world.sign().body(|body| body["predicate"]["stellaops_version"] = json!("2026.03.1"));
            versioned.poe(|poe| edit(world, poe))
        };
        Case::call(format!("PoE: {name}"), denied(public, precise), call)
    };
    let call = |&(name, public, precise, call): &(&str, &'static str, &'static str, fn(&World) -> Call)| {
        Case::call(format!("PoE: {name}"), denied(public, precise), call)
    };
    let online = |&(name, public, precise, change): &(&str, &'static str, &'static str, AnswerEdit)| {
        let call = move |world: &World| {
            let mut poe = world.client().poe();
            change(&mut poe.claims);
            let opaque = world.fixture.licensing.register(&poe);
            world.keep_secret(opaque.as_str());
            world.sign().poe_text("opaque", opaque)
        };
        Case::call(format!("PoE online: {name}"), denied(public, precise), call)
    };
    let down = |&(name, precise, mode): &(&str, &'static str, fn() -> Mode)| {
        let attempt = move |world: &World| {
            let licensing = &world.fixture.licensing;
            let call = world.sign().poe_text("opaque", licensing.register(&world.client().poe()));
            licensing.mode().set(mode());
            let answer = call.try_send();
            licensing.mode().set(Mode::Up);
            answer.map(crate::case::Sent::Answer)
        };
        let expect = Expect::problem(503, "dependency_unavailable", "licensing_unavailable").recorded(precise);
        Case { name: format!("PoE online: {name}"), attempt: Box::new(attempt), expect, slow: false }
    };
    let placed = |&(name, call): &(&str, fn(&World) -> Call)| {
        Case::call(format!("PoE: {name}"), Expect::problem(400, "invalid_request", "poe_placement"), call)
    };
    let accepted = |&(name, call): &(&str, fn(&World) -> Call)| {
        Case::call(format!("PoE: {name} (is right)"), Expect::Accepted, call)
    };
    let mut cases: Vec<Case> = OFFLINE.iter().map(offline).collect();
    cases.extend(CALLS.iter().map(call));
    cases.extend(ONLINE.iter().map(online));
    cases.extend(DOWN.iter().map(down));
    cases.extend(PLACED.iter().map(placed));
    cases.extend(ACCEPTED.iter().map(accepted));
    cases
}

fn denied(public: &'static str, precise: &'static str) -> Expect {
    Expect::problem(403, "entitlement_denied", public).recorded(precise)
}

type PoeEdit = fn(&World, Jwt) -> Jwt;
type AnswerEdit = fn(&mut Map<String, Value>);

const OFFLINE: [(&str, &str, &str, PoeEdit); 39] = [
    ("alg none", "poe_invalid", "poe_algorithm", |_, p| p.header("alg", "none")),
    ("alg HS256 with the licensing key's JWK as the secret", "poe_invalid", "poe_algorithm", |w, p| {
        let set: Value = serde_json::from_slice(&std::fs::read(&w.fixture.licensing.keys_file).unwrap()).unwrap();
        p.signed_by(&Key::shared(set["keys"][0].to_string().as_bytes()).with_kid("licensing-1"))
    }),
    ("signed with an algorithm that is not configured", "poe_invalid", "poe_algorithm", |w, p| {
        p.signed_by(&w.keys.ed25519.clone().with_kid("licensing-1"))
    }),
    ("signed by the Authority", "poe_invalid", "poe_kid_unknown", |w, p| {
        p.signed_by(&w.fixture.authority.signing_key())
    }),
    ("signed by a stranger under the licensing kid", "poe_invalid", "poe_signature", |w, p| {
        p.signed_by(&w.keys.stranger.clone().with_kid("licensing-1"))
    }),
    ("a bit of the signature flipped", "poe_invalid", "poe_signature", |_, p| p.with_broken_signature()),
    ("no signature", "poe_invalid", "poe_malformed", |_, p| p.signature([])),
    ("crit", "poe_invalid", "poe_critical_header", |_, p| p.header("crit", json!(["exp"]))),
    ("typ of a DPoP proof", "poe_invalid", "poe_typ", |_, p| p.header("typ", "dpop+jwt")),
    ("claims that are no JSON", "poe_invalid", "poe_payload_unreadable", |_, p| p.claims_text("plan=enterprise")),
    ("a claim twice", "poe_invalid", "poe_payload_unreadable", |_, p| {
        let text = Value::Object(p.claims.clone()).to_string().replacen('{', "{\"plan\":\"free\",", 1);
        p.claims_text(text)
    }),
    ("another issuer", "poe_invalid", "poe_iss_mismatch", |_, p| p.claim("iss", "https://licensing.attacker.test")),
    ("no issuer", "poe_invalid", "poe_iss_missing", |_, p| p.without("iss")),
    ("another audience", "poe_invalid", "poe_aud_mismatch", |_, p| p.claim("aud", json!(["attestor"]))),
    ("no jti", "poe_invalid", "poe_jti_missing", |_, p| p.without("jti")),
    ("no exp", "poe_invalid", "poe_exp_missing", |_, p| p.without("exp")),
    ("an exp that is text", "poe_invalid", "poe_exp_invalid", |_, p| p.claim("exp", "never")),
    ("no tenant", "poe_invalid", "poe_tid_missing", |_, p| p.without("tid")),
    ("no licence", "poe_invalid", "poe_license_id_missing", |_, p| p.without("license_id")),
    ("a licence with a line feed", "poe_invalid", "poe_license_id_invalid", |_, p| p.claim("license_id", "lic\n-1")),
    ("no customer", "poe_invalid", "poe_customer_id_missing", |_, p| p.without("customer_id")),
    ("no plan", "poe_invalid", "poe_plan_missing", |_, p| p.without("plan")),
    ("a plan and another tier", "poe_invalid", "poe_tier_mismatch", |_, p| p.claim("tier", "enterprise")),
    ("limits of zero", "poe_invalid", "poe_limits_qps_invalid", |_, p| p.claim("limits", json!({"qps": 0}))),
    ("expired", "poe_expired", "poe_expired", |_, p| p.claim("exp", now() - 120)),
    ("not valid yet", "poe_expired", "poe_not_yet_valid", |_, p| p.claim("nbf", now() + 120)),
    ("issued in the future", "poe_invalid", "poe_issued_in_future", |_, p| p.claim("iat", now() + 120)),
    ("of a revoked licence", "poe_revoked", "poe_license_revoked", |_, p| p.claim("license_id", REVOKED_LICENSE)),
    ("revoked by its jti", "poe_revoked", "poe_jti_revoked", |_, p| p.claim("jti", REVOKED_POE)),
    ("another tenant's", "poe_binding", "poe_tid_mismatch", |_, p| p.claim("tid", "globex")),
    ("bound to another key", "poe_binding", "poe_cnf_mismatch", |w, p| {
        p.claim("cnf", json!({"jkt": w.keys.stranger.thumbprint()}))
    }),
    ("bound to the caller's certificate where the token is bound to a key", "poe_binding", "poe_cnf_kind", |w, p| {
        p.claim("cnf", json!({"x5t#S256": w.fixture.pki.acme.thumbprint()}))
    }),
    ("bound to nothing", "poe_binding", "poe_cnf_missing", |_, p| p.without("cnf")),
    ("bound to two things", "poe_invalid", "poe_cnf_invalid", |_, p| p.claim("cnf.x5t#S256", base64url([0; 32]))),
    ("of an unknown plan", "plan_unknown", "poe_plan_unknown", |_, p| p.claim("plan", "platinum")),
    (
        "for releases up to 2025 only, the scanner of 2026",
        "version_not_licensed",
        "poe_release_year_exceeded",
        |_, p| p.claim("valid_release_year", 2025),
    ),
    (
        "for versions up to 2026.02 only, the scanner newer",
        "version_not_licensed",
        "poe_max_version_exceeded",
        |_, p| p.claim("max_version", "2026.02"),
    ),
    (
        "for semantic versions, the scanner a calendar one",
        "version_not_licensed",
        "poe_stellaops_version_scheme",
        |_, p| p.without("valid_release_year").claim("max_version", "3.0.0"),
    ),
    ("with a max_version that is none", "poe_invalid", "poe_max_version_invalid", |_, p| {
        p.claim("max_version", "newest")
    }),
];

const CALLS: [(&str, &str, &str, fn(&World) -> Call); 11] = [
    ("none", "poe_required", "poe_missing", |w| w.sign().without_poe()),
    ("an empty one", "poe_required", "poe_missing", |w| w.sign().poe_text("jwt", "")),
    ("garbage", "poe_invalid", "poe_malformed", |w| w.sign().poe_text("jwt", "garbage")),
    ("more than 16 KiB", "poe_invalid", "poe_too_large", |w| {
        w.sign().poe(|poe| poe.claim("filler", "x".repeat(16 * 1024)))
    }),
    ("with a line feed in it", "poe_invalid", "poe_characters", |w| w.sign().poe_text("jwt", "a.b\n.c")),
    ("the OpTok in its place", "poe_invalid", "poe_typ", |w| {
        let token = w.client().token().encode();
        w.sign().token_text(token.clone()).poe_text("jwt", token)
    }),
    ("the revocation list in its place", "poe_invalid", "poe_sub_missing", |w| {
        w.sign().poe_text("jwt", std::fs::read_to_string(&w.fixture.licensing.revocation_file).unwrap())
    }),
    ("a stranger's in X-PoE", "poe_binding", "poe_cnf_mismatch", |w| {
        let other = w.client().with_dpop_key(&w.keys.stranger).poe();
        w.sign().poe(|_| other).poe_in_header()
    }),
    ("a version of the scanner that is none", "version_unreadable", "poe_stellaops_version_unreadable", |w| {
        w.sign().body(|body| body["predicate"]["stellaops_version"] = json!("latest"))
    }),
    ("an opaque one that nobody knows", "poe_invalid", "poe_inactive", |w| w.sign().poe_text("opaque", "unheard-of")),
    ("an opaque one that was deactivated", "poe_invalid", "poe_inactive", |w| {
        let opaque = w.fixture.licensing.register(&w.client().poe());
        w.keep_secret(opaque.as_str());
        w.fixture.licensing.deactivate(&opaque);
        w.sign().poe_text("opaque", opaque)
    }),
];

/// Answers of the Licensing Service that say `active` and not enough beside it.
const ONLINE: [(&str, &str, &str, AnswerEdit); 7] = [
    ("active, for another tenant", "poe_binding", "poe_tid_mismatch", |a| {
        drop(a.insert("tid".into(), json!("globex")));
    }),
    ("active, bound to another key", "poe_binding", "poe_cnf_mismatch", |a| {
        a.insert("cnf".into(), json!({"jkt": base64url([3; 32])}));
    }),
    ("active, bound to nothing", "poe_binding", "poe_cnf_missing", |a| drop(a.remove("cnf"))),
    ("active, and expired", "poe_expired", "poe_expired", |a| drop(a.insert("exp".into(), json!(now() - 120)))),
    ("active, without exp", "poe_invalid", "poe_exp_missing", |a| drop(a.remove("exp"))),
    ("active, of a licence on the revocation list", "poe_revoked", "poe_license_revoked", |a| {
        a.insert("license_id".into(), json!(REVOKED_LICENSE));
    }),
    ("active, of an unknown plan", "plan_unknown", "poe_plan_unknown", |a| drop(a.insert("plan".into(), json!("x")))),
];

/// The Licensing Service fails: never a pass.
const DOWN: [(&str, &str, fn() -> Mode); 6] = [
    ("the service answers 500", "licensing_status", || Mode::Status(500)),
    ("the service redirects", "licensing_status", || Mode::Status(302)),
    ("the service answers no JSON", "licensing_answer_invalid", || Mode::Garbage(b"<html>active</html>".to_vec())),
    ("the service says active in words", "licensing_answer_invalid", || {
        Mode::Garbage(b"{\"active\":\"true\"}".to_vec())
    }),
    ("the service answers a megabyte", "licensing_unreachable", || {
        Mode::Garbage([b"{\"active\":true,\"x\":\"", &[b'x'; 1 << 20][..], b"\"}"].concat())
    }),
    ("the service takes longer than a second", "licensing_timeout", || Mode::Slow(Duration::from_millis(1500))),
];

const PLACED: [(&str, fn(&World) -> Call); 3] = [
    ("in the body and in X-PoE", |w| w.sign().poe_in_both()),
    ("two X-PoE headers", |w| w.sign().poe_in_header().header("x-poe", "another")),
    ("X-PoE with characters beyond ASCII", |w| w.sign().without_poe().header("x-poe", "po\u{eb}")),
];

const ACCEPTED: [(&str, fn(&World) -> Call); 3] = [
    ("typ poe+jwt", |w| w.sign().poe(|poe| poe.header("typ", "poe+jwt"))),
    ("tier for plan", |w| w.sign().poe(|poe| poe.without("plan").claim("tier", "pro"))),
    ("of an unknown plan that names all limits itself", |w| {
        let limits = json!({"qps": 5, "burst": 5, "concurrency": 1, "max_artifact_bytes": 100_000});
        w.client()
            .sign(&sample::request())
            .poe(|poe| poe.claim("plan", "bespoke").claim("license_id", "lic-hostile-bespoke").claim("limits", limits))
    }),
];
