//! What must hold on every device.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use stellaops_signer::custody::profiles::{self, Defaults};
use testkit::appliance::{Binaries, Settings};
use testkit::device::Device;
use testkit::{Fixture, Result, envelope, sample, shell};

pub(crate) fn signs_for_both_bindings_and_openssl_verifies<D: Device + 'static>(make: fn(&Path, &str) -> Result<D>) {
    let fixture = Fixture::builder().device(make).start();
    holds_the_sessions_of_its_profile(&fixture);
    let by_proof = fixture.client().sign(&sample::request()).send().expect(200);
    let by_certificate = fixture.client().bound_by_certificate().sign(&sample::request()).send().expect(200);
    let key = &fixture.keys.acme;
    for answer in [by_proof, by_certificate] {
        let envelope = answer.envelope();
        assert_eq!(envelope.keyid, envelope::keyid(&key.point));
        let (pae, signature) = (fixture.dir().join("pae"), fixture.dir().join("signature"));
        fs::write(&pae, envelope.pae()).unwrap();
        fs::write(&signature, &envelope.signature).unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-verify"]).arg(&key.public_key);
        openssl.arg("-signature").arg(&signature).arg(&pae);
        let said = String::from_utf8(shell::run(&mut openssl).unwrap()).unwrap();
        assert_eq!(said.trim(), "Verified OK");
    }
    let other = fixture.globex().sign(&sample::request()).send().expect(200).envelope();
    other.verify(&fixture.keys.globex.point).unwrap();
    assert!(other.verify(&key.point).is_err(), "each tenant signs by its own key");
}

/// The configuration says nothing about sessions, so the profile does.
fn holds_the_sessions_of_its_profile(fixture: &Fixture) {
    let profile = fixture.appliance.settings.get("tokens.main.profile").and_then(toml::Value::as_str);
    let defaults = Defaults::of(profile.and_then(profiles::find));
    let configured =
        fixture.appliance.metrics().unwrap().count("signer_token_sessions_configured", &[("token", "main")]);
    assert_eq!(configured, u64::from(defaults.sessions.get()), "{profile:?}");
}

pub(crate) fn lists_its_keys_with_their_states<D: Device + 'static>(make: fn(&Path, &str) -> Result<D>) {
    let fixture = Fixture::builder().device(make).start();
    let listed = fixture.client().keys().send().expect(200).json();
    let states: BTreeSet<(&str, &str)> = listed["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| (key["kid"].as_str().unwrap(), key["state"].as_str().unwrap()))
        .collect();
    let keys = &fixture.keys;
    let keyids = [&keys.acme, &keys.acme_next, &keys.acme_retired].map(|key| envelope::keyid(&key.point));
    let expected = keyids.iter().map(String::as_str).zip(["active", "next", "retired"]).collect();
    assert_eq!(states, expected, "{listed}");
}

pub(crate) fn refuses_without_touching_a_key<D: Device + 'static>(make: fn(&Path, &str) -> Result<D>) {
    let fixture = Fixture::builder().device(make).start();
    let client = fixture.client();
    let request = sample::request();
    client.sign(&request).without_token().send().expect(401);
    client.sign(&request).without_proof().send().expect(401);
    client.sign(&request).without_poe().send().expect(403);
    client.sign(&json!({})).send().expect(400);
    client.sign(&request).body(|body| body["predicateType"] = json!("no.such/type@v1")).send().expect(400);
    assert_eq!(fixture.appliance.metrics().unwrap().count("signer_kms_sign_total", &[]), 0);
    client.sign(&request).send().expect(200);
    assert_eq!(fixture.appliance.metrics().unwrap().count("signer_kms_sign_total", &[]), 1);
}

