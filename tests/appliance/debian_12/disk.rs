//! A disk that is full: nothing is signed that cannot be recorded, and nobody is needed when there is room again.

use std::time::Duration;

use testkit::sample;

use super::IMAGE;
use crate::site::Site;

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn a_full_disk_stops_signing_and_room_on_it_starts_it_again() {
    let site = Site::ready(IMAGE);
    // The audit log gets a small disk of its own, as docs/operations.md recommends; what was on it goes along.
    site.machine
        .sh("systemctl stop signerd.service
             cp -a /var/lib/stellaops-signer /root/kept
             mount -t tmpfs -o size=48m,mode=0750 small /var/lib/stellaops-signer
             chown stellaops-signer: /var/lib/stellaops-signer
             cp -a /root/kept/. /var/lib/stellaops-signer/
             systemctl start signerd.service")
        .unwrap();
    site.signs_within(Duration::from_secs(20));
    // Through the root of the machine: its mounts are not ours.
    let filled = site.machine.sh("dd if=/dev/zero of=/var/lib/stellaops-signer/filler bs=64k 2>/dev/null || true; df --output=avail /var/lib/stellaops-signer | tail -1").unwrap();
    assert_eq!(filled.trim(), "0", "the disk is full");

    // The log has some room set aside; when that is used up there is an answer, and it is no signature.
    let client = site.client();
    let mut signed = 0_u32;
    let refused = loop {
        let answer = client.sign(&sample::request()).send();
        if answer.status != 200 {
            break answer;
        }
        signed += 1;
        assert!(signed < 100_000, "the log grows on a full disk");
    };
    println!("{signed} signatures after the disk was full");
    assert_eq!(refused.refusal(), (503, "dependency_unavailable".to_owned()), "{}", refused.text());
    let ready = site.machine.output(&["signerctl", "status"]).unwrap();
    assert!(!ready.status.success(), "it says that it is not ready");

    site.machine.sh("rm /var/lib/stellaops-signer/filler").unwrap();
    let took = site.signs_within(Duration::from_secs(30));
    println!("a signature {took:?} after there was room");
    // Every answer is on record, and the log is whole: a restart reads it all.
    site.machine.run(&["systemctl", "restart", "signerd.service"]).unwrap();
    site.signs_within(Duration::from_secs(20));
}
