//! What an operator changes while callers are at work: configuration, processes, the package, certificates, the PIN.

use std::fs;
use std::process::Command;
use std::time::Duration;

use testkit::shell;

use super::IMAGE;
use crate::crowd::Crowd;
use crate::site::{PIN, Site, package};

const CALLERS: usize = 64;

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn a_good_reload_takes_effect_a_bad_one_none_and_no_request_fails() {
    let site = Site::ready(IMAGE);
    let drop_in = "/etc/stellaops-signer/signer.toml.d/70-test.toml";
    let crowd = Crowd::come(&site.client(), CALLERS);

    site.put(drop_in, "[tenants.acme]\npredicate_types = [\"stella.ops/sbom@v1\"]\n", 0o644);
    site.machine.run(&["systemctl", "reload", "signerd.service"]).unwrap();
    crowd.wait_for_more(200);
    let report = testkit::sample::request_about("stella.ops/report@v1", &serde_json::json!({"a": 1}));
    let refused = site.client().sign(&report).send();
    assert_eq!(refused.refusal().1, "predicate_not_allowed", "the good one is in force");

    // It is refused, says where and what, and what was in force stays.
    site.put(drop_in, "[tenants.acme]\npredicate_types = [\"stella.ops/nonsense@v1\"]\n", 0o644);
    let bad = site.machine.output(&["systemctl", "reload", "signerd.service"]).unwrap();
    assert!(!bad.status.success(), "systemd hears of it");
    crowd.wait_for_more(200);
    assert_eq!(site.client().sign(&report).send().refusal().1, "predicate_not_allowed");
    let journal = site.machine.sh("journalctl --no-pager --unit=signerd.service").unwrap();
    assert!(journal.contains("70-test.toml:2"), "the error names file and line:\n{journal}");
    assert_eq!(site.machine.property("signerd.service", "ActiveState").unwrap(), "active");

    fs::remove_file(site.machine.path(drop_in)).unwrap();
    site.machine.run(&["systemctl", "reload", "signerd.service"]).unwrap();
    site.client().sign(&report).send().expect(200);
    crowd.go_home().is_clean(400);
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn restarts_of_front_and_worker_fail_no_request_of_64_callers() {
    let site = Site::ready(IMAGE);
    let crowd = Crowd::come(&site.client(), CALLERS);
    for unit in ["signerd.service", "signer-token@main.service", "signerd.service", "signer-token@main.service"] {
        let before = site.machine.main_process(unit).unwrap().0;
        site.machine.run(&["systemctl", "restart", unit]).unwrap();
        crowd.wait_for_more(200);
        assert_ne!(site.machine.main_process(unit).unwrap().0, before, "{unit} was restarted");
    }
    crowd.go_home().is_clean(800);
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn an_upgrade_from_the_version_before_fails_no_request_of_64_callers() {
    let site = Site::bare(IMAGE);
    site.install(&package("before"));
    site.write_answers("");
    site.init("");
    let version = || site.machine.sh("dpkg-query --show --showformat='${Version}' stellaops-signer").unwrap();
    let before = version();
    let processes = |unit: &str| site.machine.main_process(unit).unwrap().0;
    let (front, worker) = (processes("signerd.service"), processes("signer-token@main.service"));
    let config = fs::read(site.machine.path("/etc/stellaops-signer/signer.toml")).unwrap();

    let crowd = Crowd::come(&site.client(), CALLERS);
    site.install(&package("now"));
    assert_ne!(version(), before);
    site.machine
        .wait(Duration::from_secs(30), "the new programs run", |_| {
            processes("signerd.service") != front && processes("signer-token@main.service") != worker
        })
        .unwrap();
    crowd.wait_for_more(300);
    crowd.go_home().is_clean(300);
    assert_eq!(fs::read(site.machine.path("/etc/stellaops-signer/signer.toml")).unwrap(), config);
    site.signs();
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn another_pin_is_sealed_and_in_force_as_docs_operations_says_it() {
    let site = Site::ready(IMAGE);
    // The device's own tool changes the PIN: for SoftHSM2 that is pkcs11-tool, run here on the machine's token.
    let other = "another-user-pin";
    change_pin(&site, PIN, other);
    site.put("/root/new-pin", other, 0o400);
    site.machine.sh("systemctl restart signer-token@main.service || true").unwrap();
    site.machine.wait(Duration::from_secs(20), "the old PIN is refused", |_| !site.would_sign()).unwrap();
    // Refused once, and not tried again.
    site.machine
        .sh(
            "systemd-creds encrypt --name=pin --with-key=host /root/new-pin /etc/credstore.encrypted/signer-token@main.pin
             shred -u /root/new-pin
             systemctl restart signer-token@main.service",
        )
        .unwrap();
    site.signs_within(Duration::from_secs(20));
    site.signs();
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn a_backup_is_restored_on_another_machine_which_then_signs_with_the_same_key() {
    let site = Site::ready(IMAGE);
    let key = fs::read(site.machine.path("/etc/stellaops-signer/keys/acme-1.pub")).unwrap();
    // docs/operations.md: the token's own backup is the vendor's business; SoftHSM2's is its directory.
    site.machine
        .sh("systemctl stop stellaops-signer.target
             tar -C / -cf /root/backup.tar etc/stellaops-signer etc/systemd/system var/lib/stellaops-signer \
                 var/lib/stellaops-signer-token")
        .unwrap();
    let backup = fs::read(site.machine.path("/root/backup.tar")).unwrap();
    drop(site);

    let site = Site::installed(IMAGE);
    site.put("/root/backup.tar", backup, 0o600);
    site.write_answers("");
    site.machine.sh("tar -C / --same-owner -xpf /root/backup.tar && systemctl daemon-reload").unwrap();
    // Sealed credentials are bound to the machine that sealed them: init seals them anew, and finds all else as it was.
    let said = site.init("");
    assert!(said.contains("as it was") && !said.contains("made now"), "{said}");
    site.signs();
    assert_eq!(fs::read(site.machine.path("/etc/stellaops-signer/keys/acme-1.pub")).unwrap(), key);
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn other_answers_by_force_are_in_force_on_a_running_appliance_and_no_request_of_8_callers_fails() {
    let site = Site::ready(IMAGE);
    let report = testkit::sample::request_about("stella.ops/report@v1", &serde_json::json!({"a": 1}));
    site.client().sign(&report).send().expect(200);
    let processes =
        || ["signerd.service", "signer-token@main.service"].map(|unit| site.machine.main_process(unit).unwrap());
    let (before, first) = (processes(), starts(&site));
    let config = "/etc/stellaops-signer/signer.toml";
    let old = fs::read(site.machine.path(config)).unwrap();

    let crowd = Crowd::come(&site.client(), 8);
    // One that a reload would bring in force, and one that only a start can.
    let others =
        "--set 'tenant.predicate_types=[\"stella.ops/sbom@v1\"]' --set config.audit.max_noise_records_per_second=7";
    site.init(&format!("--force {others}"));
    crowd.wait_for_more(200);
    crowd.go_home().is_clean(200);

    assert_eq!(
        site.client().sign(&report).send().refusal().1,
        "predicate_not_allowed",
        "what runs has the new answers"
    );
    let (after, second) = (processes(), starts(&site));
    assert!(before[0] != after[0] && before[1] != after[1], "{before:?} {after:?}");
    assert_eq!(second.len(), first.len() + 1, "{second:#?}");
    assert_ne!(second.last(), first.last(), "its configuration is another one");
    assert_eq!(fs::read(site.machine.path(&format!("{config}.before-init"))).unwrap(), old);

    // The same answers again have nothing to write, and nothing is restarted for them.
    let again = site.init(others);
    assert!(again.contains("signer.toml (as it was)"), "{again}");
    assert_eq!(processes(), after);

    // And back; what the first time has kept stays.
    site.init("--force");
    site.client().sign(&report).send().expect(200);
    assert_eq!(fs::read(site.machine.path(config)).unwrap(), old);
    assert_eq!(fs::read(site.machine.path(&format!("{config}.before-init"))).unwrap(), old);
    assert!(site.machine.path(&format!("{config}.before-init.1")).exists());
}

/// The digests of the configurations that signerd was started with, by its audit log.
fn starts(site: &Site) -> Vec<String> {
    let log = fs::read_to_string(site.machine.path("/var/lib/stellaops-signer/audit/audit.jsonl")).unwrap();
    let records = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let starts = records.filter(|record| record["event"] == "started");
    starts.map(|record| record["sha256"].as_str().unwrap().to_owned()).collect()
}

fn change_pin(site: &Site, from: &str, to: &str) {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("softhsm2.conf");
    let tokens = site.machine.path("/var/lib/stellaops-signer-token/main/softhsm2");
    fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display())).unwrap();
    let module = testkit::softhsm::find_module().unwrap();
    let mut tool = Command::new("pkcs11-tool");
    tool.arg("--module").arg(module).args(["--token-label", "signer", "--login", "--change-pin"]);
    tool.args(["--pin", from, "--new-pin", to]).env("SOFTHSM2_CONF", &conf);
    shell::run(&mut tool).unwrap();
    site.machine.sh("chown -R stellaops-signer-token: /var/lib/stellaops-signer-token/main/softhsm2").unwrap();
}
