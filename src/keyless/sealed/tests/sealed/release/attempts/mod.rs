//! What somebody who has taken over the helper would try.
//!
//! Each is one or more system calls, made by the helper itself in the middle of a flow: it holds the parent's socket as
//! 0, Fulcio's as 3, the token and the key.

mod files;
mod itself;
mod processes;
mod sockets;

use std::net::SocketAddr;
use std::path::PathBuf;

use signer_keyless::wire::Layer;

/// Where the attempts are made.
pub(super) struct Scene {
    /// A directory in which everybody may do what they like, with a `file` of everybody's in it.
    pub(super) directory: PathBuf,
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
    pub(super) behind: Behind,
    pub(super) calls: Vec<Call>,
}

/// What stands behind the filter, at least.
#[derive(Clone, Copy)]
pub(super) enum Behind {
    /// Nothing that every kernel has.
    Nothing,
    /// The other layers together refuse it.
    Together,
    /// Each of these refuses it with no other layer in force.
    Each(&'static [Layer]),
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

const NONE: Behind = Behind::Nothing;
const TOGETHER: Behind = Behind::Together;
const LANDLOCK: Behind = Behind::Each(&[Layer::Landlock]);
const LIMITS: Behind = Behind::Each(&[Layer::Limits]);
const FILES: Behind = Behind::Each(&[Layer::Limits, Layer::Landlock]);
const POWERLESS: Behind = Behind::Each(&[Layer::Capabilities, Layer::Unprivileged]);
/// Another process, which is in no domain of Landlock's and somebody else's.
const OTHERS: Behind = Behind::Each(&[Layer::Landlock, Layer::Unprivileged]);

/// All of them.
pub(super) fn attempts(scene: &Scene) -> Vec<Attempt> {
    [
        files::files(scene),
        sockets::sockets(scene),
        processes::processes(scene),
        itself::memory(scene),
        itself::rights(scene),
        itself::descriptors(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn one(name: &'static str, behind: Behind, number: libc::c_long, arguments: Vec<Argument>) -> Attempt {
    Attempt { name, behind, calls: vec![call(number, arguments)] }
}

fn call(number: libc::c_long, arguments: Vec<Argument>) -> Call {
    Call { number, arguments }
}

fn number(value: libc::c_int) -> Argument {
    Argument::Number(i64::from(value).cast_unsigned())
}

const FULCIO: u64 = 3;
