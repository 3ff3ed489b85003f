//! What somebody who has taken over the helper would try.
//!
//! Each is one or more system calls, made by the helper itself in the middle of a flow: it holds the parent's socket as
//! 0, Fulcio's as 3, the token and the key.

use std::fs;
use std::net::SocketAddr;

use signer_keyless::wire::Layer;

/// Where the attempts are made.
pub(super) struct Scene {
    /// Another process of root's, which is what the parent is to the helper in the worst case.
    pub(super) victim: u32,
    /// A server on loopback that the helper has no business with.
    pub(super) elsewhere: SocketAddr,
    /// Memory of the helper that is free to use.
    pub(super) scratch: u64,
}

/// A way out.
pub(super) struct Attempt {
    pub(super) name: &'static str,
    /// Which layers stand behind the filter, at least.
    pub(super) behind: &'static [Layer],
    pub(super) calls: Vec<Call>,
}

/// One system call.
pub(super) struct Call {
    pub(super) number: libc::c_long,
    pub(super) arguments: Vec<Argument>,
}

pub(super) enum Argument {
    Number(u64),
    /// What the call before returned.
    Last,
    /// A pointer to these bytes; the first of a call is at [`Scene::scratch`].
    Bytes(Vec<u8>),
}

use Argument::{Bytes, Last, Number};

const NONE: &[Layer] = &[];
const LANDLOCK: &[Layer] = &[Layer::Landlock];
const LIMITS: &[Layer] = &[Layer::Limits];
/// No descriptor is left, and Landlock would refuse if there were.
const FILES: &[Layer] = &[Layer::Limits, Layer::Landlock];
const POWERLESS: &[Layer] = &[Layer::Capabilities];

/// All of them.
pub(super) fn attempts(scene: &Scene) -> Vec<Attempt> {
    [files(scene), sockets(scene), processes(scene), memory(scene), rights(scene), descriptors(scene)]
        .into_iter()
        .flatten()
        .collect()
}

fn files(scene: &Scene) -> Vec<Attempt> {
    let cwd = number(libc::AT_FDCWD);
    let path = |path: &str| Bytes([path.as_bytes(), b"\0"].concat());
    let how = || Bytes([0_u64.to_ne_bytes(), 0_u64.to_ne_bytes(), 0_u64.to_ne_bytes()].concat());
    let scratch_file = format!("/tmp/signer-keyless-escape-{}", scene.victim);
    vec![
        one("open a file", FILES, libc::SYS_open, vec![path("/etc/passwd"), number(libc::O_RDONLY), Number(0)]),
        one("openat a file", FILES, libc::SYS_openat, vec![cwd, path("/etc/hostname"), number(libc::O_RDONLY)]),
        one(
            "openat2 a file",
            FILES,
            libc::SYS_openat2,
            vec![number(libc::AT_FDCWD), path("/etc/passwd"), how(), Number(24)],
        ),
        one("creat a file", FILES, libc::SYS_creat, vec![path(&scratch_file), Number(0o600)]),
        one("open /proc/self/mem to write", FILES, libc::SYS_open, vec![path("/proc/self/mem"), number(libc::O_RDWR)]),
        one("open a directory", FILES, libc::SYS_open, vec![path("/"), number(libc::O_DIRECTORY)]),
        one("make a directory", LANDLOCK, libc::SYS_mkdir, vec![path("/tmp/signer-keyless-escape"), Number(0o700)]),
        one("remove a file", LANDLOCK, libc::SYS_unlink, vec![path(&scratch_file)]),
        one("make a symbolic link", LANDLOCK, libc::SYS_symlink, vec![path("/etc/shadow"), path(&scratch_file)]),
        one("truncate a file", LANDLOCK, libc::SYS_truncate, vec![path("/tmp"), Number(0)]),
        one("look at a file", NONE, libc::SYS_stat, vec![path("/etc/shadow"), Bytes(vec![0; 256])]),
        one(
            "mount",
            &[Layer::Landlock],
            libc::SYS_mount,
            vec![path("none"), path("/proc"), path("nosuchfs"), Number(0), Number(0)],
        ),
        one("chroot", POWERLESS, libc::SYS_chroot, vec![path("/")]),
    ]
}

