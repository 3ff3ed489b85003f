//! One key in two SoftHSM2 tokens, through the whole appliance: failover, draining, the custody gate, custody reports.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use testkit::softhsm::{SoftHsm, TokenKey};
use testkit::{Fixture, envelope, sample};

const REASON: &str = "imported into both tokens for this test";

/// A fixture in which tenant acme signs with a key that is in the tokens `main` and `standby`.
struct TwoTokens {
    fixture: Fixture,
    key: TokenKey,
    socket: PathBuf,
    _standby: SoftHsm,
}

impl TwoTokens {
    fn start() -> Self {
        let key = pair();
        Self::with(&key, &key, true)
    }

    /// `main` holds the first key, `standby` the second, under the same name.
    fn with(main: &EcdsaKeyPair, other: &EcdsaKeyPair, excepted: bool) -> Self {
        let mut fixture = Fixture::start();
        let mut standby = fixture.token.softhsm().another("standby").unwrap();
        let key = import(fixture.token.softhsm(), main);
        let copy = import(&mut standby, other);
        let socket = fixture.dir().join("local.sock");
        let dir = fixture.dir().to_owned();
        let settings = &mut fixture.appliance.settings;
        for field in ["front_user", "worker_user", "module"] {
            let value = settings.get(&format!("tokens.main.{field}")).unwrap().clone();
            settings.set(&format!("tokens.standby.{field}"), value);
        }
        settings
            .set_path("tokens.standby.socket", &dir.join("standby.sock"))
            .set_path("tokens.standby.state_dir", &dir.join("standby-state"))
            .set("tokens.standby.uri", standby.uri())
            .set_path("tokens.standby.pin_file", &standby.pin_file)
            .set("keys.shared.token", "main")
            .set("keys.shared.uri", key.uri.as_str())
            .set("keys.shared.state", "active")
            .set_path("keys.shared.public_key", &key.public_key)
            .set("keys.shared.replica", vec![table(&[("token", "standby"), ("uri", &copy.uri)])])
            .set("tenants.acme.keys", vec!["shared"])
            // Else globex could sign in `main` alone, and the appliance would not be ready without it.
            .set("tenants.globex.keys", vec!["shared"])
            .set("custody.canary_interval", "200ms")
            .set("server.local_listen", format!("unix:{}", socket.display()));
        if excepted {
            let exceptions = ["CKA_LOCAL", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE", "CKA_UNWRAP"]
                .map(|attribute| table(&[("attribute", attribute), ("reason", REASON)]));
            settings.set("keys.shared.custody_exception", exceptions.to_vec());
        }
        fixture.appliance.stop().unwrap();
        fixture.appliance.write_config().unwrap();
        for token in ["main", "standby"] {
            fixture.appliance.start_worker(token).unwrap();
        }
        fixture.appliance.start_front().unwrap();
        Self { fixture, key, socket, _standby: standby }
    }

    fn until(&mut self, token: &str, state: &str) {
        let is = |appliance: &testkit::appliance::Appliance| {
            appliance.key_state("shared", token).is_ok_and(|now| now == state)
        };
        self.fixture.appliance.wait_until(&format!("{state} in {token}"), is).unwrap();
    }

    fn until_live(mut self) -> Self {
        self.until("main", "live");
        self.until("standby", "live");
        self.fixture.appliance.wait_until_ready().unwrap();
        self
    }

    fn signatures(&self, token: &str) -> u64 {
        self.fixture.appliance.metrics().unwrap().count("signer_token_signatures_total", &[("token", token)])
    }

    fn signerctl(&self, arguments: &[&str]) -> Output {
        let local = format!("unix:{}", self.socket.display());
        let mut command = Command::new(self.fixture.appliance.binaries().signerctl());
        command.args(arguments).env_clear().env("SIGNER_LOCAL", local).current_dir(self.fixture.dir());
        command.output().unwrap()
    }
}

fn pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()
}

fn import(token: &mut SoftHsm, key: &EcdsaKeyPair) -> TokenKey {
    let pkcs8 = key.to_pkcs8v1().unwrap();
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let label = format!("shared-{}", token.label);
    token.import_key(&label, pkcs8.as_ref(), spki.as_ref()).unwrap()
}

fn table(members: &[(&str, &str)]) -> toml::Table {
    members.iter().map(|(name, value)| ((*name).to_owned(), toml::Value::from(*value))).collect()
}

