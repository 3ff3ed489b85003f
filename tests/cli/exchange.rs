//! `sign` and `keys list` as a peer sees them: what is sent, what is tried again, what is believed.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stellaops_signer::jose::{Algorithm, JwkSet, Jws, base64url};

use crate::peer::{Peer, Pki, Reply, Seen, token};
use crate::signing::{PAYLOAD_TYPE, Signer, sha256_hex, sigstore};
use crate::{Run, signerctl};

const SCANNER: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn sign(pki: &Pki, peer: &Peer, more: &[&str]) -> Run {
    let mut arguments = vec!["sign", "sbom.json", "--type", "sbom", "--subject-file", "sbom.json", "--url", &peer.url];
    arguments.extend(["--ca", "ca.pem", "--cert", "cert.pem", "--key", "key.pem", "--poe-file", "poe.jwt"]);
    arguments.extend(["--scanner-digest", SCANNER]);
    arguments.extend(more);
    signerctl(pki.path(), &arguments)
}

/// What the appliance would answer: an envelope over the statement of this request.
fn signed(signer: &Signer, request: &Seen) -> Value {
    let request = request.json();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": request["subject"],
        "predicateType": request["predicateType"],
        "predicate": request["predicate"],
    });
    let payload = serde_json_canonicalizer::to_vec(&statement).unwrap();
    let envelope = signer.seal(PAYLOAD_TYPE, &payload);
    let mut bundle =
        json!({ "dsse": envelope, "mode": "kms", "signingIdentity": { "keyId": "release", "token": "main" } });
    if request["options"]["returnBundle"] == "sigstore" {
        bundle["sigstore"] = sigstore(&envelope);
    }
    if request["options"]["returnBundle"] == "dsse+cert" {
        bundle["certificateChain"] = json!([certificate(signer)]);
    }
    json!({ "bundle": bundle, "policy": { "plan": "pro", "qpsRemaining": 9 }, "auditId": "audit-1" })
}

/// Of the signer's key, by a CA of nobody's: in PEM.
fn certificate(signer: &Signer) -> String {
    use testkit::sigstore::x509::{Issuer, SigningKey, Template};
    let now = testkit::now();
    let certificate = Issuer::root("ca", SigningKey::p256(), now).sign(&Template::new("release", signer.spki(), now));
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", testkit::base64(certificate))
}

fn dpop_bound(pki: &Pki) -> [&'static str; 4] {
    pki.write_token(&json!({ "cnf": { "jkt": pki.dpop_thumbprint } }));
    ["--token-file", "optok.jwt", "--dpop-key", "dpop.pem"]
}

fn throttled(retry_after: &str) -> Reply {
    Reply::problem(429, json!({ "code": "plan_throttled", "auditId": "audit-2" })).with("retry-after", retry_after)
}

#[test]
fn a_document_is_signed_with_dpop_and_what_is_written_verifies() {
    let pki = Pki::new();
    let signer = Signer::new();
    signer.write_pem(pki.path(), "public.pem");
    let keyid = signer.keyid();
    let peer = Peer::serve(&pki, move |request, _| Reply::ok(signed(&signer, request)));
    sign(&pki, &peer, &dpop_bound(&pki)).succeeds(&["signed sbom.json", &keyid, "audit-1", "sbom.json.dsse.json"]);

    let seen = peer.seen();
    let [request] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/api/v1/signer/sign/dsse"));
    let sent = fs::read_to_string(pki.path().join("optok.jwt")).unwrap();
    assert_eq!(request.header("authorization"), format!("DPoP {sent}"));
    let (claims, thumbprint) = request.proof();
    assert_eq!(thumbprint, pki.dpop_thumbprint);
    assert_eq!((&claims["htm"], &claims["htu"]), (&json!("POST"), &json!(format!("{}{}", peer.url, request.path))));
    let body = request.json();
    assert_eq!(body["predicateType"], "stella.ops/sbom@v1");
    assert_eq!(body["poe"], json!({ "format": "jwt", "value": "poe.of.client" }));
    let sbom = fs::read(pki.path().join("sbom.json")).unwrap();
    assert_eq!(body["subject"], json!([{ "name": "sbom.json", "digest": { "sha256": sha256_hex(&sbom) } }]));
    assert_eq!(body["options"], json!({ "returnBundle": "dsse" }));

    let verify =
        ["verify", "sbom.json.dsse.json", "--key", "public.pem", "--type", "sbom", "--subject-file", "sbom.json"];
    signerctl(pki.path(), &verify).succeeds(&["verified"]);
    sign(&pki, &peer, &dpop_bound(&pki)).fails(6, &["--force"]);
    assert_eq!(peer.seen().len(), 1, "an existing output costs no signature");
}

