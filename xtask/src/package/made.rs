//! What the build writes for the packages: man pages, completions, changelogs, licences, the SBOM, the SELinux module.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{contents, licences};
use crate::{Outcome, cargo, sbom};

/// Writes everything of the kind `made` in `packaging/contents` below `made`, which is emptied first.
pub(super) fn write(made: &Path, programs: &Path) -> Outcome {
    let failed = |error: io::Error| format!("cannot write below {}: {error}", made.display());
    if made.exists() {
        fs::remove_dir_all(made).map_err(failed)?;
    }
    for folder in ["man", "completions"] {
        fs::create_dir_all(made.join(folder)).map_err(failed)?;
    }
    let signerctl = programs.join("signerctl");
    run(Command::new(&signerctl).args(["man", "--dir"]).arg(made.join("man")))?;
    for (shell, file) in [("bash", "signerctl"), ("fish", "signerctl.fish"), ("zsh", "_signerctl")] {
        let script = run(Command::new(&signerctl).args(["completions", shell]))?;
        fs::write(made.join("completions").join(file), script).map_err(failed)?;
    }
    let root = cargo::root();
    for page in ["signerd.8", "signer-token.8"] {
        fs::copy(root.join("packaging/man").join(page), made.join("man").join(page)).map_err(failed)?;
    }
    // Listed before the first is replaced by its compressed form.
    let pages: Vec<_> = fs::read_dir(made.join("man")).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    for page in pages {
        gzip(&page.path())?;
    }
    for (from, to) in [("CHANGELOG.md", "changelog"), ("packaging/deb/changelog", "changelog.Debian")] {
        fs::copy(root.join(from), made.join(to)).map_err(failed)?;
        gzip(&made.join(to))?;
    }
    let metadata = cargo::metadata_of_this_platform()?;
    sbom::write(&metadata, &digests(programs)?, &made.join("sbom.cdx.json"))?;
    let licences = made.join("THIRD-PARTY-LICENSES");
    fs::write(&licences, licences::of(&sbom::shipped_packages(&metadata)?)?).map_err(failed)?;
    gzip(&licences)?;
    selinux_module(made)
}

/// The programs as components of an SBOM, by where they will be.
fn digests(programs: &Path) -> Outcome<Vec<Value>> {
    let places = contents::programs()?;
    let digest = |(name, place): &(String, String)| -> Outcome<Value> {
        let said = run(Command::new("sha256sum").arg(programs.join(name)))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let digest = said.split_whitespace().next().ok_or("sha256sum wrote nothing")?;
        Ok(json!({"type": "file", "name": place, "hashes": [{"alg": "SHA-256", "content": digest}]}))
    };
    places.iter().map(digest).collect()
}

/// The module for any policy of version 19 or newer, from the policy's source.
fn selinux_module(made: &Path) -> Outcome {
    let (module, package) = (made.join("stellaops-signer.mod"), made.join("stellaops-signer.pp"));
    let source = cargo::root().join("packaging/selinux");
    run(Command::new("checkmodule")
        .args(["-M", "-m", "-c", "19", "-o"])
        .arg(&module)
        .arg(source.join("stellaops-signer.te")))?;
    run(Command::new("semodule_package")
        .arg("-o")
        .arg(&package)
        .arg("-m")
        .arg(&module)
        .arg("-f")
        .arg(source.join("stellaops-signer.fc")))?;
    Ok(())
}

/// Compresses a file without its name and time.
fn gzip(file: &Path) -> Outcome {
    run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(file)).map(drop)
}

/// Runs a program and returns what it wrote.
///
/// # Errors
/// What it said when it failed.
pub(super) fn run(command: &mut Command) -> Outcome<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").output();
    let output = output.map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = [output.stderr, output.stdout].concat();
    Err(format!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&said).trim()))
}
