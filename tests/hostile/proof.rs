//! DPoP proofs (RFC 9449, section 4.3), the twelve checks and what lies between them.

#![forbid(unsafe_code)]

use serde_json::{Value, json};
use testkit::client::Call;
use testkit::jwt::Jwt;
use testkit::key::Key;
use testkit::{base64url, now, random_id, sample};

use crate::case::{Case, Expect};
use crate::wire::SIGN;
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let proof = |&(name, reason, edit): &(&str, &'static str, ProofEdit)| {
        let call = move |world: &World| world.sign().proof(edit);
        Case::call(format!("proof: {name}"), Expect::unauthenticated(reason), call)
    };
    let call = |&(name, reason, call): &(&str, &'static str, fn(&World) -> Call)| {
        Case::call(format!("proof: {name}"), Expect::unauthenticated(reason), call)
    };
    let other_uri = |&htu: &&'static str| {
        let call = move |world: &World| {
            let htu = htu.replace("HOST", &world.host());
            world.sign().proof(move |proof| proof.claim("htu", htu.as_str()))
        };
        Case::call(format!("proof: htu {htu}"), Expect::unauthenticated("dpop_uri"), call)
    };
    let same_uri = |&(name, htu): &(&str, fn(&str) -> String)| {
        let call = move |world: &World| {
            let htu = htu(&format!("https://{}{SIGN}", world.host()));
            world.sign().proof(move |proof| proof.claim("htu", htu.as_str()))
        };
        Case::call(format!("proof: htu {name} (is right)"), Expect::Accepted, call)
    };
    let accepted = |&(name, call): &(&str, fn(&World) -> Call)| {
        Case::call(format!("proof: {name} (is right)"), Expect::Accepted, call)
    };
    let mut cases: Vec<Case> = PROOFS.iter().map(proof).collect();
    cases.extend(CALLS.iter().map(call));
    cases.extend(OTHER_URIS.iter().map(other_uri));
    cases.extend(SAME_URIS.iter().map(same_uri));
    cases.extend(ACCEPTED.iter().map(accepted));
    cases
}

type ProofEdit = fn(Jwt) -> Jwt;

