//! What the front says to one helper and hears from it, frame by frame. What comes back is hostile until it is proven.

#![forbid(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Instant;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use signer_keyless::wire::{self, FromHelper, HEADER, Layers, MAX_FROM_HELPER, ToHelper, WireError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

use super::launcher::{Process, Started};

/// A helper and the way to it. Dropped, the helper is killed.
#[derive(Debug)]
pub(super) struct Helper {
    socket: UnixStream,
    process: Process,
}

/// What went wrong between the two.
#[derive(Debug, thiserror::Error)]
pub(super) enum TalkError {
    /// It ended without a word.
    #[error("the helper ended without a word")]
    Ended,
    /// The socket fails.
    #[error("the helper cannot be spoken to: {0}")]
    Io(io::Error),
    /// It said something that nobody says.
    #[error("the helper does not keep to the protocol: {0}")]
    Wire(WireError),
    /// It said something else than what was due.
    #[error("the helper does not keep to the protocol: it spoke out of turn")]
    OutOfTurn,
    /// It said nothing in time.
    #[error("the helper said nothing in time")]
    Silent,
}

impl Helper {
    /// Takes over a started helper. Needs a runtime: its socket is watched by it from now on.
    pub(super) fn new(started: Started) -> io::Result<Self> {
        Ok(Self { socket: UnixStream::from_std(started.socket)?, process: started.process })
    }

    /// The next message.
    pub(super) async fn hear(&mut self, until: Instant) -> Result<FromHelper, TalkError> {
        match tokio::time::timeout_at(until.into(), self.read()).await {
            Ok(heard) => heard,
            Err(_) => Err(TalkError::Silent),
        }
    }

    /// Says `message`, with a descriptor attached to its first byte where there is one (unix(7), `SCM_RIGHTS`).
    pub(super) async fn say(
        &mut self,
        message: &ToHelper<'_>,
        with: Option<BorrowedFd<'_>>,
        until: Instant,
    ) -> Result<(), TalkError> {
        // Wiped when it is dropped: it holds the identity token.
        let frame = wire::encode_to_helper(message).map_err(TalkError::Wire)?;
        match tokio::time::timeout_at(until.into(), self.write(&frame, with)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Err(TalkError::Ended),
            Ok(Err(error)) => Err(TalkError::Io(error)),
            Err(_) => Err(TalkError::Silent),
        }
    }

    /// Whether it is still there and has said nothing that it was not asked.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.socket.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Returns when it says something, or ends.
    pub(super) async fn stirs(&self) {
        // Readiness is remembered from before until a read finds nothing. That it cannot be watched is as good as its end.
        while self.socket.readable().await.is_ok() && self.is_waiting() {}
    }

    /// Lets it end by itself.
    pub(super) fn dismiss(self) {
        self.process.dismiss();
    }

    /// Ends it and says how it ended. `sealed`: whether it had closed its sandbox.
    pub(super) async fn post_mortem(self, sealed: bool) -> String {
        self.process.post_mortem(sealed).await
    }

    async fn read(&mut self) -> Result<FromHelper, TalkError> {
        let mut header = [0; HEADER];
        self.fill(&mut header).await?;
        let mut body = vec![0; wire::body_length(header, MAX_FROM_HELPER).map_err(TalkError::Wire)?];
        self.fill(&mut body).await?;
        wire::decode_from_helper(&body).map_err(TalkError::Wire)
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TalkError> {
        match self.socket.read_exact(buffer).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                Err(TalkError::Ended)
            }
            Err(error) => Err(TalkError::Io(error)),
        }
    }

    async fn write(&mut self, frame: &[u8], with: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut sent = 0;
        if let Some(descriptor) = with {
            let descriptors = [descriptor.as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&descriptors)];
            let socket = self.socket.as_raw_fd();
            let send = || {
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                Ok(sendmsg::<UnixAddr>(socket, &[IoSlice::new(frame)], &rights, flags, None)?)
            };
            sent = self.socket.async_io(Interest::WRITABLE, send).await?;
        }
        self.socket.write_all(&frame[sent..]).await
    }
}

/// What a helper said of its sandbox, held against what it may lack.
///
/// # Errors
/// The layers that are missing and that nobody excepted.
pub(super) fn judge_seal(layers: Layers, excepted: Layers) -> Result<(), Layers> {
    let missing: Layers = layers.missing().iter().filter(|layer| !excepted.contains(*layer)).collect();
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}
