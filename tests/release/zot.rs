//! zot, which has the referrers API and is not to be had everywhere.

use crate::real::{World, compare};
use crate::{notation, site};

#[test]
#[ignore = "needs zot, cosign 3 and 2, fulcio and timestamp-server: cargo xtask test release"]
fn cosign_and_we_agree_on_every_honest_image_in_zot() {
    let dir = tempfile::tempdir().unwrap();
    compare(&World::start(dir.path(), site::zot));
}

#[test]
#[ignore = "needs zot, notation and timestamp-server: cargo xtask test release"]
fn notation_and_we_agree_in_zot() {
    notation::compare(site::zot);
}
