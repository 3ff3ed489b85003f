//! Keyless signing by the real front and the real helper, with a Fulcio in this process: every form of an answer, what
//! the record says of it, and an identity that a key in the token proves.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testkit::https::{Clients, Reply, Server};
use testkit::keyless::{LONG, OwnFulcio, sign, wait_for_no_helper, wait_until};
use testkit::{base64url, envelope, from_base64, from_base64url, hex, key, schema, sha256};

#[test]
fn every_form_of_an_answer_carries_what_verifies_it_and_the_record_names_the_certificate() {
    let mut world = OwnFulcio::start(|builder| builder);
    let client = world.fixture.client();
    for form in ["dsse", "dsse+cert", "sigstore"] {
        let answer = sign(&client, form).send().expect(200);
        let body = answer.json();
        let bundle = &body["bundle"];
        assert_eq!(bundle["mode"], "keyless");
        let identity = &bundle["signingIdentity"];
        assert!(identity["san"].is_string() && identity["issuer"].is_string() && identity["certExpiry"].is_string());
        let document: Value = serde_json::from_str(include_str!("../docs/openapi.json")).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let described = paths.iter().find(|(path, _)| path.ends_with("/sign/dsse")).unwrap().1;
        let described = &described["post"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(described.is_object());
        schema::conforms(&body, described, &document).unwrap();

        let certificate = match form {
            "dsse" => None,
            "dsse+cert" => {
                let chain = bundle["certificateChain"].as_array().unwrap();
                assert_eq!(chain.len(), 3, "leaf, intermediate, root");
                let pem: String =
                    chain[0].as_str().unwrap().lines().filter(|line| !line.starts_with("-----")).collect();
                Some(from_base64(&pem).unwrap())
            }
            _ => {
                let material = &bundle["sigstore"]["verificationMaterial"];
                assert!(material.get("publicKey").is_none() && material["tlogEntries"] == json!([]));
                Some(from_base64(material["certificate"]["rawBytes"].as_str().unwrap()).unwrap())
            }
        };
        let records = world.fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
        let outcome = records.iter().find(|record| record["kind"] == "outcome").unwrap();
        assert_eq!((&outcome["mode"], &outcome["outcome"]), (&json!("keyless"), &json!("signed")), "{outcome}");
        assert_eq!((&outcome["san"], &outcome["oidcIssuer"]), (&identity["san"], &identity["issuer"]), "{outcome}");
        assert_eq!(outcome["certificateExpires"], identity["certExpiry"], "{outcome}");
        let intent = records.iter().find(|record| record["kind"] == "intent").unwrap();
        assert!(intent.get("certificateSha256").is_none(), "at the intent there was none: {intent}");
        if let Some(certificate) = certificate {
            assert_eq!(outcome["certificateSha256"], hex(sha256(&certificate)), "{outcome}");
            // The key is the only P-256 point in it.
            let at = certificate.windows(3).position(|bytes| bytes == [0x42, 0x00, 0x04]).unwrap() + 2;
            let point = &certificate[at..at + 65];
            answer.envelope().verify(point).unwrap();
            assert_eq!(answer.envelope().keyid, envelope::keyid(point));
        }
    }
    let metrics = world.fixture.appliance.local("/metrics").unwrap().text();
    assert!(metrics.contains("signer_keyless_certs_issued_total 3"), "{metrics}");
    wait_for_no_helper(world.fixture.appliance.front().id());
}

#[test]
fn a_key_in_the_token_proves_the_appliance_and_each_assertion_is_recorded_before_it_is_signed() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (taken, server) = (Arc::clone(&seen), Arc::new(Mutex::new(None)));
    let kept = Arc::clone(&server);
    let world = OwnFulcio::start(|builder| {
        builder.settings(move |settings, peers| {
            let token = peers.authority.mint_identity("acme").shift("exp", LONG).encode();
            let authority = Server::start(&peers.pki.services, Clients::Any, move |asked| {
                taken.lock().unwrap().push(asked.form()["client_assertion"].clone());
                Reply::json(200, &json!({"access_token": token, "token_type": "Bearer", "expires_in": 600}))
            });
            let authority = authority.unwrap();
            let client = "keyless.identity.acme.source.client_credentials";
            settings
                .set("tenants.acme.keys", vec!["acme-active".to_owned()])
                .set("keys.acme-next.state", "active")
                .unset("keyless.identity.acme.source.file")
                .set(&format!("{client}.token_url"), format!("{}/token", authority.url()))
                .set_path(&format!("{client}.ca"), &peers.pki.server_ca.certificate)
                .set(&format!("{client}.client_id"), "signer-of-acme")
                .set(&format!("{client}.authentication.private_key_jwt.key"), "acme-next");
            *kept.lock().unwrap() = Some(authority);
        })
    });
    // At the very start the key's token is not known yet, and so there is no identity; it comes by itself.
    wait_until("the identity is held", || {
        world.fixture.appliance.local("/readyz").unwrap().json()["keyless"]["usable"] == json!(true)
    });
    sign(&world.fixture.client(), "dsse").send().expect(200);

    let assertion = seen.lock().unwrap().last().unwrap().clone();
    let (header, claims) = testkit::jwt::decode(&assertion).unwrap();
    let point = &world.fixture.keys.acme_next.point;
    assert_eq!((&header["alg"], &header["kid"]), (&json!("ES256"), &json!(envelope::keyid(point))));
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("signer-of-acme"), &json!("signer-of-acme")));
    let url = format!("{}/token", server.lock().unwrap().as_ref().unwrap().url());
    assert_eq!(claims["aud"], url.as_str());
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 60);
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": base64url(&point[1..33]), "y": base64url(&point[33..])});
    key::verify(&jwk, signed.as_bytes(), &from_base64url(signature).unwrap()).unwrap();

    let records = world.fixture.appliance.audit().unwrap();
    let recorded = records.iter().filter(|record| record["event"] == "identity_assertion");
    let recorded: Vec<&Value> = recorded.collect();
    assert!(recorded.len() >= seen.lock().unwrap().len(), "{records:?}");
    assert_eq!((&recorded[0]["key"], &recorded[0]["audience"]), (&json!("acme-next"), &json!(url)));
    let jti = &claims["jti"];
    assert!(jti.is_string() && recorded.iter().any(|record| record["jti"] == *jti), "{records:?}");
}
