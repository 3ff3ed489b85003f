//! distribution 2.8, which has no referrers API: a tag stands in for it.

use testkit::registry::Distribution;

use crate::real::{World, compare};

#[test]
#[ignore = "needs docker-registry, cosign 3 and 2, fulcio and timestamp-server: cargo xtask test release"]
fn cosign_and_we_agree_on_every_honest_image_in_distribution() {
    let dir = tempfile::tempdir().unwrap();
    let mut distribution = None;
    let world = World::start(dir.path(), |pki, dir| {
        let started = distribution.insert(Distribution::start(pki, dir).unwrap());
        (started.host(), started.password().to_owned())
    });
    compare(&world);
}
