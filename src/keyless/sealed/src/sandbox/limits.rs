//! Resource limits: what the process is not even able to ask for.

use std::io;

use super::process::{check, prctl};
use super::wipe::STACK;

/// Lowers them; none can be raised again.
pub(super) fn lower() -> io::Result<()> {
    let limits: [(libc::__rlimit_resource_t, libc::rlim_t); 9] = [
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_NOFILE, 4), // 0, 1, 2 and the Fulcio socket
        (libc::RLIMIT_NPROC, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_DATA, 0), // no private writable memory beyond the program's own
        (libc::RLIMIT_STACK, STACK as libc::rlim_t), // as much as is wiped
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_MSGQUEUE, 0),
        (libc::RLIMIT_SIGPENDING, 0),
    ];
    for (resource, value) in limits {
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: the limit is read and outlives the call.
        check(unsafe { libc::setrlimit(resource, &raw const limit) }.into())?;
    }
    // No memory becomes executable that was not, where the kernel has it (6.3 and later).
    let _ = prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN);
    Ok(())
}

const PR_SET_MDWE: libc::c_int = 65;
const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
