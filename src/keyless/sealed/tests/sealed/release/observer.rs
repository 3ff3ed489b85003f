//! ptrace, as far as it is needed here: stop a process, look at it, make it do a system call.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A process that is watched by this thread. It dies with the thread.
pub(super) struct Observed {
    pub(super) pid: Pid,
    memory: File,
}

/// What became of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The kernel did it.
    Done(u64),
    /// The kernel said no.
    Refused(Errno),
    /// The process is no more.
    Killed(Signal),
}

/// Why a watched process stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// At the entry or exit of a system call.
    Syscall,
    /// It became another program.
    Exec,
    /// It made another process, which has been killed.
    Made,
    /// A signal is about to be delivered.
    Signal(Signal),
    /// It ended with this code.
    Exited(i32),
    /// It was ended by this signal.
    Killed(Signal),
}

impl Observed {
    pub(super) fn seize(pid: u32) -> Self {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE;
        ptrace::seize(pid, options).expect("root may watch");
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
        Self { pid, memory }
    }

    /// Stops it where it waits.
    pub(super) fn interrupt(&self) {
        ptrace::interrupt(self.pid).unwrap();
        assert!(matches!(self.wait(), WaitStatus::PtraceEvent(..)));
    }

    fn wait(&self) -> WaitStatus {
        waitpid(self.pid, Some(WaitPidFlag::__WALL)).unwrap()
    }

    /// Runs it up to the next entry or exit of a system call, or whatever comes before.
    pub(super) fn next(&self, signal: Option<Signal>) -> Stop {
        ptrace::syscall(self.pid, signal).unwrap();
        self.stopped()
    }

    pub(super) fn step(&self) -> Stop {
        ptrace::step(self.pid, None).unwrap();
        self.stopped()
    }

    fn stopped(&self) -> Stop {
        match self.wait() {
            WaitStatus::PtraceSyscall(_) => Stop::Syscall,
            WaitStatus::PtraceEvent(_, _, event) if event == libc::PTRACE_EVENT_EXEC => Stop::Exec,
            WaitStatus::PtraceEvent(
                _,
                _,
                libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE,
            ) => {
                let child = Pid::from_raw(i32::try_from(ptrace::getevent(self.pid).unwrap()).unwrap());
                kill(child, Signal::SIGKILL).unwrap();
                while !matches!(waitpid(child, Some(WaitPidFlag::__WALL)).unwrap(), WaitStatus::Signaled(..)) {}
                Stop::Made
            }
            WaitStatus::PtraceEvent(_, signal, _) | WaitStatus::Stopped(_, signal) => Stop::Signal(signal),
            WaitStatus::Exited(_, code) => Stop::Exited(code),
            WaitStatus::Signaled(_, signal, _) => Stop::Killed(signal),
            other => panic!("an unlikely state: {other:?}"),
        }
    }

    pub(super) fn registers(&self) -> libc::user_regs_struct {
        ptrace::getregs(self.pid).unwrap()
    }

    pub(super) fn set_registers(&self, registers: libc::user_regs_struct) {
        ptrace::setregs(self.pid, registers).unwrap();
    }

    /// The registers of the floating-point unit, the low halves of the vector registers among them.
    pub(super) fn vectors(&self) -> Vec<u8> {
        let state = ptrace::getregset::<ptrace::regset::NT_PRFPREG>(self.pid).unwrap();
        state.xmm_space.iter().chain(&state.st_space).flat_map(|word| word.to_le_bytes()).collect()
    }

    pub(super) fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_exact_at(&mut bytes, address).unwrap();
        bytes
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, address).unwrap();
    }

    /// Every readable mapping: where it is, what it is called, what is in it.
    pub(super) fn mappings(&self) -> Vec<(u64, String, Vec<u8>)> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap();
        let mut mappings = Vec::new();
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
            let name = fields.nth(3).unwrap_or("anonymous").to_owned();
            // The kernel's own pages hold nothing of the process, and some refuse to be read.
            if !rights.starts_with('r') || ["[vvar]", "[vvar_vclock]", "[vsyscall]"].contains(&&name[..]) {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
            mappings.push((start, name, self.read(start, usize::try_from(end - start).unwrap())));
        }
        mappings
    }

    /// Where the program was loaded.
    pub(super) fn base(&self) -> u64 {
        let program = fs::read_link(format!("/proc/{}/exe", self.pid)).unwrap();
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap();
        let line = maps.lines().find(|line| line.ends_with(program.to_str().unwrap())).unwrap();
        u64::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap()
    }

    /// Makes a process that stands in a system call do another one instead, with the program's own instruction.
    pub(super) fn call(&self, number: libc::c_long, arguments: [u64; 6]) -> Outcome {
        let before = self.registers();
        let mut registers = before;
        registers.rip -= 2;
        assert_eq!(self.read(registers.rip, 2), SYSCALL, "it stands behind a system call");
        registers.rax = number.cast_unsigned();
        // Not a call that was interrupted, which the kernel would begin again.
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = arguments;
        self.set_registers(registers);
        loop {
            match self.step() {
                Stop::Killed(signal) => return Outcome::Killed(signal),
                Stop::Exec => return Outcome::Done(0),
                // The step is done behind the call, which has yet to return.
                Stop::Made => (),
                Stop::Signal(Signal::SIGTRAP) => break,
                other => panic!("system call {number}: {other:?}"),
            }
        }
        let result = self.registers().rax;
        let mut after = before;
        after.orig_rax = u64::MAX;
        self.set_registers(after);
        match i32::try_from(result.cast_signed()) {
            Ok(error @ -4095..=-1) => Outcome::Refused(Errno::from_raw(-error)),
            _ => Outcome::Done(result),
        }
    }
}
const SYSCALL: [u8; 2] = [0x0f, 0x05];
