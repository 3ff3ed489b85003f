//! The test peers do what the protocols say, before anything is tested against them.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use testkit::appliance::Metrics;
use testkit::authority::{Authority, Binding};
use testkit::client::{Answer, Connection, Protocol, TlsOptions, TlsVersions};
use testkit::device::Device as _;
use testkit::fulcio_client::{Applicant, Target};
use testkit::hostile_fulcio::{AnswerFault, Behaviour, CertificateFault, ConnectionFault, HostileFulcio, Stage};
use testkit::https::Mode;
use testkit::jwt::{self, Jwt};
use testkit::key::{self, Key};
use testkit::licensing::Licensing;
use testkit::pki::{Identity, Pki};
use testkit::softhsm::SoftHsm;
use testkit::{der, envelope, from_base64url, later, now, random_id};

#[test]
fn thumbprint_is_that_of_rfc_7638_section_3_1() {
    let jwk = json!({
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj\
              hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5\
              hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    });
    assert_eq!(key::thumbprint(&jwk).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn every_kind_of_key_signs_what_its_public_jwk_verifies() {
    for key in [Key::p256(), Key::ed25519()] {
        let compact = Jwt::new("JWT", json!({"sub": "x"}), &key).encode();
        let (input, signature) = compact.rsplit_once('.').unwrap();
        let signature = from_base64url(signature).unwrap();
        key::verify(&key.jwk(), input.as_bytes(), &signature).unwrap();
        assert!(key::verify(&key.jwk(), b"something else", &signature).is_err(), "{key:?}");
        let broken = Jwt::new("JWT", json!({"sub": "x"}), &key).with_broken_signature().encode();
        let (input, signature) = broken.rsplit_once('.').unwrap();
        assert!(key::verify(&key.jwk(), input.as_bytes(), &from_base64url(signature).unwrap()).is_err(), "{key:?}");
    }
    for (key, algorithm, signature_bytes) in [
        (Key::p384(), "ES384", 96),
        (Key::rsa(), "RS256", 256),
        (Key::rsa_pss(), "PS256", 256),
        (Key::weak_rsa().unwrap(), "RS256", 128),
        (Key::shared(b"secret"), "HS256", 32),
    ] {
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(key.sign(b"message").len(), signature_bytes, "{algorithm}");
        if key.bare_jwk()["kty"] == "RSA" {
            let modulus = from_base64url(key.jwk()["n"].as_str().unwrap()).unwrap();
            assert_eq!((modulus.len(), key.jwk()["e"].as_str()), (signature_bytes, Some("AQAB")));
        }
    }
}

#[test]
fn claims_and_header_of_a_jwt_can_be_replaced_in_every_way() {
    let key = Key::p256();
    let jwt = Jwt::new("at+jwt", json!({"exp": 100, "sub": "a"}), &key)
        .claim("cnf.jkt", "x")
        .shift("exp", -30)
        .without("sub")
        .header("crit", json!(["b64"]))
        .without_header("kid");
    let (header, claims) = jwt::decode(&jwt.encode()).unwrap();
    assert_eq!(header, json!({"typ": "at+jwt", "alg": "ES256", "crit": ["b64"]}));
    assert_eq!(claims, json!({"exp": 70, "cnf": {"jkt": "x"}}));
    let unsecured = jwt.header("alg", "none").signature([]).encode();
    assert!(unsecured.ends_with('.'));
}

#[test]
fn keyid_is_the_fingerprint_that_ssh_prints() {
    let key = Key::p256();
    let keyid = envelope::keyid(&key.public_bytes());
    assert!(keyid.starts_with("SHA256:") && keyid.len() == 50 && !keyid.contains('='), "{keyid}");
}

#[test]
fn metrics_are_summed_over_the_labels_left_open() {
    let text =
        "# TYPE a counter\na_total{x=\"1\",y=\"p q\"} 2\na_total{x=\"1\",y=\"r\"} 3.0\na_total{x=\"2\"} 5\nb 7 1700\n";
    let metrics = Metrics::read(text);
    assert_eq!(metrics.count("a_total", &[("x", "1")]), 5);
    assert_eq!(metrics.count("a_total", &[("y", "p q")]), 2);
    assert_eq!(metrics.count("b", &[]), 7);
    assert!(!metrics.has("c", &[]));
}

#[test]
fn a_fresh_softhsm_token_makes_keys_whose_public_part_openssl_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut token = SoftHsm::create(dir.path(), "self-test").unwrap();
    let first = token.generate_key("one").unwrap();
    let second = token.generate_key("two").unwrap();
    assert_ne!(first.point, second.point);
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["pkey", "-pubin", "-noout", "-text", "-in"]).arg(&first.public_key);
    let text = String::from_utf8(testkit::shell::run(&mut openssl).unwrap()).unwrap();
    assert!(text.contains("prime256v1"), "{text}");
}

