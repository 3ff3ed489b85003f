//! One thread of a process that stands still, while the others go on: what a hung event loop is to its watchdog.

#![forbid(unsafe_code)]

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::{Context, Result};

/// A thread that stands still for as long as this lives. Only the thread that has frozen it can do anything with it.
pub struct Frozen {
    thread: Pid,
}

impl Frozen {
    /// Stops a thread by its id.
    ///
    /// # Errors
    /// When there is no such thread, or it may not be traced.
    pub fn thread(id: u32) -> Result<Self> {
        let thread = Pid::from_raw(i32::try_from(id).context("read a thread id")?);
        ptrace::seize(thread, Options::empty()).context("trace a thread")?;
        ptrace::interrupt(thread).context("stop a thread")?;
        waitpid(thread, Some(WaitPidFlag::__WALL)).context("wait for a thread to stop")?;
        Ok(Self { thread })
    }

    /// Lets it go when its process was killed: until its tracer has heard of the end, the process is still there.
    pub fn bury(&self) {
        let _ = waitpid(self.thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.thread, None);
    }
}
