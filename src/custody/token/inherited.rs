//! The listening sockets that systemd passed, if it did.
//!
//! Not a device, but taking over a file descriptor by its number needs `unsafe`, and this is the fence.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{AddressFamily, SockaddrLike as _, SockaddrStorage, getsockname, getsockopt, sockopt};

/// A listening socket and what the service manager calls it.
#[derive(Debug)]
pub struct Inherited {
    /// `FileDescriptorName=` of its socket unit; `unknown` where it has none.
    pub name: String,
    /// A socket that listens.
    pub socket: OwnedFd,
    /// Whether it is a Unix socket; TCP otherwise.
    pub is_unix: bool,
}

/// The sockets that the service manager listens on for us (`LISTEN_FDS`, `sd_listen_fds(3)`); none when it passed none.
/// Call once, at the start of the process.
///
/// # Errors
/// When something else than listening stream sockets, Unix or TCP, was passed.
pub fn inherited_sockets() -> io::Result<Vec<Inherited>> {
    let passed: Vec<_> = sd_notify::listen_fds_with_names()?.collect();
    passed
        .into_iter()
        .map(|(number, name)| {
            // SAFETY: sd_listen_fds(3) gives this process ownership of the descriptors it numbers, `listen_fds` has checked
            // that they were meant for this process, and nothing else here takes them.
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            let family = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(|name| name.family());
            let listens = getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false);
            match family {
                Some(family @ (AddressFamily::Unix | AddressFamily::Inet | AddressFamily::Inet6)) if listens => {
                    Ok(Inherited { name, socket, is_unix: family == AddressFamily::Unix })
                }
                _ => Err(io::Error::other(format!(
                    "the descriptor `{name}` that the service manager passed is not a listening Unix or TCP socket"
                ))),
            }
        })
        .collect()
}

/// The one Unix socket that the service manager listens on for a worker; `None` when it passed none. Call once, at the
/// start of the process.
///
/// # Errors
/// When something else than exactly one listening Unix stream socket was passed.
pub fn inherited_listener() -> io::Result<Option<UnixListener>> {
    let mut passed = inherited_sockets()?;
    let Some(only) = passed.pop() else { return Ok(None) };
    if !passed.is_empty() {
        return Err(io::Error::other("the service manager passed several sockets; a token worker listens on one"));
    }
    if !only.is_unix {
        return Err(io::Error::other(
            "the service manager passed a TCP socket; a token worker listens on a Unix socket",
        ));
    }
    let listener = UnixListener::from(only.socket);
    listener.set_nonblocking(false)?;
    Ok(Some(listener))
}
