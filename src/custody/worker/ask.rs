//! Asks an operator for the PIN, for a worker whose unit has it by a socket: `LoadCredential=pin:/…/pin-NAME.sock`
//! (systemd.exec(5)). The service manager connects before it starts the worker, and gives it as a credential what it reads.
//! So the PIN is in no file and on no disk, and each start of the worker takes an operator.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use super::harden;
use crate::custody::token::{Pin, inherited_listener};

/// Answers who connects to the socket that the service manager passed, until nobody has for a while: the next connection
/// starts the next process.
///
/// # Errors
/// When there is no such socket, or nobody can be asked.
pub(super) fn run(name: &str) -> io::Result<()> {
    harden::this_process()?;
    let listener = inherited_listener()?.ok_or_else(|| {
        io::Error::other("this is started by signer-token-pin@NAME.socket, which passes the socket to answer on")
    })?;
    while comes(&listener, IDLE)? {
        let (stream, _) = listener.accept()?;
        let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
        if peer.uid() != 0 {
            eprintln!("signer-token: user {} may not have the PIN; it is for the service manager alone", peer.uid());
            continue;
        }
        answer(stream, name)?;
    }
    Ok(())
}

/// Asks until somebody has answered or nobody waits any more.
fn answer(mut stream: UnixStream, name: &str) -> io::Result<()> {
    // The unit that waits has no program yet that could say so.
    eprintln!("signer-token: the worker of token {name} waits for its PIN; type it: systemd-tty-ask-password-agent");
    while !gone(&stream)? {
        if let Some(pin) = ask(&stream, name)? {
            eprintln!("signer-token: the PIN of token {name} was typed");
            return stream.write_all(pin.expose());
        }
        // Cancelled, or empty.
        std::thread::sleep(LOOK);
    }
    eprintln!("signer-token: nobody has typed the PIN of token {name}; the start of its worker was given up");
    Ok(())
}

/// `None` when there was no PIN in the answer, or who waited for it went away.
fn ask(stream: &UnixStream, name: &str) -> io::Result<Option<Pin>> {
    let mut child = Command::new("systemd-ask-password")
        .args(["--no-tty", "--timeout=0"])
        .arg(format!("--id=signer-token:{name}"))
        .arg(format!("PIN of token {name}:"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("systemd-ask-password cannot be started: {error}")))?;
    let Some(mut output) = child.stdout.take() else { return Ok(None) };
    loop {
        if child.try_wait()?.is_some() {
            return read(&mut output);
        }
        if gone(stream)? {
            end(&mut child);
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn read(output: &mut impl io::Read) -> io::Result<Option<Pin>> {
    let mut bytes = zeroize::Zeroizing::new([0; LONGEST]);
    let mut length = 0;
    while length < LONGEST {
        match output.read(&mut bytes[length..])? {
            0 => break,
            count => length += count,
        }
    }
    let pin = bytes[..length].strip_suffix(b"\n").unwrap_or(&bytes[..length]);
    Ok(Pin::from_bytes(pin))
}

fn end(child: &mut Child) {
    // It may have ended by itself, which is as good.
    let _ = child.kill();
    let _ = child.wait();
}

fn comes(listener: &UnixListener, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], left) {
            Err(nix::errno::Errno::EINTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// Has the other end closed?
fn gone(stream: &UnixStream) -> io::Result<bool> {
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    match poll(&mut watched, PollTimeout::ZERO) {
        Err(nix::errno::Errno::EINTR) => Ok(false),
        ready => Ok(ready? > 0),
    }
}

const IDLE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// One byte more than the longest PIN, and a line feed.
const LONGEST: usize = 1026;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_is_the_pin_and_nothing_typed_is_none() {
        let typed = |text: &[u8]| read(&mut &*text).unwrap().map(|pin| pin.expose().to_vec());
        assert_eq!(typed(b"1234\n").as_deref(), Some(&b"1234"[..]));
        assert_eq!(typed(b"12 34").as_deref(), Some(&b"12 34"[..]));
        assert_eq!((typed(b"\n"), typed(b""), typed(&[b'1'; 4096])), (None, None, None));
    }

    #[test]
    fn who_waits_no_longer_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(!gone(&ours).unwrap());
        drop(theirs);
        assert!(gone(&ours).unwrap());
    }
}
