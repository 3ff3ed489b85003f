//! The whole appliance on a YubiHSM 2, simulated behind its connector's real protocol.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::token::TokenKind;
use testkit::yubihsm::{AUTH_CAPABILITIES, AUTH_KEY, DOMAIN, YubiHsm};
use testkit::{Fixture, hex, sample, shell};
use yubihsm_sim::control::Attest;
use yubihsm_sim::object::capability;
use yubihsm_sim::{Control, Device};

fn start() -> Fixture {
    Fixture::builder().token(TokenKind::YUBIHSM).start()
}

fn device(fixture: &Fixture) -> &YubiHsm {
    fixture.token.yubihsm()
}

fn control(fixture: &Fixture, order: Control) {
    device(fixture).simulator.control(order);
}

fn open_sessions(fixture: &Fixture) -> usize {
    device(fixture).simulator.with(Device::open_sessions)
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The worker and the front anew, with the device as it is now; not every key needs to be in order.
fn start_again(fixture: &mut Fixture) {
    fixture.appliance.stop().unwrap();
    fixture.appliance.start_worker("main").unwrap();
    fixture.appliance.start_front().unwrap();
    fixture.appliance.wait_until("alive", |appliance| appliance.local("/livez").is_ok()).unwrap();
}

/// Until the worker has had its look at the device, a request may be told that it came too early (`overloaded`); it is
/// never signed.
fn refused_because(fixture: &Fixture, why: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let refused = fixture.globex().sign(&sample::request()).send();
        assert_eq!(refused.status, 503, "{refused}");
        if fixture.appliance.logs().contains(why) {
            break;
        }
        assert!(Instant::now() < deadline, "nobody said that it {why}: {refused}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let refused = fixture.globex().sign(&sample::request()).send();
    assert_eq!(refused.refusal(), (503, "signing_unavailable".to_owned()), "{refused}");
}

/// The object id of tenant globex's key.
fn globex_key(fixture: &Fixture) -> u16 {
    u16::from_be_bytes(fixture.keys.globex.id.clone().try_into().unwrap())
}

#[test]
fn a_signature_made_in_the_device_is_joined_to_its_audit_record_by_the_device_s_log() {
    let fixture = start();
    let answer = fixture.client().sign(&sample::request()).send().expect(200);
    answer.envelope().verify(&fixture.keys.acme.point).unwrap();
    let records = fixture.appliance.audit_of(&answer.audit_id().unwrap()).unwrap();
    let pae = records[0]["paeSha256"].as_str().unwrap().to_owned();
    let entry = || device(&fixture).log().ok()?.into_iter().find(|line| line["asked"]["paeSha256"] == pae.as_str());
    eventually("the entry of the device's log is taken", || entry().is_some());
    let entry = entry().unwrap();
    assert_eq!((&entry["command"], &entry["result"]), (&"0x56".into(), &"0xd6".into()), "{entry}");
    assert_eq!(entry["targetKey"], format!("0x{}", hex(&fixture.keys.acme.id)));
}

#[test]
fn many_signatures_do_not_fill_a_log_that_must_not_be_lost() {
    let fixture = start();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let client = fixture.client().fork();
            scope.spawn(move || (0..40).for_each(|_| drop(client.sign(&sample::request()).send().expect(200))));
        }
    });
    // Test signatures of the appliance itself come in between.
    let made = || device(&fixture).simulator.with(|device| device.signatures());
    let joined = || {
        let lines = device(&fixture).log().unwrap_or_default();
        lines.iter().filter(|line| line["asked"]["paeSha256"].is_string()).count()
    };
    eventually("every signature has its entry", || u64::try_from(joined()).unwrap() == made());
    let lines = device(&fixture).log().unwrap();
    assert!(lines.iter().all(|line| line["kind"] == "entry"), "no gap, nothing unlogged");
    control(&fixture, Control::FillLog);
    fixture.client().sign(&sample::request()).send().expect(200);
}

#[test]
fn sessions_that_expire_or_are_dropped_cost_no_caller_a_request() {
    let expiry = Duration::from_millis(800);
    let fixture = Fixture::builder().token(TokenKind::YubiHsm { session_expiry: expiry }).start();
    let client = fixture.client();
    for _ in 0..2 {
        client.sign(&sample::request()).send().expect(200);
        eventually("the idle sessions are gone", || open_sessions(&fixture) == 0);
        client.sign(&sample::request()).send().expect(200);
        control(&fixture, Control::DropSessions);
    }
    client.sign(&sample::request()).send().expect(200);
}

#[test]
fn the_worker_takes_no_more_sessions_than_configured_and_leaves_none_behind() {
    let mut fixture = start();
    for _ in 0..20 {
        fixture.client().sign(&sample::request()).send().expect(200);
        // Four that sign and one that takes the log.
        assert!(open_sessions(&fixture) <= 5);
    }
    fixture.appliance.stop().unwrap();
    assert_eq!(open_sessions(&fixture), 0, "closed on the device, not left to expire");
}