#[test]
fn every_bundle_form_is_written_as_its_verifiers_read_it() {
    let pki = Pki::new();
    let signer = Signer::new();
    signer.write_pem(pki.path(), "public.pem");
    let peer = Peer::serve(&pki, move |request, _| Reply::ok(signed(&signer, request)));
    let token = dpop_bound(&pki);
    for (form, file, members) in [
        ("dsse", "sbom.json.dsse.json", &["payload", "payloadType", "signatures"] as &[_]),
        ("sigstore", "sbom.json.sigstore.json", &["dsseEnvelope", "mediaType", "verificationMaterial"]),
        ("dsse+cert", "out.json", &["certificateChain", "dsse", "mode", "signingIdentity"]),
    ] {
        let run = sign(&pki, &peer, &[&token[..], &["--bundle", form, "--output", file, "--json"]].concat());
        assert_eq!((run.code, run.json()["output"].as_str()), (0, Some(file)), "{run:?}");
        let written: Value = serde_json::from_slice(&fs::read(pki.path().join(file)).unwrap()).unwrap();
        let names: Vec<&String> = written.as_object().unwrap().keys().collect();
        assert_eq!(names, members, "{form}");
        signerctl(pki.path(), &["verify", file, "--key", "public.pem"]).succeeds(&["verified"]);
    }
    let run = sign(&pki, &peer, &[&token[..], &["--output", "-"]].concat());
    assert_eq!((run.code, run.json()["payloadType"].as_str()), (0, Some(PAYLOAD_TYPE)));
    assert!(run.stderr.contains("signed sbom.json"), "{run:?}");
    let run =
        sign(&pki, &peer, &[&token[..], &["--poe-in-header", "--mode", "kms", "--output", "header.json"]].concat());
    run.succeeds(&["signed"]);
    let last = peer.seen().pop().unwrap();
    assert_eq!((last.header("x-poe"), &last.json()["poe"]), ("poe.of.client", &Value::Null));
    assert_eq!(last.json()["options"]["signingMode"], "kms");
}

#[test]
fn a_certificate_bound_token_goes_without_a_proof() {
    let pki = Pki::new();
    let signer = Signer::new();
    let peer = Peer::serve(&pki, move |request, _| Reply::ok(signed(&signer, request)));
    pki.write_token(&json!({ "cnf": { "x5t#S256": pki.certificate_thumbprint } }));
    sign(&pki, &peer, &["--token-file", "optok.jwt"]).succeeds(&["signed"]);
    let request = &peer.seen()[0];
    assert!(request.header("authorization").starts_with("Bearer "), "{request:?}");
    assert!(!request.headers.contains_key("dpop"), "{request:?}");
}

#[test]
fn a_demand_for_a_nonce_is_met_once() {
    let pki = Pki::new();
    let signer = Signer::new();
    let demand = || {
        Reply::problem(401, json!({ "code": "invalid_token", "auditId": "a" }))
            .with("www-authenticate", "DPoP error=\"use_dpop_nonce\", algs=\"ES256\"")
            .with("dpop-nonce", "nonce-1")
    };
    let peer = Peer::serve(&pki, move |request, before| match before {
        0 => demand(),
        _ => Reply::ok(signed(&signer, request)),
    });
    sign(&pki, &peer, &dpop_bound(&pki)).succeeds(&["signed"]);
    let proofs: Vec<Value> = peer.seen().iter().map(|request| request.proof().0).collect();
    assert_eq!((&proofs[0]["nonce"], &proofs[1]["nonce"]), (&Value::Null, &json!("nonce-1")));
    assert_ne!(proofs[0]["jti"], proofs[1]["jti"]);

    let stubborn = Peer::serve(&pki, move |_, _| demand());
    sign(&pki, &stubborn, &[&dpop_bound(&pki)[..], &["--force"]].concat()).fails(3, &["401 invalid_token"]);
    assert_eq!(stubborn.seen().len(), 2);
}

