//! Programs that are not ours, built once and kept in `$XDG_CACHE_HOME/stellaops-signer/peers/NAME-VERSION`.

#![forbid(unsafe_code)]

mod build;
mod debian;
mod guest;
mod packages;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use xtask::ui;

use build::{
    build_sealed, cargo_build, go_build, go_install, link_tpm2_pkcs11, npm_ci, pip_install, rack_is_named,
    unpack_package,
};

use crate::{Outcome, cargo, host};

pub(crate) use debian::may_boot;
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
/// its tests are named and left out; the other registries and the hostile one still run.
pub(crate) const ZOT: Peer = Peer {
    optional: true,
    build: |peer, dir| go_install(peer, dir, "zotregistry.dev/zot/v2/cmd/zot"),
    ..go("zot", "v2.1.20", "zot::", "SIGNER_PEER_ZOT", "bin/zot")
};

/// A little program of ours around the registry of go-containerregistry, which has the referrers API: it adds TLS and a
/// password. Unlike zot it is to be had wherever Go modules are, so that nobody's tests go without that API.
pub(crate) const REGISTRY: Peer = Peer {
    ours: &["registry/go.mod", "registry/go.sum", "registry/main.go"],
    build: |peer, dir| go_build(peer, dir, "."),
    ..go("go-containerregistry", "v0.22.1", "go_registry::", "SIGNER_PEER_REGISTRY", "bin/registry")
};

/// Pinned by a module of ours: `go install` asks for a list of its versions, which not every module proxy has.
pub(crate) const NOTATION: Peer = Peer {
    ours: &["notation/go.mod", "notation/go.sum"],
    build: |peer, dir| go_build(peer, dir, "github.com/notaryproject/notation/cmd/notation"),
    ..go("notation", "v1.3.2", "notation::", "SIGNER_PEER_NOTATION", "bin/notation")
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

pub(crate) const DEBIAN_12: Peer = debian("debian-12", "bookworm", "debian_12::", "SIGNER_PEER_DEBIAN_12");

pub(crate) const DEBIAN_13: Peer = debian("debian-13", "trixie", "debian_13::", "SIGNER_PEER_DEBIAN_13");

/// Whose systemd is the newest in the archive. It changes under us, and is as it was when it was fetched.
pub(crate) const DEBIAN_SID: Peer = debian("debian-sid", "sid", "debian_sid::", "SIGNER_PEER_DEBIAN_SID");

/// A Debian with a kernel of its own, for what this machine's kernel does not do.
pub(crate) const GUEST: Peer = Peer {
    name: "guest",
    version: "bookworm",
    module: "::",
    variable: "SIGNER_PEER_GUEST",
    artifact: "",
    needs: &[&host::DEBOOTSTRAP, &host::UNSHARE, &host::MKE2FS],
    ours: &[
        "guest/packages",
        "guest/make",
        "guest/network",
        "guest/agent.socket",
        "guest/agent@.service",
        "guest/forward@.socket",
        "guest/forward@.service",
    ],
    build: guest::make,
    optional: false,
};

/// All that a run of all suites wants, built once and kept. What a suite wants that runs by its name alone is built then.
const PEERS: [&Peer; 20] = [
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
    &REGISTRY,
    &NOTATION,
    &DISTRIBUTION,
    &KRYOPTIC,
    &TPM2_PKCS11,
    &CARGO_AUDITABLE,
    &CARGO_DEB,
    &CARGO_GENERATE_RPM,
    &PROMTOOL,
    &SELINUX_POLICY,
];

/// What can be booted, where anything can.
const MACHINES: [&Peer; 3] = [&DEBIAN_12, &DEBIAN_13, &DEBIAN_SID];

/// The same packages, without which a machine has nothing to install.
pub(crate) const PACKAGES_TO_INSTALL: Peer = Peer { module: "::", ..PACKAGES };

/// The root directory of a Debian release, by its code name.
const fn debian(name: &'static str, version: &'static str, module: &'static str, variable: &'static str) -> Peer {
    Peer {
        name,
        version,
        module,
        variable,
        artifact: "root",
        needs: &[&host::DEBOOTSTRAP],
        ours: &["debian/packages"],
        build: debian::bootstrap,
        optional: false,
    }
}

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
    let machines: &[&Peer] = match may_boot() {
        Ok(()) => &MACHINES,
        Err(reason) => {
            ui::note(reason);
            &[]
        }
    };
    for peer in PEERS.iter().chain(machines) {
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
        if let Some(named) = self.named() {
            return if named.is_file() { Ok(named) } else { Err(format!("{} is no file", named.display())) };
        }
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

    /// One that cannot be had everywhere may be there already: whoever has it names it by its variable.
    fn named(&self) -> Option<PathBuf> {
        let may_be = self.optional && !self.artifact.is_empty();
        env::var_os(self.variable).filter(|_| may_be).map(PathBuf::from)
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
