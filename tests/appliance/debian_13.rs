//! On Debian 13, whose systemd knows more to forbid: the same package, the same answers.

use std::time::Duration;

use testkit::keyless::sign;

use crate::crowd::Crowd;
use crate::debian_12::verify;
use crate::site::Site;

const IMAGE: &str = "SIGNER_PEER_DEBIAN_13";

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn the_same_package_and_the_same_answers_make_an_appliance() {
    let site = Site::installed(IMAGE);
    assert_eq!(verify(&site), "");
    let call = site.write_test_call();
    site.write_answers(&call);
    let said = site.init("");
    assert!(said.contains("has signed in token `main`") && said.contains("audit id"), "{said}");
    site.signs();
    sign(&site.client(), "dsse+cert").send().expect(200);
    let failed = site.machine.sh("systemctl list-units --failed --no-legend --plain").unwrap();
    assert_eq!(failed, "");

    let crowd = Crowd::come(&site.client(), 64);
    for unit in ["signerd.service", "signer-token@main.service"] {
        site.machine.run(&["systemctl", "restart", unit]).unwrap();
        crowd.wait_for_more(200);
    }
    site.machine.run(&["systemctl", "reload", "signerd.service"]).unwrap();
    crowd.wait_for_more(100);
    crowd.go_home().is_clean(500);

    for unit in ["signerd.service", "signer-token@main.service"] {
        site.machine.run(&["systemctl", "kill", "--signal=KILL", unit]).unwrap();
        site.signs_within(Duration::from_secs(15));
    }
    let removed = site.machine.sh("apt-get purge --yes stellaops-signer 2>&1").unwrap();
    assert!(removed.contains("/var/lib/stellaops-signer"), "{removed}");
}
