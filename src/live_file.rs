//! A file that the operator replaces while it is in use.

#![forbid(unsafe_code)]

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileState {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The whole file and the state in which it was read.
///
/// # Errors
/// [`ErrorKind::InvalidData`] when it is no regular file of at most `limit` bytes, [`ErrorKind::WouldBlock`] when it
/// changed while it was read: the next look will find it whole. Others as reading gives them.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<(FileState, Vec<u8>)> {
    // Opening a FIFO would wait for its writer.
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let before = file.metadata()?;
    if !before.is_file() || before.len() > limit {
        let what = format!("it is not a regular file of at most {limit} bytes");
        return Err(io::Error::new(ErrorKind::InvalidData, what));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.len()).unwrap_or(0) + 1);
    (&mut file).take(limit + 1).read_to_end(&mut bytes)?;
    let state = FileState::of(&before);
    if state != FileState::of(&file.metadata()?) || bytes.len() as u64 != before.len() {
        let what = "it was being written while it was read; replace it by renaming a complete one";
        return Err(io::Error::new(ErrorKind::WouldBlock, what));
    }
    Ok((state, bytes))
}
