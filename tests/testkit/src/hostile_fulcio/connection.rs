//! One connection, up to where it goes wrong.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::answer::Answer;
use super::{Behaviour, State, answer};

/// What goes wrong before an answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionFault {
    /// It hangs up.
    HangUp(Stage),
    /// It says nothing more and does not hang up.
    FallSilent(Stage),
    /// A byte of the answer each tenth of a second.
    SlowDrip,
    /// Its certificate is of a CA that nobody trusts.
    StrangersTls,
    /// Its certificate is of the right CA and for somebody else.
    MisnamedTls,
    /// It answers the client's hello with HTTP.
    NoTls,
}

/// How far a connection comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TCP is there.
    Connected,
    /// The client has said hello.
    Hello,
    /// TLS is there.
    Handshake,
    /// The request is there.
    Request,
    /// The answer's head was sent.
    Head,
    /// Half of the answer's body was sent.
    HalfOfBody,
}

/// Serves one request. An error is the client's going away, which is its own affair.
pub(super) async fn serve(stream: TcpStream, behaviour: Behaviour, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let _ = try_serve(stream, behaviour, &state).await;
}

async fn try_serve(mut stream: TcpStream, behaviour: Behaviour, state: &State) -> io::Result<()> {
    let fault = match behaviour {
        Behaviour::Connection(fault) => Some(fault),
        _ => None,
    };
    if ends(fault, Stage::Connected).await {
        return Ok(());
    }
    if matches!(fault, Some(ConnectionFault::HangUp(Stage::Hello) | ConnectionFault::FallSilent(Stage::Hello))) {
        stream.read_u8().await?;
        ends(fault, Stage::Hello).await;
        return Ok(());
    }
    let tls = match fault {
        Some(ConnectionFault::NoTls) => {
            stream.read_u8().await?;
            return stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
        Some(ConnectionFault::StrangersTls) => &state.strangers_tls,
        Some(ConnectionFault::MisnamedTls) => &state.misnamed_tls,
        _ => &state.tls,
    };
    let mut stream = tls.accept(stream).await?;
    if ends(fault, Stage::Handshake).await {
        return Ok(());
    }
    let body = read_request(&mut stream).await?;
    let answer = answer::to(&body, behaviour, state);
    if ends(fault, Stage::Request).await {
        return Ok(());
    }
    send(&mut stream, &answer, fault).await?;
    stream.shutdown().await
}

/// Whether it ends here: at once, or when the client has enough of waiting.
async fn ends(fault: Option<ConnectionFault>, here: Stage) -> bool {
    match fault {
        Some(ConnectionFault::HangUp(stage)) => stage == here,
        Some(ConnectionFault::FallSilent(stage)) if stage == here => {
            tokio::time::sleep(SILENCE).await;
            true
        }
        _ => false,
    }
}

async fn read_request(stream: &mut TlsStream<TcpStream>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let end_of_head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > MAX_REQUEST_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end_of_head]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    while bytes.len() < end_of_head + length {
        if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > MAX_REQUEST_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(bytes.split_off(end_of_head))
}

async fn send(stream: &mut TlsStream<TcpStream>, answer: &Answer, fault: Option<ConnectionFault>) -> io::Result<()> {
    let head = answer.head();
    if fault == Some(ConnectionFault::SlowDrip) {
        for byte in head.bytes().chain(answer.body.iter().copied()) {
            stream.write_all(&[byte]).await?;
            stream.flush().await?;
            tokio::time::sleep(DRIP_PAUSE).await;
        }
        return Ok(());
    }
    // In one piece where nothing goes wrong: a second packet would cost the time that a bench wants to measure.
    let whole = [head.as_bytes(), &answer.body].concat();
    let (upto_head, upto_half) = (head.len(), head.len() + answer.body.len() / 2);
    for (stage, end) in [(Stage::Head, upto_head), (Stage::HalfOfBody, upto_half)] {
        let here =
            |fault| matches!(fault, ConnectionFault::HangUp(at) | ConnectionFault::FallSilent(at) if at == stage);
        if fault.is_some_and(here) {
            stream.write_all(&whole[..end]).await?;
            stream.flush().await?;
            ends(fault, stage).await;
            return Ok(());
        }
    }
    stream.write_all(&whole).await?;
    if answer.endless {
        let more = vec![b' '; 64 * 1024];
        for _ in 0..ENDLESS_PIECES {
            stream.write_all(&more).await?;
        }
    }
    stream.flush().await
}

const MAX_REQUEST_BYTES: usize = 1 << 20;
// Longer than any deadline of a test.
const SILENCE: Duration = Duration::from_secs(60);
const DRIP_PAUSE: Duration = Duration::from_millis(100);
// 256 MiB: nobody who has a limit reads so far.
const ENDLESS_PIECES: usize = 4096;
