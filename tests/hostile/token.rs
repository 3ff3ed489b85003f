//! OpToks: what the header, the signature, the claims and the binding of one must not be.

#![forbid(unsafe_code)]

use serde_json::{Value, json};
use testkit::client::Call;
use testkit::jwt::Jwt;
use testkit::{base64url, key::Key, now};

use crate::case::{Case, Expect};
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let token = |&(name, reason, edit): &TokenRow| {
        let call = move |world: &World| world.sign().token(|token| edit(world, token));
        Case::call(format!("token: {name}"), Expect::unauthenticated(reason), call)
    };
    let call =
        |&(name, reason, call): &CallRow| Case::call(format!("token: {name}"), Expect::unauthenticated(reason), call);
    let scope = |&(name, scope): &(&str, fn() -> Value)| {
        let call = move |world: &World| world.sign().token(|token| token.claim("scope", scope()));
        Case::call(format!("token: {name}"), Expect::problem(403, "insufficient_scope", "optok_scope"), call)
    };
    let accepted = |&(name, edit): &(&str, TokenEdit)| {
        let call = move |world: &World| world.sign().token(|token| edit(world, token));
        Case::call(format!("token: {name} (is right)"), Expect::Accepted, call)
    };
    let mut cases: Vec<Case> = PRESENTED.iter().map(call).collect();
    cases.extend(HEADER.iter().chain(&SIGNATURE).chain(&CLAIMS).map(token));
    cases.extend(SCOPES.iter().map(scope));
    cases.push(Case::call(
        "token: no scope at all",
        Expect::problem(403, "insufficient_scope", "optok_scope"),
        |world| world.sign().token(|token| token.without("scope")),
    ));
    cases.extend(ACCEPTED.iter().map(accepted));
    cases
}

type TokenEdit = fn(&World, Jwt) -> Jwt;
type TokenRow = (&'static str, &'static str, TokenEdit);
type CallRow = (&'static str, &'static str, fn(&World) -> Call);

/// How it is presented.
const PRESENTED: [CallRow; 17] = [
    ("no Authorization", "authorization_missing", |w| w.sign().without_token()),
    ("two Authorization headers", "authorization_repeated", |w| w.sign().header("authorization", "Bearer x")),
    ("the scheme Basic", "authorization_scheme", |w| w.sign().scheme("Basic")),
    ("a scheme and nothing else", "authorization_malformed", |w| w.sign().token_text("")),
    ("two tokens", "authorization_malformed", |w| w.sign().token_text(format!("{} x", w.client().token().encode()))),
    ("characters beyond ASCII", "authorization_malformed", |w| w.sign().token_text("t\u{f6}ken.t\u{f6}ken.t\u{f6}ken")),
    ("in the query alone", "authorization_missing", |w| {
        let token = w.client().token().encode();
        w.sign().without_token().path(&format!("/api/v1/signer/sign/dsse?access_token={token}"))
    }),
    ("base64url with padding", "authorization_malformed", |w| w.sign().token(|t| t.edit(|text| text + "="))),
    ("more than 8,192 bytes", "optok_too_large", |w| w.sign().token(|t| t.claim("filler", "x".repeat(8192)))),
    ("DPoP-bound under the scheme Bearer, without a proof", "dpop_bound_as_bearer", |w| {
        w.sign().scheme("Bearer").without_proof()
    }),
    ("DPoP-bound under the scheme Bearer, with its proof", "dpop_bound_as_bearer", |w| w.sign().scheme("Bearer")),
    ("certificate-bound under the scheme DPoP", "optok_not_dpop_bound", |w| w.sign_by_certificate().scheme("DPoP")),
    ("stolen: certificate-bound, shown with another certificate", "certificate_mismatch", |w| {
        let thief = w.bound_by_certificate().showing(Some(&w.fixture.pki.globex));
        thief.sign(&testkit::sample::request()).token_text(w.bound_by_certificate().token().encode())
    }),
    ("bound to a key and to a certificate that is another's", "certificate_mismatch", |w| {
        w.sign().token(|t| t.claim("cnf.x5t#S256", w.fixture.pki.globex.thumbprint()))
    }),
    ("stolen: DPoP-bound, with the thief's proof", "dpop_key_mismatch", |w| {
        w.client()
            .with_dpop_key(&w.keys.stranger)
            .sign(&testkit::sample::request())
            .token_text(w.client().token().encode())
    }),
    ("to read keys: none", "authorization_missing", |w| w.client().keys().without_token()),
    ("to verify: none", "authorization_missing", |w| w.client().verify(&json!({})).without_token()),
];

