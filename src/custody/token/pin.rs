//! The PIN, from its file to the login and no further.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::config::SECRET_OPEN;

/// A user PIN. Wiped when dropped, printed nowhere, not to be cloned.
pub struct Pin {
    // A box of its final size from the start: a growing Vec would leave copies behind.
    bytes: Box<Zeroizing<[u8; MAX_PIN]>>,
    length: usize,
}

/// Why there is no PIN.
#[derive(Debug, thiserror::Error)]
pub enum PinFileError {
    /// It cannot be read.
    #[error("cannot read the PIN file {path}")]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("the PIN file {0} is not a regular file")]
    NotAFile(PathBuf),
    /// Somebody else may read it.
    #[error(
        "the PIN file {path} is open to others (mode {mode:04o}); `chmod 0600` it, or 0640 with a group of its own"
    )]
    Exposed {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Nothing in it.
    #[error("the PIN file {0} is empty")]
    Empty(PathBuf),
    /// No PIN is that long.
    #[error("the PIN file {0} is longer than {MAX_PIN} bytes")]
    TooLong(PathBuf),
}

impl Pin {
    /// Reads the file; one line feed at its end is not part of the PIN.
    ///
    /// # Errors
    /// Unless it is a regular file that its owner, and at most its group, may read. By the group systemd lets a service
    /// read its credentials.
    pub fn read(path: &Path) -> Result<Self, PinFileError> {
        let failed = |source| PinFileError::Io { path: path.to_owned(), source };
        // Non-blocking, so that a FIFO put in its place cannot hang the start.
        let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(PinFileError::NotAFile(path.to_owned()));
        }
        if metadata.mode() & SECRET_OPEN != 0 {
            return Err(PinFileError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
        }
        let mut bytes = Box::new(Zeroizing::new([0; MAX_PIN]));
        let mut length = 0;
        while length < MAX_PIN {
            match file.read(&mut bytes[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if length == MAX_PIN {
            return Err(PinFileError::TooLong(path.to_owned()));
        }
        if length > 0 && bytes[length - 1] == b'\n' {
            length -= 1;
        }
        if length == 0 { Err(PinFileError::Empty(path.to_owned())) } else { Ok(Self { bytes, length }) }
    }

    /// From memory; `None` when it is empty or too long.
    #[must_use]
    pub fn from_bytes(pin: &[u8]) -> Option<Self> {
        let mut bytes = Box::new(Zeroizing::new([0; MAX_PIN]));
        bytes.get_mut(..pin.len()).filter(|room| !room.is_empty() && room.len() < MAX_PIN)?.copy_from_slice(pin);
        Some(Self { bytes, length: pin.len() })
    }

    /// For the call that presents it to the device, and nothing else.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Is it the same PIN? In constant time for PINs of one length.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.length.zeroize();
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(…)")
    }
}

const MAX_PIN: usize = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn one_line_feed_at_the_end_is_not_part_of_the_pin() {
        for (content, pin) in [(&b"1234\n"[..], &b"1234"[..]), (b"1234", b"1234"), (b"12 34\n\n", b"12 34\n")] {
            assert_eq!(Pin::read(file(content, 0o400).path()).unwrap().expose(), pin);
        }
    }

    #[test]
    fn a_pin_file_that_others_may_read_is_refused() {
        for mode in [0o404, 0o644, 0o420, 0o660, 0o610] {
            let error = Pin::read(file(b"1234", mode).path()).unwrap_err();
            assert!(matches!(error, PinFileError::Exposed { mode: m, .. } if m == mode), "{error}");
        }
    }

    #[test]
    fn a_pin_file_may_be_read_by_a_group_as_credentials_of_systemd_are() {
        for mode in [0o400, 0o600, 0o440, 0o640] {
            Pin::read(file(b"1234", mode).path()).unwrap();
        }
    }

    #[test]
    fn no_pin_is_an_error() {
        assert!(matches!(Pin::read(file(b"\n", 0o400).path()), Err(PinFileError::Empty(_))));
        assert!(matches!(Pin::read(file(&[b'1'; 1024], 0o400).path()), Err(PinFileError::TooLong(_))));
        assert!(matches!(Pin::read(Path::new("/dev/null")), Err(PinFileError::NotAFile(_))));
        assert!(matches!(Pin::read(Path::new("/nonexistent/pin")), Err(PinFileError::Io { .. })));
    }

    #[test]
    fn a_typed_pin_is_taken_as_it_is() {
        assert_eq!(Pin::from_bytes(b" 12 ").unwrap().expose(), b" 12 ");
        assert!(Pin::from_bytes(b"").is_none() && Pin::from_bytes(&[b'1'; 1024]).is_none());
    }

    #[test]
    fn a_pin_prints_nothing() {
        assert_eq!(format!("{:?}", Pin::read(file(b"1234", 0o400).path()).unwrap()), "Pin(…)");
    }
}