const PROOFS: [(&str, &str, ProofEdit); 35] = [
    ("no typ", "dpop_type", |p| p.without_header("typ")),
    ("typ JWT", "dpop_type", |p| p.header("typ", "JWT")),
    ("typ at+jwt", "dpop_type", |p| p.header("typ", "at+jwt")),
    ("alg none", "dpop_algorithm", |p| p.header("alg", "none")),
    ("alg HS256 with the JWK as the secret", "dpop_algorithm", |p| {
        let jwk = p.header["jwk"].clone();
        p.signed_by(&Key::shared(jwk.to_string().as_bytes())).header("jwk", jwk)
    }),
    ("alg ES384 by a P-384 key", "dpop_algorithm", |p| by(p, &Key::p384())),
    ("alg ES256K", "dpop_algorithm", |p| p.header("alg", "ES256K")),
    ("no jwk", "dpop_key", |p| p.without_header("jwk")),
    ("a jwk that is text", "dpop_malformed", |p| p.header("jwk", "mine")),
    ("a symmetric jwk", "dpop_key", |p| p.header("jwk", json!({"kty": "oct", "k": "c2VjcmV0"}))),
    ("a P-384 jwk under ES256", "dpop_key", |p| p.header("jwk", Key::p384().bare_jwk())),
    ("an RSA jwk of 1,024 bits", "dpop_key", |p| {
        p.header("jwk", json!({"kty": "RSA", "n": base64url([0xc1; 128]), "e": "AQAB"}))
    }),
    ("a jwk without y", "dpop_key", |p| with_jwk(p, |jwk| drop(jwk.as_object_mut().unwrap().remove("y")))),
    ("a jwk with a coordinate of 31 bytes", "dpop_key", |p| with_jwk(p, |jwk| jwk["x"] = json!(base64url([7; 31])))),
    ("a jwk with a padded coordinate", "dpop_malformed", |p| {
        with_jwk(p, |jwk| jwk["x"] = json!(format!("{}=", jwk["x"].as_str().unwrap())))
    }),
    ("the jwk of another key, signed by the right one", "dpop_key_mismatch", |p| {
        p.header("jwk", Key::p256().bare_jwk())
    }),
    ("the right jwk, signed by another key", "dpop_signature", |p| p.signed_by(&Key::p256())),
    ("a bit of the signature flipped", "dpop_signature", |p| p.with_broken_signature()),
    ("no signature", "dpop_malformed", |p| p.signature([])),
    ("crit", "dpop_malformed", |p| p.header("crit", json!(["nonce"]))),
    ("no jti", "dpop_claims", |p| p.without("jti")),
    ("an empty jti", "dpop_claims", |p| p.claim("jti", "")),
    ("a jti of 257 bytes", "dpop_claims", |p| p.claim("jti", "j".repeat(257))),
    ("no htm", "dpop_claims", |p| p.without("htm")),
    ("no htu", "dpop_claims", |p| p.without("htu")),
    ("no iat", "dpop_claims", |p| p.without("iat")),
    ("an iat that is text", "dpop_claims", |p| p.claim("iat", now().to_string())),
    ("a claim twice", "dpop_claims", |p| {
        let text = Value::Object(p.claims.clone()).to_string().replacen('{', "{\"htm\":\"GET\",", 1);
        p.claims_text(text)
    }),
    ("htm GET for a POST", "dpop_method", |p| p.claim("htm", "GET")),
    ("htm in small letters", "dpop_method", |p| p.claim("htm", "post")),
    ("no ath", "dpop_token_hash", |p| p.without("ath")),
    ("the ath of another token", "dpop_token_hash", |p| p.claim("ath", base64url(testkit::sha256("another")))),
    ("an ath in hexadecimal", "dpop_token_hash", |p| p.claim("ath", "ab".repeat(32))),
    ("made three minutes ago", "dpop_expired", |p| p.claim("iat", now() - 180)),
    ("made two minutes from now", "dpop_issued_in_future", |p| p.claim("iat", now() + 120)),
];

const CALLS: [(&str, &str, fn(&World) -> Call); 14] = [
    ("none", "dpop_missing", |w| w.sign().without_proof()),
    ("two", "dpop_repeated", |w| w.sign().proof_texts(["a.b.c", "d.e.f"])),
    ("the same one twice", "dpop_repeated", |w| {
        let (token, proof) = proven(w);
        w.sign().token_text(token).proof_texts([proof.clone(), proof])
    }),
    ("an empty one", "dpop_malformed", |w| w.sign().proof_texts([""])),
    ("no JWT", "dpop_malformed", |w| w.sign().proof_texts(["proof"])),
    ("characters beyond ASCII", "dpop_malformed", |w| w.sign().proof_texts(["pr\u{f6}\u{f6}f.x.y"])),
    ("more than 4,096 bytes", "dpop_too_large", |w| w.sign().proof(|p| p.claim("filler", "x".repeat(4096)))),
    ("a jwk that gives the private key away", "dpop_key", |w| {
        let jwk = w.client().dpop_key().private_jwk();
        w.keep_secret(jwk["d"].as_str().unwrap());
        w.sign().proof(move |p| p.header("jwk", jwk.clone()))
    }),
    ("the token itself as its proof", "dpop_type", |w| {
        let token = w.client().token().encode();
        w.sign().token_text(token.clone()).proof_texts([token])
    }),
    ("no nonce where one is due", "dpop_nonce_missing", |w| {
        w.sign().proof(|p| p.without("nonce")).without_nonce_retry()
    }),
    ("a nonce of our own making", "dpop_nonce_invalid", |w| {
        w.sign().proof(|p| p.claim("nonce", "AAAAAAAAAAAAAAAAAAAAAAAAAAA")).without_nonce_retry()
    }),
    ("a nonce with one character changed", "dpop_nonce_invalid", |w| {
        let forge = |p: Jwt| {
            let mut nonce = p.claims["nonce"].as_str().unwrap().to_owned().into_bytes();
            nonce[9] = if nonce[9] == b'A' { b'B' } else { b'A' };
            p.claim("nonce", String::from_utf8(nonce).unwrap())
        };
        w.sign().proof(forge).without_nonce_retry()
    }),
    ("used before", "dpop_replayed", |w| {
        let (token, proof) = proven(w);
        let call = w.sign().token_text(token).proof_texts([proof]);
        w.expect_signed(call.clone());
        call
    }),
    ("a new one with a jti that was used before", "dpop_replayed", |w| {
        let jti = random_id();
        let call = move |world: &World| {
            let jti = jti.clone();
            world.sign().proof(move |p| p.claim("jti", jti.as_str()))
        };
        w.expect_signed(call(w));
        call(w)
    }),
];

