//! Who serves a worker's socket?
//!
//! Two questions, because a socket may be opened by one process and served by another. Who listens: the kernel says who
//! called `listen` (`SO_PEERCRED`), the worker itself or, where the service manager listens for it, root; and a socket
//! of root's is believed only when its file and its directories are such that nobody else can have put it there. Who
//! answers: the kernel adds to every message who sent it (`SCM_CREDENTIALS`, unix(7)), and the hello must come from the
//! worker's user, whoever listens.
//!
//! In a user namespace where the worker's user does not exist, as the unit's `PrivateUsers=yes` makes one, the kernel shows
//! it, like all others, as the overflow user (user_namespaces(7)). Then only a socket of root's is believed: that nobody but
//! root can have put it there, and passed it to the worker, is what says who answers; and that the answer does not come
//! from root or from the front's own user is all that can be added.

#![forbid(unsafe_code)]

use std::fs::{self, Metadata};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::{Link, LinkError};
use crate::telemetry::alert;

/// A user as this process sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    As(u32),
    /// It has no number here.
    Unmapped,
}

impl Seen {
    fn of(uid: u32) -> Self {
        static MAP: OnceLock<String> = OnceLock::new();
        // Without the file there are no user namespaces.
        Self::by(uid, MAP.get_or_init(|| fs::read_to_string("/proc/self/uid_map").unwrap_or_default()))
    }

    /// `map` is of lines with the first number inside, the first outside and how many (user_namespaces(7)).
    fn by(uid: u32, map: &str) -> Self {
        let mut ranges = map.lines().filter_map(|line| {
            let mut numbers = line.split_whitespace().filter_map(|number| number.parse::<u32>().ok());
            Some((numbers.next()?, numbers.nth(1)?))
        });
        let mapped = map.is_empty() || ranges.any(|(first, count)| uid.checked_sub(first).is_some_and(|at| at < count));
        if mapped { Self::As(uid) } else { Self::Unmapped }
    }

    fn is(self, uid: u32) -> bool {
        match self {
            Self::As(expected) => uid == expected,
            Self::Unmapped => uid == OVERFLOW,
        }
    }
}

/// Judges who listens, before a byte is sent, and has the kernel say from here on who answers.
pub(super) fn admit(link: &Link, stream: &UnixStream) -> Result<(), LinkError> {
    let failed = |source: io::Error| LinkError::Connect { path: link.socket.clone(), source: Arc::new(source) };
    let found = stream.peer_cred().map_err(failed)?.uid();
    let worker = Seen::of(link.worker_uid);
    if found != ROOT && worker == Seen::Unmapped {
        let path = link.socket.clone();
        let why = "this process has a user namespace without the worker's user, and so believes only a socket that the \
                   service manager listens on: `systemctl enable --now signer-token@NAME.socket`";
        return Err(LinkError::Socket { path, why: why.to_owned() });
    }
    if !worker.is(found) && found != ROOT {
        return Err(refused(link, found));
    }
    if !worker.is(found)
        && let Some(why) = objection(&link.socket, worker).map_err(failed)?
    {
        let path = link.socket.clone();
        let socket = path.display();
        tracing::error!(name: alert::WORKER_UNTRUSTED, token = %link.name, %socket, "connection refused: {why}");
        return Err(LinkError::Socket { path, why });
    }
    setsockopt(stream, sockopt::PassCred, &true).map_err(|errno| failed(errno.into()))
}

/// Reads some of the worker's first bytes, which must come from its user. Zero at the end of the stream.
pub(super) async fn read_from(link: &Link, stream: &UnixStream, into: &mut [u8]) -> Result<usize, LinkError> {
    let broken = |error: io::Error| LinkError::Hello(error.to_string().into());
    loop {
        stream.readable().await.map_err(broken)?;
        match stream.try_io(Interest::READABLE, || receive(stream, into)) {
            Ok((0, _)) => return Ok(0),
            Ok((count, Some(uid))) if Seen::of(link.worker_uid).is(uid) => return Ok(count),
            Ok((_, Some(uid))) => return Err(refused(link, uid)),
            // Sent before we asked the kernel to say by whom: an answer to nothing.
            Ok((_, None)) => return Err(LinkError::Hello("it spoke before it was spoken to".into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(broken(error)),
        }
    }
}

/// From here on the kernel need not say it any more: a connection does not change hands after its hello.
pub(super) fn proven(stream: &UnixStream) -> Result<(), LinkError> {
    setsockopt(stream, sockopt::PassCred, &false).map_err(|errno| LinkError::Hello(errno.to_string().into()))
}

fn receive(stream: &UnixStream, into: &mut [u8]) -> io::Result<(usize, Option<u32>)> {
    let mut space = nix::cmsg_space!(UnixCredentials);
    let mut into = [IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut into, Some(&mut space), flags)?;
    let sender = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmCredentials(sender) if sender.pid() != 0 => Some(sender.uid()),
        _ => None,
    });
    Ok((message.bytes, sender))
}

fn refused(link: &Link, found: u32) -> LinkError {
    let (path, expected) = (link.socket.clone(), link.worker_uid);
    tracing::error!(
        name: alert::WORKER_UNTRUSTED, token = %link.name, socket = %path.display(), found, expected,
        "connection refused: the worker's socket is served by another user"
    );
    LinkError::Peer { path, found, expected }
}

/// Why a listening socket of root's is not believed to be the service manager's for this worker.
fn objection(socket: &Path, worker: Seen) -> io::Result<Option<String>> {
    // Of a user that has no number here, nothing can be told from others'.
    let trusted = |file: &Metadata| file.uid() == ROOT || worker == Seen::As(file.uid());
    let file = fs::symlink_metadata(socket)?;
    if !file.file_type().is_socket() {
        return Ok(Some("root listens, and the path is a link; name the socket itself in `socket`".to_owned()));
    }
    if !trusted(&file) || file.mode() & 0o002 != 0 {
        let (uid, mode) = (file.uid(), file.mode() & 0o7777);
        return Ok(Some(format!(
            "root listens, and the socket file belongs to user {uid} with mode {mode:04o}; it must be root's (or the \
             worker's, where that user exists) and not writable by everybody (SocketUser=root, SocketMode=0660)"
        )));
    }
    let directory = fs::canonicalize(socket.parent().unwrap_or(Path::new("/")))?;
    for above in directory.ancestors() {
        let folder = fs::metadata(above)?;
        let sticky = folder.mode() & 0o1000 != 0;
        if !trusted(&folder) || (folder.mode() & 0o022 != 0 && !sticky) {
            return Ok(Some(format!(
                "root listens, and others than root and the worker can change {}; put the socket into a directory that \
                 only they can write",
                above.display()
            )));
        }
    }
    Ok(None)
}

const ROOT: u32 = 0;
/// `/proc/sys/kernel/overflowuid`, which the unit hides, and which nobody changes.
const OVERFLOW: u32 = 65_534;

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