#[test]
fn only_429_and_503_with_retry_after_are_tried_again_and_only_within_the_patience() {
    let pki = Pki::new();
    let signer = Signer::new();
    let peer = Peer::serve(&pki, move |request, before| match before {
        0 => throttled("1"),
        1 => Reply::problem(503, json!({ "code": "overloaded" })).with("retry-after", "0"),
        _ => Reply::ok(signed(&signer, request)),
    });
    let started = Instant::now();
    sign(&pki, &peer, &dpop_bound(&pki)).succeeds(&["signed"]);
    assert!(started.elapsed() >= Duration::from_secs(1), "it did not wait as it was told");
    assert_eq!(peer.seen().len(), 3);

    for (name, patience, code, reply) in [
        ("impatient", "0s", 4, (|| throttled("1")) as fn() -> Reply),
        ("asked for too long", "5s", 4, || throttled("6")),
        ("no Retry-After", "60s", 4, || Reply::problem(503, json!({ "code": "overloaded" }))),
        ("500", "60s", 4, || Reply::problem(500, json!({ "code": "internal" })).with("retry-after", "1")),
        ("403", "60s", 3, || Reply::problem(403, json!({ "code": "entitlement_denied" })).with("retry-after", "1")),
    ] {
        let peer = Peer::serve(&pki, move |_, _| reply());
        let run = sign(&pki, &peer, &[&dpop_bound(&pki)[..], &["--force", "--retry-for", patience]].concat());
        assert_eq!((run.code, peer.seen().len()), (code, 1), "{name}: {run:?}");
    }
}

#[test]
fn a_refusal_is_told_with_its_audit_id_and_what_to_do() {
    let pki = Pki::new();
    let problem = json!({
        "type": "urn:stellaops:signer:problem:entitlement_denied", "status": 403, "code": "entitlement_denied",
        "title": "The Proof of Entitlement does not cover this request", "reason": "poe_revoked", "auditId": "audit-3",
    });
    let peer = Peer::serve(&pki, move |_, _| Reply::problem(403, problem.clone()));
    let run = sign(&pki, &peer, &dpop_bound(&pki));
    run.fails(3, &["403 entitlement_denied", "does not cover", "poe_revoked", "audit-3", "what to do check the PoE"]);
    let run = sign(&pki, &peer, &[&dpop_bound(&pki)[..], &["--json"]].concat());
    let error = run.json()["error"].clone();
    assert_eq!((run.code, &error["code"], &error["auditId"]), (3, &json!("entitlement_denied"), &json!("audit-3")));
    assert!(!pki.path().join("sbom.json.dsse.json").exists());
}

#[test]
fn an_answer_that_is_not_what_was_asked_for_is_not_written() {
    type Tamper = fn(&mut Value, &Signer);
    fn statement(answer: &Value) -> Value {
        use base64::Engine as _;
        let payload = answer["bundle"]["dsse"]["payload"].as_str().unwrap();
        serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(payload).unwrap()).unwrap()
    }
    fn resign(answer: &mut Value, signer: &Signer, member: &str, value: Value) {
        let mut statement = statement(answer);
        statement[member] = value;
        answer["bundle"]["dsse"] = signer.envelope(&statement);
    }
    let pki = Pki::new();
    for (name, tamper, words) in [
        ("predicate", (|a, s| resign(a, s, "predicate", json!({}))) as Tamper, "its predicate is another"),
        ("type", |a, s| resign(a, s, "predicateType", "stella.ops/vex@v1".into()), "its predicate type is"),
        (
            "subject",
            |a, s| resign(a, s, "subject", json!([{ "digest": { "sha256": sha256_hex(b"other") } }])),
            "its subjects are others",
        ),
        ("no statement", |a, s| resign(a, s, "_type", "other".into()), "no in-toto Statement v1"),
        (
            "not canonical",
            |a, s| a["bundle"]["dsse"] = s.seal(PAYLOAD_TYPE, format!("{} ", statement(a)).as_bytes()),
            "not in canonical form",
        ),
        ("audit id", |a, _| a["auditId"] = Value::Null, "no auditId"),
        ("no envelope", |a, _| a["bundle"] = json!({}), "neither"),
        ("no signature", |a, _| a["bundle"]["dsse"]["signatures"] = json!([]), "0 signatures"),
        ("payload type", |a, _| a["bundle"]["dsse"]["payloadType"] = "text/plain".into(), "text/plain"),
        ("no json", |a, _| *a = "signed".into(), "not what was asked for"),
    ] {
        let signer = Signer::new();
        let peer = Peer::serve(&pki, move |request, _| {
            let mut answer = signed(&signer, request);
            tamper(&mut answer, &signer);
            Reply::ok(answer)
        });
        sign(&pki, &peer, &dpop_bound(&pki)).fails(1, &[words]);
        assert!(!pki.path().join("sbom.json.dsse.json").exists(), "{name}");
    }
}

