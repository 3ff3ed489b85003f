//! New sockets, and what else could be done with the two that there are.

use std::net::SocketAddr;

use super::Argument::{Bytes, Number};
use super::{Argument, Attempt, FULCIO, LANDLOCK, LIMITS, NONE, Scene, call, number, one};

pub(super) fn sockets(scene: &Scene) -> Vec<Attempt> {
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