fn sockets(scene: &Scene) -> Vec<Attempt> {
    let SocketAddr::V4(elsewhere) = scene.elsewhere else { unreachable!("it listens on 127.0.0.1") };
    let address = || {
        let family = u16::try_from(libc::AF_INET).unwrap().to_ne_bytes();
        Bytes([&family[..], &elsewhere.port().to_be_bytes(), &elsewhere.ip().octets(), &[0; 8]].concat())
    };
    let nobody = || Bytes(vec![0; 16]);
    let disconnect = || call(libc::SYS_connect, vec![Number(FULCIO), nobody(), Number(16)]);
    let socket = |family, kind| vec![number(family), number(kind), Number(0)];
    vec![
        one("socket AF_INET", LIMITS, libc::SYS_socket, socket(libc::AF_INET, libc::SOCK_STREAM)),
        one("socket AF_INET6, datagrams", LIMITS, libc::SYS_socket, socket(libc::AF_INET6, libc::SOCK_DGRAM)),
        one("socket AF_UNIX", LIMITS, libc::SYS_socket, socket(libc::AF_UNIX, libc::SOCK_STREAM)),
        one("socket AF_NETLINK", LIMITS, libc::SYS_socket, socket(libc::AF_NETLINK, libc::SOCK_RAW)),
        one(
            "socketpair",
            LIMITS,
            libc::SYS_socketpair,
            vec![number(libc::AF_UNIX), number(libc::SOCK_STREAM), Number(0), Bytes(vec![0; 8])],
        ),
        Attempt {
            name: "connect Fulcio's socket elsewhere, after AF_UNSPEC",
            behind: LANDLOCK,
            calls: vec![disconnect(), call(libc::SYS_connect, vec![Number(FULCIO), address(), Number(16)])],
        },
        Attempt {
            name: "sendto elsewhere with MSG_FASTOPEN, after AF_UNSPEC",
            behind: NONE,
            calls: vec![
                disconnect(),
                call(
                    libc::SYS_sendto,
                    vec![
                        Number(FULCIO),
                        Bytes(b"token".to_vec()),
                        Number(5),
                        number(libc::MSG_FASTOPEN),
                        address(),
                        Number(16),
                    ],
                ),
            ],
        },
        Attempt {
            name: "bind Fulcio's socket, after AF_UNSPEC",
            behind: LANDLOCK,
            calls: vec![disconnect(), call(libc::SYS_bind, vec![Number(FULCIO), any_port(), Number(16)])],
        },
        Attempt {
            name: "listen on Fulcio's socket, after AF_UNSPEC",
            behind: NONE,
            calls: vec![disconnect(), call(libc::SYS_listen, vec![Number(FULCIO), Number(1)])],
        },
        one("shut down Fulcio's socket", NONE, libc::SYS_shutdown, vec![Number(FULCIO), Number(2)]),
        one(
            "ask where Fulcio's socket leads",
            NONE,
            libc::SYS_getpeername,
            vec![Number(FULCIO), Bytes(vec![0; 16]), Bytes(16_u64.to_ne_bytes().to_vec())],
        ),
        one(
            "set an option of Fulcio's socket",
            NONE,
            libc::SYS_setsockopt,
            vec![
                Number(FULCIO),
                number(libc::SOL_SOCKET),
                number(libc::SO_KEEPALIVE),
                Bytes(1_u32.to_ne_bytes().to_vec()),
                Number(4),
            ],
        ),
        one(
            "pass Fulcio's socket out with sendmsg",
            NONE,
            libc::SYS_sendmsg,
            vec![Number(0), pass_out(scene.scratch), Number(0)],
        ),
        one(
            "sendto the parent",
            NONE,
            libc::SYS_sendto,
            vec![Number(0), Bytes(vec![0]), Number(1), Number(0), Number(0), Number(0)],
        ),
        one(
            "write to Fulcio with sendmsg",
            NONE,
            libc::SYS_sendmsg,
            vec![Number(FULCIO), empty_message(scene.scratch), Number(0)],
        ),
        one("read the parent's socket with read", NONE, libc::SYS_read, vec![Number(0), Bytes(vec![0]), Number(0)]),
        one("write to standard error", NONE, libc::SYS_write, vec![Number(2), Bytes(b"token".to_vec()), Number(5)]),
    ]
}