/// What `/readyz` says of the key in each of its tokens.
fn of_shared(readiness: &Value) -> Vec<Value> {
    let pairs = readiness["custody"].as_array().into_iter().flatten();
    pairs.filter(|pair| pair["key"] == "shared").cloned().collect()
}

fn events(fixture: &Fixture, name: &str) -> Vec<Value> {
    fixture.appliance.audit().unwrap().into_iter().filter(|record| record["event"] == name).collect()
}

#[test]
fn a_worker_killed_under_load_costs_what_was_under_way_in_it_and_nothing_more() {
    let mut two = TwoTokens::start().until_live();
    let (answered, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let clients: Vec<_> = (0..CALLERS).map(|_| two.fixture.client().fork()).collect();
    let answers: Vec<(u16, Option<String>)> = std::thread::scope(|scope| {
        let callers: Vec<_> = clients
            .iter()
            .map(|client| {
                scope.spawn(|| {
                    let mut answers = Vec::new();
                    while !over.load(Relaxed) {
                        let answer = client.sign(&sample::request()).send();
                        let reason = (answer.status != 200).then(|| answer.json()["reason"].to_string());
                        answers.push((answer.status, reason));
                        answered.fetch_add(1, Relaxed);
                    }
                    answers
                })
            })
            .collect();
        let until = |count: usize| {
            while answered.load(Relaxed) < count {
                std::thread::yield_now();
            }
        };
        until(60);
        two.fixture.appliance.worker("main").kill();
        until(answered.load(Relaxed) + 200);
        over.store(true, Relaxed);
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    let failed: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert!(failed.len() <= CALLERS, "each caller loses one request at most: {failed:?}");
    assert!(
        failed.iter().all(|(status, reason)| *status == 503 && reason.as_deref() == Some("\"worker_lost\"")),
        "{failed:?}"
    );
    two.until("main", "out_of_service");
    assert_eq!(two.fixture.appliance.local("/readyz").unwrap().status, 200, "one token is enough to be ready");

    let answer = two.fixture.client().sign(&sample::request()).send().expect(200);
    assert_eq!(answer.json()["bundle"]["signingIdentity"]["token"], "standby");
    answer.envelope().verify(&two.key.point).unwrap();
    let records = two.fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
    let tokens: Vec<&Value> = records.iter().map(|record| &record["token"]).collect();
    assert_eq!(tokens, [&json!("main,standby"), &json!("standby")], "who may sign, and who has signed");

    two.fixture.appliance.start_worker("main").unwrap();
    two.until("main", "live");
}

#[test]
fn a_second_token_with_another_key_is_refused_with_an_alarm() {
    let mut two = TwoTokens::with(&pair(), &pair(), true);
    two.until("main", "live");
    two.until("standby", "out_of_service");
    for _ in 0..20 {
        let answer = two.fixture.client().sign(&sample::request()).send().expect(200);
        answer.envelope().verify(&two.key.point).unwrap();
    }
    assert_eq!(two.signatures("standby"), 0);
    let alarmed = |appliance: &testkit::appliance::Appliance| {
        appliance.audit().unwrap_or_default().iter().any(|record| {
            let detail = record["detail"].as_str().unwrap_or_default();
            record["event"] == "key_state"
                && record["token"] == "standby"
                && record["state"] == "out_of_service"
                && detail.contains("pinned is SHA256:")
        })
    };
    two.fixture.appliance.wait_until("recorded with an alarm", alarmed).unwrap();
    assert!(two.fixture.appliance.logs().contains("key out of service"));
}

#[test]
fn an_imported_key_needs_an_exception_for_each_attribute_and_the_exceptions_are_seen() {
    let key = pair();
    let mut two = TwoTokens::with(&key, &key, false);
    two.until("main", "out_of_service");
    // Each token's attributes are read by its own worker, one before the other.
    let judged = |appliance: &testkit::appliance::Appliance| {
        let audit = appliance.audit().unwrap_or_default();
        let told = audit.iter().any(|record| record["event"] == "key_state" && record["key"] == "shared");
        told && appliance.local("/readyz").is_ok_and(|answer| {
            answer.status == 503
                && of_shared(&answer.json()).iter().all(|pair| pair["detail"].to_string().contains("CKA_LOCAL"))
        })
    };
    two.fixture.appliance.wait_until("judged by the gate", judged).unwrap();
    let readiness = two.fixture.appliance.local("/readyz").unwrap().expect(503).json();
    let details = of_shared(&readiness);
    assert_eq!(details.len(), 2, "{readiness}");
    for attribute in ["CKA_LOCAL", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE", "CKA_UNWRAP"] {
        for detail in &details {
            assert!(detail["detail"].as_str().unwrap().contains(attribute), "{attribute}: {detail}");
        }
    }
    let refused = two.fixture.client().sign(&sample::request()).send();
    assert_eq!(refused.refusal(), (503, "signing_unavailable".to_owned()), "{refused}");
    drop(two);

    let two = TwoTokens::start().until_live();
    let metrics = two.fixture.appliance.metrics().unwrap();
    for attribute in ["CKA_LOCAL", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE", "CKA_UNWRAP"] {
        assert_eq!(metrics.count("signer_custody_exceptions", &[("key", "shared"), ("attribute", attribute)]), 1);
        let told = events(&two.fixture, "custody_exception");
        let told = told.iter().find(|event| event["key"] == "shared" && event["attribute"] == attribute);
        assert_eq!(told.unwrap()["reason"], REASON);
    }
    let live = [("key", "shared"), ("token", "main"), ("state", "live")];
    assert_eq!(metrics.count("signer_custody_state", &live), 1);
}

#[test]
fn a_drained_token_is_asked_nothing_until_it_is_taken_back() {
    let mut two = TwoTokens::start().until_live();
    let drained = two.signerctl(&["token", "drain", "main"]);
    assert!(drained.status.success(), "{drained:?}");
    two.until("main", "drained");
    let idle = |appliance: &testkit::appliance::Appliance| {
        appliance.metrics().is_ok_and(|now| now.sum("signer_token_outstanding", &[("token", "main")]) == 0.0)
    };
    two.fixture.appliance.wait_until("idle in main", idle).unwrap();
    for _ in 0..20 {
        let answer = two.fixture.client().sign(&sample::request()).send().expect(200);
        assert_eq!(answer.json()["bundle"]["signingIdentity"]["token"], "standby");
    }
    two.fixture.appliance.restart_front().unwrap();
    two.until("main", "drained");
    two.until("standby", "live");
    let undrained = two.signerctl(&["token", "undrain", "main"]);
    assert!(undrained.status.success(), "{undrained:?}");
    two.until("main", "live");
    let told: Vec<Value> =
        ["token_drained", "token_undrained"].into_iter().flat_map(|e| events(&two.fixture, e)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|event| event["token"] == "main" && event["uid"].is_u64()), "{told:?}");
    assert_eq!(two.signerctl(&["token", "drain", "nobody"]).status.code(), Some(3));
}

#[test]
fn a_tcp_listener_takes_no_orders_and_says_what_would() {
    let fixture = Fixture::start();
    for (method, path) in [("POST", "/tokens/main/drain"), ("GET", "/keys/acme-active/custody")] {
        let refused = fixture.appliance.ask_locally(method, path).unwrap().expect(403).json();
        assert!(refused["detail"].as_str().unwrap().contains("local_listen = \"unix:"), "{refused}");
    }
    fixture.client().sign(&sample::request()).send().expect(200);
}

#[test]
fn a_custody_report_is_signed_by_the_key_recorded_and_holds_offline() {
    let two = TwoTokens::start().until_live();
    let by_socket = two.signerctl(&[
        "keys",
        "attest",
        "shared",
        "--local",
        &format!("unix:{}", two.socket.display()),
        "--out",
        "report.json",
    ]);
    assert!(by_socket.status.success(), "{by_socket:?}");
    let path = "/api/v1/signer/keys/shared/custody";
    let call = testkit::client::Call::authorized(&two.fixture.client(), "GET", path);
    let answer = call.send().expect(200).json();
    let report: Value = serde_json::from_slice(&std::fs::read(two.fixture.dir().join("report.json")).unwrap()).unwrap();
    assert_eq!(answer, report, "at most one a minute is made");

    let envelope = envelope::Envelope::read(&report).unwrap();
    envelope.verify(&two.key.point).unwrap();
    let statement = envelope.statement().unwrap();
    assert_eq!(statement["predicateType"], "https://stella-ops.org/attestations/custody/1");
    let predicate = &statement["predicate"];
    assert_eq!(predicate["exceptions"].as_array().unwrap().len(), 4);
    let custody = predicate["custody"].as_array().unwrap();
    assert_eq!(custody.iter().map(|at| at["token"].as_str().unwrap()).collect::<Vec<_>>(), ["main", "standby"]);
    assert!(
        custody.iter().all(|at| at["device"]["model"] == "SoftHSM v2" && at["attributes"]["local"] == false),
        "{custody:?}"
    );

    let records: Vec<Value> =
        two.fixture.appliance.audit().unwrap().into_iter().filter(|record| record["operation"] == "attest").collect();
    let kinds: Vec<&str> = records.iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["intent", "outcome"], "one signature, and its records");
    assert_eq!(records[0]["predicateType"], statement["predicateType"]);
    let kept = |record: &Value| record["operation"] == "custody" && record["kind"] == "outcome";
    let again: Vec<Value> = two.fixture.appliance.audit().unwrap().into_iter().filter(kept).collect();
    assert_eq!(again.len(), 1, "the one that was kept");
    assert_eq!((&again[0]["key"], &again[0]["keyid"]), (&json!("shared"), &records[0]["keyid"]), "{again:?}");

    let verify = |file: &str, more: &[&str]| two.signerctl(&[&["keys", "attest", "--verify", file], more].concat());
    let pinned = ["--public-key", two.key.public_key.to_str().unwrap()];
    let holds = verify("report.json", &pinned);
    let text = String::from_utf8_lossy(&holds.stdout).into_owned();
    assert_eq!(holds.status.code(), Some(0), "{holds:?}");
    for line in ["signature", "subject", "main attributes", REASON, "the custody report holds"] {
        assert!(text.contains(line), "`{line}` is not in:\n{text}");
    }
    tampered_reports_do_not_hold(two.fixture.dir(), &report, &verify, &pinned);
    let other = two.fixture.keys.acme.public_key.to_str().unwrap();
    assert_eq!(verify("report.json", &["--public-key", other]).status.code(), Some(1), "another key");
    assert_eq!(verify("report.json", &["--max-age", "1us"]).status.code(), Some(1), "too old");
}

fn tampered_reports_do_not_hold(dir: &Path, report: &Value, verify: &dyn Fn(&str, &[&str]) -> Output, pinned: &[&str]) {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    let payload = BASE64_STANDARD.decode(report["payload"].as_str().unwrap()).unwrap();
    let better = String::from_utf8(payload).unwrap().replace("\"local\":false", "\"local\":true");
    let mut tampered = report.clone();
    tampered["payload"] = BASE64_STANDARD.encode(better).into();
    std::fs::write(dir.join("tampered.json"), tampered.to_string()).unwrap();
    let run = verify("tampered.json", pinned);
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert!(text.contains("FAIL") && text.contains("DOES NOT HOLD"), "{text}");
}

#[test]
fn a_tenant_gets_reports_of_its_own_keys_and_of_keys_that_sign() {
    let fixture = Fixture::start();
    let get = |client: &testkit::client::Client, name: &str| {
        testkit::client::Call::authorized(client, "GET", &format!("/api/v1/signer/keys/{name}/custody")).send()
    };
    get(&fixture.client(), "acme-active").expect(200);
    for (client, name, refusal) in [
        (fixture.client(), "globex-active", (404, "not_found")),
        (fixture.client(), "nobody", (404, "not_found")),
        (fixture.client(), "acme-next", (400, "invalid_request")),
        (fixture.client(), "acme-retired", (400, "invalid_request")),
        (fixture.globex(), "acme-active", (404, "not_found")),
    ] {
        assert_eq!(get(&client, name).refusal(), (refusal.0, refusal.1.to_owned()), "{name}");
    }
    let listed = fixture.client().keys().send().expect(200).json();
    let active = listed["keys"].as_array().unwrap().iter().find(|key| key["name"] == "acme-active").unwrap();
    assert_eq!(active["custody"][0]["device"]["label"], "stella-test");
    assert_eq!(
        (&active["custody"][0]["state"], &active["custody"][0]["attributes"]["local"]),
        (&json!("live"), &json!(true))
    );
    let unauthenticated = fixture.client().request("GET", "/api/v1/signer/keys/acme-active/custody").send();
    assert_eq!(unauthenticated.refusal(), (401, "invalid_token".to_owned()));
}

const CALLERS: usize = 8;