#[test]
fn a_peer_of_another_ca_is_not_trusted_and_one_that_does_not_trust_us_says_so() {
    let (pki, other) = (Pki::new(), Pki::new());
    let peer = Peer::serve(&other, |_, _| Reply::ok(json!({})));
    let token = dpop_bound(&pki);
    sign(&pki, &peer, &token).fails(4, &["certificate is not trusted"]);
    fs::copy(other.path().join("ca.pem"), pki.path().join("other.pem")).unwrap();
    let mut arguments = vec!["sign", "sbom.json", "--type", "sbom", "--subject-file", "sbom.json", "--url", &peer.url];
    arguments.extend(["--ca", "other.pem", "--cert", "cert.pem", "--key", "key.pem", "--poe-file", "poe.jwt"]);
    arguments.extend(["--scanner-digest", SCANNER]);
    arguments.extend(token);
    signerctl(pki.path(), &arguments).fails(3, &["does not accept the client certificate", "--cert and --key"]);
    assert!(peer.seen().is_empty());
}

#[test]
fn a_token_is_fetched_from_the_authority_with_an_assertion_and_a_proof() {
    let pki = Pki::new();
    let signer = Signer::new();
    let peer = Peer::serve(&pki, move |request, before| {
        let url = format!("https://{}", request.header("host"));
        match (request.path.as_str(), before) {
            ("/.well-known/openid-configuration", _) => {
                Reply::ok(json!({ "issuer": url, "token_endpoint": format!("{url}/token") }))
            }
            ("/token", 1) => Reply { status: 400, headers: Vec::new(), body: json!({ "error": "use_dpop_nonce" }) }
                .with("dpop-nonce", "as-nonce"),
            ("/token", _) => {
                let access_token = token(&json!({ "cnf": { "jkt": request.proof().1 } }));
                Reply::ok(json!({ "access_token": access_token, "token_type": "DPoP", "expires_in": 300 }))
            }
            _ => Reply::ok(signed(&signer, request)),
        }
    });
    let authority =
        ["--authority", &peer.url, "--client-id", "ci/1", "--client-key", "dpop.pem", "--resource", "urn:signer"];
    sign(&pki, &peer, &authority).succeeds(&["signed"]);

    let seen = peer.seen();
    assert_eq!(seen.len(), 4, "{seen:?}");
    let form = String::from_utf8(seen[2].body.clone()).unwrap();
    for member in ["grant_type=client_credentials", "client_id=ci%2F1", "scope=signer.sign", "resource=urn%3Asigner"] {
        assert!(form.split('&').any(|sent| sent == member), "{member} is not in {form}");
    }
    let assertion = form.split('&').find_map(|member| member.strip_prefix("client_assertion=")).unwrap();
    let claims = claims_of_assertion(&pki, assertion);
    assert_eq!((&claims["iss"], &claims["sub"], &claims["aud"]), (&json!("ci/1"), &json!("ci/1"), &json!(peer.url)));
    let (first, second) = (seen[1].proof(), seen[2].proof());
    assert_eq!((&first.0["nonce"], &second.0["nonce"]), (&Value::Null, &json!("as-nonce")));
    assert_eq!(second.0["htu"], format!("{}/token", peer.url));
    // One ephemeral key proves at both, and it is not the client's.
    assert_eq!(seen[3].proof().1, second.1);
    assert_ne!(second.1, pki.dpop_thumbprint);
    assert_eq!(seen[3].proof().0["nonce"], Value::Null, "a nonce of the Authority is none of the appliance");
}

#[test]
fn a_token_is_fetched_with_the_certificate_alone_when_that_is_wanted() {
    let pki = Pki::new();
    let (signer, x5t) = (Signer::new(), pki.certificate_thumbprint.clone());
    let peer = Peer::serve(&pki, move |request, _| {
        let url = format!("https://{}", request.header("host"));
        match request.path.as_str() {
            "/.well-known/openid-configuration" => Reply { status: 404, headers: Vec::new(), body: Value::Null },
            "/.well-known/oauth-authorization-server" => Reply::ok(json!({
                "issuer": url,
                "token_endpoint": "https://127.0.0.1:1/token",
                "mtls_endpoint_aliases": { "token_endpoint": format!("{url}/mtls/token") },
            })),
            "/mtls/token" => {
                assert!(!request.headers.contains_key("dpop"));
                Reply::ok(
                    json!({ "access_token": token(&json!({ "cnf": { "x5t#S256": x5t } })), "token_type": "Bearer" }),
                )
            }
            _ => Reply::ok(signed(&signer, request)),
        }
    });
    sign(&pki, &peer, &["--authority", &peer.url, "--client-id", "ci", "--binding", "mtls"]).succeeds(&["signed"]);
    assert!(peer.seen().pop().unwrap().header("authorization").starts_with("Bearer "));
}

