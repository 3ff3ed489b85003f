//! Capabilities, in all five sets.

use std::io;

use super::process::{check, prctl};

/// Takes every capability out of the bounding set, where there is a right to; without that right there is none to gain
/// either, once there are no new privileges.
pub(super) fn empty_bounding_set() -> io::Result<()> {
    if sets()?.effective & (1 << CAP_SETPCAP) == 0 {
        return Ok(());
    }
    // The kernel knows fewer than 64 and says EINVAL behind its last.
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => (),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 => break,
            Err(error) => return Err(error),
        }
    }
    // Root is a user like any other, and stays one.
    prctl(libc::PR_SET_SECUREBITS, SECURE_NOROOT_LOCKED)
}

/// Empties the effective, permitted, inheritable and ambient sets, and looks that they are.
pub(super) fn drop_all() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())?;
    let before = sets()?;
    // In a unit without capabilities there is none to drop, and its filter need not allow the call.
    if before.effective | before.permitted | before.inheritable != 0 {
        let mut header = Header { version: VERSION_3, pid: 0 };
        let none = [Word::default(); 2];
        // SAFETY: version 3 reads a header and two words.
        check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, none.as_ptr()) })?;
    }
    let sets = sets()?;
    if sets.effective | sets.permitted | sets.inheritable != 0 {
        return Err(io::Error::other("the kernel says there are capabilities left"));
    }
    Ok(())
}

struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

fn sets() -> io::Result<Sets> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut words = [Word::default(); 2];
    // SAFETY: version 3 reads a header and writes two words.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) })?;
    let join = |part: fn(&Word) -> u32| u64::from(part(&words[0])) | u64::from(part(&words[1])) << 32;
    Ok(Sets {
        effective: join(|word| word.effective),
        permitted: join(|word| word.permitted),
        inheritable: join(|word| word.inheritable),
    })
}

/// `struct __user_cap_header_struct` of `linux/capability.h`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`; two of them hold 64 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;
const CAP_SETPCAP: u32 = 8;
/// `SECBIT_NOROOT`, `SECBIT_NO_SETUID_FIXUP` off, `SECBIT_NO_CAP_AMBIENT_RAISE`, each with its lock
/// (`linux/securebits.h`).
const SECURE_NOROOT_LOCKED: libc::c_ulong = 0b1100_0011;
