//! distribution 2.8, which has no referrers API: a tag stands in for it.

use crate::real::{World, compare};
use crate::site;

#[test]
#[ignore = "needs docker-registry, cosign 3 and 2, fulcio and timestamp-server: cargo xtask test release"]
fn cosign_and_we_agree_on_every_honest_image_in_distribution() {
    let dir = tempfile::tempdir().unwrap();
    compare(&World::start(dir.path(), site::distribution));
}
