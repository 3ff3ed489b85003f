//! Connecting: who serves the socket, and do they speak our protocol for the right token?

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::{Channel, Link, LinkError, peer};
use crate::custody::wire::{Hello, Inbox, Reply, Request, WireError, decode_reply, encode_request};

/// Connects, checks who listens before a byte is sent, and exchanges hellos with who must be the worker's user.
pub(super) async fn connect(link: &Link) -> Result<Channel, LinkError> {
    let failed = |source: std::io::Error| LinkError::Connect { path: link.socket.clone(), source: Arc::new(source) };
    let stream = UnixStream::connect(&link.socket).await.map_err(failed)?;
    peer::admit(link, &stream)?;
    match tokio::time::timeout(HELLO_TIMEOUT, greet(link, stream)).await {
        Ok(Err(LinkError::Protocol(error))) => {
            tracing::error!(token = %link.name, "connection closed: the worker sent {error}");
            Err(LinkError::Protocol(error))
        }
        Ok(done) => done,
        Err(_) => Err(LinkError::Hello(silent(&link.name))),
    }
}

/// Exchanges hellos over a connection that [`peer::admit`] let pass.
pub(super) async fn greet(link: &Link, mut stream: UnixStream) -> Result<Channel, LinkError> {
    let broken = |error: std::io::Error| LinkError::Hello(error.to_string().into());
    let mut hello = Vec::with_capacity(64);
    encode_request(0, &Request::Hello(Hello::new("signerd")), &mut hello);
    stream.write_all(&hello).await.map_err(broken)?;
    let mut inbox = Inbox::new();
    loop {
        let count = peer::read_from(link, &stream, inbox.space()).await?;
        if count == 0 {
            return Err(LinkError::Hello("it closed the connection; its log says why".into()));
        }
        inbox.filled(count);
        if let Some(frame) = inbox.next_frame().map_err(LinkError::Protocol)? {
            check(&link.name, frame).map_err(LinkError::Protocol)?;
            inbox.lift_limit();
            peer::proven(&stream)?;
            return Ok(Channel::start(Arc::clone(&link.name), stream, inbox));
        }
    }
}

/// A socket of systemd's is there before the worker is.
fn silent(name: &str) -> Arc<str> {
    let why = "no answer in time; it starts, waits for its PIN to be typed, or hangs";
    format!("{why}: systemctl status signer-token@{name}").into()
}

fn check(name: &str, frame: &[u8]) -> Result<(), WireError> {
    let Ok((0, Reply::Hello(hello))) = decode_reply(frame) else { return Err(WireError::NotHello) };
    hello.check_version()?;
    if hello.name == name {
        Ok(())
    } else {
        Err(WireError::WrongToken { theirs: hello.name, expected: name.to_owned() })
    }
}

const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
