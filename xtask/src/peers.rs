//! Programs that are not ours, built once and kept in `$XDG_CACHE_HOME/stellaops-signer/peers/NAME-VERSION`.

#![forbid(unsafe_code)]

mod packages;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

use xtask::ui;

use crate::{Outcome, cargo, host};

pub(crate) use packages::{
    CARGO_AUDITABLE, CARGO_DEB, CARGO_GENERATE_RPM, PACKAGES, PACKAGES_ELSEWHERE, PROMTOOL, SELINUX_POLICY,
};

/// A program that is not ours.
pub(crate) struct Peer {
    /// What people call it; with the version, the directory it is kept in.
    pub(crate) name: &'static str,
    /// The version, pinned.
    pub(crate) version: &'static str,
    /// Tests below this module need it.
    pub(crate) module: &'static str,
    /// The environment variable that tells the tests where it is.
    pub(crate) variable: &'static str,
    /// What the variable names, below the directory.
    artifact: &'static str,
    needs: &'static [&'static host::Need],
    /// What of ours it is built from, below `tests/peers`: when it changes, the peer is built again.
    ours: &'static [&'static str],
    build: fn(&Peer, &Path) -> Outcome,
    /// Nobody misses it: without it, its tests are not part of the suite.
    pub(crate) optional: bool,
}

/// Ours, but as it is shipped: the tests that watch the sealed helper need a release build, and the right to watch.
pub(crate) const SEALED: Peer = Peer {
    name: "signer-keyless",
    version: OF_THIS_TREE,
    module: "release::",
    variable: "SIGNER_KEYLESS",
    artifact: "signer-keyless",
    needs: &[],
    ours: &[],
    build: build_sealed,
    optional: false,
};

pub(crate) const OIDC_PROVIDER: Peer = Peer {
    name: "oidc-provider",
    version: "8.8.1",
    module: "oidc_provider::",
    variable: "SIGNER_PEER_OIDC_PROVIDER",
    artifact: "",
    needs: &[&host::NODE, &host::NPM],
    ours: &["authority/package.json", "authority/package-lock.json", "authority/server.mjs"],
    build: npm_ci,
    optional: false,
};

pub(crate) const SECURESYSTEMSLIB: Peer = Peer {
    name: "securesystemslib",
    version: "1.6.0",
    module: "securesystemslib::",
    variable: "SIGNER_PEER_PYTHON",
    artifact: "bin/python",
    needs: &[&host::PYTHON],
    ours: &["python/requirements.txt"],
    build: pip_install,
    optional: false,
};

pub(crate) const COSIGN: Peer = Peer {
    build: |peer, dir| go_install(peer, dir, "github.com/sigstore/cosign/v3/cmd/cosign"),
    ..go("cosign", "v3.1.2", "cosign::", "SIGNER_PEER_COSIGN", "bin/cosign")
};

/// The generation before, which is still installed in many places.
pub(crate) const COSIGN_V2: Peer = Peer {
    build: |peer, dir| go_install(peer, dir, "github.com/sigstore/cosign/v2/cmd/cosign"),
    ..go("cosign", "v2.6.3", "cosign_v2::", "SIGNER_PEER_COSIGN_V2", "bin/cosign")
};

/// The program that comes with the library as an example: 1.4 needs Go 1.27.
pub(crate) const SIGSTORE_GO: Peer = Peer {
    build: |peer, dir| go_install(peer, dir, "github.com/sigstore/sigstore-go/examples/sigstore-go-verification"),
    ..go("sigstore-go", "v1.3.0", "sigstore_go::", "SIGNER_PEER_SIGSTORE_GO", "bin/sigstore-go-verification")
};

pub(crate) const FULCIO: Peer = Peer {
    build: |peer, dir| go_install(peer, dir, "github.com/sigstore/fulcio"),
    ..go("fulcio", "v1.8.8", "fulcio::", "SIGNER_PEER_FULCIO", "bin/fulcio")
};

/// What needs the one needs the other: a certificate of ten minutes is worth little without a timestamp.
pub(crate) const TIMESTAMP_SERVER: Peer = Peer {
    build: |peer, dir| go_install(peer, dir, "github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server"),
    ..go("timestamp-server", "v2.1.3", "fulcio::", "SIGNER_PEER_TIMESTAMP_SERVER", "bin/timestamp-server")
};

/// Without its extensions, none of which a signature needs. Not every module proxy serves it, so where it cannot be had
/// its tests are named and left out; the other registry and the hostile one still run.
pub(crate) const ZOT: Peer = Peer {
    optional: true,
    build: |peer, dir| go_install(peer, dir, "zotregistry.dev/zot/v2/cmd/zot"),
    ..go("zot", "v2.1.20", "zot::", "SIGNER_PEER_ZOT", "bin/zot")
};

