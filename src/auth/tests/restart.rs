//! Nonces: what a restart must not open, and what a policy demands.

use super::*;
use crate::config::NoncePolicy;

fn nonce(error: &AuthError) -> String {
    error.dpop_nonce().unwrap().to_str().unwrap().to_owned()
}

/// The same appliance, started anew at `seconds`.
fn restarted(world: &World, seconds: i64) -> Authenticator {
    let config = authority_config(&JwksSource::File(world.jwks.clone()));
    Authenticator::started_at(&config, PUBLIC_URL, ["acme"], outbound(), world.at(seconds)).unwrap()
}

#[tokio::test]
async fn a_proof_from_before_a_restart_is_never_accepted_after_it() {
    let world = World::new();
    let token = world.token(&with(&world.claims(), "exp", EPOCH + 600));
    // As late and as far ahead as the old process would take them.
    for ahead in [-90, -30, 0, 15, 30] {
        let proof = world.proof(&with(&World::proof_claims(&token), "iat", EPOCH + ahead));
        let headers = header_map(&[("authorization", &format!("DPoP {token}")), ("dpop", &proof)]);
        world.appliance.authenticate_at(&presented(&headers), world.at(0)).await.unwrap();
        let appliance = restarted(&world, 0);
        for second in 0..200 {
            let result = appliance.authenticate_at(&presented(&headers), world.at(second)).await;
            let reason = result.map(|_| ()).unwrap_err().reason();
            assert!(matches!(reason, "dpop_nonce_missing" | "dpop_expired"), "{ahead} {second}: {reason}");
        }
    }
}

#[tokio::test]
async fn after_a_restart_a_nonce_lets_the_client_in_at_once() {
    let world = World::new();
    let token = world.good_token();
    let authorization = format!("DPoP {token}");
    let appliance = restarted(&world, 0);
    let headers = header_map(&[("authorization", &authorization), ("dpop", &world.good_proof(&token))]);
    let error = appliance.authenticate_at(&presented(&headers), world.at(0)).await.unwrap_err();
    assert_eq!(error.reason(), "dpop_nonce_missing");
    assert!(challenge(&error).contains(r#"error="use_dpop_nonce""#));

    let claims = with(&World::proof_claims(&token), "nonce", nonce(&error));
    let headers = header_map(&[("authorization", &authorization), ("dpop", &world.proof(&claims))]);
    appliance.authenticate_at(&presented(&headers), world.at(0)).await.unwrap();
    let error = appliance.authenticate_at(&presented(&headers), world.at(1)).await.unwrap_err();
    assert_eq!(error.reason(), "dpop_replayed", "a nonce is no licence to replay");
    let error = restarted(&world, 1).authenticate_at(&presented(&headers), world.at(1)).await.unwrap_err();
    assert_eq!(error.reason(), "dpop_nonce_invalid", "another process, another nonce");

    let claims = with(&World::proof_claims(&token), "iat", EPOCH + 121);
    let headers = header_map(&[("authorization", &authorization), ("dpop", &world.proof(&claims))]);
    appliance.authenticate_at(&presented(&headers), world.at(121)).await.expect("the window has passed");
}

#[tokio::test]
async fn a_wall_clock_that_is_put_right_after_the_start_opens_nothing() {
    let world = World::new();
    let token = world.good_token();
    let proof = world.good_proof(&token);
    let headers = header_map(&[("authorization", &format!("DPoP {token}")), ("dpop", &proof)]);
    let config = authority_config(&JwksSource::File(world.jwks.clone()));
    let wrong = Moment { wall: UnixTime(0), ..world.at(0) };
    let appliance = Authenticator::started_at(&config, PUBLIC_URL, ["acme"], outbound(), wrong).unwrap();
    for second in 0..200 {
        let result = appliance.authenticate_at(&presented(&headers), world.at(second)).await;
        let reason = result.map(|_| ()).unwrap_err().reason();
        assert!(matches!(reason, "dpop_nonce_missing" | "dpop_expired"), "{second}: {reason}");
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_back_later_opens_nothing() {
    let world = World::new();
    let token = world.good_token();
    // One that the process before may have taken, and one that this process has taken and forgotten.
    let before = world.proof(&with(&World::proof_claims(&token), "iat", EPOCH + 30));
    let appliance = restarted(&world, 0);
    let during = world.proof(&with(&World::proof_claims(&token), "iat", EPOCH + 200));
    let call = async |proof: &str, now: Moment| {
        let headers = header_map(&[("authorization", &format!("DPoP {token}")), ("dpop", proof)]);
        appliance.authenticate_at(&presented(&headers), now).await.map(|_| ()).map_err(|error| error.reason())
    };
    assert_eq!(call(&during, world.at(200)).await, Ok(()));
    let set_back = |wall: i64| Moment { wall: UnixTime(EPOCH + wall), ..world.at(1000) };
    assert_eq!(call(&before, set_back(30)).await, Err("dpop_nonce_missing"));
    // One more proof makes the memory move on.
    let fresh = world.proof(&with(&World::proof_claims(&token), "iat", EPOCH + 320));
    assert_eq!(call(&fresh, set_back(320)).await, Ok(()));
    assert!(call(&during, set_back(200)).await.is_err());
}

#[tokio::test]
async fn with_the_strict_policy_every_proof_needs_a_nonce_and_clients_are_kept_supplied() {
    let world = World::with(|config| config.dpop.nonce = NoncePolicy::Always);
    let token = world.token(&with(&world.claims(), "exp", EPOCH + 600));
    let claims = |second: i64| with(&World::proof_claims(&token), "iat", EPOCH + second);
    let error = world.call_dpop(&token, &world.proof(&claims(0)), world.at(0)).await.unwrap_err();
    assert_eq!(error.reason(), "dpop_nonce_missing");
    let first = nonce(&error);
    for (second, renewed) in [(0, false), (150, false), (151, true), (300, true)] {
        let proof = world.proof(&with(&claims(second), "nonce", first.as_str()));
        let authenticated = world.call_dpop(&token, &proof, world.at(second)).await.unwrap();
        assert_eq!(authenticated.dpop_nonce.is_some(), renewed, "{second}");
        if let Some(next) = authenticated.dpop_nonce {
            let proof = world.proof(&with(&claims(second), "nonce", next.to_str().unwrap()));
            world.call_dpop(&token, &proof, world.at(second)).await.unwrap();
        }
    }
    let proof = world.proof(&with(&claims(301), "nonce", first.as_str()));
    let error = world.call_dpop(&token, &proof, world.at(301)).await.unwrap_err();
    assert_eq!(error.reason(), "dpop_nonce_invalid");
    assert_ne!(nonce(&error), first);
}
