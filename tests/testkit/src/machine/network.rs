//! A network that only this process and its machines are in.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Context, Error, Result, shell};

/// Takes the calling thread into the network namespace of this process's machines, which the first call makes. What the
/// thread starts afterwards is in it as well: programs, threads, [`runtime`](crate::runtime) if it was not there before.
/// Returns a path that names it.
///
/// # Errors
/// When this is not root, or namespaces are forbidden here.
pub fn network() -> Result<PathBuf> {
    static NAMESPACE: OnceLock<Result<File, String>> = OnceLock::new();
    let namespace = NAMESPACE.get_or_init(|| make().map_err(|error| error.0));
    let namespace = namespace.as_ref().map_err(|error| Error::new(error.clone()))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
    use std::os::fd::AsRawFd as _;
    Ok(PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())))
}

fn make() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace; only root may")?;
    shell::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    File::open("/proc/thread-self/ns/net").context("open the network namespace")
}
