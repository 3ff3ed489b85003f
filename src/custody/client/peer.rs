//! Who serves a worker's socket?
//!
//! Two questions, because a socket may be opened by one process and served by another. Who listens: the kernel says who
//! called `listen` (`SO_PEERCRED`), the worker itself or, where the service manager listens for it, root; and a socket
//! of root's is believed only when its file and its directories are such that nobody else can have put it there. Who
//! answers: the kernel adds to every message who sent it (`SCM_CREDENTIALS`, unix(7)), and the hello must come from the
//! worker's user, whoever listens.

#![forbid(unsafe_code)]

use std::fs::{self, Metadata};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::{Link, LinkError};

/// Judges who listens, before a byte is sent, and has the kernel say from here on who answers.
pub(super) fn admit(link: &Link, stream: &UnixStream) -> Result<(), LinkError> {
    let failed = |source: io::Error| LinkError::Connect { path: link.socket.clone(), source: Arc::new(source) };
    let found = stream.peer_cred().map_err(failed)?.uid();
    if found != link.worker_uid && found != ROOT {
        return Err(refused(link, found));
    }
    if found != link.worker_uid
        && let Some(why) = objection(&link.socket, link.worker_uid).map_err(failed)?
    {
        let path = link.socket.clone();
        tracing::error!(token = %link.name, socket = %path.display(), "connection refused: {why}");
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
            Ok((count, Some(uid))) if uid == link.worker_uid => return Ok(count),
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
    tracing::error!(token = %link.name, socket = %path.display(), found, expected, "connection refused: the worker's socket is served by another user");
    LinkError::Peer { path, found, expected }
}

/// Why a listening socket of root's is not believed to be the service manager's for this worker.
fn objection(socket: &Path, worker: u32) -> io::Result<Option<String>> {
    let trusted = |file: &Metadata| file.uid() == ROOT || file.uid() == worker;
    let file = fs::symlink_metadata(socket)?;
    if !file.file_type().is_socket() {
        return Ok(Some("root listens, and the path is a link; name the socket itself in `socket`".to_owned()));
    }
    if !trusted(&file) || file.mode() & 0o002 != 0 {
        let (uid, mode) = (file.uid(), file.mode() & 0o7777);
        return Ok(Some(format!(
            "root listens, and the socket file belongs to user {uid} with mode {mode:04o}; it must be root's or the \
             worker's and not writable by everybody (SocketUser=, SocketMode=0660)"
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

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
