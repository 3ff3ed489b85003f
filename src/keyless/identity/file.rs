//! A token that something else writes into a file: a workload identity agent, Kubernetes, the service manager.

#![forbid(unsafe_code)]

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::IdentityError;
use super::token::MAX_BYTES;

/// The file.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
}

/// What a file is at a moment: another stamp, another token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl TokenFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// A credential that the service manager hands to this process (systemd.exec(5), `LoadCredential=`).
    pub(super) fn credential(name: &str) -> Result<Self, IdentityError> {
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
            .ok_or_else(|| IdentityError::NoCredentials { name: name.to_owned() })?;
        Ok(Self::at(PathBuf::from(folder).join(name)))
    }

    /// The file as it is now; `None` when it cannot be looked at, which is no reason to give up a token that is good.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        std::fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata))
    }

    pub(super) fn read(&self) -> Result<(Zeroizing<Vec<u8>>, Stamp), IdentityError> {
        let failed =
            |source: io::Error| IdentityError::Unreadable { path: self.path.clone(), source: Arc::new(source) };
        // Non-blocking, so that a FIFO put in its place hangs nobody.
        let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&self.path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::other("it is not a file")));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(failed(io::Error::other("others than its owner can write it; run `chmod go-w` on it")));
        }
        if ![0, nix::unistd::geteuid().as_raw()].contains(&metadata.uid()) {
            return Err(failed(io::Error::other("its owner is neither root nor the user of this process")));
        }
        let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        if size > MAX_BYTES + 2 {
            return Err(IdentityError::Malformed { what: "it is longer than 16 KiB" });
        }
        // As long as the file and never longer: nothing is left behind by a growing buffer.
        let mut text = Zeroizing::new(vec![0; size]);
        file.read_exact(&mut text).map_err(failed)?;
        Ok((text, Stamp::of(&metadata)))
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), changed }
    }
}
