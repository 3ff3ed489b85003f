//! What an operator and the callers do with an appliance, in the order of docs/operations.md. The same under whatever
//! confines it.

use std::time::Duration;

use testkit::keyless::sign;
use testkit::sample;

use crate::site::{PIN, Site};

/// Everything that the units and the operator's commands do from the first hour on.
pub(crate) fn a_life(site: &Site) {
    let guest = &site.guest;
    let said = site.init();
    assert!(said.contains("checks passed") && said.contains("has signed in token `main`"), "{said}");
    signs(site);
    let answer = sign(&site.client(), "dsse+cert").send().expect(200).json();
    assert_eq!(answer["bundle"]["mode"], "keyless");

    guest.sh("systemctl reload signerd.service").unwrap();
    guest.sh("systemctl restart signerd.service signer-token@main.service").unwrap();
    signs(site);
    // By the next connection to the socket.
    guest.sh("systemctl stop signerd.service").unwrap();
    signs(site);

    let doctor = guest.sh("signerctl token doctor main --in-unit --login </dev/null").unwrap();
    assert!(doctor.contains("works inside signer-token@main.service"), "{doctor}");
    assert!(doctor.contains("nothing is wrong"), "{doctor}");
    by_the_workers_user(site);
    a_pin_is_asked_for(site);
    signs(site);
}

pub(crate) fn signs(site: &Site) {
    site.guest.wait(Duration::from_secs(60), "signerctl status | grep -q '^ready *yes'").unwrap();
    site.client().sign(&sample::request()).send().expect(200);
}

/// As docs/operations.md has it for commands that reach the device.
fn by_the_workers_user(site: &Site) {
    site.guest
        .sh("install -m 0400 -o stellaops-signer-token /srv/site/pin /run/stellaops-signer/pin
             token() {
                 setpriv --reuid stellaops-signer-token --regid stellaops-signer-token --init-groups \
                     env SOFTHSM2_CONF=/etc/stellaops-signer/softhsm2-main.conf \"$@\"
             }
             token signerctl token list main
             token signerctl keys generate acme-2 --token main --pin-file /run/stellaops-signer/pin
             rm /run/stellaops-signer/pin")
        .unwrap();
}

/// The worker's start waits until somebody has typed the PIN; here, systemd is told it as its agents do.
fn a_pin_is_asked_for(site: &Site) {
    let guest = &site.guest;
    guest
        .sh("install -D -m 0644 /usr/share/stellaops-signer/drop-ins/signer-token-pin-prompt.conf \
                 /etc/systemd/system/signer-token@main.service.d/pin-prompt.conf
             systemctl daemon-reload
             systemctl restart --no-block signer-token@main.service")
        .unwrap();
    let question =
        guest.wait(Duration::from_secs(60), "sed -n 's/^Socket=//p' /run/systemd/ask-password/ask.*").unwrap();
    let reply = format!("/lib/systemd/systemd-reply-password 1 '{}'", question.trim());
    guest.feed(&reply, PIN.as_bytes()).unwrap();
    guest.wait(Duration::from_secs(60), "systemctl is-active signer-token@main.service").unwrap();
}
