//! Runs a program, unmodified, as if it were later.
//!
//! The program is traced: its kernel's vDSO is hidden from it, so that it asks the kernel what time it is, and the
//! answers are moved on their way back. That works for every program alike, those in Go included, which ask no C
//! library that could be preloaded. Only the wall clock moves; the monotonic clock is left alone.

#![forbid(unsafe_code)]

use std::process::{Command, Output};

use crate::Result;

/// Runs `command` to its end with a wall clock that is `seconds` ahead (or, negative, behind), for it and for every
/// program that it starts.
///
/// # Errors
/// When it cannot be started or traced: on another architecture than x86-64, or where tracing is forbidden.
pub fn run(command: &Command, seconds: i64) -> Result<Output> {
    #[cfg(target_arch = "x86_64")]
    return x86_64::run(command, seconds);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (command, seconds);
        Err(crate::Error::new("cannot move a program's clock but on x86-64"))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::ffi::c_void;
    use std::io::{Read as _, Seek as _};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, ExitStatus, Output, Stdio};

    use nix::errno::Errno;
    use nix::sys::ptrace::{self, Options};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    use crate::{Context, Error, Result};

    pub(super) fn run(command: &Command, seconds: i64) -> Result<Output> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut stopped = stopped_at_its_start(command);
        stopped.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        // Only the thread that traces hears of its tracees, so it has one to itself, and waits for nobody else's
        // children.
        let traced = std::thread::spawn(move || trace(&mut stopped, seconds));
        let status = traced.join().map_err(|_| Error::new("cannot trace: the tracer panicked"))??;
        let read = |mut file: std::fs::File| -> Result<Vec<u8>> {
            let mut content = Vec::new();
            file.rewind()?;
            file.read_to_end(&mut content)?;
            Ok(content)
        };
        Ok(Output { status, stdout: read(stdout)?, stderr: read(stderr)? })
    }

    /// The same command, which stops before it becomes the program.
    fn stopped_at_its_start(command: &Command) -> Command {
        let mut stopped = Command::new("/bin/sh");
        stopped.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => stopped.env(name, value),
                None => stopped.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            stopped.current_dir(dir);
        }
        stopped
    }

    fn trace(command: &mut Command, seconds: i64) -> Result<ExitStatus> {
        let child = command.spawn().context("run /bin/sh")?;
        let leader = Pid::from_raw(i32::try_from(child.id()).context("read a process id")?);
        waitpid(leader, Some(WaitPidFlag::WUNTRACED)).context("wait for a program to stop")?;
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(leader, options).context("trace a program")?;
        kill(leader, Signal::SIGCONT).context("continue a program")?;
        let mut ended = None;
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == leader => ended = Some(ExitStatus::from_raw(code << 8)),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == leader => {
                    ended = Some(ExitStatus::from_raw(signal as i32));
                }
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    gone_is_fine(move_answer(pid, seconds))?;
                    gone_is_fine(ptrace::syscall(pid, None))?;
                }
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                    if event == nix::libc::PTRACE_EVENT_EXEC {
                        gone_is_fine(hide_vdso(pid))?;
                    }
                    gone_is_fine(ptrace::syscall(pid, None))?;
                }
                Ok(WaitStatus::Stopped(pid, signal)) => {
                    let deliver = (signal != Signal::SIGTRAP).then_some(signal);
                    gone_is_fine(ptrace::syscall(pid, deliver))?;
                }
                Ok(_) => {}
                Err(Errno::ECHILD) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for a traced program"),
            }
        }
        ended.context("find out how a traced program ended")
    }

    /// A tracee may be killed between two calls.
    fn gone_is_fine(outcome: nix::Result<()>) -> Result<()> {
        match outcome {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).context("trace a program"),
        }
    }

    /// After a call that asked what time it is: moves the answer.
    fn move_answer(pid: Pid, seconds: i64) -> nix::Result<()> {
        if ptrace::syscall_info(pid)?.op != nix::libc::PTRACE_SYSCALL_INFO_EXIT {
            return Ok(());
        }
        let mut registers = ptrace::getregs(pid)?;
        let failed = i64::try_from(registers.rax).is_err();
        let wall_clock = matches!(registers.rdi, REALTIME | REALTIME_COARSE);
        match i64::try_from(registers.orig_rax) {
            Ok(nix::libc::SYS_clock_gettime) if wall_clock && !failed => add(pid, registers.rsi, seconds),
            Ok(nix::libc::SYS_gettimeofday) if registers.rdi != 0 && !failed => add(pid, registers.rdi, seconds),
            Ok(nix::libc::SYS_time) if !failed => {
                registers.rax = registers.rax.wrapping_add_signed(seconds);
                ptrace::setregs(pid, registers)?;
                if registers.rdi == 0 { Ok(()) } else { add(pid, registers.rdi, seconds) }
            }
            _ => Ok(()),
        }
    }

    /// Turns the entry of the auxiliary vector that names the vDSO into one that is to be ignored.
    fn hide_vdso(pid: Pid) -> nix::Result<()> {
        let mut at = ptrace::getregs(pid)?.rsp;
        let word = |at: u64| ptrace::read(pid, at as *mut c_void);
        // argc, the arguments and a null, the environment and a null, then pairs until one of type null.
        at += 8 * (2 + word(at)?.cast_unsigned());
        while word(at)? != 0 {
            at += 8;
        }
        at += 8;
        while word(at)? != AT_NULL {
            if word(at)? == AT_SYSINFO_EHDR {
                ptrace::write(pid, at as *mut c_void, AT_IGNORE)?;
            }
            at += 16;
        }
        Ok(())
    }

    fn add(pid: Pid, at: u64, seconds: i64) -> nix::Result<()> {
        let at = at as *mut c_void;
        ptrace::write(pid, at, ptrace::read(pid, at)? + seconds)
    }

    const REALTIME: u64 = nix::libc::CLOCK_REALTIME as u64;
    const REALTIME_COARSE: u64 = nix::libc::CLOCK_REALTIME_COARSE as u64;
    const AT_NULL: i64 = 0;
    const AT_IGNORE: i64 = 1;
    const AT_SYSINFO_EHDR: i64 = 33;
}