#[test]
fn the_token_endpoint_binds_by_proof_by_certificate_or_not_at_all() {
    let peers = Peers::start();
    let key = Key::p256();
    let client = peers.authority.client_of("acme");
    let secret = format!("&client_id={}&client_secret={}", client.id, client.secret);
    let bound_to =
        |answer: &Answer| jwt::decode(answer.json()["access_token"].as_str().unwrap()).unwrap().1["cnf"].clone();

    let answer = peers.token(None, &secret, Some(&peers.proof(&key))).expect(200);
    assert_eq!(bound_to(&answer), json!({"jkt": key.thumbprint()}));
    assert_eq!(answer.json()["token_type"], "DPoP");

    let by_certificate = peers.token(Some(&peers.pki.acme), "&client_id=acme-ci", None).expect(200);
    assert_eq!(bound_to(&by_certificate), json!({"x5t#S256": peers.pki.acme.thumbprint()}));

    assert_eq!(bound_to(&peers.token(None, &secret, None).expect(200)), Value::Null);
    assert_eq!(peers.token(Some(&peers.pki.globex), "&client_id=acme-ci", None).status, 401);
    assert_eq!(peers.token(None, "&client_id=acme-ci&client_secret=wrong", None).status, 401);
}

#[test]
fn the_token_endpoint_refuses_a_proof_that_is_wrong_in_any_part() {
    let peers = Peers::start();
    let client = peers.authority.client_of("acme");
    let secret = format!("&client_id={}&client_secret={}", client.id, client.secret);
    let key = Key::p256();
    let good = peers.proof(&key);
    peers.token(None, &secret, Some(&good)).expect(200);
    let cases: [(&str, Jwt); 7] = [
        ("replayed", good),
        ("for GET", peers.proof(&key).claim("htm", "GET")),
        ("for another URL", peers.proof(&key).claim("htu", "https://other.test/token")),
        ("old", peers.proof(&key).shift("iat", -600)),
        ("of another key", peers.proof(&key).signed_by(&Key::p256())),
        ("with a private key", peers.proof(&key).header("jwk", key.private_jwk())),
        ("of another type", peers.proof(&key).header("typ", "JWT")),
    ];
    for (name, proof) in cases {
        let answer = peers.token(None, &secret, Some(&proof));
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_dpop_proof")), "{name}: {answer}");
    }
}

#[test]
fn introspection_wants_a_certificate_and_knows_what_was_registered() {
    let peers = Peers::start();
    let poe = peers.licensing.register(&peers.licensing.poe("acme", &Binding::None));
    let ask = |identity, token: &str| {
        peers.post(peers.licensing_addr(), "/license/introspect", identity, &format!("token={token}"), None)
    };
    let known = ask(Some(&peers.pki.appliance), &poe).unwrap().expect(200).json();
    assert_eq!((&known["active"], &known["license_id"]), (&json!(true), &json!("lic-acme-1")));
    assert_eq!(ask(Some(&peers.pki.appliance), "unknown").unwrap().expect(200).json(), json!({"active": false}));
    assert!(ask(None, &poe).is_err(), "a caller without a certificate is cut off");
    assert!(ask(Some(&peers.pki.acme), &poe).is_err(), "so is one with a certificate of another CA");
    peers.licensing.deactivate(&poe);
    assert_eq!(ask(Some(&peers.pki.appliance), &poe).unwrap().json(), json!({"active": false}));
    assert_eq!(peers.licensing.introspections(), 3);
}

#[test]
fn services_fail_as_told() {
    let peers = Peers::start();
    let get = || peers.post(peers.authority_addr(), "/token", None, "x=y", None);
    peers.authority.mode().set(Mode::Status(500));
    assert_eq!(get().unwrap().status, 500);
    peers.authority.mode().set(Mode::Garbage(b"{".to_vec()));
    assert_eq!(get().unwrap().text(), "{");
    peers.authority.mode().set(Mode::Down);
    assert!(get().is_err());
    peers.authority.mode().set(Mode::Up);
    assert_eq!(get().unwrap().status, 400);
    assert_eq!(peers.authority.calls("/token"), 3);
}

#[test]
fn the_revocation_list_grows_and_counts() {
    let peers = Peers::start();
    let read = || jwt::decode(&std::fs::read_to_string(&peers.licensing.revocation_file).unwrap()).unwrap().1;
    assert_eq!(read()["revoked"], json!({"license_ids": [], "jtis": []}));
    peers.licensing.revoke_license("lic-1").unwrap();
    peers.licensing.revoke_poe("jti-1").unwrap();
    assert_eq!(read()["revoked"], json!({"license_ids": ["lic-1"], "jtis": ["jti-1"]}));
    assert_eq!(read()["seq"], 3);
}

