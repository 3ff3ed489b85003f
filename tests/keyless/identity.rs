//! Where identity tokens come from, and whose they are.

use testkit::authority::identity;
use testkit::hostile_fulcio::Seen;
use testkit::jwt::{self, Jwt};
use testkit::keyless::{LONG, OwnFulcio, sign, token_file, wait_until, write_token};

#[test]
fn a_token_file_is_read_again_when_it_changes() {
    let world = OwnFulcio::start(|builder| builder);
    let client = world.fixture.client();
    sign(&client, "dsse+cert").send().expect(200);
    let file = token_file(world.fixture.dir(), "acme");
    assert_eq!(last(&world).token, std::fs::read_to_string(&file).unwrap());
    let new = write_token(&file, &world.fixture.authority.mint_identity("acme").shift("exp", LONG)).unwrap();
    wait_until("the new token is shown", || {
        sign(&client, "dsse+cert").send().expect(200);
        last(&world).token == new
    });
}

#[test]
fn each_tenant_signs_as_itself_and_as_nobody_else() {
    let world = OwnFulcio::start(|builder| builder);
    for (tenant, client) in [("acme", world.fixture.client()), ("globex", world.fixture.globex())] {
        let answer = sign(&client, "dsse+cert").send().expect(200);
        assert_eq!(answer.json()["bundle"]["signingIdentity"]["san"], identity(tenant).as_str());
        assert_eq!(subject(&last(&world)), identity(tenant));
    }
    // A token of acme's that lies where globex's should be gives globex no certificate of acme's.
    let globex_file = token_file(world.fixture.dir(), "globex");
    let acme_token = world.fixture.authority.mint_identity("acme").shift("exp", LONG);
    write_token(&globex_file, &acme_token).unwrap();
    wait_until("acme's token is shown for globex", || {
        let _ = sign(&world.fixture.globex(), "dsse+cert").send();
        subject(&last(&world)) == identity("acme")
    });
    let answer = sign(&world.fixture.globex(), "dsse+cert").send();
    crate::assert_refused(&world.fixture, &answer, "signing_unavailable", "certificate_san_mismatch");
    sign(&world.fixture.client(), "dsse+cert").send().expect(200);
}

#[test]
fn a_tenant_without_an_identity_does_not_sign_keyless() {
    let world = OwnFulcio::start(|builder| builder.unset("tenants.globex.keyless"));
    let answer = sign(&world.fixture.globex(), "dsse+cert").send();
    assert_eq!(answer.refusal(), (400, "invalid_request".to_owned()), "{answer}");
    assert!(world.fulcio.seen().is_empty());
}

#[test]
fn a_file_without_a_usable_token_is_a_503_with_its_reason_and_fulcio_is_not_asked() {
    let cases: [(&str, fn(Jwt) -> Jwt); 4] = [
        ("identity_expired", |token| token.shift("exp", -600)),
        ("identity_audience", |token| token.claim("aud", "elsewhere")),
        ("identity_issuer", |token| token.claim("iss", "https://elsewhere.test")),
        ("identity_malformed", |token| token.claims_text("no claims")),
    ];
    for (reason, spoil) in cases {
        let world = OwnFulcio::start(|builder| {
            builder.settings(move |_, peers| {
                let token = spoil(peers.authority.mint_identity("acme"));
                write_token(&token_file(peers.dir, "acme"), &token).unwrap();
            })
        });
        let answer = sign(&world.fixture.client(), "dsse+cert").send();
        crate::assert_refused(&world.fixture, &answer, "signing_unavailable", reason);
        assert!(world.fulcio.seen().is_empty(), "{reason}");
        sign(&world.fixture.globex(), "dsse+cert").send().expect(200);
    }
}

#[test]
fn a_token_that_is_good_outlives_its_file() {
    let world = OwnFulcio::start(|builder| builder);
    sign(&world.fixture.client(), "dsse+cert").send().expect(200);
    std::fs::remove_file(token_file(world.fixture.dir(), "acme")).unwrap();
    sign(&world.fixture.client(), "dsse+cert").send().expect(200);
}

#[test]
fn a_credential_of_the_service_manager_is_read_as_systemd_hands_it_over() {
    // What LoadCredential= and SetCredentialEncrypted= give a service: a directory, read-only, named by a variable.
    let credentials = tempfile::tempdir().unwrap();
    let path = credentials.path().to_owned();
    let world = OwnFulcio::start(|builder| {
        builder.front_environment("CREDENTIALS_DIRECTORY", credentials.path()).settings(move |settings, peers| {
            let token = peers.authority.mint_identity("acme").shift("exp", LONG);
            write_token(&path.join("fulcio-identity"), &token).unwrap();
            settings.unset("keyless.identity.acme.source.file");
            settings.set("keyless.identity.acme.source.credential", "fulcio-identity");
        })
    });
    sign(&world.fixture.client(), "dsse+cert").send().expect(200);
    let shown = last(&world).token;
    assert_eq!(shown, std::fs::read_to_string(credentials.path().join("fulcio-identity")).unwrap());
}

#[test]
fn client_credentials_by_certificate_bring_a_token_that_is_fetched_once() {
    let world = OwnFulcio::start(|builder| {
        builder.settings(|settings, peers| {
            let source = "keyless.identity.acme.source";
            settings.unset(&format!("{source}.file"));
            let client = format!("{source}.client_credentials");
            settings
                .set(&format!("{client}.token_url"), peers.authority.token_url())
                .set_path(&format!("{client}.ca"), &peers.pki.server_ca.certificate)
                .set(&format!("{client}.client_id"), "acme-ci")
                .set(&format!("{client}.resource"), testkit::fulcio::AUDIENCE)
                .set_path(&format!("{client}.authentication.mtls.certificate"), peers.pki.acme.certificate())
                .set_path(&format!("{client}.authentication.mtls.private_key"), peers.pki.acme.private_key());
        })
    });
    let client = world.fixture.client();
    for _ in 0..5 {
        sign(&client, "dsse+cert").send().expect(200);
    }
    assert_eq!(subject(&last(&world)), identity("acme"));
    let tokens: std::collections::BTreeSet<String> = world.fulcio.seen().into_iter().map(|seen| seen.token).collect();
    assert_eq!((tokens.len(), world.fixture.authority.calls("/token")), (1, 1), "one token serves while it lives");
    world.fixture.authority.mode().set(testkit::https::Mode::Down);
    sign(&client, "dsse+cert").send().expect(200);
}

fn last(world: &OwnFulcio) -> Seen {
    world.fulcio.seen().pop().expect("Fulcio was asked")
}

fn subject(seen: &Seen) -> String {
    jwt::decode(&seen.token).unwrap().1["sub"].as_str().unwrap().to_owned()
}
