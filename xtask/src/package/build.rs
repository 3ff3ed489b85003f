//! The programs, built so that neither the folder of the sources nor the machine's own folders are found in them.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peers::CARGO_AUDITABLE;
use crate::{Outcome, cargo};

/// The programs of the packages; `signer-keyless` is built alone, so that it has no feature of another package's.
pub(super) const PROGRAMS: [&str; 4] = ["signerctl", "signerd", "signer-token", "signer-keyless"];

/// Builds all programs with `profile` and returns copies without symbols. Where they were built, below
/// `TARGET/package-build`, the same programs have them still.
pub(super) fn programs(profile: &str, target: &Path, date: u64) -> Outcome<PathBuf> {
    // A directory of its own: the flags below would have everything in the other one built again, and again after that.
    let building = target.join("package-build");
    fs::create_dir_all(&building).map_err(|error| format!("cannot make {}: {error}", building.display()))?;
    let auditable = CARGO_AUDITABLE.provide()?;
    for package in ["stellaops-signer", "signer-keyless"] {
        let mut build = Command::new(&auditable);
        build.current_dir(cargo::root()).args(["auditable", "build", "--locked", "--bins", "--profile", profile]);
        build.args(["--package", package]).arg("--target-dir").arg(&building);
        reproducibly(&mut build, &building, date)?;
        match build.status() {
            Ok(status) if status.success() => {}
            Ok(_) => return Err("the programs cannot be built; cargo says why above".to_owned()),
            Err(error) => return Err(format!("cannot run cargo auditable: {error}")),
        }
    }
    let built = building.join(if profile == "dev" { "debug" } else { profile });
    let stripped = building.join("stripped").join(profile);
    fs::create_dir_all(&stripped).map_err(|error| format!("cannot make {}: {error}", stripped.display()))?;
    for program in PROGRAMS {
        let mut strip = Command::new("strip");
        strip.args(["--strip-all", "--remove-section=.comment", "-o"]);
        super::made::run(strip.arg(stripped.join(program)).arg(built.join(program)))?;
    }
    Ok(stripped)
}

/// Gives rustc and the C compiler the same names for the folders of this build, wherever it happens.
fn reproducibly(build: &mut Command, building: &Path, date: u64) -> Outcome {
    let home = home_of_cargo()?;
    // Later ones count first, and the target directory is often within the sources.
    let mut folders = vec![
        (cargo::root(), "/usr/src/stellaops-signer"),
        (home.clone(), "/usr/src/cargo"),
        (building.to_owned(), "/usr/src/build"),
    ];
    // Where links lead: a build script that asks for its folder is told that one.
    let real = |path: &Path| path.canonicalize().ok().filter(|real| real != path);
    folders.extend(real(&cargo::root()).map(|root| (root, "/usr/src/stellaops-signer")));
    folders.extend(real(&home.join("registry")).map(|registry| (registry, "/usr/src/cargo/registry")));
    folders.extend(real(building).map(|building| (building, "/usr/src/build")));
    let mut rust = Vec::new();
    let mut c = env::var("CFLAGS").unwrap_or_default();
    for (folder, name) in &folders {
        let folder = folder.to_str().ok_or_else(|| format!("{} is not UTF-8", folder.display()))?;
        rust.push(format!("--remap-path-prefix={folder}={name}"));
        if folder.contains(char::is_whitespace) {
            return Err(format!("{folder} has a blank in it, which compilers take in CFLAGS for the end of an option"));
        }
        c.push_str(&format!(" -ffile-prefix-map={folder}={name}"));
    }
    build.env("CARGO_ENCODED_RUSTFLAGS", rust.join("\x1f")).env_remove("RUSTFLAGS");
    build.env("CFLAGS", c.trim()).env("SOURCE_DATE_EPOCH", date.to_string());
    // Compilers of C put words of their own language into what they write.
    build.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    Ok(())
}

/// Where cargo keeps crates.
pub(super) fn home_of_cargo() -> Outcome<PathBuf> {
    let beside = || Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"));
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(beside);
    home.ok_or_else(|| "no folder for cargo: set HOME or CARGO_HOME".to_owned())
}

/// `SOURCE_DATE_EPOCH`, or when the newest entry of the packages' changelog was made, in seconds of Unix time.
pub(super) fn source_date() -> Outcome<u64> {
    let wrong = |what: &str| format!("SOURCE_DATE_EPOCH: {what:?} is no number of seconds since 1970");
    if let Ok(date) = env::var("SOURCE_DATE_EPOCH") {
        return date.parse().map_err(|_| wrong(&date));
    }
    let changelog = cargo::root().join("packaging/deb/changelog");
    let text =
        fs::read_to_string(&changelog).map_err(|error| format!("cannot read {}: {error}", changelog.display()))?;
    let stamp = text.lines().find_map(|line| line.strip_prefix(" -- ")?.split_once("  ")).map(|(_, date)| date);
    let stamp = stamp.ok_or_else(|| format!("{}: no line ` -- NAME <ADDRESS>  DATE`", changelog.display()))?;
    let output = Command::new("date").args(["--utc", "--date", stamp, "+%s"]).output();
    let output = output.map_err(|error| format!("cannot run date: {error}"))?;
    let seconds = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    seconds.parse().map_err(|_| format!("{}: {stamp:?} is no date", changelog.display()))
}