pub(crate) fn signs_again_after_its_worker_was_stopped_and_after_it_was_killed<D: Device + 'static>(
    make: fn(&Path, &str) -> Result<D>,
) {
    let mut fixture = Fixture::builder().device(make).start();
    fixture.client().sign(&sample::request()).send().expect(200);
    for by_force in [false, true] {
        let worker = fixture.appliance.worker("main");
        if by_force {
            worker.kill();
        } else {
            worker.terminate().unwrap();
        }
        let refused = fixture.client().sign(&sample::request()).send().expect(503);
        assert_eq!(refused.problem().code, "signing_unavailable");
        fixture.token.settle().unwrap();
        fixture.appliance.start_worker("main").unwrap();
        fixture.appliance.wait_until_ready().unwrap();
        let envelope = fixture.client().sign(&sample::request()).send().expect(200).envelope();
        envelope.verify(&fixture.keys.acme.point).unwrap();
    }
}

pub(crate) fn serves_sixty_four_callers_at_once<D: Device + 'static>(make: fn(&Path, &str) -> Result<D>) {
    let fixture = Fixture::builder().device(make).start();
    fixture.client().sign(&sample::request()).send().expect(200);
    let start = Barrier::new(CALLERS);
    let answers: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                // A connection of its own for each.
                let (client, start) = (fixture.client().fork(), &start);
                scope.spawn(move || {
                    start.wait();
                    (0..EACH).map(|_| client.sign(&sample::request()).patience(PATIENCE).send()).collect::<Vec<_>>()
                })
            })
            .collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    let mut signed = 0;
    for answer in answers {
        match answer.status {
            200 => {
                answer.envelope().verify(&fixture.keys.acme.point).unwrap();
                signed += 1;
            }
            // A device of ten signatures a second cannot serve them all in time.
            429 | 503 => assert!(answer.header("retry-after").is_some(), "{answer}"),
            _ => panic!("{answer}"),
        }
    }
    assert!(signed >= CALLERS / 4, "only {signed} of {} were signed", CALLERS * EACH);
    assert_eq!(fixture.appliance.metrics().unwrap().count("signer_kms_sign_total", &[]), signed as u64 + 1);
}

pub(crate) fn is_conformant<D: Device + 'static>(make: fn(&Path, &str) -> Result<D>) {
    let dir = tempfile::tempdir().unwrap();
    let mut device = make(dir.path(), "conformance").unwrap();
    device.settle().unwrap();
    let mut settings = Settings::default();
    device.configure(&mut settings, "main");
    let of = |name: &str| settings.get(&format!("tokens.main.{name}")).and_then(toml::Value::as_str).map(str::to_owned);
    let mut signerctl = Command::new(Binaries::locate().unwrap().signerctl());
    signerctl.args(["token", "conformance", "--json", "--generate", "--sessions", "4", "--seconds", "1"]);
    signerctl.arg("--module").arg(device.module().unwrap()).args(["--token", &of("uri").unwrap()]);
    signerctl.arg("--pin-file").arg(device.pin_file()).envs(device.environment());
    // What it remembers of PINs goes to the test's own directory.
    signerctl.env("XDG_STATE_HOME", dir.path()).env_remove("SIGNER_CONFIG");
    signerctl.args(of("profile").iter().flat_map(|profile| ["--profile", profile]));
    let output = signerctl.output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", output.stdout.escape_ascii(), String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success() && result["conformant"] == true, "{result:#}");
    let checks: Vec<&str> =
        result["findings"].as_array().unwrap().iter().map(|f| f["check"].as_str().unwrap()).collect();
    assert_eq!(
        checks,
        [
            "token",
            "login",
            "generate",
            "key",
            "attributes",
            "shared login",
            "sessions",
            "signatures",
            "speed",
            "unknown handle",
            "reopen",
            "log out",
            "clean-up"
        ]
    );
    let pin = fs::read_to_string(device.pin_file()).unwrap();
    assert!(!result.to_string().contains(pin.trim()), "the PIN is in the report");
}

const CALLERS: usize = 64;
const EACH: usize = 2;
const PATIENCE: Duration = Duration::from_secs(60);
