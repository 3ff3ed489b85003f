//! On Debian's unstable, for the newest systemd that its archive has.

use crate::debian_12::verify;
use crate::site::Site;

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn the_newest_systemd_has_nothing_to_say_about_the_units() {
    let site = Site::installed("SIGNER_PEER_DEBIAN_SID");
    println!("{}", site.machine.sh("systemctl --version | head -1").unwrap());
    assert_eq!(verify(&site), "");
}
