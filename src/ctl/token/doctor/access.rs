//! What a user may do with a file, told from its mode bits: the doctor is often root, who may do everything.

use std::ffi::CString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::above;

/// A user and the groups it is in.
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    groups: Vec<u32>,
}

impl User {
    /// By name or number; a number needs no account, as in some containers.
    pub(super) fn find(name: &str) -> Option<Self> {
        let found = match name.parse() {
            Ok(uid) => match nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten() {
                Some(user) => user,
                None => return Some(Self { name: name.to_owned(), uid, groups: Vec::new() }),
            },
            Err(_) => nix::unistd::User::from_name(name).ok().flatten()?,
        };
        let groups =
            CString::new(found.name.as_str()).ok().and_then(|name| nix::unistd::getgrouplist(&name, found.gid).ok());
        let groups = groups.unwrap_or_else(|| vec![found.gid]).into_iter().map(nix::unistd::Gid::as_raw).collect();
        Some(Self { name: name.to_owned(), uid: found.uid.as_raw(), groups })
    }

    /// `wanted`: 4 to read, 2 to write, 1 to pass through. Access control lists are not looked at.
    pub(super) fn may(&self, metadata: &Metadata, wanted: u32) -> bool {
        let shift = if self.uid == 0 {
            return true;
        } else if metadata.uid() == self.uid {
            6
        } else if self.groups.contains(&metadata.gid()) {
            3
        } else {
            0
        };
        metadata.mode() >> shift & wanted == wanted
    }

    /// The first directory above `path` that it cannot pass through.
    pub(super) fn stopped_at<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let closed = |directory: &&Path| directory.metadata().is_ok_and(|metadata| !self.may(&metadata, 1));
        above(path).filter(|directory| !directory.as_os_str().is_empty()).find(closed)
    }
}
