//! The two sockets: 0 is the parent, 3 is Fulcio. Plain `read`, `write` and `recvmsg`, because the filter allows no
//! other call on them.

use std::io::{self, Read, Write};
use std::mem;

/// The parent's end of the socket pair.
pub(crate) struct Parent(());

/// The connected Fulcio socket that the parent passed.
pub(crate) struct Fulcio(());

impl Parent {
    /// Looks that the process was started as it must be: descriptor 0 is a stream socket of this machine, 1 and 2 are
    /// `/dev/null`.
    ///
    /// # Errors
    /// What is not so.
    pub(crate) fn inherited() -> io::Result<Self> {
        if option(libc::SO_DOMAIN)? != libc::AF_UNIX || option(libc::SO_TYPE)? != libc::SOCK_STREAM {
            return Err(io::Error::other("descriptor 0 is no Unix stream socket"));
        }
        for fd in [1, 2] {
            // SAFETY: `stat` is plain data, and valid for the write.
            let stat = unsafe {
                let mut stat: libc::stat = mem::zeroed();
                check(libc::fstat(fd, &raw mut stat) as isize)?;
                stat
            };
            if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != libc::makedev(1, 3) {
                return Err(io::Error::other("descriptors 1 and 2 must be /dev/null"));
            }
        }
        Ok(Self(()))
    }

    /// Reads what is there, and takes the Fulcio socket if it comes with it. Zero bytes are the end.
    ///
    /// # Errors
    /// Those of `recvmsg`; and any descriptor but one, which becomes 3.
    pub(crate) fn receive(&mut self, into: &mut [u8]) -> io::Result<(usize, Option<Fulcio>)> {
        let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        let mut control = Control { header: EMPTY, fd: -1, padding: 0 };
        // SAFETY: `msghdr` is plain data; every pointer in it is valid for its length until the call returns.
        let (count, flags) = unsafe {
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = (&raw mut control).cast();
            message.msg_controllen = size_of::<Control>();
            let count = again(|| check(libc::recvmsg(PARENT, &raw mut message, libc::MSG_CMSG_CLOEXEC)))?;
            (count, message.msg_flags)
        };
        if flags & libc::MSG_CTRUNC != 0 {
            return Err(io::Error::other("more came along than one descriptor"));
        }
        if control.header.cmsg_len == 0 {
            return Ok((count, None));
        }
        let one = control.header.cmsg_level == libc::SOL_SOCKET
            && control.header.cmsg_type == libc::SCM_RIGHTS
            && control.header.cmsg_len == size_of::<libc::cmsghdr>() + size_of::<libc::c_int>();
        if one && control.fd == FULCIO {
            Ok((count, Some(Fulcio(()))))
        } else {
            Err(io::Error::other("something else came along than one descriptor"))
        }
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// Those of `write`.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[write(PARENT, rest)?..];
        }
        Ok(())
    }
}

impl Read for Fulcio {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is valid for writes of its length.
        again(|| check(unsafe { libc::read(FULCIO, into.as_mut_ptr().cast(), into.len()) }))
    }
}

impl Write for Fulcio {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(FULCIO, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(fd: libc::c_int, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for reads of its length.
    let count = again(|| check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }))?;
    if count == 0 && !bytes.is_empty() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) }
}

fn option(name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: value and length are valid for the write.
    let result = unsafe { libc::getsockopt(PARENT, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length) };
    check(result as isize).map(|_| value)
}

/// A stopped and continued process sees its call interrupted, although nothing happened.
fn again(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            result => return result,
        }
    }
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Room for one control message with one descriptor, laid out as `cmsg(3)` has it.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    fd: libc::c_int,
    padding: libc::c_int,
}

const EMPTY: libc::cmsghdr = libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 };
const PARENT: libc::c_int = 0;
const FULCIO: libc::c_int = 3;