/// What its header says.
const HEADER: [TokenRow; 29] = [
    ("alg none, no signature", "optok_malformed", |_, t| t.header("alg", "none").signature([])),
    ("alg none with a signature", "optok_algorithm", |_, t| t.header("alg", "none")),
    ("alg nOnE", "optok_algorithm", |_, t| t.header("alg", "nOnE")),
    ("alg HS256, keyed with the public point", "optok_algorithm", |w, t| {
        let public = w.fixture.authority.signing_key();
        t.signed_by(&Key::shared(&public.public_bytes()).with_kid(&public.kid))
    }),
    ("alg HS256, keyed with the published JWK", "optok_algorithm", |w, t| {
        let public = w.fixture.authority.signing_key();
        t.signed_by(&Key::shared(public.jwk().to_string().as_bytes()).with_kid(&public.kid))
    }),
    ("alg ES384 by a published P-384 key", "optok_algorithm", |w, t| t.signed_by(&w.keys.p384)),
    ("alg es256", "optok_algorithm", |_, t| t.header("alg", "es256")),
    ("alg ES256K", "optok_algorithm", |_, t| t.header("alg", "ES256K")),
    ("alg RS512", "optok_algorithm", |w, t| t.signed_by(&w.keys.rsa).header("alg", "RS512")),
    ("no alg", "optok_algorithm", |_, t| t.header_text(r#"{"typ":"at+jwt"}"#)),
    ("alg as a number", "optok_malformed", |_, t| t.header("alg", 256)),
    ("alg RS256 by a published key of 1,024 bits", "optok_key_unknown", |w, t| t.signed_by(&w.keys.weak_rsa)),
    ("alg RS256 under the kid of a P-256 key", "optok_key_unknown", |_, t| t.header("alg", "RS256")),
    ("alg PS256 by a key published for RS256", "optok_key_unknown", |w, t| {
        t.signed_by(&w.keys.rsa).header("alg", "PS256")
    }),
    ("an unknown kid", "optok_key_unknown", |w, t| t.signed_by(&w.keys.stranger)),
    ("no kid where two keys fit", "optok_key_ambiguous", |_, t| t.without_header("kid")),
    ("a kid that is a path", "optok_key_unknown", |_, t| t.header("kid", "../../../../dev/null")),
    ("a kid of 7,000 bytes", "optok_key_unknown", |_, t| t.header("kid", "k".repeat(5000))),
    ("jku to the attacker's key set", "optok_key_unknown", |w, t| {
        t.signed_by(&w.keys.stranger).header("jku", format!("{}/jwks", w.fixture.authority.issuer()))
    }),
    ("x5u and x5c of the attacker's", "optok_key_unknown", |w, t| {
        t.signed_by(&w.keys.stranger).header("x5u", "https://attacker.test/chain.pem").header("x5c", json!(["MIIB"]))
    }),
    ("the attacker's key as jwk, under a published kid", "optok_signature", |w, t| {
        let kid = w.fixture.authority.signing_key().kid;
        t.signed_by(&w.keys.stranger).header("jwk", w.keys.stranger.jwk()).header("kid", kid)
    }),
    ("typ dpop+jwt", "optok_type", |_, t| t.header("typ", "dpop+jwt")),
    ("typ of an ID token", "optok_type", |_, t| t.header("typ", "id_token+jwt")),
    ("no typ", "optok_type", |_, t| t.without_header("typ")),
    ("crit that asks for nothing known", "optok_malformed", |_, t| t.header("crit", json!(["exp"]))),
    ("b64 false", "optok_malformed", |_, t| t.header("b64", false).header("crit", json!(["b64"]))),
    ("a header with alg twice", "optok_malformed", |w, t| {
        let kid = w.fixture.authority.signing_key().kid;
        t.header_text(format!(r#"{{"alg":"none","typ":"at+jwt","kid":"{kid}","alg":"ES256"}}"#))
    }),
    ("a header that is an array", "optok_malformed", |_, t| t.header_text(r#"["ES256"]"#)),
    ("a header with bits behind its end", "optok_malformed", |_, t| {
        t.header_text(r#"{"alg":"ES256","typ":"at+jwt"} "#).edit(|text| {
            let (header, rest) = text.split_once('.').unwrap();
            format!("{}B.{rest}", &header[..header.len() - 1])
        })
    }),
];

/// How it is signed.
const SIGNATURE: [TokenRow; 13] = [
    ("one bit of the signature flipped", "optok_signature", |_, t| t.with_broken_signature()),
    ("the claims changed after signing", "optok_signature", |_, t| {
        t.edit(|text| {
            let mut parts: Vec<&str> = text.split('.').collect();
            let claims = String::from_utf8(testkit::from_base64url(parts[1]).unwrap()).unwrap();
            let claims = base64url(claims.replace("\"acme\"", "\"globex\""));
            parts[1] = &claims;
            parts.join(".")
        })
    }),
    ("no signature", "optok_malformed", |_, t| t.signature([])),
    ("two parts", "optok_malformed", |_, t| t.edit(|text| text.rsplit_once('.').unwrap().0.to_owned())),
    ("four parts", "optok_malformed", |_, t| t.edit(|text| text + ".x")),
    ("five parts, as an encrypted one", "optok_malformed", |_, t| t.edit(|text| text + ".x.x")),
    ("dots alone", "optok_malformed", |_, t| t.edit(|_| "..".to_owned())),
    ("a signature in DER", "optok_signature", |_, t| t.signature([&[0x30, 0x44, 0x02, 0x20][..], &[1; 66]].concat())),
    ("a signature of zeros", "optok_signature", |_, t| t.signature([0; 64])),
    ("a signature of 63 bytes", "optok_signature", |_, t| t.signature([1; 63])),
    ("a signature of 2,000 bytes", "optok_signature", |_, t| t.signature([1; 2000])),
    ("bits behind the end of the signature", "optok_malformed", |_, t| {
        // 64 bytes take 86 characters, of which the last carries two bits: A, Q, g or w.
        t.edit(|text| {
            let (kept, last) = text.split_at(text.len() - 1);
            let loose = match last {
                "A" => "B",
                "Q" => "R",
                "g" => "h",
                _ => "x",
            };
            format!("{kept}{loose}")
        })
    }),
    ("signed by the licensing key", "optok_key_unknown", |w, t| {
        let poe = w.client().poe().encode();
        t.edit(move |_| poe.clone())
    }),
];

/// What it claims.
const CLAIMS: [TokenRow; 52] = [
    ("claims that are an array", "optok_claims", |_, t| t.claims_text("[]")),
    ("claims that are no JSON", "optok_claims", |_, t| t.claims_text("{'iss':1}")),
    ("claims with bytes behind them", "optok_claims", |_, t| with_text(t, |text| text + "{}")),
    ("a claim twice", "optok_claims", |_, t| with_text(t, |text| text.replacen('{', "{\"tid\":\"globex\",", 1))),
    ("a claim nested a thousand deep", "optok_claims", |_, t| {
        with_text(t.without("scope"), |text| text.replacen('{', &format!("{{\"scope\":{},", deep()), 1))
    }),
    ("a lone surrogate in a claim", "optok_claims", |_, t| {
        with_text(t, |text| {
            text.replacen('{', r#"{"inst":"\ud800","#, 1).replacen(r#""inst":"acme-install-1","#, "", 1)
        })
    }),
    ("another issuer", "optok_issuer", |_, t| t.claim("iss", "https://authority.attacker.test")),
    ("the issuer with a slash behind it", "optok_issuer", |_, t| {
        let issuer = format!("{}/", t.claims["iss"].as_str().unwrap());
        t.claim("iss", issuer)
    }),
    ("no issuer", "optok_claim_missing", |_, t| t.without("iss")),
    ("an empty issuer", "optok_claim_missing", |_, t| t.claim("iss", "")),
    ("an issuer that is a list", "optok_claims", |_, t| t.claim("iss", json!(["a"]))),
    ("another audience", "optok_audience", |_, t| t.claim("aud", "attestor")),
    ("the audience in capitals", "optok_audience", |_, t| t.claim("aud", "SIGNER")),
    ("the audience with a space", "optok_audience", |_, t| t.claim("aud", "signer ")),
    ("several other audiences", "optok_audience", |_, t| t.claim("aud", json!(["attestor", "scanner"]))),
    ("an empty list of audiences", "optok_audience", |_, t| t.claim("aud", json!([]))),
    ("no audience", "optok_claim_missing", |_, t| t.without("aud")),
    ("the audience *", "optok_audience_wildcard", |_, t| t.claim("aud", "*")),
    ("the audience sign*", "optok_audience_wildcard", |_, t| t.claim("aud", "sign*")),
    ("our audience and a wildcard", "optok_audience_wildcard", |_, t| t.claim("aud", json!(["signer", "*"]))),
    ("an audience that is a number", "optok_claims", |_, t| t.claim("aud", 7)),
    ("an audience in a list in a list", "optok_claims", |_, t| t.claim("aud", json!([["signer"]]))),
    ("a scope that is a list", "optok_scope_malformed", |_, t| t.claim("scope", json!(["signer.sign"]))),
    ("a scope that is true", "optok_scope_malformed", |_, t| t.claim("scope", true)),
    ("no tenant", "optok_tenant_missing", |_, t| t.without("tid")),
    ("an empty tenant", "optok_tenant_missing", |_, t| t.claim("tid", "")),
    ("an unknown tenant", "optok_tenant_unknown", |_, t| t.claim("tid", "initech")),
    ("a tenant in capitals", "optok_tenant_unknown", |_, t| t.claim("tid", "ACME")),
    ("a tenant that is a path", "optok_tenant_unknown", |_, t| t.claim("tid", "../acme")),
    ("a tenant of 300 bytes", "optok_claim_too_long", |_, t| t.claim("tid", "t".repeat(300))),
    ("a tenant that is a list", "optok_claims", |_, t| t.claim("tid", json!(["acme"]))),
    ("no subject", "optok_claim_missing", |_, t| t.without("sub")),
    ("an empty subject", "optok_claim_missing", |_, t| t.claim("sub", "")),
    ("a subject of 257 bytes", "optok_claim_too_long", |_, t| t.claim("sub", "s".repeat(257))),
    ("no jti", "optok_claim_missing", |_, t| t.without("jti")),
    ("a jti of 257 bytes", "optok_claim_too_long", |_, t| t.claim("jti", "j".repeat(257))),
    ("no exp", "optok_claim_missing", |_, t| t.without("exp")),
    ("no iat", "optok_claim_missing", |_, t| t.without("iat")),
    ("expired", "optok_expired", |_, t| times(t, -400, -400, -100)),
    ("not valid yet", "optok_not_yet_valid", |_, t| times(t, 0, 120, 300)),
    ("issued in the future", "optok_issued_in_future", |_, t| times(t, 120, 0, 300)),
    ("a life of eleven minutes", "optok_lifetime", |_, t| times(t, 0, 0, 660)),
    ("an end before its beginning", "optok_lifetime", |_, t| times(t, 0, 0, -600)),
    ("no life at all", "optok_lifetime", |_, t| times(t, 0, 0, 0)),
    ("an exp that is text", "optok_claims", |_, t| t.claim("exp", "tomorrow")),
    ("an exp in the year 10000", "optok_claims", |_, t| t.claim("exp", 253_402_300_800_i64)),
    ("a negative iat", "optok_claims", |_, t| t.claim("iat", -1)),
    ("bound to nothing", "optok_unbound", |_, t| t.without("cnf")),
    ("an empty cnf", "optok_unbound", |_, t| t.claim("cnf", json!({}))),
    ("a cnf that embeds a key", "optok_unbound", |w, t| t.claim("cnf", json!({"jwk": w.keys.stranger.jwk()}))),
    ("a jkt that is too short", "optok_confirmation", |_, t| t.claim("cnf", json!({"jkt": base64url([1; 20])}))),
    ("a jkt in hexadecimal", "optok_confirmation", |_, t| t.claim("cnf", json!({"jkt": "ab".repeat(32)}))),
];

/// Scopes that do not grant signing.
const SCOPES: [(&str, fn() -> Value); 4] = [
    ("the scope to read, to sign with", || json!("signer.read")),
    ("a scope that begins like ours", || json!("signer.signature")),
    ("the scope in capitals", || json!("SIGNER.SIGN")),
    ("scopes separated by a tab", || json!("openid\tsigner.sign")),
];

/// What is unusual and must pass, so that the rows above fail for the reason they name.
const ACCEPTED: [(&str, TokenEdit); 9] = [
    ("a claim that nobody reads, nested a thousand deep", |_, t| {
        with_text(t, |text| text.replacen('{', &format!("{{\"x\":{},", deep()), 1))
    }),
    ("signed with EdDSA", |w, t| t.signed_by(&w.keys.ed25519)),
    ("signed with RS256", |w, t| t.signed_by(&w.keys.rsa)),
    ("signed with PS256", |w, t| t.signed_by(&w.keys.rsa_pss)),
    ("typ JWT", |_, t| t.header("typ", "JWT")),
    ("several audiences, ours among them", |_, t| t.claim("aud", json!(["attestor", "signer"]))),
    ("several scopes, ours among them", |_, t| t.claim("scope", "openid signer.sign profile")),
    ("expired within the tolerated skew", |_, t| times(t, -300, -300, -5)),
    ("bound to a key and to this certificate", |w, t| t.claim("cnf.x5t#S256", w.fixture.pki.acme.thumbprint())),
];

fn times(token: Jwt, iat: i64, nbf: i64, exp: i64) -> Jwt {
    token.claim("iat", now() + iat).claim("nbf", now() + nbf).claim("exp", now() + exp)
}

fn deep() -> String {
    format!("{}{}", "[".repeat(1000), "]".repeat(1000))
}

fn with_text(token: Jwt, edit: fn(String) -> String) -> Jwt {
    let text = edit(Value::Object(token.claims.clone()).to_string());
    token.claims_text(text)
}