/// distribution 2.8, which has no referrers API; unpacked and not installed, so that no service is started.
pub(crate) const DISTRIBUTION: Peer = Peer {
    name: "docker-registry",
    version: "of-the-system",
    module: "distribution::",
    variable: "SIGNER_PEER_DISTRIBUTION",
    artifact: "usr/bin/docker-registry",
    needs: &[&host::APT_GET, &host::DPKG],
    ours: &[],
    build: |peer, dir| unpack_package(dir, peer.name),
    optional: false,
};

pub(crate) const SIGSTORE_JS: Peer = Peer {
    name: "sigstore-js",
    version: "3.1.1",
    module: "sigstore_js::",
    variable: "SIGNER_PEER_SIGSTORE_JS",
    artifact: "verify.mjs",
    needs: &[&host::NODE, &host::NPM],
    ours: &["sigstore-js/package.json", "sigstore-js/package-lock.json", "sigstore-js/verify.mjs"],
    build: npm_ci,
    optional: false,
};

/// A little program of ours around the crate `sigstore-verify`, in a workspace of its own.
pub(crate) const SIGSTORE_RS: Peer = Peer {
    name: "sigstore-rs",
    version: "0.15.1",
    module: "sigstore_rs::",
    variable: "SIGNER_PEER_SIGSTORE_RS",
    artifact: "target/debug/sigstore-rs-peer",
    needs: &[],
    ours: &["sigstore-rs/Cargo.toml", "sigstore-rs/Cargo.lock", "sigstore-rs/src/main.rs"],
    build: |peer, dir| cargo_build(peer, dir, "sigstore-rs-peer"),
    optional: false,
};

pub(crate) const KRYOPTIC: Peer = Peer {
    name: "kryoptic",
    version: "1.5.4",
    module: "kryoptic::",
    variable: "SIGNER_PEER_KRYOPTIC",
    artifact: "target/debug/libkryoptic_pkcs11.so",
    needs: &[&host::OPENSSL_DEV, &host::SQLITE_DEV, &host::PKG_CONFIG, &host::LIBCLANG],
    ours: &["kryoptic/Cargo.toml", "kryoptic/Cargo.lock", "kryoptic/src/lib.rs"],
    build: |peer, dir| cargo_build(peer, dir, "kryoptic"),
    optional: false,
};

/// Of the system; what is kept is a link to the module.
pub(crate) const TPM2_PKCS11: Peer = Peer {
    name: "tpm2-pkcs11",
    version: "of-the-system",
    module: "tpm2_pkcs11::",
    variable: "SIGNER_PEER_TPM2_PKCS11",
    artifact: "libtpm2_pkcs11.so",
    needs: &[&host::SWTPM, &host::TCTI_SWTPM, &host::TPM2_TOOLS, &host::TPM2_PKCS11],
    ours: &[],
    build: link_tpm2_pkcs11,
    optional: false,
};

/// The device in the rack, named by three environment variables; the tests read them themselves.
pub(crate) const RACK: Peer = Peer {
    name: "rack",
    version: "as-named",
    module: "rack::",
    variable: "SIGNER_TEST_RACK",
    artifact: "",
    needs: &[],
    ours: &[],
    build: rack_is_named,
    optional: true,
};

/// No program, but a right: only root reads another process's memory.
pub(crate) const ROOT: Peer = Peer {
    name: "root",
    version: "of-the-system",
    module: "privileged::",
    variable: "SIGNER_PEER_ROOT",
    artifact: "",
    needs: &[],
    ours: &[],
    build: |_, _| if host::is_root() { Ok(()) } else { Err("only root may read another process's memory".to_owned()) },
    optional: false,
};

/// All that are built once and kept.
const PEERS: [&Peer; 18] = [
    &OIDC_PROVIDER,
    &SECURESYSTEMSLIB,
    &COSIGN,
    &COSIGN_V2,
    &SIGSTORE_GO,
    &SIGSTORE_JS,
    &SIGSTORE_RS,
    &FULCIO,
    &TIMESTAMP_SERVER,
    &ZOT,
    &DISTRIBUTION,
    &KRYOPTIC,
    &TPM2_PKCS11,
    &CARGO_AUDITABLE,
    &CARGO_DEB,
    &CARGO_GENERATE_RPM,
    &PROMTOOL,
    &SELINUX_POLICY,
];

/// A program that `go install` builds.
const fn go(
    name: &'static str,
    version: &'static str,
    module: &'static str,
    variable: &'static str,
    artifact: &'static str,
) -> Peer {
    let build: fn(&Peer, &Path) -> Outcome = |_, _| Err("no package is named".to_owned());
    Peer { name, version, module, variable, artifact, needs: &[&host::GO], ours: &[], build, optional: false }
}

