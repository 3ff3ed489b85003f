//! DPoP proofs, good and hostile.

use super::*;

/// A wrong proof and why it is refused.
struct Case(String, &'static str);

async fn refuse_all(world: &World, token: &str, cases: Vec<Case>) {
    for Case(proof, reason) in cases {
        let error = world.call_dpop(token, &proof, world.at(0)).await.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), reason, "{proof}: {error}");
        assert_eq!(error.code(), "invalid_token");
        let expected = if reason.starts_with("dpop_nonce") { "use_dpop_nonce" } else { "invalid_dpop_proof" };
        assert!(challenge(&error).contains(&format!(r#"error="{expected}""#)), "{}", challenge(&error));
        assert_eq!(error.dpop_nonce().is_some(), expected == "use_dpop_nonce");
    }
}

#[tokio::test]
async fn a_wrong_proof_claim_is_refused_for_its_own_reason() {
    let world = World::new();
    let token = world.good_token();
    let claims = World::proof_claims(&token);
    let case = |member: &str, value: Value, reason| Case(world.proof(&with(&claims, member, value)), reason);
    let gone = |member: &str, reason| Case(world.proof(&without(&claims, member)), reason);
    let bytes = |payload: String, reason| {
        let header = world.proof_header().to_string();
        Case(world.client.token_of(Algorithm::Es256, header.as_bytes(), payload.as_bytes()), reason)
    };
    let cases = vec![
        gone("jti", "dpop_claims"),
        case("jti", "".into(), "dpop_claims"),
        case("jti", "j".repeat(257).into(), "dpop_claims"),
        case("jti", 7.into(), "dpop_claims"),
        gone("htm", "dpop_claims"),
        case("htm", "GET".into(), "dpop_method"),
        case("htm", "post".into(), "dpop_method"),
        case("htm", "POST ".into(), "dpop_method"),
        gone("htu", "dpop_claims"),
        case("htu", "".into(), "dpop_uri"),
        case("htu", "https://signer.example/api/v1/signer/sign/dsse".into(), "dpop_uri"),
        case("htu", "http://signer.example:8443/api/v1/signer/sign/dsse".into(), "dpop_uri"),
        case("htu", "https://signer.example:8443/api/v1/signer/keys".into(), "dpop_uri"),
        case("htu", json!([HTU]), "dpop_claims"),
        gone("iat", "dpop_claims"),
        case("iat", (EPOCH - 91).into(), "dpop_expired"),
        case("iat", 0.into(), "dpop_expired"),
        case("iat", (EPOCH + 31).into(), "dpop_issued_in_future"),
        case("iat", EPOCH.to_string().into(), "dpop_claims"),
        gone("ath", "dpop_token_hash"),
        case("ath", "".into(), "dpop_token_hash"),
        case("ath", base64url(&[0; 32]).into(), "dpop_token_hash"),
        case("ath", format!("{}=", claims["ath"].as_str().unwrap()).into(), "dpop_token_hash"),
        case("ath", claims["ath"].as_str().unwrap().to_lowercase().into(), "dpop_token_hash"),
        case("nonce", "x".into(), "dpop_nonce_invalid"),
        case("nonce", base64url(&[0; 20]).into(), "dpop_nonce_invalid"),
        case("nonce", 7.into(), "dpop_claims"),
        bytes(claims.to_string().replacen('{', r#"{"jti":"a","#, 1), "dpop_claims"),
        bytes(format!("{claims} x"), "dpop_claims"),
        bytes("[]".into(), "dpop_claims"),
        bytes("{".into(), "dpop_claims"),
    ];
    refuse_all(&world, &token, cases).await;
}

#[tokio::test]
async fn a_wrong_proof_header_is_refused_for_its_own_reason() {
    let world = World::new();
    let token = world.good_token();
    let claims = World::proof_claims(&token);
    let header = world.proof_header();
    let jwk = world.client.jwk();
    let signed = |header: Value| world.client.token(Algorithm::Es256, &header, &claims);
    let stranger = SigningKey::generate(Algorithm::Es256);
    let rsa = SigningKey::generate(Algorithm::Rs256);
    let good = world.good_proof(&token);
    let (head, _) = good.rsplit_once('.').unwrap();
    let cases = vec![
        Case(signed(with(&header, "typ", "JWT")), "dpop_type"),
        Case(signed(with(&header, "typ", "at+jwt")), "dpop_type"),
        Case(signed(without(&header, "typ")), "dpop_type"),
        Case(signed(with(&header, "alg", "none")), "dpop_algorithm"),
        Case(signed(with(&header, "alg", "HS256")), "dpop_algorithm"),
        Case(signed(with(&header, "alg", "ES384")), "dpop_algorithm"),
        Case(signed(without(&header, "alg")), "dpop_algorithm"),
        Case(signed(with(&header, "alg", "RS256")), "dpop_key"),
        Case(signed(with(&header, "alg", "EdDSA")), "dpop_key"),
        Case(signed(without(&header, "jwk")), "dpop_key"),
        Case(signed(with(&header, "jwk", with(&jwk, "d", "AA"))), "dpop_key"),
        Case(signed(with(&header, "jwk", with(&jwk, "use", "enc"))), "dpop_key"),
        Case(signed(with(&header, "jwk", with(&jwk, "alg", "ES384"))), "dpop_key"),
        Case(signed(with(&header, "jwk", json!({ "kty": "oct", "k": "AAAA" }))), "dpop_key"),
        Case(signed(with(&header, "jwk", with(&jwk, "crv", "P-384"))), "dpop_key"),
        Case(signed(with(&header, "jwk", with(&jwk, "y", base64url(&[1; 32])))), "dpop_key_mismatch"),
        Case(signed(with(&header, "jwk", "x")), "dpop_malformed"),
        Case(signed(with(&header, "crit", json!(["nonce"]))), "dpop_malformed"),
        Case(signed(with(&header, "b64", false)), "dpop_malformed"),
        Case(signed(with(&header, "jwk", stranger.jwk())), "dpop_key_mismatch"),
        Case(stranger.token(Algorithm::Es256, &with(&header, "jwk", stranger.jwk()), &claims), "dpop_key_mismatch"),
        Case(
            rsa.token(Algorithm::Rs256, &json!({ "alg": "RS256", "typ": "dpop+jwt", "jwk": rsa.jwk() }), &claims),
            "dpop_key_mismatch",
        ),
        Case(stranger.token(Algorithm::Es256, &header, &claims), "dpop_signature"),
        Case(format!("{head}.{}", base64url(&[0; 64])), "dpop_signature"),
        Case(format!("{head}.{}", base64url(&[0; 70])), "dpop_signature"),
        Case(format!("{head}.!"), "dpop_malformed"),
        Case(head.to_owned(), "dpop_malformed"),
        Case(String::new(), "dpop_malformed"),
        Case(format!("{good}, {good}"), "dpop_malformed"),
        Case(token.clone(), "dpop_type"),
        Case(signed(with(&header, "x", "y".repeat(4096))), "dpop_too_large"),
    ];
    refuse_all(&world, &token, cases).await;
    // Once a proof has verified, its header is known; that must not let others through.
    world.call_dpop(&token, &good, world.at(0)).await.unwrap();
    let cases = vec![
        Case(stranger.token(Algorithm::Es256, &header, &claims), "dpop_signature"),
        Case(signed(with(&header, "typ", "JWT")), "dpop_type"),
        Case(stranger.token(Algorithm::Es256, &with(&header, "jwk", stranger.jwk()), &claims), "dpop_key_mismatch"),
        Case(good, "dpop_replayed"),
    ];
    refuse_all(&world, &token, cases).await;
}

#[tokio::test]
async fn exactly_one_proof_comes_with_a_request() {
    let world = World::new();
    let token = world.good_token();
    let authorization = format!("DPoP {token}");
    let (a, b) = (world.good_proof(&token), world.good_proof(&token));
    let none = world.call(&[("authorization", &authorization)], world.at(0)).await.unwrap_err();
    assert_eq!(none.reason(), "dpop_missing");
    let two =
        world.call(&[("authorization", &authorization), ("dpop", &a), ("dpop", &b)], world.at(0)).await.unwrap_err();
    assert_eq!(two.reason(), "dpop_repeated");
    world.call_dpop(&token, &a, world.at(0)).await.expect("a refused request uses up no proof");
}

#[tokio::test]
async fn proofs_of_every_algorithm_are_accepted() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Ps256, Algorithm::Rs256] {
        let mut world = World::new();
        world.client = SigningKey::generate(algorithm);
        let token = world.good_token();
        for _ in 0..2 {
            let header = json!({ "alg": algorithm.name(), "typ": "dpop+jwt", "jwk": world.client.jwk() });
            let proof = world.client.token(algorithm, &header, &World::proof_claims(&token));
            world.call_dpop(&token, &proof, world.at(0)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_client_may_write_its_header_in_more_than_one_way() {
    let world = World::new();
    let token = world.good_token();
    let header = world.proof_header();
    let shapes = [header.clone(), with(&header, "kid", "mine"), with(&header, "typ", "application/dpop+jwt"), header];
    for header in shapes {
        let proof = world.client.token(Algorithm::Es256, &header, &World::proof_claims(&token));
        world.call_dpop(&token, &proof, world.at(0)).await.unwrap();
    }
}

#[tokio::test]
async fn a_proof_is_used_once_however_it_is_dressed() {
    let world = World::new();
    let token = world.good_token();
    let claims = World::proof_claims(&token);
    let proof = world.proof(&claims);
    world.call_dpop(&token, &proof, world.at(0)).await.unwrap();
    for second in [0, 1, 60, 89, 90] {
        let error = world.call_dpop(&token, &proof, world.at(second)).await.unwrap_err();
        assert_eq!(error.reason(), "dpop_replayed", "{second}");
    }
    assert_eq!(world.call_dpop(&token, &proof, world.at(91)).await.unwrap_err().reason(), "dpop_expired");
    // The same jti in another proof is no less a second use.
    for other in [with(&claims, "iat", EPOCH + 5), with(&claims, "extra", 1)] {
        let error = world.call_dpop(&token, &world.proof(&other), world.at(5)).await.unwrap_err();
        assert_eq!(error.reason(), "dpop_replayed");
    }
    // A second signature over the same proof (ECDSA allows as many as one likes) neither.
    let again = world.proof(&claims);
    assert_ne!(again, proof);
    assert_eq!(world.call_dpop(&token, &again, world.at(0)).await.unwrap_err().reason(), "dpop_replayed");
}

#[tokio::test]
async fn proofs_beyond_the_memory_are_refused_and_none_is_forgotten() {
    let world = World::with(|config| config.dpop.max_remembered_proofs = std::num::NonZeroU32::new(3).unwrap());
    let token = world.good_token();
    let proofs: Vec<_> = (0..4).map(|_| world.good_proof(&token)).collect();
    for proof in &proofs[..3] {
        world.call_dpop(&token, proof, world.at(0)).await.unwrap();
    }
    let error = world.call_dpop(&token, &proofs[3], world.at(0)).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), ("overloaded", "replay_memory_full"));
    assert!(error.retry_after().is_some() && error.challenge().is_none());
    for proof in &proofs[..3] {
        assert_eq!(world.call_dpop(&token, proof, world.at(0)).await.unwrap_err().reason(), "dpop_replayed");
    }
    let token = world.token(&with(&with(&world.claims(), "iat", EPOCH + 300), "exp", EPOCH + 600));
    let later = world.proof(&with(&World::proof_claims(&token), "iat", EPOCH + 300));
    world.call_dpop(&token, &later, world.at(300)).await.expect("time makes room");
}
