//! The registry of go-containerregistry, which has the referrers API.

use crate::real::{World, compare};
use crate::site;

#[test]
#[ignore = "needs go-containerregistry, cosign 3 and 2, fulcio and timestamp-server: cargo xtask test release"]
fn cosign_and_we_agree_on_every_honest_image_in_go_containerregistrys_registry() {
    let dir = tempfile::tempdir().unwrap();
    compare(&World::start(dir.path(), site::go_registry));
}
