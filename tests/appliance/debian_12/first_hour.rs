//! From an installed package to signatures, as docs/install.md says it.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::json;
use testkit::keyless::sign;

use super::IMAGE;
use crate::site::{PIN, Site};

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn an_operator_gets_from_the_package_to_a_signature_with_one_command() {
    let site = Site::installed(IMAGE);
    let call = site.write_test_call();
    site.write_answers(&call);

    // Nothing is written and nothing started by looking.
    let intention = site.machine.sh("signerctl init --answers /srv/site/answers.toml --check").unwrap();
    assert!(intention.contains("would write") && intention.contains("[tokens.main]"), "{intention}");
    assert!(!site.machine.path("/etc/stellaops-signer/signer.toml").exists());

    let said = site.init("");
    for step in
        ["seal the PIN", "token `signer`", "made now", "checks passed", "has signed in token `main`", "audit id"]
    {
        assert!(said.contains(step), "`{step}` is not in:\n{said}");
    }
    assert!(!said.contains(PIN), "{said}");
    site.signs();
    let bound = site.client().bound_by_certificate();
    bound.sign(&testkit::sample::request()).send().expect(200);

    // Keyless, by the sealed helper, below a unit's sandbox.
    let answer = sign(&site.client(), "dsse+cert").send().expect(200).json();
    assert_eq!(answer["bundle"]["mode"], "keyless");

    // Again: nothing is asked, made or changed.
    let again = site.init("");
    assert!(again.contains("as it was") && !again.contains("made now"), "{again}");
    site.signs();
    // The PIN is nowhere but sealed; the operator's file is the operator's.
    let found = site.machine.sh(&format!("grep -rlF {PIN} /etc /var /run 2>/dev/null || true")).unwrap();
    let readable: Vec<&str> = found.lines().filter(|file| !file.starts_with("/run/credentials/")).collect();
    assert!(readable.is_empty(), "{readable:?}");
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn what_fails_on_the_way_is_taken_back_and_named_and_the_next_run_goes_on() {
    let site = Site::installed(IMAGE);
    site.write_answers("");
    let run = |arguments: &str| {
        let line =
            format!("signerctl init --answers /srv/site/answers.toml {arguments} 2>&1 && echo exit 0 || echo exit $?");
        site.machine.sh(&line).unwrap()
    };
    let before = site.machine.sh("find /etc -path '*stellaops*' -o -path '*signer-token*' | sort").unwrap();
    for (arguments, words, exit) in [
        ("--set profile=softhsm3", "softhsm2", "exit 2"),
        ("--set config.server.listen=8443", "server.listen", "exit 5"),
        ("--set config.authority.ca=/srv/site/none.pem", "config.authority.ca", "exit 2"),
        ("--set config.server.tls.private_key=/srv/site/server.crt", "no PEM private key", "exit 6"),
        ("--set token.module=/usr/lib/none.so", "none.so", "exit 6"),
        ("--set token.initialise=false", "token", "exit 4"),
    ] {
        let said = run(arguments);
        assert!(said.contains(words), "{arguments}: `{words}` is not in:\n{said}");
        assert!(said.contains(exit), "{arguments}: {said}");
        let after = site.machine.sh("find /etc -path '*stellaops*' -o -path '*signer-token*' | sort").unwrap();
        assert_eq!(before, after, "{arguments} left something behind:\n{said}");
    }
    site.init("");
    site.signs();

    // What is in force is not replaced by other answers unless that is asked for.
    let other = run("--set tenant.id=globex");
    assert!(other.contains("signer.toml") && other.contains("--force"), "{other}");
    site.signs();
    let wrong_pin = run("--set token.pin_file=/srv/site/so-pin");
    assert!(wrong_pin.contains("--force"), "{wrong_pin}");
    site.signs();
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn a_certificate_is_asked_for_and_the_appliance_comes_up_when_it_is_there() {
    let site = Site::installed(IMAGE);
    site.write_answers("[tls_request]\nnames = [\"localhost\", \"127.0.0.1\"]");
    // The answers have no certificate then.
    site.machine
        .sh("sed -i '/^certificate = .*server.crt/d; /^private_key = .*server.key/d' /srv/site/answers.toml")
        .unwrap();
    let line = "signerctl init --answers /srv/site/answers.toml 2>&1 && echo exit 0 || echo exit $?";
    let said = site.machine.sh(line).unwrap();
    assert!(said.contains("server.csr certified") && said.contains("exit 1"), "{said}");
    let request = std::fs::read_to_string(site.machine.path("/etc/stellaops-signer/tls/server.csr")).unwrap();
    let certificate = site.world.pki.server_ca.certify(&request).unwrap();
    site.put("/etc/stellaops-signer/tls/server.crt", certificate, 0o644);
    site.init("");
    site.signs();
    // Its key is nowhere in the clear on the disk.
    assert!(!site.machine.path("/etc/stellaops-signer/tls/server.key").exists());
    let sealed = site.machine.path("/etc/credstore.encrypted/signerd.server.key");
    assert_eq!(std::fs::metadata(sealed).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn after_a_reboot_it_signs_again_and_nobody_had_to_type_a_pin() {
    let site = Site::ready(IMAGE);
    let Site { machine, world, _turn } = site;
    let disk = machine.power_off().unwrap();
    let machine = testkit::machine::Machine::boot(disk).unwrap();
    let site = Site { machine, world, _turn };
    site.signs_within(Duration::from_secs(30));
    site.signs();
    let status = site.machine.sh("signerctl --json status").unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["ready"], json!(true), "{status}");
}