#[test]
fn an_authority_that_refuses_or_lies_is_told_apart_from_the_appliance() {
    let pki = Pki::new();
    let fetch = |peer: &Peer| sign(&pki, peer, &["--authority", &peer.url, "--client-id", "ci"]);
    let liar = Peer::serve(&pki, |_, _| {
        Reply::ok(json!({ "issuer": "https://as.example", "token_endpoint": "https://as.example/token" }))
    });
    fetch(&liar).fails(1, &["is of issuer https://as.example"]);
    let refusing = |status: u16, body: Value| {
        Peer::serve(&pki, move |request, before| match before {
            0 => {
                let url = format!("https://{}", request.header("host"));
                Reply::ok(json!({ "issuer": url, "token_endpoint": format!("{url}/token") }))
            }
            _ => Reply::problem(status, body.clone()),
        })
    };
    fetch(&refusing(401, json!({ "error": "invalid_client" }))).fails(3, &["the Authority refused", "--client-id"]);
    fetch(&refusing(503, json!({}))).fails(4, &["the Authority cannot serve this now"]);
    fetch(&refusing(200, json!({}))).fails(1, &["no access_token"]);
    fetch(&refusing(200, json!({ "access_token": "opaque" }))).fails(1, &["not a JWT"]);
    fetch(&refusing(200, json!({ "access_token": token(&json!({})) }))).fails(1, &["bound to no key"]);
}

#[test]
fn keys_are_listed_as_table_as_pem_and_as_jwks() {
    let pki = Pki::new();
    let (active, mut retired) = (Signer::new(), Signer::new().jwk());
    let (keyid, pem, jwk) = (active.keyid(), active.pem(), active.jwk());
    retired["state"] = "retired".into();
    let keys = json!({ "keys": [jwk, retired] });
    let peer = Peer::serve(&pki, move |_, _| Reply::ok(keys.clone()));
    let list = |more: &[&str]| {
        let mut arguments =
            vec!["keys", "list", "--url", &peer.url, "--ca", "ca.pem", "--cert", "cert.pem", "--key", "key.pem"];
        arguments.extend(dpop_bound(&pki));
        arguments.extend(more);
        signerctl(pki.path(), &arguments)
    };
    list(&[]).succeeds(&["KEYID", "STATE", &keyid, "active", "retired", "release", "main"]);
    let request = &peer.seen()[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/api/v1/signer/keys"));
    assert_eq!(request.proof().0["htm"], "GET");

    let run = list(&["--pem", "--keyid", &keyid]);
    let body = |pem: &str| pem.lines().filter(|line| !line.contains(['-', ':'])).collect::<String>();
    assert_eq!((run.code, body(&run.stdout)), (0, body(&pem)), "{run:?}");
    fs::write(pki.path().join("listed.pem"), &run.stdout).unwrap();
    let read = std::process::Command::new("openssl")
        .args(["pkey", "-pubin", "-in", "listed.pem", "-noout"])
        .current_dir(pki.path())
        .status()
        .unwrap();
    assert!(read.success());

    for arguments in [["--jwks", "--keyid"], ["--json", "--keyid"]] {
        let run = list(&[&arguments[..], &[keyid.as_str()]].concat());
        let set = JwkSet::parse(run.stdout.as_bytes()).unwrap();
        assert_eq!(set.find(Some(&keyid), Algorithm::Es256).count(), 1);
        assert_eq!(set.keys().len(), 1);
    }
    list(&["--keyid", "SHA256:none"]).fails(1, &["publishes no key SHA256:none"]);
    list(&["--pem", "--json"]).fails(2, &["cannot be used with"]);
}

/// The claims of a client assertion, verified under the key in `dpop.pem`.
fn claims_of_assertion(pki: &Pki, assertion: &str) -> Value {
    use rcgen::PublicKeyData as _;
    use stellaops_signer::jose::{Jwk, VerifyingKey};
    let key = rcgen::KeyPair::from_pem(&fs::read_to_string(pki.path().join("dpop.pem")).unwrap()).unwrap();
    let jwk = Jwk::from_p256_point(key.der_bytes()).unwrap();
    assert_eq!(base64url(&jwk.thumbprint()), pki.dpop_thumbprint);
    let jws = Jws::parse(assertion, 16 * 1024).unwrap();
    serde_json::from_slice(&jws.verify(&VerifyingKey::from_jwk(&jwk).unwrap()).unwrap()).unwrap()
}
