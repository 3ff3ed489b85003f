//! OpToks, good and hostile.

use super::*;

#[tokio::test]
async fn a_good_token_makes_a_caller_of_what_it_says() {
    let world = World::new();
    let token = world.good_token();
    let caller = world.call_dpop(&token, &world.good_proof(&token), world.at(0)).await.unwrap().caller;
    assert_eq!((&*caller.tenant, &*caller.subject, &*caller.token_id), ("acme", "scanner-7", "token-1"));
    assert_eq!((caller.client_id.as_deref(), caller.installation.as_deref()), (Some("scanner"), Some("inst-1")));
    assert_eq!(caller.sender, SenderKey::Dpop(Jwk::from_value(&world.client.jwk()).unwrap().thumbprint()));
    assert_eq!(caller.expires_at, UnixTime(EPOCH + 300));
}

#[tokio::test]
async fn a_token_may_say_the_same_in_other_ways() {
    let world = World::new();
    let claims = world.claims();
    let variants = [
        with(&claims, "aud", json!(["other", "signer"])),
        with(&claims, "scope", "signer.sign"),
        with(&claims, "exp", json!(EPOCH as f64 + 299.5)),
        without(&without(&without(&claims, "nbf"), "client_id"), "inst"),
        with(&claims, "nbf", EPOCH + 30),
        with(&with(&claims, "iat", EPOCH + 30), "nbf", Value::Null),
        with(&claims, "exp", EPOCH + 600),
        with(&claims, "tid", "globex"),
        with(&with(&claims, "iat", EPOCH - 329), "exp", EPOCH - 29),
    ];
    for claims in variants {
        let token = world.token(&claims);
        world
            .call_dpop(&token, &world.good_proof(&token), world.at(0))
            .await
            .unwrap_or_else(|error| panic!("{claims}: {error}"));
    }
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", "jwt"] {
        let header = json!({ "alg": "ES256", "typ": typ, "kid": "k1" });
        let token = world.authority.token(Algorithm::Es256, &header, &claims);
        world.call_dpop(&token, &world.good_proof(&token), world.at(0)).await.unwrap();
    }
    let token = world.authority.token(Algorithm::Es256, &json!({ "alg": "ES256", "typ": "at+jwt" }), &claims);
    world.call_dpop(&token, &world.good_proof(&token), world.at(0)).await.expect("one key fits, so none need be named");
}

