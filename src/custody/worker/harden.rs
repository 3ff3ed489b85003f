//! What a process that holds a PIN gives up first, before it reads anything.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};

/// No core dumps, no tracing by others of the same user, no new privileges by exec, no files open to others. The unit
/// file says the same; here it holds for a worker started by hand, too.
///
/// # Errors
/// When the kernel refuses one of them.
pub(in crate::custody) fn this_process() -> io::Result<()> {
    // Also closes /proc/PID/mem and ptrace to the same user; a core pattern that is a pipe ignores RLIMIT_CORE.
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_no_new_privs()?;
    umask(Mode::from_bits_truncate(0o077));
    Ok(())
}
