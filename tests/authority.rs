//! Tokens of a real OpenID provider: bound by DPoP and by certificate, with keys that rotate while all is running.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod oidc_provider {
    use testkit::client::{Call, Client};
    use testkit::key::Key;
    use testkit::peers::OidcProvider;
    use testkit::{Fixture, jwt, sample};

    const REASON: &str = "needs oidc-provider; cargo xtask test authority brings it";

    #[test]
    #[ignore = "needs oidc-provider: cargo xtask test authority"]
    fn a_dpop_bound_token_signs() {
        let (fixture, provider) = start();
        let client = fixture.client();
        let token = provider.dpop_token(client.dpop_key(), "signer.sign").unwrap();
        let (header, claims) = jwt::decode(&token).unwrap();
        assert_eq!(header["typ"], "at+jwt", "the provider issues what the test is about");
        assert_eq!(claims["cnf"]["jkt"], client.dpop_key().thumbprint().as_str());
        let answer = sign(&client, &token).send().expect(200);
        answer.envelope().verify(&fixture.keys.acme.point).unwrap();
        let records = fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
        assert!(records.iter().any(|record| record.to_string().contains("scanner-dpop")), "{records:?}");
    }

    #[test]
    #[ignore = "needs oidc-provider: cargo xtask test authority"]
    fn a_dpop_bound_token_is_refused_to_whoever_lacks_the_key() {
        let (fixture, provider) = start();
        let owner = fixture.client();
        let token = provider.dpop_token(owner.dpop_key(), "signer.sign").unwrap();
        sign(&owner, &token).send().expect(200);
        let thief = owner.with_dpop_key(&Key::p256());
        assert_eq!(sign(&thief, &token).send().refusal(), (401, "invalid_token".to_owned()));
        assert_eq!(sign(&thief, &token).without_proof().send().refusal(), (401, "invalid_token".to_owned()));
    }

    #[test]
    #[ignore = "needs oidc-provider: cargo xtask test authority"]
    fn a_certificate_bound_token_signs_over_its_own_certificate_alone() {
        let (fixture, provider) = start();
        let client = fixture.client().bound_by_certificate();
        let token = provider.certificate_token(&fixture.pki.acme, "signer.sign").unwrap();
        assert_eq!(jwt::decode(&token).unwrap().1["cnf"]["x5t#S256"], fixture.pki.acme.thumbprint().as_str());
        sign(&client, &token).send().expect(200).envelope().verify(&fixture.keys.acme.point).unwrap();
        let thief = client.showing(Some(&fixture.pki.globex));
        assert_eq!(sign(&thief, &token).send().refusal(), (401, "invalid_token".to_owned()));
    }

    #[test]
    #[ignore = "needs oidc-provider: cargo xtask test authority"]
    fn a_token_bound_to_nothing_is_refused() {
        let (fixture, provider) = start();
        let token = provider.unbound_token("signer.sign").unwrap();
        let call = sign(&fixture.client(), &token).without_proof().scheme("Bearer");
        assert_eq!(call.send().refusal(), (401, "invalid_token".to_owned()));
        assert_eq!(sign(&fixture.client(), &token).send().refusal(), (401, "invalid_token".to_owned()));
    }

    #[test]
    #[ignore = "needs oidc-provider: cargo xtask test authority"]
    fn a_token_without_the_scope_is_refused() {
        let (fixture, provider) = start();
        let client = fixture.client();
        let token = provider.dpop_token(client.dpop_key(), "signer.read").unwrap();
        assert_eq!(sign(&client, &token).send().refusal(), (403, "insufficient_scope".to_owned()));
    }

    #[test]
    #[ignore = "needs oidc-provider: cargo xtask test authority"]
    fn keys_rotate_while_all_is_running_and_a_dropped_key_proves_nothing() {
        let (mut fixture, provider) = start();
        let client = fixture.client();
        let old = provider.dpop_token(client.dpop_key(), "signer.sign").unwrap();
        sign(&client, &old).send().expect(200);

        let kid = provider.rotate().unwrap();
        let new = provider.dpop_token(client.dpop_key(), "signer.sign").unwrap();
        assert_eq!(jwt::decode(&new).unwrap().0["kid"], kid.as_str(), "the new key signs");
        sign(&client, &new).send().expect(200);
        sign(&client, &old).send().expect(200);

        provider.forget().unwrap();
        let refused = |_: &_| sign(&client, &old).send().status == 401;
        fixture.appliance.wait_until("without the old key", refused).unwrap();
        sign(&client, &new).send().expect(200);
    }

    /// A fixture whose Authority is the provider. The key set is fetched every second, so that a dropped key is gone
    /// soon.
    fn start() -> (Fixture, OidcProvider) {
        let (sender, receiver) = std::sync::mpsc::channel();
        let fixture = Fixture::builder()
            .settings(move |settings, peers| {
                let provider = OidcProvider::start(peers.pki).expect(REASON);
                settings.set("authority.issuer", provider.issuer());
                let discovery = format!("{}/.well-known/openid-configuration", provider.issuer());
                settings.set("authority.jwks.discovery", discovery).set("authority.jwks_refresh", "1s");
                sender.send(provider).unwrap();
            })
            .start();
        (fixture, receiver.recv().unwrap())
    }

    fn sign(client: &Client, token: &str) -> Call {
        client.sign(&sample::request()).token_text(token)
    }
}
