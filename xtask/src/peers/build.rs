//! How each kind of peer is built.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::{Peer, sources};
use crate::{Outcome, cargo, host};

/// Copies what of ours the peer is built from into its directory, one folder less deep.
fn copy_ours(peer: &Peer, dir: &Path) -> Outcome {
    for file in peer.ours {
        let from = sources().join(file);
        let to = dir.join(file.split_once('/').map_or(*file, |(_, below)| below));
        let parent = to.parent().unwrap_or(dir);
        fs::create_dir_all(parent).map_err(|error| format!("cannot make {}: {error}", parent.display()))?;
        fs::copy(&from, to).map_err(|error| format!("cannot copy {}: {error}", from.display()))?;
    }
    Ok(())
}

pub(super) fn npm_ci(peer: &Peer, dir: &Path) -> Outcome {
    copy_ours(peer, dir)?;
    run(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(dir), dir)
}

pub(super) fn pip_install(_: &Peer, dir: &Path) -> Outcome {
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir), dir)?;
    let requirements = sources().join("python/requirements.txt");
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    run(&mut pip, dir)
}

pub(super) fn go_install(peer: &Peer, dir: &Path, package: &str) -> Outcome {
    // A binary of this name was put there by a finished `go install`: Go renames it into place.
    if dir.join(peer.artifact).exists() {
        return Ok(());
    }
    run_go(|go| {
        go.args(["install", "-trimpath", "-ldflags=-s -w"]).arg(format!("{package}@{}", peer.version));
        run(go.env("GOBIN", dir.join("bin")), dir)
    })
}

/// A package of a module of ours, or one that it pins.
pub(super) fn go_build(peer: &Peer, dir: &Path, package: &str) -> Outcome {
    copy_ours(peer, dir)?;
    run_go(|go| {
        go.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(dir.join(peer.artifact)).arg(package);
        run(go.current_dir(dir), dir)
    })
}

/// One after the other: each would take all cores, and what they have in common is then compiled once. Without cgo no C
/// compiler is needed; what wants it is for hardware tokens alone. Repeated, because it fetches hundreds of modules: one
/// connection that is not made in time would fail the whole run of tests.
fn run_go(build: impl Fn(&mut Command) -> Outcome) -> Outcome {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let go = host::GO.path().ok_or("Go is missing")?;
    let _turn = ONE_AT_A_TIME.lock().map_err(|_| "another build panicked".to_owned())?;
    let attempt = || build(Command::new(&go).env("CGO_ENABLED", "0"));
    attempt().or_else(|_| attempt()).or_else(|_| attempt())
}

/// Unpacks a package of the system's own archive.
pub(super) fn unpack_package(dir: &Path, package: &str) -> Outcome {
    let mut download = Command::new("apt-get");
    run(download.args(["-qq", "download", package]).current_dir(dir), dir)?;
    let files = fs::read_dir(dir).map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
    let archive = files.flatten().map(|file| file.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    let archive = archive.ok_or_else(|| format!("apt-get downloaded no {package}"))?;
    run(Command::new("dpkg").arg("-x").arg(&archive).arg(dir), dir)?;
    fs::remove_file(&archive).map_err(|error| format!("cannot remove {}: {error}", archive.display()))
}

pub(super) fn cargo_build(peer: &Peer, dir: &Path, package: &str) -> Outcome {
    copy_ours(peer, dir)?;
    let mut build = cargo::cargo();
    // As a person would type it there: what this run of cargo was told about the workspace is not meant for it.
    build.current_dir(dir).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    run(build.args(["build", "--locked", "--package", package]), dir)
}

pub(super) fn link_tpm2_pkcs11(peer: &Peer, dir: &Path) -> Outcome {
    let module = host::TPM2_PKCS11.path().ok_or("tpm2-pkcs11 is missing")?;
    link(&module, &dir.join(peer.artifact))
}

pub(super) fn build_sealed(peer: &Peer, dir: &Path) -> Outcome {
    // CAP_SYS_PTRACE, without which a process that is not dumpable cannot be watched.
    let capabilities = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = capabilities.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    if !host::is_root() || u64::from_str_radix(effective.trim(), 16).unwrap_or(0) & (1 << 19) == 0 {
        return Err("only root may watch a sealed process (ptrace)".to_owned());
    }
    if fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() == "3") {
        return Err("nobody may watch a process here (kernel.yama.ptrace_scope is 3)".to_owned());
    }
    // Alone, so that it has no feature of another package's.
    run(cargo::cargo().args(["build", "--release", "--locked", "--package", peer.name]), dir)?;
    let program = cargo::target_dir(&cargo::metadata()?).join("release").join(peer.name);
    link(&program, &dir.join(peer.artifact))
}

fn link(to: &Path, at: &Path) -> Outcome {
    // One that leads nowhere is left from what was removed.
    let _ = fs::remove_file(at);
    std::os::unix::fs::symlink(to, at).map_err(|error| format!("cannot make {}: {error}", at.display()))
}

pub(super) fn rack_is_named(_: &Peer, _: &Path) -> Outcome {
    for variables in [&["SIGNER_TEST_MODULE"][..], &["SIGNER_TEST_TOKEN"], &["SIGNER_TEST_PIN_FILE", "SIGNER_TEST_PIN"]]
    {
        if variables.iter().all(|name| env::var_os(name).is_none()) {
            return Err(format!("no device of your own: {} is not set", variables.join(" or ")));
        }
    }
    Ok(())
}

/// Runs a step of a build, its output in `DIR.log`.
pub(super) fn run(command: &mut Command, dir: &Path) -> Outcome {
    // Beside the directory, because some steps begin by emptying it.
    let log = PathBuf::from(format!("{}.log", dir.display()));
    let name = command.get_program().to_string_lossy().into_owned();
    let file = File::options().create(true).append(true).open(&log);
    let file = file.map_err(|error| format!("cannot open {}: {error}", log.display()))?;
    let errors = file.try_clone().map_err(|error| format!("cannot open {}: {error}", log.display()))?;
    let status = command.stdin(Stdio::null()).stdout(file).stderr(errors).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} failed ({status}); {} says why", log.display())),
        Err(error) => Err(format!("cannot run {name}: {error}")),
    }
}
