//! Two builds in two folders, with two homes of cargo: the same bytes.

use std::fs;

use crate::{named, only};

#[test]
#[ignore = "needs two builds of the packages: cargo xtask test package"]
fn a_second_build_elsewhere_gives_the_same_bytes() {
    let (here, elsewhere) = (named("SIGNER_PACKAGES").join("now"), named("SIGNER_PACKAGES_ELSEWHERE").join("now"));
    for end in [".deb", ".rpm"] {
        let (one, other) = (only(&here, end), only(&elsewhere, end));
        assert_eq!(one.file_name(), other.file_name());
        let (one_bytes, other_bytes) = (fs::read(&one).unwrap(), fs::read(&other).unwrap());
        let first = one_bytes.iter().zip(&other_bytes).position(|(a, b)| a != b);
        assert!(one_bytes == other_bytes, "{} and {} differ from byte {first:?} on", one.display(), other.display());
    }
}