#[tokio::test]
async fn every_algorithm_of_the_list_is_accepted_and_no_other() {
    for algorithm in [Algorithm::Es256, Algorithm::Ps256, Algorithm::Rs256, Algorithm::EdDsa] {
        for listed in [true, false] {
            let world = World::with(|config| {
                config.algorithms.retain(|accepted| listed || *accepted != algorithm);
            });
            let key = SigningKey::generate(algorithm);
            std::fs::write(&world.jwks, published(&[("other", &key)])).unwrap();
            let header = json!({ "alg": algorithm.name(), "typ": "at+jwt", "kid": "other" });
            let token = key.token(algorithm, &header, &world.claims());
            let result = world.call_dpop(&token, &world.good_proof(&token), world.at(0)).await;
            match listed {
                true => drop(result.unwrap()),
                false => assert_eq!(result.unwrap_err().reason(), "optok_algorithm"),
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_claim_is_refused_for_its_own_reason() {
    let world = World::new();
    let claims = world.claims();
    let long = "x".repeat(257);
    let cases = [
        (without(&claims, "iss"), "optok_claim_missing"),
        (with(&claims, "iss", "https://authority.example/"), "optok_issuer"),
        (with(&claims, "iss", "https://AUTHORITY.example"), "optok_issuer"),
        (with(&claims, "iss", json!([ISSUER])), "optok_claims"),
        (without(&claims, "aud"), "optok_claim_missing"),
        (with(&claims, "aud", "attestor"), "optok_audience"),
        (with(&claims, "aud", "signer2"), "optok_audience"),
        (with(&claims, "aud", "Signer"), "optok_audience"),
        (with(&claims, "aud", json!([])), "optok_audience"),
        (with(&claims, "aud", json!(["attestor"])), "optok_audience"),
        (with(&claims, "aud", "*"), "optok_audience_wildcard"),
        (with(&claims, "aud", json!(["signer", "*"])), "optok_audience_wildcard"),
        (with(&claims, "aud", json!(["signer", "https://*.example"])), "optok_audience_wildcard"),
        (with(&claims, "aud", json!(["signer", 7])), "optok_claims"),
        (with(&claims, "aud", json!({ "signer": true })), "optok_claims"),
        (without(&claims, "sub"), "optok_claim_missing"),
        (with(&claims, "sub", ""), "optok_claim_missing"),
        (with(&claims, "sub", long.as_str()), "optok_claim_too_long"),
        (with(&claims, "sub", 7), "optok_claims"),
        (without(&claims, "jti"), "optok_claim_missing"),
        (with(&claims, "jti", long.as_str()), "optok_claim_too_long"),
        (with(&claims, "client_id", long.as_str()), "optok_claim_too_long"),
        (with(&claims, "inst", long.as_str()), "optok_claim_too_long"),
        (without(&claims, "tid"), "optok_tenant_missing"),
        (with(&claims, "tid", ""), "optok_tenant_missing"),
        (with(&claims, "tid", "Acme"), "optok_tenant_unknown"),
        (with(&claims, "tid", "nobody"), "optok_tenant_unknown"),
        (with(&claims, "tid", long.as_str()), "optok_claim_too_long"),
        (with(&claims, "tid", json!(["acme"])), "optok_claims"),
        (without(&claims, "exp"), "optok_claim_missing"),
        (with(&claims, "exp", "1800000300"), "optok_claims"),
        (with(&claims, "exp", json!(1e300)), "optok_claims"),
        (with(&claims, "exp", -1), "optok_claims"),
        (with(&with(&claims, "iat", EPOCH - 330), "exp", EPOCH - 30), "optok_expired"),
        (without(&claims, "iat"), "optok_claim_missing"),
        (with(&with(&claims, "iat", EPOCH + 31), "nbf", Value::Null), "optok_issued_in_future"),
        (with(&claims, "nbf", EPOCH + 31), "optok_not_yet_valid"),
        (with(&claims, "exp", EPOCH + 601), "optok_lifetime"),
        (with(&claims, "exp", EPOCH), "optok_lifetime"),
        (with(&claims, "exp", EPOCH - 10), "optok_lifetime"),
        (with(&claims, "scope", json!(["signer.sign"])), "optok_scope_malformed"),
        (with(&claims, "scope", 7), "optok_scope_malformed"),
        (without(&claims, "scope"), "optok_scope"),
        (with(&claims, "scope", ""), "optok_scope"),
        (with(&claims, "scope", "signer.sign.all signer"), "optok_scope"),
        (with(&claims, "scope", "SIGNER.SIGN"), "optok_scope"),
        (with(&claims, "scope", "signer.sign,openid"), "optok_scope"),
        (without(&claims, "cnf"), "optok_unbound"),
        (with(&claims, "cnf", json!({})), "optok_unbound"),
        (with(&claims, "cnf", json!({ "jwk": world.client.jwk() })), "optok_unbound"),
        (with(&claims, "cnf", json!({ "kid": "k" })), "optok_unbound"),
        (with(&claims, "cnf", "x"), "optok_claims"),
        (with(&claims, "cnf", json!({ "jkt": 7 })), "optok_claims"),
        (with(&claims, "cnf", json!({ "jkt": "" })), "optok_confirmation"),
        (with(&claims, "cnf", json!({ "jkt": base64url(&[1; 31]) })), "optok_confirmation"),
        (with(&claims, "cnf", json!({ "jkt": format!("{}=", world.jkt()) })), "optok_confirmation"),
        (with(&claims, "cnf", json!({ "jkt": world.jkt(), "x5t#S256": "zz" })), "optok_confirmation"),
    ];
    for (claims, reason) in cases {
        let token = world.token(&claims);
        let error = world.call_dpop(&token, &world.good_proof(&token), world.at(0)).await.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), reason, "{claims}");
        for text in [error.to_string(), format!("{error:?}"), challenge(&error)] {
            assert!(!text.contains(&token[..20]) && !text.contains("scanner-7") && !text.contains(&long), "{text}");
        }
    }
}

#[tokio::test]
async fn a_wrong_token_is_refused_for_its_own_reason() {
    let world = World::new();
    let claims = world.claims();
    let good = world.good_token();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let key = &world.authority;
    let es256 = |header: Value| key.token(Algorithm::Es256, &header, &claims);
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": "k1" });
    let payload = claims.to_string();
    let raw = |payload: &str| key.token_of(Algorithm::Es256, header.to_string().as_bytes(), payload.as_bytes());
    let stranger = SigningKey::generate(Algorithm::Es256);
    let huge = with(&claims, "roles", "r".repeat(8192));
    let cases = [
        (es256(with(&header, "typ", "dpop+jwt")), "optok_type"),
        (es256(with(&header, "typ", "id+jwt")), "optok_type"),
        (es256(without(&header, "typ")), "optok_type"),
        (es256(with(&header, "kid", "k2")), "optok_key_unknown"),
        (es256(with(&header, "kid", "")), "optok_key_unknown"),
        (es256(with(&header, "alg", "none")), "optok_algorithm"),
        (es256(with(&header, "alg", "HS256")), "optok_algorithm"),
        (es256(without(&header, "alg")), "optok_algorithm"),
        (es256(with(&header, "alg", "RS256")), "optok_key_unknown"),
        (es256(with(&header, "crit", json!(["exp"]))), "optok_malformed"),
        (es256(with(&header, "kid", 7)), "optok_malformed"),
        (stranger.token(Algorithm::Es256, &header, &claims), "optok_signature"),
        (stranger.token(Algorithm::Es256, &with(&header, "jwk", stranger.jwk()), &claims), "optok_signature"),
        (format!("{head}.{}", base64url(&[0; 64])), "optok_signature"),
        (format!("{head}.{}", &signature[..signature.len() - 2]), "optok_signature"),
        (format!("{head}."), "optok_malformed"),
        (head.to_owned(), "optok_malformed"),
        (format!("{good}.{signature}"), "optok_malformed"),
        ("opaque".to_owned(), "optok_malformed"),
        (raw("[]"), "optok_claims"),
        (raw(&format!("{payload}{payload}")), "optok_claims"),
        (raw(&payload.replacen('{', r#"{"iss":"https://authority.example","#, 1)), "optok_claims"),
        (raw(&payload.replacen('{', r#"{"\u0069ss":"https://authority.example","#, 1)), "optok_claims"),
        (raw("\u{feff}{}"), "optok_claims"),
        (world.token(&huge), "optok_too_large"),
    ];
    for (token, reason) in cases {
        let error = world.call_dpop(&token, &world.good_proof(&token), world.at(0)).await.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), reason, "{token}");
        assert_eq!(error.code(), "invalid_token");
        assert!(challenge(&error).starts_with(r#"DPoP algs="ES256 EdDSA PS256 RS256", error="invalid_token""#));
    }
    assert_eq!(world.appliance.cached_tokens(), 0, "nothing refused is remembered");
}

#[tokio::test]
async fn a_wrong_authorization_header_is_refused_for_its_own_reason() {
    let world = World::new();
    let token = world.good_token();
    let proof = world.good_proof(&token);
    let (dpop, bearer) = (format!("DPoP {token}"), format!("Bearer {token}"));
    let (glued, padded, two) = (format!("DPoP{token}"), format!("DPoP {token}="), format!("DPoP {token} {token}"));
    let latin1 = "DPoP \u{e9}";
    let cases: [(&[(&str, &str)], &str); 13] = [
        (&[], "authorization_missing"),
        (&[("dpop", &proof)], "authorization_missing"),
        (&[("authorization", &dpop), ("authorization", &dpop)], "authorization_repeated"),
        (&[("authorization", &dpop), ("authorization", &bearer)], "authorization_repeated"),
        (&[("authorization", "Basic dXNlcjpwYXNz")], "authorization_scheme"),
        (&[("authorization", &token)], "authorization_scheme"),
        (&[("authorization", &glued)], "authorization_scheme"),
        (&[("authorization", "DPoP")], "authorization_malformed"),
        (&[("authorization", "Bearer  ")], "authorization_malformed"),
        (&[("authorization", &padded)], "authorization_malformed"),
        (&[("authorization", &two)], "authorization_malformed"),
        (&[("authorization", latin1)], "authorization_malformed"),
        (&[("authorization", "DPoP a,b")], "authorization_malformed"),
    ];
    for (headers, reason) in cases {
        let error = world.call(headers, world.at(0)).await.map(|_| ()).unwrap_err();
        assert_eq!((error.reason(), error.code()), (reason, "invalid_token"), "{headers:?}");
        assert!(error.challenge().is_some());
    }
    let lower = format!("dpop   {token}");
    world.call(&[("authorization", &lower), ("dpop", &proof)], world.at(0)).await.expect("schemes have no case");
}

#[tokio::test]
async fn a_token_is_held_against_every_confirmation_it_carries() {
    let world = World::new();
    let ours = base64url(&CERTIFICATE);
    let other = base64url(&[1; 32]);
    let with_cnf = |cnf: Value| world.token(&with(&world.claims(), "cnf", cnf));
    let by_certificate = with_cnf(json!({ "x5t#S256": ours }));
    let by_other = with_cnf(json!({ "x5t#S256": other }));
    let by_key = world.good_token();
    let by_both = with_cnf(json!({ "jkt": world.jkt(), "x5t#S256": ours }));
    let by_key_and_other = with_cnf(json!({ "jkt": world.jkt(), "x5t#S256": other }));

    let caller = world.call_bearer(&by_certificate, world.at(0)).await.unwrap().caller;
    assert_eq!(caller.sender, SenderKey::Certificate(CERTIFICATE));
    world.call_bearer(&by_certificate, world.at(1)).await.expect("a certificate needs no proof, however often");
    world.call_dpop(&by_both, &world.good_proof(&by_both), world.at(0)).await.unwrap();

    let bearer = r#"Bearer realm="signer", error="invalid_token""#;
    let dpop = r#"DPoP algs="ES256 EdDSA PS256 RS256", error="invalid_token""#;
    let refused = [
        (world.call_bearer(&by_other, world.at(0)).await, "certificate_mismatch", bearer),
        (world.call_bearer(&by_key, world.at(0)).await, "dpop_bound_as_bearer", dpop),
        (world.call_bearer(&by_both, world.at(0)).await, "dpop_bound_as_bearer", dpop),
        (
            world.call_dpop(&by_certificate, &world.good_proof(&by_certificate), world.at(0)).await,
            "optok_not_dpop_bound",
            bearer,
        ),
        (
            world.call_dpop(&by_key_and_other, &world.good_proof(&by_key_and_other), world.at(0)).await,
            "certificate_mismatch",
            dpop,
        ),
    ];
    for (result, reason, lead) in refused {
        let error = result.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(challenge(&error).starts_with(lead), "{}", challenge(&error));
    }
}

#[tokio::test]
async fn a_missing_scope_is_told_to_a_caller_who_is_known() {
    let world = World::new();
    let token = world.token(&with(&world.claims(), "scope", "openid"));
    let error = world.call_dpop(&token, &world.good_proof(&token), world.at(0)).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), ("insufficient_scope", "optok_scope"));
    assert_eq!(&*error.caller().unwrap().subject, "scanner-7");
    assert!(
        challenge(&error).contains(r#"error="insufficient_scope""#)
            && challenge(&error).ends_with(r#", scope="signer.sign""#)
    );
    // Without a proof nobody learns what a token is good for.
    let error = world.call(&[("authorization", &format!("DPoP {token}"))], world.at(0)).await.unwrap_err();
    assert_eq!((error.reason(), error.caller().is_none()), ("dpop_missing", true));
}

#[tokio::test]
async fn a_verified_token_is_remembered_and_still_expires() {
    let world = World::new();
    let token = world.good_token();
    for second in [0, 1, 60] {
        let proof = world.proof(&with(&World::proof_claims(&token), "iat", EPOCH + second));
        world.call_dpop(&token, &proof, world.at(second)).await.unwrap();
        assert_eq!(world.appliance.cached_tokens(), 1);
    }
    let late = with(&World::proof_claims(&token), "iat", EPOCH + 329);
    world.call_dpop(&token, &world.proof(&late), world.at(329)).await.expect("within the skew");
    let error = world.call_dpop(&token, &world.good_proof(&token), world.at(330)).await.unwrap_err();
    assert_eq!(error.reason(), "optok_expired");
    assert_eq!(world.appliance.cached_tokens(), 0);
}
