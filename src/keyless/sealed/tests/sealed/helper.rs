//! The parent's side: starts a helper, sends it a job with a socket, reads what it says.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use signer_keyless::wire::{
    Bounds, FromHelper, HEADER, Job, Layer, MAX_FROM_HELPER, Sealed, ToHelper, Token, Transport, arguments,
    body_length, decode_from_helper, encode_to_helper,
};

use crate::fulcio::Fulcio;

/// A token whose claims are found nowhere else.
pub(crate) const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6Imluc3RhbGxhdGlvbi03In0.\
    eyJpc3MiOiJodHRwczovL2F1dGhvcml0eS5leGFtcGxlIiwic3ViIjoic3BpZmZlOi8vc3RlbGxhL3NpZ25lciIsImp0aSI6IjhmM2M5ZTdhIn0.\
    q3Zx1mPvK8tYw2sNcRgHdLfJb0eUaXiT7oVnQyWzMkE4pS9uCjBhG6rD5lFvZtOaXy1NwKqRmTcUeHsPbIgJ3Q";

pub(crate) struct Helper {
    pub(crate) child: Child,
    pub(crate) control: UnixStream,
}

/// The build that cargo made with these tests.
pub(crate) fn debug_build() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_signer-keyless"))
}

impl Helper {
    /// Starts it, sealed but for these layers.
    pub(crate) fn start(program: &Path, without: &[Layer]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments(without.iter().copied().collect())).env_clear();
        Self::from(&mut command)
    }

    /// Starts whatever it is with a control socket as standard input.
    pub(crate) fn from(command: &mut Command) -> Self {
        let (control, theirs) = UnixStream::pair().unwrap();
        control.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), control }
    }

    /// What it says next; none at the end.
    pub(crate) fn hear(&mut self) -> Option<FromHelper> {
        let mut header = [0; HEADER];
        self.control.read_exact(&mut header).ok()?;
        let mut body = vec![0; body_length(header, MAX_FROM_HELPER).unwrap()];
        self.control.read_exact(&mut body).unwrap();
        Some(decode_from_helper(&body).unwrap())
    }

    pub(crate) fn sealed(&mut self) -> Sealed {
        match self.hear() {
            Some(FromHelper::Sealed(sealed)) => sealed,
            other => panic!("not sealed: {other:?}"),
        }
    }

    pub(crate) fn say(&mut self, message: &ToHelper<'_>) {
        self.control.write_all(&encode_to_helper(message).unwrap()).unwrap();
    }

    /// Sends bytes with these sockets attached to the first.
    pub(crate) fn pass(&mut self, bytes: &[u8], sockets: &[&TcpStream]) {
        let fds: Vec<_> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let sent = sendmsg::<()>(
            self.control.as_raw_fd(),
            &[IoSlice::new(bytes)],
            if fds.is_empty() { &[] } else { &rights },
            MsgFlags::empty(),
            None,
        );
        self.control.write_all(&bytes[sent.unwrap()..]).unwrap();
    }

    /// Connects to this Fulcio and sends a job for it.
    pub(crate) fn work(&mut self, fulcio: &Fulcio, adapt: impl FnOnce(&mut Job<'_>)) {
        self.pass(&job(fulcio, adapt), &[&fulcio.connect()]);
    }

    pub(crate) fn end(mut self) -> ExitStatus {
        drop(self.control);
        self.child.wait().unwrap()
    }
}

/// The frame of a job for this Fulcio.
pub(crate) fn job(fulcio: &Fulcio, adapt: impl FnOnce(&mut Job<'_>)) -> Vec<u8> {
    let tls = Transport::Tls { server_name: "fulcio.test", roots: vec![&fulcio.root] };
    let mut job = Job {
        transport: if fulcio.is_plain() { Transport::PlainLoopback } else { tls },
        authority: "fulcio.test",
        path: "/api/v2/signingCert",
        token: Token::new(TOKEN).unwrap(),
        digest: DIGEST,
        bounds: Bounds { answer: 64 * 1024, signatures: 1 },
    };
    adapt(&mut job);
    encode_to_helper(&ToHelper::Job(job)).unwrap().to_vec()
}

/// What is signed.
pub(crate) const DIGEST: [u8; 32] = *b"thirty-two bytes of a digest....";
