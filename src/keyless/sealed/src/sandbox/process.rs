//! What a process says of itself to the kernel.

use std::collections::hash_map::RandomState;
use std::hint::black_box;
use std::io;
use std::ptr;

/// Closes everything but 0, 1 and 2; what the parent left open is not for us.
pub(super) fn close_descriptors() -> io::Result<()> {
    // SAFETY: no memory is involved, and nothing in this process has opened a descriptor that it still uses.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) })
}

/// Becomes nobody where it was started as root; otherwise it stays who it is, without a way back to root.
pub(super) fn become_nobody() -> io::Result<()> {
    // SAFETY: these read and set identifiers; the empty list of groups is not dereferenced.
    unsafe {
        if libc::geteuid() == 0 || libc::getuid() == 0 {
            check(libc::setgroups(0, ptr::null()).into())?;
            check(libc::setresgid(NOBODY, NOBODY, NOBODY).into())?;
            check(libc::setresuid(NOBODY, NOBODY, NOBODY).into())?;
        }
        let (mut real, mut effective, mut saved) = (0, 0, 0);
        check(libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved).into())?;
        if [real, effective, saved].contains(&0) {
            return Err(io::Error::other("still root in one of the three user ids"));
        }
    }
    Ok(())
}

/// No core dump and no tracing by others of the same user.
pub(super) fn hide() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)?;
    // SAFETY: no memory is involved.
    match unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) } {
        0 => Ok(()),
        other => Err(io::Error::other(format!("the kernel says dumpable is {other}"))),
    }
}

/// Has the kernel end this process when the thread that started it ends, as it does with the parent whatever becomes of
/// that. While Fulcio is waited for, nobody looks whether the parent is still there. A change of user undoes it, so it
/// comes after that. A parent that was gone before has closed its end of the socket, and is missed before the job.
pub(super) fn end_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
}

pub(super) fn no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Does what is done once a process, and not on the list: from glibc 2.41 on the first `getrandom` maps memory, and
/// the standard library seeds its hash maps with `GRND_INSECURE`.
pub(super) fn warm_up() {
    black_box(RandomState::new());
    let mut byte = [0_u8; 1];
    // SAFETY: one byte is valid for the write. Whether it succeeds shows when random bytes are needed.
    unsafe { libc::getrandom(byte.as_mut_ptr().cast(), byte.len(), 0) };
}

pub(super) fn uid() -> u32 {
    // SAFETY: reads an identifier.
    unsafe { libc::geteuid() }
}

pub(super) fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: used with options that take a number.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) }.into())
}

pub(super) fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Owns nothing on any Debian or Red Hat; a process of the same user cannot trace one that is not dumpable.
const NOBODY: u32 = 65534;
