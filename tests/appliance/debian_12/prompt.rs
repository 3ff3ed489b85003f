//! A PIN that an operator types at each start of the worker, as docs/operations.md has it.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use super::IMAGE;
use crate::site::{PIN, Site};

const WORKER: &str = "signer-token@main.service";
const QUESTION: &str = "grep -l '^Message=PIN of token main:' /run/systemd/ask-password/ask.*";
const SOON: Duration = Duration::from_secs(20);

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn a_pin_that_is_typed_is_asked_for_at_each_start_and_is_in_no_file() {
    let site = Site::ready(IMAGE);
    site.machine
        .sh("rm /etc/credstore.encrypted/signer-token@main.pin
             shred -u /srv/site/pin
             install -D -m 0644 /usr/share/stellaops-signer/drop-ins/signer-token-pin-prompt.conf \
                 /etc/systemd/system/signer-token@main.service.d/pin-prompt.conf
             systemctl daemon-reload")
        .unwrap();

    // Nobody types: nothing is signed, and everybody who looks is told why.
    site.machine.run(&["systemctl", "restart", "--no-block", WORKER]).unwrap();
    asked(&site);
    let refused = site.client().sign(&testkit::sample::request()).send();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(site.machine.property(WORKER, "ActiveState").unwrap(), "activating");
    let said = site.machine.run(&["journalctl", "--no-pager", "--unit=signer-token-pin@main.service"]).unwrap();
    assert!(said.contains("waits for its PIN") && said.contains("systemd-tty-ask-password-agent"), "{said}");
    let status = site.machine.output(&["signerctl", "status"]).unwrap();
    assert!(!status.status.success());
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("waits for its PIN to be typed"), "{status}");

    // A wrong one is refused, and the next start asks anew.
    types(&site, "not-the-pin");
    site.machine
        .wait(SOON, "the wrong PIN is refused", |machine| {
            let line = ["journalctl", "--no-pager", "MESSAGE_ID=e4d17f1d2d6b4dd5a0d44ea0f7c901ea"];
            machine.run(&line).is_ok_and(|said| said.contains("main"))
        })
        .unwrap();
    assert!(!site.would_sign());

    // At each start: one that was ordered, and one after the worker has died.
    for order in ["restart --no-block", "kill --signal=KILL", "restart --no-block"] {
        site.machine.sh(&format!("systemctl {order} {WORKER}")).unwrap();
        asked(&site);
        types(&site, PIN);
        site.signs_within(SOON);
        site.signs();
    }

    site.calls_itself_ready_within(SOON);
    // The doctor looks into the unit without a question to anybody.
    let doctor = site.machine.sh("timeout 120 signerctl token doctor main --in-unit </dev/null").unwrap();
    assert!(doctor.contains("nothing is wrong"), "{doctor}");

    // Not on the disk, not in the journal, not left in memory for others: the unit's own credential has it alone.
    let found = site.machine.sh(&format!(
        "cd / && grep --recursive --devices=skip --files-with-matches --fixed-strings {PIN} \
             --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev . || true"
    ));
    let found = found.unwrap();
    let elsewhere: Vec<_> = found.lines().filter(|file| *file != OPENED).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    let failed = site.machine.sh("systemctl list-units --failed --no-legend --plain 'signer*' 'stellaops*'").unwrap();
    assert_eq!(failed, "");
}

/// Memory, which the worker's user alone can read.
const OPENED: &str = "./run/credentials/signer-token@main.service/pin";

/// Waits until systemd asks for the PIN.
fn asked(site: &Site) {
    site.machine.wait(SOON, "the PIN is asked for", |machine| machine.sh(QUESTION).is_ok()).unwrap();
}

/// An operator at a terminal, which script(1) makes.
fn types(site: &Site, pin: &str) {
    let mut agent = site.machine.command(&["script", "--quiet", "--return", "--command", AGENT, "/dev/null"]);
    let mut agent = agent.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut screen, mut said) = (agent.stdout.take().unwrap(), Vec::new());
    while !String::from_utf8_lossy(&said).contains("PIN of token main:") {
        let mut byte = [0];
        screen.read_exact(&mut byte).unwrap();
        said.extend(byte);
    }
    agent.stdin.take().unwrap().write_all(format!("{pin}\n").as_bytes()).unwrap();
    screen.read_to_end(&mut said).unwrap();
    assert!(agent.wait().unwrap().success(), "{}", String::from_utf8_lossy(&said));
    site.machine.wait(SOON, "the answer is taken", |machine| machine.sh(QUESTION).is_err()).unwrap();
}

const AGENT: &str = "systemd-tty-ask-password-agent --query";
