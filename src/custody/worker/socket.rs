//! The socket that the worker listens on.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

/// Why the worker cannot listen.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("cannot prepare the socket {path}: {step}")]
    Io { path: PathBuf, step: &'static str, source: io::Error },
    #[error("{0} exists and is not a socket; it is left alone. Remove it, or correct `socket` in the configuration")]
    NotASocket(PathBuf),
    #[error("another worker is listening on {0}; one token has one worker")]
    Live(PathBuf),
}

/// A listening socket and the lock that says it is ours.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    /// Held to the end of the process.
    pub(super) lock: Flock<File>,
}

/// Listens on `path`, mode 0660. A socket that nobody listens on any more is replaced; anything else stays.
pub(super) fn bind(path: &Path) -> Result<Bound, SocketError> {
    let io = |step| move |source| SocketError::Io { path: path.to_owned(), step, source };
    // Two workers that start at once must not take each other's new socket for a stale one.
    let lock_file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(beside(path, "lock"))
        .map_err(io("open its lock file"))?;
    let lock = match Flock::lock(lock_file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Err(SocketError::Live(path.to_owned())),
        Err((_, error)) => return Err(io("lock its lock file")(error.into())),
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("look at what is there")(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(io("remove the stale one"))?;
            }
            // Listening, or too busy to accept: alive in any case.
            _ => return Err(SocketError::Live(path.to_owned())),
        },
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(io("make a socket"))?;
    // Linux gives the file the mode of the unbound socket, less the umask: at no moment is it open to everybody.
    fchmod(&socket, MODE).map_err(|error| io("set its mode")(error.into()))?;
    SockAddr::unix(path).and_then(|address| socket.bind(&address)).map_err(io("bind"))?;
    fs::set_permissions(path, Permissions::from_mode(MODE.bits())).map_err(io("set its mode"))?;
    socket.listen(BACKLOG).map_err(io("listen"))?;
    Ok(Bound { listener: UnixListener::from(OwnedFd::from(socket)), lock })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// The front is let in by group, and then by its user.
const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IRGRP).union(Mode::S_IWGRP);

const BACKLOG: i32 = 128;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sock");
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
        assert!(matches!(bind(&path), Err(SocketError::Live(_))), "locked");
        drop(first.lock);
        assert!(matches!(bind(&path), Err(SocketError::Live(_))), "listening");
        drop(first.listener);
        let second = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(second);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