#[test]
fn raw_tls_reads_an_answer_and_sees_the_end() {
    let peers = Peers::start();
    let mut options = TlsOptions::new(peers.pki.server_roots(), None);
    options.versions = TlsVersions::Only12;
    let mut raw = testkit::raw::Raw::tls(peers.authority_addr(), &options).unwrap();
    raw.send("GET /jwks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(raw.receive_answer(Duration::from_secs(5)).unwrap().expect(200).json(), peers.authority.jwks());
    assert!(raw.receive(Duration::from_secs(5)).ended());
}

struct Peers {
    pki: Pki,
    authority: Authority,
    licensing: Licensing,
    _dir: tempfile::TempDir,
}

impl Peers {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::generate(dir.path()).unwrap();
        let authority = Authority::start(&pki).unwrap();
        let licensing = Licensing::start(&pki, dir.path()).unwrap();
        Self { pki, authority, licensing, _dir: dir }
    }

    fn proof(&self, key: &Key) -> Jwt {
        let claims = json!({"jti": random_id(), "htm": "POST", "htu": self.authority.token_url(), "iat": now()});
        Jwt::new("dpop+jwt", claims, key).header("jwk", key.bare_jwk())
    }

    fn token(&self, identity: Option<&Identity>, credentials: &str, proof: Option<&Jwt>) -> Answer {
        let form = format!("grant_type=client_credentials&scope=signer.sign{credentials}");
        self.post(self.authority_addr(), "/token", identity, &form, proof).unwrap()
    }

    fn post(
        &self,
        addr: std::net::SocketAddr,
        path: &str,
        identity: Option<&Identity>,
        form: &str,
        proof: Option<&Jwt>,
    ) -> testkit::Result<Answer> {
        let tls = TlsOptions::new(self.pki.server_roots(), identity.cloned());
        let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        if let Some(proof) = proof {
            request = request.header("dpop", proof.encode());
        }
        let request = request.body(Full::from(form.to_owned())).unwrap();
        testkit::runtime().block_on(Connection::new(addr, tls, Protocol::Http1).send(request))
    }

    fn authority_addr(&self) -> std::net::SocketAddr {
        self.authority.issuer().trim_start_matches("https://").parse().unwrap()
    }

    fn licensing_addr(&self) -> std::net::SocketAddr {
        let url = self.licensing.introspection_url();
        url.trim_start_matches("https://").split('/').next().unwrap().parse().unwrap()
    }
}

#[test]
fn a_program_runs_with_another_clock_and_so_do_those_that_it_starts() {
    let clock = |command: &str, seconds: i64| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", command]).env("GREETING", "hello");
        let output = later::run(&shell, seconds).unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().map(|word| word.parse::<i64>().unwrap()).collect::<Vec<_>>()
    };
    for seconds in [0, 3600, -3600] {
        let told = clock("date +%s; (sleep 0.01; date +%s) & wait; env | grep -c GREETING=hello", seconds);
        assert!(told[..2].iter().all(|told| (told - now() - seconds).abs() < 10), "{seconds}: {told:?}");
        assert_eq!(told[2], 1, "the environment is passed on");
    }
    let mut failing = std::process::Command::new("sh");
    failing.args(["-c", "echo no >&2; exit 7"]);
    let output = later::run(&failing, 60).unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(7), &b"no\n"[..]));
}

#[test]
fn our_own_fulcio_certifies_a_plain_clients_key_and_its_log_vouches_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::generate(dir.path()).unwrap();
    let authority = Authority::start(&pki).unwrap();
    let fulcio = HostileFulcio::start(&pki).unwrap();
    let target = Target::new(&fulcio.url(), pki.server_roots()).unwrap();
    let applicant = Applicant::new().unwrap();
    let token = authority.mint_identity("acme").encode();
    let chain = target.certify(&token, &applicant.csr).unwrap();
    assert_eq!(chain.len(), 3);
    assert_eq!(der::public_key(&chain[0]).unwrap(), rcgen::PublicKeyData::subject_public_key_info(&applicant.key));
    assert_eq!((&fulcio.seen()[0].token, &fulcio.seen()[0].csr), (&token, &applicant.csr));
    for (behaviour, works) in [
        (Behaviour::Certificate(CertificateFault::OtherKey), true),
        (Behaviour::Answer(AnswerFault::Status(503)), false),
        (Behaviour::Connection(ConnectionFault::HangUp(Stage::HalfOfBody)), false),
        (Behaviour::Connection(ConnectionFault::StrangersTls), false),
        (Behaviour::Honest, true),
    ] {
        fulcio.behave(behaviour);
        assert_eq!(target.certify(&token, &applicant.csr).is_ok(), works, "{behaviour:?}");
    }
}
