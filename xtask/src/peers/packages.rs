//! The packages as tests look at them, the tools that make them, and what their rules are checked with.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use super::build::{run, unpack_package};
use super::{OF_THIS_TREE, Peer};
use crate::{Outcome, cargo, host, package};

pub(crate) const CARGO_AUDITABLE: Peer = tool("cargo-auditable", "0.7.7", "bin/cargo-auditable");
pub(crate) const CARGO_DEB: Peer = tool("cargo-deb", "3.8.0", "bin/cargo-deb");
pub(crate) const CARGO_GENERATE_RPM: Peer = tool("cargo-generate-rpm", "0.21.1", "bin/cargo-generate-rpm");

/// The packages of this tree, and those of a version before it, of the same programs.
pub(crate) const PACKAGES: Peer = Peer {
    name: "packages",
    version: OF_THIS_TREE,
    module: "built::",
    variable: "SIGNER_PACKAGES",
    artifact: "",
    needs: &[],
    ours: &[],
    build: |_, dir| package::for_tests(dir),
    optional: false,
};

/// The same, built in another folder with another home of cargo.
pub(crate) const PACKAGES_ELSEWHERE: Peer = Peer {
    name: "packages-elsewhere",
    module: "reproducible::",
    variable: "SIGNER_PACKAGES_ELSEWHERE",
    build: |_, dir| package::for_tests_elsewhere(dir),
    ..PACKAGES
};

/// Unpacked and not installed, so that no Prometheus is started.
pub(crate) const PROMTOOL: Peer = Peer {
    name: "prometheus",
    version: "of-the-system",
    module: "promtool_",
    variable: "SIGNER_PEER_PROMTOOL",
    artifact: "usr/bin/promtool",
    needs: &[&host::APT_GET, &host::DPKG],
    ours: &[],
    build: |peer, dir| unpack_package(dir, peer.name),
    optional: false,
};

/// Unpacked and not installed, so that this machine's own policy stays as it is.
pub(crate) const SELINUX_POLICY: Peer = Peer {
    name: "selinux-policy-default",
    module: "reference_policy",
    variable: "SIGNER_PEER_SELINUX_POLICY",
    artifact: "usr/share/selinux/default/base.pp.bz2",
    ..PROMTOOL
};

/// A tool that makes packages; no test speaks to it.
const fn tool(name: &'static str, version: &'static str, artifact: &'static str) -> Peer {
    Peer {
        name,
        version,
        module: "",
        variable: "",
        artifact,
        needs: &[],
        ours: &[],
        build: cargo_install,
        optional: false,
    }
}

fn cargo_install(peer: &Peer, dir: &Path) -> Outcome {
    let mut install = cargo::cargo();
    // In a folder of its own, so that the build of the workspace need not wait for it, and kept while it is not finished.
    let building = dir.join("target");
    install.env("CARGO_TARGET_DIR", &building).env_remove("RUSTFLAGS");
    // Half the compiler's time of what they ask for themselves; what they do is to pack a few files.
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    install.args(["install", "--quiet", "--locked", "--force", "--root"]).arg(dir);
    run(install.arg(format!("{}@{}", peer.name, peer.version)), dir)?;
    fs::remove_dir_all(&building).map_err(|error| format!("cannot remove {}: {error}", building.display()))
}