/// URIs that are not the one that is called.
const OTHER_URIS: [&str; 12] = [
    "https://HOST/api/v1/signer/keys",
    "https://HOST/api/v1/signer/sign/dsse/",
    "https://HOST/api/v1/signer/sign/DSSE",
    "https://HOST//api/v1/signer/sign/dsse",
    "https://HOST/api/v1/signer/sign%2Fdsse",
    "http://HOST/api/v1/signer/sign/dsse",
    "https://localhost/api/v1/signer/sign/dsse",
    "https://HOST@attacker.test/api/v1/signer/sign/dsse",
    "https://user@HOST/api/v1/signer/sign/dsse",
    "https://attacker.test/api/v1/signer/sign/dsse",
    "/api/v1/signer/sign/dsse",
    "",
];

/// Spellings of the URI that is called (RFC 3986, section 6.2; RFC 9449, section 4.3, check 9).
const SAME_URIS: [(&str, fn(&str) -> String); 6] = [
    ("with a query", |uri| format!("{uri}?page=2")),
    ("with a fragment", |uri| format!("{uri}#top")),
    ("with scheme and host in capitals", |uri| uri.replace("https://localhost", "HTTPS://LOCALHOST")),
    ("with an unreserved character escaped", |uri| uri.replace("/sign/", "/%73ign/")),
    ("with dot segments", |uri| uri.replace("/api/", "/x/../api/./")),
    ("with a zero before the port", |uri| uri.replace("localhost:", "localhost:0")),
];

/// Proofs by the other algorithms, and a clock that is a little off.
const ACCEPTED: [(&str, fn(&World) -> Call); 5] = [
    ("EdDSA", |w| w.client().with_dpop_key(&w.keys.ed25519).sign(&sample::request())),
    ("RS256", |w| w.client().with_dpop_key(&w.keys.rsa).sign(&sample::request())),
    ("PS256", |w| w.client().with_dpop_key(&w.keys.rsa_pss).sign(&sample::request())),
    ("made 20 seconds from now", |w| w.sign().proof(|p| p.claim("iat", now() + 20))),
    ("made 80 seconds ago", |w| w.sign().proof(|p| p.claim("iat", now() - 80))),
];

/// A token and a proof for it, encoded.
fn proven(world: &World) -> (String, String) {
    let client = world.client();
    let token = client.token().encode();
    let proof = client.proof("POST", SIGN, &token).encode();
    (token, proof)
}

fn by(proof: Jwt, key: &Key) -> Jwt {
    proof.signed_by(key).header("jwk", key.bare_jwk())
}

fn with_jwk(proof: Jwt, change: fn(&mut Value)) -> Jwt {
    let mut jwk = proof.header["jwk"].clone();
    change(&mut jwk);
    proof.header("jwk", jwk)
}