#[test]
fn on_a_device_with_few_sessions_left_the_appliance_signs_with_those() {
    let mut fixture = start();
    fixture.appliance.stop().unwrap();
    control(&fixture, Control::OccupySessions { count: 14 });
    fixture.appliance.start_all().unwrap();
    for _ in 0..5 {
        fixture.client().sign(&sample::request()).send().expect(200);
    }
    assert!(fixture.appliance.logs().contains("all 16 sessions of the device are in use"));
    control(&fixture, Control::DropSessions);
    eventually("all four are open", || {
        let _ = fixture.client().sign(&sample::request()).send();
        let metrics = fixture.appliance.metrics().unwrap();
        metrics.count("signer_token_sessions", &[("token", "main")]) == 4
    });
}

#[test]
fn a_device_that_is_pulled_out_costs_503_and_is_used_again_within_two_seconds_of_its_return() {
    let fixture = start();
    let client = fixture.client();
    client.sign(&sample::request()).send().expect(200);
    control(&fixture, Control::Unplug);
    for _ in 0..3 {
        let refused = client.sign(&sample::request()).send();
        assert_eq!(refused.refusal(), (503, "signing_unavailable".to_owned()), "{refused}");
    }
    let back = Instant::now();
    control(&fixture, Control::Plug);
    eventually("it signs again", || client.sign(&sample::request()).send().status == 200);
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
}

#[test]
fn a_key_that_left_our_domain_or_could_leave_the_device_is_not_used() {
    let mut fixture = start();
    let id = globex_key(&fixture);
    let replace = |fixture: &Fixture, domain, capabilities| {
        let simulator = &device(fixture).simulator;
        simulator.with(|device| device.generate_p256(id, "globex-active", domain, capabilities));
    };
    replace(&fixture, 0b10, capability::SIGN_ECDSA);
    let refused = fixture.globex().sign(&sample::request()).send();
    assert_eq!(refused.refusal(), (503, "signing_unavailable".to_owned()), "{refused}");
    for (domain, capabilities, why) in [
        (0b10, capability::SIGN_ECDSA, "no private key matches"),
        (DOMAIN, capability::SIGN_ECDSA | capability::EXPORTABLE_UNDER_WRAP, "CKA_EXTRACTABLE"),
        (DOMAIN, capability::GET_OPAQUE, "lacks the capability sign-ecdsa"),
    ] {
        replace(&fixture, domain, capabilities);
        start_again(&mut fixture);
        refused_because(&fixture, why);
    }
    fixture.client().sign(&sample::request()).send().expect(200);
}

#[test]
fn a_device_that_cannot_prove_itself_signs_nothing() {
    let mut fixture = start();
    for (how, why) in [
        (Attest::OtherRoot, "leads to none of `attestation_roots`"),
        (Attest::OtherSerial, "names another device, or none"),
    ] {
        control(&fixture, Control::Attest { how });
        start_again(&mut fixture);
        refused_because(&fixture, why);
    }
    control(&fixture, Control::Attest { how: Attest::Good });
    fixture.appliance.restart().unwrap();
    fixture.globex().sign(&sample::request()).send().expect(200);
    control(&fixture, Control::Serial { serial: 42 });
    eventually("the worker sees it", || {
        let _ = fixture.globex().sign(&sample::request()).send();
        fixture.appliance.logs().contains("this is YubiHSM 42, not 7550140")
    });
    let refused = fixture.globex().sign(&sample::request()).send();
    assert_eq!(refused.refusal(), (503, "signing_unavailable".to_owned()), "{refused}");
}

#[test]
fn a_changed_password_is_presented_once() {
    let mut fixture = start();
    fixture.appliance.stop().unwrap();
    let simulator = &device(&fixture).simulator;
    simulator.with(|device| device.put_authentication_key(AUTH_KEY, b"another", DOMAIN, AUTH_CAPABILITIES));
    let before = simulator.with(|device| device.failed_authentications());
    fixture.appliance.start_worker("main").unwrap();
    eventually("it was refused", || fixture.appliance.logs().contains("the token refused the PIN"));
    // Long enough for every session to have tried again.
    std::thread::sleep(Duration::from_millis(600));
    let presented = device(&fixture).simulator.with(|device| device.failed_authentications()) - before;
    assert_eq!(presented, 1);
}

#[test]
fn the_bare_rate_of_the_device_can_be_measured() {
    let mut fixture = start();
    fixture.appliance.stop().unwrap();
    control(&fixture, Control::SignLatency { ms: 20 });
    let mut bench = Command::new(fixture.appliance.binaries().signer_token());
    bench.args(["bench", "--name", "main", "--seconds", "1", "--json", "--config"]);
    let measured: Value =
        serde_json::from_slice(&shell::run(bench.arg(fixture.appliance.config_file())).unwrap()).unwrap();
    let rate = measured["per_second"].as_f64().unwrap();
    assert!((10.0..=51.0).contains(&rate), "a device does one command at a time, 20 ms each: {measured}");
}

const PATIENCE: Duration = Duration::from_secs(15);
