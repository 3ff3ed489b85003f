//! The life of a key in a YubiHSM, simulated behind its connector's real protocol: from a device fresh from the factory
//! to a key's end.

use yubihsm_sim::object::{capability, kind};
use yubihsm_sim::{Control, Settings, Simulator};

use crate::desk::{Desk, Run, SO_PIN};

/// A desk whose token is a device fresh from the factory.
fn desk(simulator: &Simulator) -> Desk {
    let desk = Desk::new();
    let text = desk.config();
    let of_module =
        |line: &&str| ["module =", "uri = \"pkcs11:token=main\""].iter().any(|start| line.starts_with(start));
    let text: Vec<&str> = text.lines().filter(|line| !of_module(line)).collect();
    let device = format!("connector = \"{}\"\nserial = 7550140\nauth_key = 2\npin_file =", simulator.url());
    desk.configure(&text.join("\n").replacen("pin_file =", &device, 1));
    desk.change("pkcs11:object=release;id=%01", "pkcs11:object=release;id=%01%23");
    // What a file cannot be while it is open to others.
    desk.write("admin", format!("{SO_PIN}\n"), 0o400);
    desk
}

/// As the administrator that `token init` makes.
fn as_administrator(desk: &Desk, arguments: &[&str]) -> Run {
    desk.signerctl(&[arguments, &["--auth-key", "3", "--pin-file", "admin"]].concat())
}

fn set_up(simulator: &Simulator) -> Desk {
    let desk = desk(simulator);
    desk.signerctl(&["token", "init", "main", "--so-pin-file", "admin", "--yes"]).succeeds();
    desk
}

/// Makes the key `release`, which the configuration names.
fn make_release(desk: &Desk) {
    let whole = desk.config();
    desk.configure(&whole.replace("[keys.release]", "[keys.other]").replace("\"release\"", "\"other\""));
    let generate =
        ["keys", "generate", "release", "--token", "main", "--id", "0123", "--public-key", "release.pub", "--json"];
    let made = as_administrator(desk, &generate).succeeds().json();
    for (name, set) in [("CKA_SENSITIVE", true), ("CKA_EXTRACTABLE", false), ("CKA_LOCAL", true), ("CKA_DERIVE", false)]
    {
        assert_eq!(made["key"]["attributes"][name], set, "{name}");
    }
    let snippet = made["snippet"].as_str().unwrap();
    assert!(snippet.contains("pkcs11:object=release;id=%01%23"), "{snippet}");
    desk.configure(&whole);
}

fn finding(desk: &Desk, more: &[&str], check: &str) -> serde_json::Value {
    let run = desk.signerctl(&[&["token", "doctor", "main", "--json"], more].concat());
    let report = run.json();
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("no {check}: {report:#}"))
        .clone()
}

#[test]
fn a_device_fresh_from_the_factory_is_set_up_once_and_has_no_key_that_everybody_knows() {
    let simulator = Simulator::start(Settings::default()).unwrap();
    let desk = desk(&simulator);
    let fresh = finding(&desk, &[], "factory key");
    assert_eq!((&fresh["state"], &fresh["key"]), (&"problem".into(), &"tokens.main.connector".into()), "{fresh:#}");
    let init = |more: &[&str]| desk.signerctl(&[&["token", "init", "main", "--so-pin-file", "admin"], more].concat());
    init(&[]).fails(1, &["YubiHSM 7550140", "factory's key 0x0001 is removed", "give --yes"]);
    init(&["--reinitialise", "--yes"]).fails(2, &["not for a YubiHSM"]);
    init(&["--auth-key", "2", "--yes"]).fails(2, &["authentication key of their own"]);
    desk.write("short", "1234567\n", 0o400);
    desk.signerctl(&["token", "init", "main", "--so-pin-file", "short", "--yes"]).fails(2, &["12 to 1023 bytes"]);
    assert_eq!(simulator.with(|device| device.ids(kind::AUTHENTICATION_KEY)), [1], "nothing was done");

    // The device refuses in the middle: what was made is taken back, and it can be done again.
    simulator.control(Control::FailNext { command: Some(0x4f), code: 0x07, count: 1 });
    init(&["--yes"]).fails(4, &["Set Option"]);
    assert_eq!(simulator.with(|device| device.ids(kind::AUTHENTICATION_KEY)), [1]);
    init(&["--yes"]).succeeds();
    assert_eq!(simulator.with(|device| device.ids(kind::AUTHENTICATION_KEY)), [2, 3]);
    init(&["--yes"]).fails(3, &["somebody has set it up", "--auth-key"]);

    for check in ["factory key", "auth key", "login"] {
        let found = finding(&desk, &["--login"], check);
        let expected = if check == "auth key" { ["ok", "skipped"] } else { ["ok", "ok"] };
        assert!(expected.iter().any(|state| found["state"] == *state), "{found:#}");
    }
    let audit = finding(&desk, &["--login", "--auth-key", "3", "--pin-file", "admin"], "device's log");
    assert_eq!(audit["state"], "ok", "{audit:#}");
    assert_eq!(simulator.with(yubihsm_sim::Device::open_sessions), 0, "no session is left behind");
}

