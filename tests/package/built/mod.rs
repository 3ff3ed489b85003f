//! What needs the packages that `cargo xtask test` has built.

mod content;
mod deb;
mod programs;
mod rpm;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{named, only, output, program};

/// The package of this version, by the end of its name.
fn package(end: &str) -> PathBuf {
    only(&named("SIGNER_PACKAGES").join("now"), end)
}

/// The `.deb`, unpacked: its files, and in `DEBIAN` its scripts.
fn unpacked() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package-deb");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        output(program("dpkg-deb", ["--raw-extract".as_ref(), package(".deb").as_os_str(), root.as_os_str()]));
        root
    })
}