/// `cargo xtask peers`.
///
/// # Errors
/// Why one of them cannot be had, after the others were tried.
pub(crate) fn provide_all() -> Outcome<ExitCode> {
    let mut failed = 0;
    for peer in PEERS {
        match peer.provide() {
            Ok(path) => ui::done(format!("{} {}: {}", peer.name, peer.version, path.display())),
            Err(reason) if peer.optional => ui::note(format!("{} {}: {reason}", peer.name, peer.version)),
            Err(reason) => {
                failed += 1;
                ui::refused(format!("{} {}: {reason}", peer.name, peer.version));
            }
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Peer {
    /// Where it is, after building it if need be.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(crate) fn provide(&self) -> Outcome<PathBuf> {
        let dir = cache()?.join(format!("{}-{}", self.name, self.version));
        let artifact = dir.join(self.artifact);
        // The marker comes last, so that a build that was interrupted is done again.
        let marker = dir.join("complete");
        let recipe = self.recipe();
        if self.kept_nowhere() || !(artifact.exists() && fs::read(&marker).is_ok_and(|built_from| built_from == recipe))
        {
            host::provide(self.needs)?;
            fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
            (self.build)(self, &dir)?;
            if !artifact.exists() {
                return Err(format!("{} was built but {} is not there", self.name, artifact.display()));
            }
            fs::write(&marker, recipe).map_err(|error| format!("cannot write {}: {error}", marker.display()))?;
        }
        Ok(artifact)
    }

    /// Whether it is nothing that could be kept, and is looked at each time.
    fn kept_nowhere(&self) -> bool {
        (self.artifact.is_empty() && self.ours.is_empty()) || self.version == OF_THIS_TREE
    }

    /// What a build depends on.
    fn recipe(&self) -> Vec<u8> {
        let content = self.ours.iter().flat_map(|file| fs::read(sources().join(file)).unwrap_or_default());
        [self.version.as_bytes(), b"\n"].concat().into_iter().chain(content).collect()
    }
}

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

fn npm_ci(peer: &Peer, dir: &Path) -> Outcome {
    copy_ours(peer, dir)?;
    run(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(dir), dir)
}

fn pip_install(_: &Peer, dir: &Path) -> Outcome {
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir), dir)?;
    let requirements = sources().join("python/requirements.txt");
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    run(&mut pip, dir)
}

fn go_install(peer: &Peer, dir: &Path, package: &str) -> Outcome {
    // A binary of this name was put there by a finished `go install`: Go renames it into place.
    if dir.join(peer.artifact).exists() {
        return Ok(());
    }
    let go = host::GO.path().ok_or("Go is missing")?;
    // One after the other: each would take all cores, and what they have in common is then compiled once.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().map_err(|_| "another build panicked".to_owned())?;
    // Without cgo no C compiler is needed; what wants it is for hardware tokens alone.
    let mut install = Command::new(go);
    install.args(["install", "-trimpath", "-ldflags=-s -w"]).arg(format!("{package}@{}", peer.version));
    run(install.env("GOBIN", dir.join("bin")).env("CGO_ENABLED", "0"), dir)
}

/// Unpacks a package of the system's own archive.
fn unpack_package(dir: &Path, package: &str) -> Outcome {
    let mut download = Command::new("apt-get");
    run(download.args(["-qq", "download", package]).current_dir(dir), dir)?;
    let files = fs::read_dir(dir).map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
    let archive = files.flatten().map(|file| file.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    let archive = archive.ok_or_else(|| format!("apt-get downloaded no {package}"))?;
    run(Command::new("dpkg").arg("-x").arg(&archive).arg(dir), dir)?;
    fs::remove_file(&archive).map_err(|error| format!("cannot remove {}: {error}", archive.display()))
}

fn cargo_build(peer: &Peer, dir: &Path, package: &str) -> Outcome {
    copy_ours(peer, dir)?;
    let mut build = cargo::cargo();
    // As a person would type it there: what this run of cargo was told about the workspace is not meant for it.
    build.current_dir(dir).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    run(build.args(["build", "--locked", "--package", package]), dir)
}

fn link_tpm2_pkcs11(peer: &Peer, dir: &Path) -> Outcome {
    let module = host::TPM2_PKCS11.path().ok_or("tpm2-pkcs11 is missing")?;
    link(&module, &dir.join(peer.artifact))
}

fn build_sealed(peer: &Peer, dir: &Path) -> Outcome {
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

fn rack_is_named(_: &Peer, _: &Path) -> Outcome {
    for variables in [&["SIGNER_TEST_MODULE"][..], &["SIGNER_TEST_TOKEN"], &["SIGNER_TEST_PIN_FILE", "SIGNER_TEST_PIN"]]
    {
        if variables.iter().all(|name| env::var_os(name).is_none()) {
            return Err(format!("no device of your own: {} is not set", variables.join(" or ")));
        }
    }
    Ok(())
}

/// Runs a step of a build, its output in `DIR.log`.
fn run(command: &mut Command, dir: &Path) -> Outcome {
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

fn cache() -> Outcome<PathBuf> {
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .map(|dir| dir.join("stellaops-signer/peers"))
        .ok_or_else(|| "no place for a cache: set HOME".to_owned())
}

fn sources() -> PathBuf {
    cargo::root().join("tests/peers")
}

/// The version of what is built from the tree itself, and so never kept.
const OF_THIS_TREE: &str = "of-this-tree";
