//! Is the module the one that was meant, and can nobody but us and root put another in its place?
//!
//! The file is judged and hashed through one descriptor, and loaded by its real path; right after that the path must
//! still lead to the very inode, unchanged. Loading through `/proc/self/fd` would need no second look, but modules
//! that find their configuration or their other libraries beside themselves (`$ORIGIN`, `dladdr`) break there. What
//! lies between the two looks is safe for another reason: every folder on the way, through every symbolic link, has to
//! be one that only root and this user can change.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use super::elf::{self, Stack};

/// A module file that passed; what [`super::Pkcs11Token::load`] loads.
#[derive(Debug)]
pub struct PinnedModule {
    path: PathBuf,
    identity: Identity,
    sha256: String,
}

/// Why a module must not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Where it is would depend on where the worker was started.
    #[error("the PKCS#11 module {0} is not an absolute path; write the whole path in `module`")]
    NotAbsolute(PathBuf),
    /// It, or a folder above it, is not there or cannot be read.
    #[error("cannot load the PKCS#11 module {module}: {path} cannot be used")]
    Io {
        /// As configured.
        module: PathBuf,
        /// What failed: it, or a folder or link on the way.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else owns it or a folder above it.
    #[error(
        "the PKCS#11 module {module} is not loaded: {path} belongs to user {owner}, who could replace it; \
         `chown root` it"
    )]
    Owner {
        /// As configured.
        module: PathBuf,
        /// It, or a folder or link on the way.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may write it or a folder above it.
    #[error(
        "the PKCS#11 module {module} is not loaded: {path} has mode {mode:04o}, so that others could replace it; \
         `chmod go-w` it"
    )]
    Writable {
        /// As configured.
        module: PathBuf,
        /// It, or a folder on the way.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory, a device, or something else that is no shared object.
    #[error("cannot load the PKCS#11 module {0}: it is not a shared object (ELF)")]
    NotAnObject(PathBuf),
    /// It would make every stack of this process executable.
    #[error(
        "the PKCS#11 module {0} is not loaded: it wants an executable stack, as only modules built in a wrong way do; \
         ask the vendor for one built with `-z noexecstack`, or take the wish away with `patchelf --clear-execstack` \
         and change `module_sha256`"
    )]
    ExecutableStack(PathBuf),
    /// Another file than the configuration names.
    #[error(
        "the PKCS#11 module {module} is not loaded: its SHA-256 is {found}, `module_sha256` says {expected}; if it was \
         updated on purpose, change `module_sha256`"
    )]
    Hash {
        /// As configured.
        module: PathBuf,
        /// As configured.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// It was replaced or written while it was being loaded.
    #[error("the PKCS#11 module {0} changed while it was being loaded")]
    Changed(PathBuf),
}

/// What a file is, whatever its name: inode and last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl PinnedModule {
    /// Judges the module at `path`, and its SHA-256 (hexadecimal) where one is configured.
    ///
    /// # Errors
    /// When it is not to be loaded, with what is wrong and what would mend it.
    pub fn open(path: &Path, expected: Option<&str>) -> Result<Self, PinError> {
        if !path.is_absolute() {
            return Err(PinError::NotAbsolute(path.to_owned()));
        }
        let real = Way { module: path, uid: nix::unistd::geteuid().as_raw() }.walk()?;
        let failed = |source| PinError::Io { module: path.to_owned(), path: real.clone(), source };
        // Non-blocking, so that a FIFO put in its place cannot hang the start.
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let mut file = File::options().read(true).custom_flags(flags).open(&real).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(PinError::NotAnObject(path.to_owned()));
        }
        match elf::stack(&file).map_err(failed)? {
            None => return Err(PinError::NotAnObject(path.to_owned())),
            Some(Stack::Executable) => return Err(PinError::ExecutableStack(path.to_owned())),
            Some(Stack::Unstated) if EXECUTABLE_BY_DEFAULT => {
                return Err(PinError::ExecutableStack(path.to_owned()));
            }
            Some(Stack::Plain | Stack::Unstated) => {}
        }
        let sha256 = sha256(&mut file).map_err(failed)?;
        if let Some(expected) = expected
            && !expected.eq_ignore_ascii_case(&sha256)
        {
            let expected = expected.to_owned();
            return Err(PinError::Hash { module: path.to_owned(), expected, found: sha256 });
        }
        Ok(Self { identity: Identity::of(&metadata), path: real, sha256 })
    }

    /// Its real path, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of its bytes, in lowercase hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// # Errors
    /// When its path leads to something else by now.
    pub(super) fn check_again(&self) -> Result<(), PinError> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if Identity::of(&metadata) == self.identity => Ok(()),
            _ => Err(PinError::Changed(self.path.clone())),
        }
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), changed }
    }
}

/// The way from the root to the module, link by link.
struct Way<'a> {
    module: &'a Path,
    uid: u32,
}

impl Way<'_> {
    /// Its real path, once nothing on the way is in anybody else's hands.
    fn walk(&self) -> Result<PathBuf, PinError> {
        let mut at = PathBuf::from("/");
        self.judge(&at)?;
        let (mut ahead, mut links) = (parts(self.module), 0);
        while let Some(part) = ahead.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(part);
            if !self.judge(&next)?.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            let failed = |source| self.failed(&next, source);
            if links > MOST_LINKS {
                return Err(failed(io::Error::other("too many symbolic links")));
            }
            let target = fs::read_link(&next).map_err(failed)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            let mut way = parts(&target);
            way.append(&mut ahead);
            ahead = way;
        }
        Ok(at)
    }

    fn judge(&self, path: &Path) -> Result<Metadata, PinError> {
        let metadata = fs::symlink_metadata(path).map_err(|source| self.failed(path, source))?;
        let (module, path) = (self.module.to_owned(), path.to_owned());
        if metadata.uid() != 0 && metadata.uid() != self.uid {
            return Err(PinError::Owner { module, path, owner: metadata.uid() });
        }
        let mode = metadata.mode() & 0o7777;
        // In a sticky folder, as /tmp is, only the owner of a file can replace it, and owners are looked at.
        let sticky = metadata.is_dir() && mode & 0o1000 != 0;
        // The mode of a symbolic link means nothing.
        if mode & 0o022 != 0 && !sticky && !metadata.is_symlink() {
            return Err(PinError::Writable { module, path, mode });
        }
        Ok(metadata)
    }

    fn failed(&self, path: &Path, source: io::Error) -> PinError {
        PinError::Io { module: self.module.to_owned(), path: path.to_owned(), source }
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|part| part.as_os_str().to_owned()).collect()
}

fn sha256(file: &mut File) -> io::Result<String> {
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(crate::hex::hex(hash.finish().as_ref()))
}

/// As the kernel's own limit.
const MOST_LINKS: u32 = 40;

/// What the C library assumes of an object without `PT_GNU_STACK`.
const EXECUTABLE_BY_DEFAULT: bool = cfg!(any(target_arch = "x86_64", target_arch = "x86"));

#[cfg(test)]
#[path = "pinned_tests.rs"]
mod tests;
