//! Other programs and other processes.

use std::fs;

use signer_keyless::wire::Layer;

use super::Argument::{Bytes, Last, Number};
use super::{Attempt, Behind, LANDLOCK, LIMITS, OTHERS, Scene, TOGETHER, call, number, one};

pub(super) fn processes(scene: &Scene) -> Vec<Attempt> {
    let victim = || Number(scene.victim.into());
    let empty = || Bytes(vec![0; 8]);
    let maps = fs::read_to_string(format!("/proc/{}/maps", scene.victim)).unwrap();
    // The far end of its stack.
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
    let mapped = u64::from_str_radix(stack.split_once('-').unwrap().0, 16).unwrap();
    let here = [scene.scratch + 64, 4].map(u64::to_ne_bytes).concat();
    let there = [mapped, 4].map(u64::to_ne_bytes).concat();
    // The two vectors, and room behind them.
    let vectors = || Bytes([&here[..], &there, &[0; 64]].concat());
    let across =
        |number| call(number, vec![victim(), vectors(), Number(1), Number(scene.scratch + 16), Number(1), Number(0)]);
    let program = || Bytes(b"/bin/true\0".to_vec());
    let clone3 = [0, 0, 0, 0, u64::try_from(libc::SIGCHLD).unwrap(), 0, 0, 0].map(u64::to_ne_bytes).concat();
    vec![
        one("execve", LANDLOCK, libc::SYS_execve, vec![program(), empty(), empty()]),
        one(
            "execveat",
            LANDLOCK,
            libc::SYS_execveat,
            vec![number(libc::AT_FDCWD), program(), empty(), empty(), Number(0)],
        ),
        one("fork", TOGETHER, libc::SYS_fork, vec![]),
        one("vfork", TOGETHER, libc::SYS_vfork, vec![]),
        one(
            "clone",
            TOGETHER,
            libc::SYS_clone,
            vec![number(libc::SIGCHLD), Number(0), Number(0), Number(0), Number(0)],
        ),
        one("clone3", TOGETHER, libc::SYS_clone3, vec![Bytes(clone3), Number(64)]),
        one(
            "ptrace another process",
            OTHERS,
            libc::SYS_ptrace,
            vec![Number(libc::PTRACE_SEIZE.into()), victim(), Number(0), Number(0)],
        ),
        Attempt {
            name: "read another process's memory",
            behind: OTHERS,
            calls: vec![across(libc::SYS_process_vm_readv)],
        },
        Attempt {
            name: "write another process's memory",
            behind: OTHERS,
            calls: vec![across(libc::SYS_process_vm_writev)],
        },
        one("kill", OTHERS, libc::SYS_kill, vec![victim(), Number(0)]),
        one("tgkill", OTHERS, libc::SYS_tgkill, vec![victim(), victim(), Number(0)]),
        one(
            "rt_sigqueueinfo",
            OTHERS,
            libc::SYS_rt_sigqueueinfo,
            vec![
                victim(),
                Number(0),
                Bytes([0, 0, -1_i32].map(i32::to_ne_bytes).concat().into_iter().chain([0; 116]).collect()),
            ],
        ),
        one("pidfd_open", LIMITS, libc::SYS_pidfd_open, vec![victim(), Number(0)]),
        Attempt {
            name: "pidfd_send_signal",
            behind: LIMITS,
            calls: vec![
                call(libc::SYS_pidfd_open, vec![victim(), Number(0)]),
                call(libc::SYS_pidfd_send_signal, vec![Last, Number(0), Number(0), Number(0)]),
            ],
        },
        Attempt {
            name: "pidfd_getfd: take a descriptor of another process",
            behind: LIMITS,
            calls: vec![
                call(libc::SYS_pidfd_open, vec![victim(), Number(0)]),
                call(libc::SYS_pidfd_getfd, vec![Last, Number(0), Number(0)]),
            ],
        },
        one(
            "slow another process down",
            Behind::Each(&[Layer::Unprivileged]),
            libc::SYS_setpriority,
            vec![Number(0), victim(), Number(5)],
        ),
        one(
            "pin another process to a processor",
            Behind::Each(&[Layer::Unprivileged]),
            libc::SYS_sched_setaffinity,
            vec![victim(), Number(8), Bytes(1_u64.to_ne_bytes().to_vec())],
        ),
    ]
}
