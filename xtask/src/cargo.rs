//! The cargo that runs us, and what it knows of the workspace.

#![forbid(unsafe_code)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Outcome;

/// `cargo`, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Builds the programs with `profile`, and the package that drives them: in one build, so that what they share is
/// compiled once. Returns the folder with the programs.
pub(crate) fn build_programs(profile: &str, package: &str) -> Outcome<PathBuf> {
    build(profile, &["stellaops-signer", package])?;
    Ok(target_dir(&metadata()?).join(profile))
}

/// Builds the sealed helper with `profile`, alone, so that it has no feature of another package's.
pub(crate) fn build_helper(profile: &str) -> Outcome {
    build(profile, &["signer-keyless"])
}

fn build(profile: &str, packages: &[&str]) -> Outcome {
    let mut build = cargo();
    build.args(["build", "--profile", profile, "--locked", "--bins"]);
    build.args(packages.iter().flat_map(|package| ["--package", package]));
    match build.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("the programs cannot be built; cargo says why above".to_owned()),
        Err(error) => Err(format!("cannot run cargo: {error}")),
    }
}

/// `cargo metadata` of the locked workspace.
pub(crate) fn metadata() -> Outcome<Value> {
    metadata_with(&[])
}

/// The same, with the dependencies of this machine's platform alone.
pub(crate) fn metadata_of_this_platform() -> Outcome<Value> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-vV").output().map_err(|error| format!("cannot run rustc: {error}"))?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    metadata_with(&["--filter-platform", host.ok_or("rustc does not say which platform it is for")?])
}

fn metadata_with(arguments: &[&str]) -> Outcome<Value> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata wrote no JSON: {error}"))
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir(metadata: &Value) -> PathBuf {
    metadata["target_directory"].as_str().map_or_else(|| root().join("target"), PathBuf::from)
}