#[test]
fn a_key_of_a_yubihsm_is_made_certified_and_destroyed() {
    let simulator = Simulator::start(Settings::default()).unwrap();
    let desk = set_up(&simulator);
    make_release(&desk);
    let generate = ["keys", "generate", "second", "--token", "main"];
    as_administrator(&desk, &[&generate[..], &["--id", "0123"]].concat()).fails(3, &["already has a private key"]);
    as_administrator(&desk, &[&generate[..], &["--label", "release"]].concat())
        .fails(3, &["already has a private key"]);
    as_administrator(&desk, &[&generate[..], &["--id", "01"]].concat()).fails(2, &["two bytes"]);
    // The worker's own authentication key may make none.
    desk.signerctl(&generate).fails(4, &["insufficient permissions"]);

    let csr = ["keys", "csr", "release", "--subject", "CN=r", "--output", "r.csr"];
    as_administrator(&desk, &csr).succeeds();
    assert!(desk.run("openssl", &["req", "-in", "r.csr", "-verify", "-noout"]).contains("verify OK"));
    desk.certificate_authority("ca");
    desk.issue("ca", "r.csr", "r.pem", "9");
    desk.change(
        "state = \"active\"",
        &format!("state = \"active\"\npublic_key = \"{}\"", desk.path("release.pub").display()),
    );
    let import = ["keys", "import-cert", "release", "--chain", "r.pem", "--to", "chain.pem", "--into-token", "--yes"];
    as_administrator(&desk, &import).succeeds();
    // Again: it replaces its own, and nothing else.
    as_administrator(&desk, &import).succeeds();
    assert_eq!(simulator.with(|device| device.ids(kind::OPAQUE)), [0x0123]);
    simulator.control(Control::FailNext { command: Some(0x42), code: 0x07, count: 1 });
    as_administrator(&desk, &import).fails(4, &["Put Opaque"]);
    assert_eq!(simulator.with(|device| device.ids(kind::OPAQUE)), [0x0123], "the old one is back");
    let listed = as_administrator(&desk, &["token", "list", "main", "--objects", "--login"]);
    for class in ["private key", "certificate", "authentication key"] {
        assert!(listed.succeeds().stdout.contains(class), "{class}: {}", listed.stdout);
    }
    let gate = finding(&desk, &["--login"], "key attributes");
    assert_eq!(gate["state"], "ok", "{gate:#}");

    // Its end; the device refuses the second of two objects, and the command can be run again.
    desk.retire_release();
    simulator.control(Control::FailNext { command: Some(0x43), code: 0x07, count: 1 });
    as_administrator(&desk, &["keys", "delete", "release", "--yes"])
        .fails(4, &["private key destroyed", "run the command again"]);
    assert!(simulator.with(|device| device.ids(kind::ASYMMETRIC_KEY)).is_empty());
    let rest = as_administrator(&desk, &["keys", "delete", "release", "--yes", "--json"]).succeeds().json();
    assert_eq!(rest["destroyed"][0]["class"], "certificate", "{rest:#}");
    assert!(simulator.with(|device| device.ids(kind::OPAQUE)).is_empty());
}

#[test]
fn the_doctor_tells_what_the_worker_s_authentication_key_may_do_too_much_or_too_little() {
    let simulator = Simulator::start(Settings::default()).unwrap();
    let desk = set_up(&simulator);
    let rights = |capabilities| {
        simulator.with(|device| device.put_authentication_key(2, crate::desk::PIN.as_bytes(), 1, capabilities));
        finding(&desk, &["--login"], "auth key")
    };
    let worker = capability::SIGN_ECDSA
        | capability::GET_LOG_ENTRIES
        | capability::SIGN_ATTESTATION_CERTIFICATE
        | capability::GET_OPAQUE;
    assert_eq!(rights(worker)["state"], "ok");
    for (capabilities, word) in [
        (worker | capability::DELETE_ASYMMETRIC_KEY, "may do more than sign"),
        (worker & !capability::GET_LOG_ENTRIES, "lacks get-log-entries"),
        (worker & !capability::SIGN_ECDSA, "lacks sign-ecdsa"),
    ] {
        let found = rights(capabilities);
        assert_eq!((&found["state"], &found["key"]), (&"problem".into(), &"tokens.main.auth_key".into()), "{found:#}");
        assert!(found["detail"].as_str().unwrap().contains(word), "{found:#}");
    }
    simulator.control(Control::Unplug);
    let gone = finding(&desk, &[], "token");
    assert_eq!((&gone["state"], &gone["key"]), (&"problem".into(), &"tokens.main.connector".into()), "{gone:#}");
}

#[test]
fn a_password_that_the_device_refused_is_not_presented_again() {
    let simulator = Simulator::start(Settings::default()).unwrap();
    let desk = set_up(&simulator);
    let wrong = "not-the-password-of-2\n";
    desk.write("pin", wrong, 0o400);
    let list = || desk.signerctl(&["token", "list", "main", "--objects", "--login"]);
    list().fails(3, &["refused the PIN"]);
    let failed = simulator.with(|device| device.failed_authentications());
    list().fails(3, &["the PIN was not presented"]);
    // For another authentication key it is another password; that of the first stays refused.
    desk.write("again", wrong, 0o400);
    desk.signerctl(&["token", "list", "main", "--objects", "--login", "--pin-file", "again"])
        .fails(3, &["the PIN was not presented"]);
    assert_eq!(simulator.with(|device| device.failed_authentications()), failed);
    as_administrator(&desk, &["token", "list", "main", "--objects", "--login"]).succeeds();
}
