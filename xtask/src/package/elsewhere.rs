//! The second build of the test that builds are reproducible: another folder, another home of cargo.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ONE_AT_A_TIME, TEST_PROFILE, made};
use crate::{Outcome, cargo};

/// The packages of a copy of this tree, built in it, in `now` below `output`.
pub(crate) fn for_tests_elsewhere(output: &Path) -> Outcome {
    let _turn = ONE_AT_A_TIME.lock().map_err(|_| "another build panicked".to_owned())?;
    let sources = output.join("sources-in-a-folder-of-another-length");
    copy_sources(&sources)?;
    let home = home_of_cargo(&output.join("home"))?;
    let now = output.join("now");
    let _ = fs::remove_dir_all(&now);
    // As a person would there; none of what this run was told about its own folder counts.
    let mut package = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    package.current_dir(&sources).args(["run", "--quiet", "--locked", "--package", "xtask", "--"]);
    package.args(["package", "--profile", TEST_PROFILE, "--output"]).arg(&now);
    package.env("CARGO_HOME", home).env("CARGO_TARGET_DIR", output.join("target")).env_remove("RUSTFLAGS");
    made::run(&mut package).map(drop)
}

/// What git knows of, and what it would take: not the target directory, nor what an editor left.
fn copy_sources(to: &Path) -> Outcome {
    let failed = |error: io::Error| format!("cannot copy the sources to {}: {error}", to.display());
    let _ = fs::remove_dir_all(to);
    let root = cargo::root();
    let listing = made::run(
        Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&root),
    )?;
    for file in String::from_utf8_lossy(&listing).split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (root.join(file), to.join(file));
        // Removed, and not yet by git.
        if !from.exists() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(&to)).map_err(failed)?;
        fs::copy(&from, &to).map_err(failed)?;
    }
    Ok(())
}

/// A home that has the crates of the real one by another name.
fn home_of_cargo(at: &Path) -> Outcome<PathBuf> {
    let failed = |error: io::Error| format!("cannot make {}: {error}", at.display());
    let real = super::build::home_of_cargo()?;
    fs::create_dir_all(at).map_err(failed)?;
    for name in ["registry", "config.toml", "config"] {
        let link = at.join(name);
        let _ = fs::remove_file(&link);
        if real.join(name).exists() {
            symlink(real.join(name), &link).map_err(failed)?;
        }
    }
    Ok(at.to_owned())
}