fn processes(scene: &Scene) -> Vec<Attempt> {
    let victim = || Number(scene.victim.into());
    let empty = || Bytes(vec![0; 8]);
    let maps = fs::read_to_string(format!("/proc/{}/maps", scene.victim)).unwrap();
    let mapped = u64::from_str_radix(maps.split_once('-').unwrap().0, 16).unwrap();
    let here = [scene.scratch + 64, 4].map(u64::to_ne_bytes).concat();
    let there = [mapped, 4].map(u64::to_ne_bytes).concat();
    // The two vectors, and room behind them.
    let vectors = || Bytes([&here[..], &there, &[0; 64]].concat());
    let across =
        |number| call(number, vec![victim(), vectors(), Number(1), Number(scene.scratch + 16), Number(1), Number(0)]);
    let program = || Bytes(b"/bin/true\0".to_vec());
    let clone3 = [0, 0, 0, 0, u64::try_from(libc::SIGCHLD).unwrap(), 0, 0, 0].map(u64::to_ne_bytes).concat();
    let scoped: &[Layer] = &[Layer::Landlock, Layer::Unprivileged];
    vec![
        one("execve", LANDLOCK, libc::SYS_execve, vec![program(), empty(), empty()]),
        one(
            "execveat",
            LANDLOCK,
            libc::SYS_execveat,
            vec![number(libc::AT_FDCWD), program(), empty(), empty(), Number(0)],
        ),
        one("fork", LIMITS, libc::SYS_fork, vec![]),
        one("vfork", LIMITS, libc::SYS_vfork, vec![]),
        one("clone", LIMITS, libc::SYS_clone, vec![number(libc::SIGCHLD), Number(0), Number(0), Number(0), Number(0)]),
        one("clone3", LIMITS, libc::SYS_clone3, vec![Bytes(clone3), Number(64)]),
        one(
            "ptrace another process",
            scoped,
            libc::SYS_ptrace,
            vec![Number(libc::PTRACE_SEIZE.into()), victim(), Number(0), Number(0)],
        ),
        Attempt {
            name: "read another process's memory",
            behind: scoped,
            calls: vec![across(libc::SYS_process_vm_readv)],
        },
        Attempt {
            name: "write another process's memory",
            behind: scoped,
            calls: vec![across(libc::SYS_process_vm_writev)],
        },
        one("kill", scoped, libc::SYS_kill, vec![victim(), Number(0)]),
        one("tgkill", scoped, libc::SYS_tgkill, vec![victim(), victim(), Number(0)]),
        one(
            "rt_sigqueueinfo",
            NONE,
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
        one("setpriority of another process", NONE, libc::SYS_getpriority, vec![Number(0), victim()]),
        one(
            "sched_setaffinity of another process",
            NONE,
            libc::SYS_sched_getaffinity,
            vec![victim(), Number(8), Bytes(vec![0; 128])],
        ),
    ]
}

fn memory(scene: &Scene) -> Vec<Attempt> {
    let anonymous = |protection: libc::c_int| {
        vec![
            Number(0),
            Number(4096),
            number(protection),
            number(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
            Number(u64::MAX),
            Number(0),
        ]
    };
    let read_write_execute = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let page = scene.scratch & !4095;
    vec![
        one("map memory to write and execute", LIMITS, libc::SYS_mmap, anonymous(read_write_execute)),
        one("map memory to execute", NONE, libc::SYS_mmap, anonymous(libc::PROT_READ | libc::PROT_EXEC)),
        one("map memory to write", LIMITS, libc::SYS_mmap, anonymous(libc::PROT_READ | libc::PROT_WRITE)),
        one(
            "make the stack executable",
            NONE,
            libc::SYS_mprotect,
            vec![Number(page), Number(4096), number(read_write_execute)],
        ),
        Attempt {
            name: "memfd_create and map it to execute",
            behind: LIMITS,
            calls: vec![
                call(libc::SYS_memfd_create, vec![Bytes(b"m\0".to_vec()), Number(0)]),
                call(
                    libc::SYS_mmap,
                    vec![
                        Number(0),
                        Number(4096),
                        number(libc::PROT_READ | libc::PROT_EXEC),
                        number(libc::MAP_SHARED),
                        Last,
                        Number(0),
                    ],
                ),
            ],
        },
        one("memfd_secret", LIMITS, libc::SYS_memfd_secret, vec![Number(0)]),
        one("mremap", NONE, libc::SYS_mremap, vec![Number(page), Number(4096), Number(4096), Number(0)]),
        one("madvise", NONE, libc::SYS_madvise, vec![Number(page), Number(4096), number(libc::MADV_DODUMP)]),
        one(
            "System V shared memory",
            NONE,
            libc::SYS_shmget,
            vec![number(libc::IPC_PRIVATE), Number(4096), Number(0o600)],
        ),
        one("System V message queue", NONE, libc::SYS_msgget, vec![number(libc::IPC_PRIVATE), Number(0o600)]),
        one("System V semaphores", NONE, libc::SYS_semget, vec![number(libc::IPC_PRIVATE), Number(1), Number(0o600)]),
        one("userfaultfd", LIMITS, libc::SYS_userfaultfd, vec![Number(1)]),
    ]
}

fn rights(scene: &Scene) -> Vec<Attempt> {
    let caps = || Bytes([0x2008_0522, 0].map(u32::to_ne_bytes).concat());
    let all = || Bytes([0x00ff_ffff_u32, 0x00ff_ffff, 0, 0, 0, 0].map(u32::to_ne_bytes).concat());
    let limit = || Bytes([1024_u64; 2].map(u64::to_ne_bytes).concat());
    let _ = scene;
    vec![
        one(
            "prctl: become dumpable",
            NONE,
            libc::SYS_prctl,
            vec![number(libc::PR_SET_DUMPABLE), Number(1), Number(0), Number(0), Number(0)],
        ),
        one(
            "raise the limit of descriptors",
            LIMITS,
            libc::SYS_setrlimit,
            vec![Number(libc::RLIMIT_NOFILE.into()), limit()],
        ),
        one(
            "prlimit64: raise the limit of processes",
            LIMITS,
            libc::SYS_prlimit64,
            vec![Number(0), Number(libc::RLIMIT_NPROC.into()), limit(), Number(0)],
        ),
        one("setuid root", POWERLESS, libc::SYS_setresuid, vec![Number(0), Number(0), Number(0)]),
        one("setgid root", POWERLESS, libc::SYS_setresgid, vec![Number(0), Number(0), Number(0)]),
        one("take groups", POWERLESS, libc::SYS_setgroups, vec![Number(1), Bytes(0_u32.to_ne_bytes().to_vec())]),
        one("take capabilities", POWERLESS, libc::SYS_capset, vec![caps(), all()]),
        one("unshare: a mount namespace", POWERLESS, libc::SYS_unshare, vec![number(libc::CLONE_NEWNS)]),
        Attempt {
            name: "setns: enter another process's namespaces",
            behind: LIMITS,
            calls: vec![
                call(libc::SYS_pidfd_open, vec![Number(scene.victim.into()), Number(0)]),
                call(libc::SYS_setns, vec![Last, number(libc::CLONE_NEWUTS)]),
            ],
        },
        one("keyctl: the session's keys", NONE, libc::SYS_keyctl, vec![Number(0), Number(u64::MAX - 2), Number(1)]),
        one(
            "add_key",
            NONE,
            libc::SYS_add_key,
            vec![
                Bytes(b"user\0".to_vec()),
                Bytes(b"escape\0".to_vec()),
                Bytes(b"token".to_vec()),
                Number(5),
                Number(u64::MAX),
            ],
        ),
        one(
            "bpf: load a map",
            LIMITS,
            libc::SYS_bpf,
            vec![Number(0), Bytes([1_u32, 4, 8, 1].map(u32::to_ne_bytes).concat()), Number(16)],
        ),
        one(
            "perf_event_open",
            LIMITS,
            libc::SYS_perf_event_open,
            vec![Bytes(perf()), Number(0), Number(u64::MAX), Number(u64::MAX), Number(0)],
        ),
        one(
            "reboot, with a wrong magic number",
            POWERLESS,
            libc::SYS_reboot,
            vec![Number(0), Number(0), Number(0), Number(0)],
        ),
        one(
            "unload a kernel module that is none",
            POWERLESS,
            libc::SYS_delete_module,
            vec![Bytes(b"no_such_module\0".to_vec()), Number(0)],
        ),
        one(
            "another filter",
            NONE,
            libc::SYS_seccomp,
            vec![Number(2), Number(0), Bytes(0x7fff_0000_u32.to_ne_bytes().to_vec())],
        ),
        one("personality: addresses that are not random", NONE, libc::SYS_personality, vec![Number(0x0004_0000)]),
        one(
            "handle a signal",
            NONE,
            libc::SYS_rt_sigaction,
            vec![number(libc::SIGUSR1), Number(0), Bytes(vec![0; 64]), Number(8)],
        ),
        one("getrandom with GRND_RANDOM", NONE, libc::SYS_getrandom, vec![Bytes(vec![0; 8]), Number(1), Number(2)]),
    ]
}

fn descriptors(scene: &Scene) -> Vec<Attempt> {
    let _ = scene;
    vec![
        one("dup", LIMITS, libc::SYS_dup, vec![Number(FULCIO)]),
        one("dup2", LIMITS, libc::SYS_dup2, vec![Number(FULCIO), Number(9)]),
        one(
            "fcntl: dup, and change flags",
            LIMITS,
            libc::SYS_fcntl,
            vec![Number(FULCIO), number(libc::F_DUPFD), Number(0)],
        ),
        one("ioctl", NONE, libc::SYS_ioctl, vec![Number(FULCIO), Number(libc::FIONREAD), Bytes(vec![0; 8])]),
        one("pipe", LIMITS, libc::SYS_pipe2, vec![Bytes(vec![0; 8]), Number(0)]),
        one("eventfd", LIMITS, libc::SYS_eventfd2, vec![Number(0), Number(0)]),
        one("epoll_create1", LIMITS, libc::SYS_epoll_create1, vec![Number(0)]),
        one("inotify_init1", LIMITS, libc::SYS_inotify_init1, vec![Number(0)]),
        one("signalfd", LIMITS, libc::SYS_signalfd4, vec![Number(u64::MAX), Bytes(vec![0; 8]), Number(8), Number(0)]),
        one("timerfd_create", LIMITS, libc::SYS_timerfd_create, vec![Number(1), Number(0)]),
        one("io_uring_setup", LIMITS, libc::SYS_io_uring_setup, vec![Number(1), Bytes(vec![0; 120])]),
        one(
            "landlock_create_ruleset",
            LIMITS,
            libc::SYS_landlock_create_ruleset,
            vec![Bytes(1_u64.to_ne_bytes().to_vec()), Number(8), Number(0)],
        ),
        one("close the parent's socket", NONE, libc::SYS_close, vec![Number(0)]),
    ]
}

fn one(name: &'static str, behind: &'static [Layer], number: libc::c_long, arguments: Vec<Argument>) -> Attempt {
    Attempt { name, behind, calls: vec![call(number, arguments)] }
}

fn call(number: libc::c_long, arguments: Vec<Argument>) -> Call {
    Call { number, arguments }
}

fn number(value: libc::c_int) -> Argument {
    Number(i64::from(value).cast_unsigned())
}

fn any_port() -> Argument {
    let family = u16::try_from(libc::AF_INET).unwrap().to_ne_bytes();
    Bytes([&family[..], &[0, 0], &[127, 0, 0, 1], &[0; 8]].concat())
}

/// A `msghdr` at its beginning, then one byte of data, then a control message with the Fulcio socket.
fn pass_out(at: u64) -> Argument {
    let (vector, byte, control) = (at + 56, at + 72, at + 80);
    let header = [0, 0, vector, 1, control, 24, 0].map(u64::to_ne_bytes).concat();
    let vector = [byte, 1].map(u64::to_ne_bytes).concat();
    let rights = [20_u64.to_ne_bytes().to_vec(), [1_u32, 1, 3, 0].map(u32::to_ne_bytes).concat()].concat();
    Bytes([header, vector, vec![0; 8], rights].concat())
}

/// The same without anything that comes along.
fn empty_message(at: u64) -> Argument {
    let header = [0, 0, at + 56, 1, 0, 0, 0].map(u64::to_ne_bytes).concat();
    Bytes([header, [at + 72, 1].map(u64::to_ne_bytes).concat(), vec![0; 8]].concat())
}

/// `struct perf_event_attr` of a software event that counts the process's own page faults.
fn perf() -> Vec<u8> {
    let mut attributes = vec![0; 112];
    attributes[0] = 1;
    attributes[4] = 112;
    attributes[8] = 2;
    attributes
}

const FULCIO: u64 = 3;
