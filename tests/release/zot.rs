//! zot, which has the referrers API.

use testkit::registry::Zot;

use crate::real::{World, compare};

#[test]
#[ignore = "needs zot, cosign 3 and 2, fulcio and timestamp-server: cargo xtask test release"]
fn cosign_and_we_agree_on_every_honest_image_in_zot() {
    let dir = tempfile::tempdir().unwrap();
    let mut zot = None;
    let world = World::start(dir.path(), |pki, dir| {
        let started = zot.insert(Zot::start(pki, dir).unwrap());
        (started.host(), started.password().to_owned())
    });
    compare(&world);
}
