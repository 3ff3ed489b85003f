//! As root these tests serve the socket as other users, which is what they are about; else as their own user alone.

#![allow(clippy::unwrap_used)]

use std::fs::{Permissions, set_permissions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::super::handshake::connect;
use super::*;
use crate::custody::wire::{Hello, Reply, encode_reply};

/// Set for the process that serves.
const SERVES: &str = "SIGNER_TEST_SERVES_SOCKET";

const WORKER: u32 = 65_534;
const STRANGER: u32 = 1;

/// The rest of [`Activated::served_by`]: a process of its own, which answers one hello.
#[test]
fn serves_the_socket_that_it_was_given() {
    if std::env::var_os(SERVES).is_none() {
        return;
    }
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    assert!(stream.read(&mut [0; 256]).unwrap() > 0, "the front's hello");
    let mut hello = Vec::new();
    encode_reply(0, &Reply::Hello(Hello::new("main")), &mut hello);
    stream.write_all(&hello).unwrap();
    let _ = stream.read(&mut [0; 1]);
}

/// A socket on which this process, root, listens, as the service manager does.
struct Activated {
    dir: tempfile::TempDir,
    listener: UnixListener,
}

/// Ended when the test is.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Activated {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let listener = UnixListener::bind(dir.path().join("t.sock")).unwrap();
        let socket = Self { dir, listener };
        set_permissions(socket.path(), Permissions::from_mode(0o660)).unwrap();
        socket
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("t.sock")
    }

    /// Another process of this user takes over the listening socket.
    fn served_by(&self, uid: u32) -> Served {
        let test = "custody::client::peer::tests::serves_the_socket_that_it_was_given";
        let socket: OwnedFd = self.listener.as_fd().try_clone_to_owned().unwrap();
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", test, "--nocapture"]).env_clear().env(SERVES, "1");
        command.stdin(Stdio::from(socket)).stdout(Stdio::null());
        if uid != own() {
            command.uid(uid).gid(uid);
        }
        Served(command.spawn().unwrap())
    }

    async fn connect(&self, path: PathBuf, worker: u32) -> Result<(), LinkError> {
        connect(&Link::new("main".into(), path, worker)).await.map(drop)
    }
}

fn own() -> u32 {
    nix::unistd::getuid().as_raw()
}

#[tokio::test]
async fn behind_the_service_manager_s_socket_the_worker_s_user_must_answer() {
    let (worker, strangers) = if own() == ROOT { (WORKER, vec![STRANGER, ROOT]) } else { (own(), vec![]) };
    let socket = Activated::new();
    let served = socket.served_by(worker);
    socket.connect(socket.path(), worker).await.unwrap();
    drop(served);
    for stranger in strangers {
        let _served = socket.served_by(stranger);
        let error = socket.connect(socket.path(), worker).await.unwrap_err();
        assert!(matches!(error, LinkError::Peer { found, .. } if found == stranger), "{error}");
    }
}

#[tokio::test]
async fn who_listens_is_the_worker_or_root_and_nobody_else() {
    let socket = Activated::new();
    if own() == ROOT {
        assert!(objection(&socket.path(), Seen::As(WORKER)).unwrap().is_none());
        return;
    }
    let error = socket.connect(socket.path(), own() + 1).await.unwrap_err();
    assert!(matches!(error, LinkError::Peer { found, .. } if found == own()), "{error}");
}

#[test]
fn a_socket_that_others_could_have_put_there_is_not_the_service_manager_s() {
    let socket = Activated::new();
    let refused = |path: &Path, word: &str| {
        let why = objection(path, Seen::As(own())).unwrap().unwrap_or_default();
        assert!(why.contains(word), "{}: {why:?}", path.display());
    };
    assert_eq!(objection(&socket.path(), Seen::As(own())).unwrap(), None);
    let link = socket.dir.path().join("link.sock");
    std::os::unix::fs::symlink(socket.path(), &link).unwrap();
    refused(&link, "a link");
    set_permissions(socket.path(), Permissions::from_mode(0o666)).unwrap();
    refused(&socket.path(), "0666");
    set_permissions(socket.path(), Permissions::from_mode(0o660)).unwrap();
    for mode in [0o777, 0o775] {
        set_permissions(socket.dir.path(), Permissions::from_mode(mode)).unwrap();
        refused(&socket.path(), "can change");
    }
}

#[tokio::test]
async fn what_was_sent_before_anybody_asked_is_no_answer() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut early = Vec::new();
    encode_reply(0, &Reply::Hello(Hello::new("main")), &mut early);
    (&theirs).write_all(&early).unwrap();
    ours.set_nonblocking(true).unwrap();
    let ours = UnixStream::from_std(ours).unwrap();
    let link = Link::new("main".into(), "/none".into(), own());
    admit(&link, &ours).unwrap();
    let error = read_from(&link, &ours, &mut [0; 256]).await.unwrap_err();
    assert!(matches!(error, LinkError::Hello(_) | LinkError::Peer { .. }), "{error}");
}

#[test]
fn a_user_that_a_namespace_does_not_have_looks_like_all_others() {
    for (map, seen) in [
        ("", Seen::As(995)),
        ("         0          0 4294967295\n", Seen::As(995)),
        ("0 0 1\n996 996 1\n", Seen::Unmapped),
        ("0 0 1\n995 995 1\n", Seen::As(995)),
        ("0 100000 996\n", Seen::As(995)),
        ("996 100000 65536\n", Seen::Unmapped),
    ] {
        assert_eq!(Seen::by(995, map), seen, "{map:?}");
    }
    assert!(Seen::Unmapped.is(OVERFLOW) && !Seen::Unmapped.is(ROOT) && !Seen::Unmapped.is(996));
    let socket = Activated::new();
    let by_others = if own() == ROOT { None } else { Some(()) };
    let why = objection(&socket.path(), Seen::Unmapped).unwrap();
    assert_eq!(why.is_some(), by_others.is_some(), "only root's file is believed: {why:?}");
}
