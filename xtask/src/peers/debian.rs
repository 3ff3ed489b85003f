//! Debian releases to boot, made by debootstrap from whatever mirror this machine's apt is told to use.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::build::run;
use super::{Peer, sources};
use crate::{Outcome, host};

/// Makes `DIR/root`, a minimal system with the packages that `tests/peers/debian/packages` lists.
pub(super) fn bootstrap(peer: &Peer, dir: &Path) -> Outcome {
    may_boot()?;
    fill(peer.version, "debian/packages", dir)
}

/// Makes `DIR/root` of a release, with the packages of a list below `tests/peers`.
pub(super) fn fill(release: &str, list: &str, dir: &Path) -> Outcome {
    let list = sources().join(list);
    let packages = fs::read_to_string(&list).map_err(|error| format!("cannot read {}: {error}", list.display()))?;
    let packages = packages.split_whitespace().collect::<Vec<_>>().join(",");
    let root = dir.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).map_err(|error| format!("cannot remove {}: {error}", root.display()))?;
    }
    let program = host::DEBOOTSTRAP.path().ok_or("debootstrap is missing")?;
    let mut debootstrap = Command::new(program);
    debootstrap.arg("--variant=minbase").arg(format!("--include={packages}")).arg(release).arg(&root);
    // Without one, debootstrap has its own default.
    debootstrap.args(mirror());
    run(&mut debootstrap, dir)?;
    let archives = root.join("var/cache/apt/archives");
    // Copied for every machine otherwise; that they cannot be removed harms nobody.
    let files = fs::read_dir(archives).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|file| file.extension().is_some_and(|end| end == "deb")).for_each(|file| drop(fs::remove_file(file)));
    Ok(())
}

/// Only root may boot a machine, and not everywhere: a container's root often may make no namespace.
///
/// # Errors
/// What is in the way.
pub(crate) fn may_boot() -> Outcome {
    if !host::is_root() {
        return Err("only root may boot a machine (systemd-nspawn)".to_owned());
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--"]);
    let trial = unshare.args(["sh", "-c", "mount -t tmpfs none /mnt && mount -t cgroup2 none /mnt"]);
    let status = trial.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => Err("namespaces, or mounts in them, are forbidden here: no machine can be booted".to_owned()),
    }
}

/// The archive that apt uses for the main part of this system, where this is a Debian.
fn mirror() -> Option<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format=$(REPO_URI) $(LABEL)", "Created-By: Packages"]);
    let output = targets.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let own = text.lines().filter_map(|line| line.rsplit_once(' ')).find(|(_, label)| *label == "Debian");
    own.map(|(uri, _)| uri.trim_end_matches('/').to_owned())
}
