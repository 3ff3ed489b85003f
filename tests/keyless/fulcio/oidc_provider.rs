//! Identity tokens of a real OpenID provider, which a real Fulcio believes: one tenant proves itself by a JWT that a key
//! in the token signs, the other by a certificate.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testkit::appliance::Settings;
use testkit::authority::identity;
use testkit::fixture::Peers;
use testkit::fulcio::OidcIssuer;
use testkit::keyless::{RealFulcio, sign};
use testkit::peers::{IdentityClient, OidcProvider};
use testkit::{base64url, envelope};

#[test]
#[ignore = "needs fulcio, timestamp-server and oidc-provider: cargo xtask test keyless"]
fn a_key_in_the_token_or_a_certificate_proves_who_asks_for_an_identity() {
    let provider: Arc<Mutex<Option<OidcProvider>>> = Arc::default();
    let (started, configured) = (provider.clone(), provider.clone());
    let world = RealFulcio::start_with(
        move |peers| {
            // It must be there before Fulcio, which asks it for its keys, and know the token's key, which is there.
            let jwk = jwk_of(&peers.keys.acme_next.point);
            let clients = [
                IdentityClient::Assertion { id: &identity("acme"), jwk },
                IdentityClient::Certificate { id: &identity("globex"), dns: "acme-ci.test" },
            ];
            let provider = OidcProvider::start_with(peers.pki, &clients).unwrap();
            let issuer = OidcIssuer { url: provider.issuer(), ca: peers.pki.server_ca.certificate.clone() };
            *started.lock().unwrap() = Some(provider);
            vec![issuer]
        },
        move |builder| {
            builder.settings(move |settings, peers| {
                let provider = configured.lock().unwrap();
                configure(settings, peers, &provider.as_ref().unwrap().issuer());
            })
        },
    );
    for (tenant, client) in [("acme", world.fixture.client()), ("globex", world.fixture.globex())] {
        // The appliance may be ready a moment before it has tried again what the token could not sign at first.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let answer = loop {
            let answer = sign(&client, "dsse+cert").send();
            if answer.status == 200 {
                break answer;
            }
            let log = world.fixture.appliance.logs();
            assert!(std::time::Instant::now() < deadline, "{tenant}: {answer}\n{log}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        };
        let signer = &answer.json()["bundle"]["signingIdentity"];
        assert_eq!(signer["san"], identity(tenant).as_str());
        let issuer = provider.lock().unwrap().as_ref().unwrap().issuer();
        assert_eq!(signer["issuer"], issuer.as_str());
    }
    // That the key in the token signed an assertion is on record.
    let records = world.fixture.appliance.audit().unwrap();
    let of_the_key = |record: &&Value| record.to_string().contains("acme-next");
    assert!(records.iter().any(|record| of_the_key(&record)), "{records:#?}");
}

/// Both tenants' identities from the provider. The key `acme-next` becomes the appliance's own.
fn configure(settings: &mut Settings, peers: &Peers<'_>, issuer: &str) {
    settings.set("tenants.acme.keys", vec!["acme-active".to_owned()]).set("keys.acme-next.state", "active");
    for tenant in ["acme", "globex"] {
        let name = format!("keyless.identity.{tenant}");
        let client = format!("{name}.source.client_credentials");
        settings
            .unset(&format!("{name}.source.file"))
            .set(&format!("{name}.issuer"), issuer)
            .set(&format!("{client}.token_url"), format!("{issuer}/token"))
            .set_path(&format!("{client}.ca"), &peers.pki.server_ca.certificate)
            .set(&format!("{client}.client_id"), identity(tenant))
            .set(&format!("{client}.resource"), "urn:stellaops:fulcio");
    }
    let authentication = |tenant: &str| format!("keyless.identity.{tenant}.source.client_credentials.authentication");
    settings
        .set(&format!("{}.private_key_jwt.key", authentication("acme")), "acme-next")
        .set_path(&format!("{}.mtls.certificate", authentication("globex")), peers.pki.acme.certificate())
        .set_path(&format!("{}.mtls.private_key", authentication("globex")), peers.pki.acme.private_key());
}

/// The JWK of a public point; its `kid` is what the appliance calls a key that nobody named otherwise.
fn jwk_of(point: &[u8]) -> Value {
    json!({
        "kty": "EC",
        "crv": "P-256",
        "x": base64url(&point[1..33]),
        "y": base64url(&point[33..]),
        "kid": envelope::keyid(point),
        "alg": "ES256",
        "use": "sig",
    })
}
