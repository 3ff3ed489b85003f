//! The listening socket that systemd passed, if it did.
//!
//! Not a device, but taking over a file descriptor by its number needs `unsafe`, and this is the fence.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{AddressFamily, SockaddrLike as _, UnixAddr, getsockname, getsockopt, sockopt};

/// The Unix socket that the service manager listens on for us (`LISTEN_FDS`, `sd_listen_fds(3)`); `None` when it
/// passed none. Call once, at the start of the process.
///
/// # Errors
/// When something else than exactly one listening Unix stream socket was passed.
pub fn inherited_listener() -> io::Result<Option<UnixListener>> {
    let mut passed = sd_notify::listen_fds()?;
    let Some(number) = passed.next() else { return Ok(None) };
    if passed.next().is_some() {
        return Err(io::Error::other("the service manager passed several sockets; a token worker listens on one"));
    }
    // SAFETY: sd_listen_fds(3) gives this process ownership of the descriptors it numbers, `listen_fds` has checked
    // that they were meant for this process, and nothing else here takes them.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let is_unix = getsockname::<UnixAddr>(number).is_ok_and(|name| name.family() == Some(AddressFamily::Unix));
    let listens = getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false);
    if !is_unix || !listens {
        return Err(io::Error::other("the descriptor that the service manager passed is not a listening Unix socket"));
    }
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(false)?;
    Ok(Some(listener))
}
