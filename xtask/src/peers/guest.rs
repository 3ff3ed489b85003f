//! A Debian with its own kernel, on a disk that QEMU boots: for AppArmor and SELinux, which this machine's kernel may not have.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Command;

use super::build::run;
use super::{Peer, debian, sources};
use crate::Outcome;

/// Makes `DIR/disk`, `DIR/vmlinuz` and `DIR/initrd`.
pub(super) fn make(peer: &Peer, dir: &Path) -> Outcome {
    debian::may_boot()?;
    debian::fill(peer.version, "guest/packages", dir)?;
    let ours = sources().join("guest");
    let mut make = Command::new("unshare");
    // A mount namespace for the guest's /proc, which goes with it.
    run(make.args(["--mount", "sh", "-eu"]).arg(ours.join("make")).args([ours.as_path(), dir]), dir)?;
    let root = dir.join("root");
    fs::remove_dir_all(&root).map_err(|error| format!("cannot remove {}: {error}", root.display()))
}
