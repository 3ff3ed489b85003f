//! Machines that come from another one: restored from its backup, or made of its image.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::machine::Machine;
use testkit::shell;

use super::IMAGE;
use crate::site::{PIN, Site};

const OPERATIONS: &str = include_str!("../../../docs/operations.md");
const INIT: &str = "signerctl init --answers /srv/site/answers.toml 2>&1 && echo exit 0 || echo exit $?";
const AUDIT: &str = "/var/lib/stellaops-signer/audit/audit.jsonl";

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn a_restored_machine_asks_for_a_certificate_anew_and_goes_on_with_the_log_of_the_old_one() {
    let site = Site::installed(IMAGE);
    ask_for_a_certificate(&site);
    assert!(site.machine.sh(INIT).unwrap().contains("exit 1"));
    certify(&site);
    site.init("");
    site.signs();
    let old = text(&site, "/etc/stellaops-signer/tls/server.csr");
    // The page's own words.
    let line = format!("cd /root\n{}", commands("Backup", "signer-$(date +%F).tar", "signer.tar"));
    site.machine.sh(&line).unwrap();
    site.signs_within(Duration::from_secs(20));
    let backup = fs::read(site.machine.path("/root/signer.tar")).unwrap();
    let sealed = fs::read(site.machine.path("/etc/credstore.encrypted/signerd.server.key")).unwrap();
    drop(site);

    let site = Site::installed(IMAGE);
    ask_for_a_certificate(&site);
    site.put("/root/signer.tar", backup, 0o600);
    site.put("/etc/credstore.encrypted/signerd.server.key", sealed, 0o600);
    let restore = commands("Restore", "signer-2026-11-29.tar", "signer.tar");
    let (restore, init) = restore.split_once("signerctl init").unwrap();
    assert_eq!(init.trim(), "--answers answers.toml");
    site.machine.sh(&format!("cd /root\n{restore}")).unwrap();
    let known = records(&site);
    assert!(known.iter().any(|record| record["kind"] == "outcome" && record["outcome"] == "signed"));

    // What another machine has sealed is in the way, and is named.
    let said = site.machine.sh(INIT).unwrap();
    assert!(said.contains("signerd.server.key: cannot be opened on this machine"), "{said}");
    site.machine.sh("rm /etc/credstore.encrypted/signer*").unwrap();
    let said = site.machine.sh(INIT).unwrap();
    assert!(said.contains("exit 1") && said.contains("server.csr (anew"), "{said}");
    assert!(said.contains("as it was"), "{said}");
    assert_ne!(text(&site, "/etc/stellaops-signer/tls/server.csr"), old);
    assert_eq!(text(&site, "/etc/stellaops-signer/tls/server.csr.before-init"), old);
    assert!(site.machine.path("/etc/stellaops-signer/tls/server.crt.before-init").exists());
    certify(&site);
    let said = site.init("");
    assert!(said.contains("signer.toml (as it was)") && !said.contains("made now"), "{said}");
    site.signs();

    // One log of both machines, without a gap.
    let now = records(&site);
    assert_eq!(now[..known.len()], known);
    assert!(now[known.len()..].iter().any(|record| record["outcome"] == "signed"), "{now:#?}");
    let numbers: Vec<u64> = now.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn each_machine_of_an_image_seals_for_itself_and_has_a_key_of_its_own() {
    let site = Site::installed(IMAGE);
    site.write_answers("");
    // A system with the package, as whoever makes images has one in a folder. The module is in it, and not beside it.
    site.machine
        .sh("mkdir /srv/image
             tar -C / --one-file-system --exclude=./srv -cf - . | tar -C /srv/image --same-owner -xpf -
             rm -f /srv/image/var/lib/systemd/credential.secret /srv/image/root/*
             echo uninitialized >/srv/image/etc/machine-id
             mv /usr/lib/softhsm /usr/lib/softhsm.away
             mv /usr/lib/x86_64-linux-gnu/softhsm /usr/lib/x86_64-linux-gnu/softhsm.away")
        .unwrap();
    let said = site.machine.sh("signerctl init --root /srv/image --answers /srv/site/answers.toml 2>&1").unwrap();
    assert!(said.contains("on the machine itself"), "{said}");
    assert!(!site.machine.path("/etc/stellaops-signer/signer.toml").exists(), "nothing is written beside the image");
    let open = ["/etc/stellaops-signer/tls/server.key", "/etc/stellaops-signer/tls/licensing-client.key"];
    for key in open {
        let mode = fs::metadata(site.machine.path(&format!("/srv/image{key}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640, "{key}");
    }
    let found = site.machine.sh(&format!("grep -rlF {PIN} /srv/image || true")).unwrap();
    assert_eq!(found, "", "an image has no PIN");

    // The image without the machine that it was made on.
    let Site { machine, world, _turn: turn } = site;
    let image = folder();
    fs::rename(machine.path("/srv/image"), image.path().join("root")).unwrap();
    drop(machine);

    let mut turn = Some(turn);
    let mut seen = Vec::new();
    for how in ["init", "init --no-start, and what it says"] {
        let disk = folder();
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--reflink=auto", "--"]).arg(image.path().join("root")).arg(disk.path());
        shell::run(&mut copy).unwrap();
        let machine = Machine::boot(disk).unwrap();
        let site = Site { machine, world, _turn: turn.take().unwrap() };

        // An image's first boot starts none of it, since there is no PIN yet.
        let enabled = site.machine.sh("systemctl list-unit-files --no-legend 'signer*' 'stellaops*'").unwrap();
        assert!(enabled.contains("signerd.service") && !enabled.contains(" enabled "), "{enabled}");
        assert!(!runs(&site), "it is not set up yet");

        site.write_answers("");
        // They are in the image.
        site.machine.sh("shred -u /srv/site/server.key /srv/site/licensing.key").unwrap();
        if how == "init" {
            let said = site.init("");
            assert!(said.contains("made now") && said.contains("has signed in token `main`"), "{said}");
        } else {
            let said = site.init("--no-start");
            let line = said.lines().find_map(|line| line.strip_prefix("not started: ")).unwrap();
            let (line, _) = line.split_once(" starts it; ").unwrap();
            assert!(!runs(&site), "{said}");
            site.machine.sh(line).unwrap();
        }
        site.signs_within(Duration::from_secs(30));
        site.signs();
        for key in open {
            assert!(!site.machine.path(key).exists(), "{key} is sealed now, and still there in the clear");
        }
        assert!(site.init("").contains("signer.toml (as it was)"));
        let sealed = |name: &str| fs::read(site.machine.path("/etc/credstore.encrypted").join(name)).unwrap();
        seen.push((sealed("signerd.server.key"), text(&site, "/etc/stellaops-signer/keys/acme-1.pub")));

        // It is the machine's own from now on: it comes up by itself.
        let Site { machine, world, _turn } = site;
        let machine = Machine::boot(machine.power_off().unwrap()).unwrap();
        let site = Site { machine, world, _turn };
        site.signs_within(Duration::from_secs(30));
        if seen.len() == 2 {
            // The other machine's secret is closed to this one.
            site.put("/root/other", &seen[0].0, 0o600);
            let opened = site.machine.output(&["systemd-creds", "decrypt", "--name=server.key", "/root/other", "-"]);
            assert!(!opened.unwrap().status.success());
        }
        let Site { machine, _turn, .. } = site;
        drop(machine);
        turn = Some(_turn);
    }
    assert_ne!(seen[0].1, seen[1].1, "each has a key of its own");
}

fn runs(site: &Site) -> bool {
    let units = "systemctl list-units --no-legend --plain --state=active,activating 'signer*' 'stellaops*'";
    site.machine.sh(units).unwrap() != ""
}

/// Where a machine's root can be.
fn folder() -> TempDir {
    tempfile::Builder::new().prefix("machine-").tempdir().unwrap()
}

/// The answers of an operator who has no server certificate yet.
fn ask_for_a_certificate(site: &Site) {
    site.write_answers("[tls_request]\nnames = [\"localhost\", \"127.0.0.1\"]");
    site.machine
        .sh("sed -i '/^certificate = .*server.crt/d; /^private_key = .*server.key/d' /srv/site/answers.toml")
        .unwrap();
}

/// What the site's CA does with the request.
fn certify(site: &Site) {
    let request = text(site, "/etc/stellaops-signer/tls/server.csr");
    let certificate = site.world.pki.server_ca.certify(&request).unwrap();
    site.put("/etc/stellaops-signer/tls/server.crt", certificate, 0o644);
}

fn records(site: &Site) -> Vec<Value> {
    text(site, AUDIT).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(site: &Site, path: &str) -> String {
    fs::read_to_string(site.machine.path(path)).unwrap()
}

/// What a section of docs/operations.md has its reader type, with `from` replaced by `to`.
fn commands(section: &str, from: &str, to: &str) -> String {
    let text = OPERATIONS.split(&format!("\n## {section}\n")).nth(1).unwrap();
    let text = text.split("\n## ").next().unwrap();
    assert!(text.contains(from), "{section} has no `{from}`");
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    lines.map(|line| format!("{}\n", line.replace(from, to))).collect()
}
