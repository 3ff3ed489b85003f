//! The way of one flow, top to bottom.

#![forbid(unsafe_code)]

use std::env;
use std::io::{self, Read, Write};

use zeroize::Zeroizing;

use crate::fulcio;
use crate::key::EphemeralKey;
use crate::sandbox::{self, Arena, Exit, Fulcio, Parent, begin, scrubbed, vanish};
use crate::tls::{self, Session};
use crate::wire::{
    self, Bounds, Failed, FailureKind, FromHelper, HEADER, Job, MAX_TO_HELPER, Sealed, Signed, Step, ToHelper,
    Transport, body_length, decode_to_helper, encode_from_helper,
};

/// The whole life of the helper: seals itself, does what the parent asks, and leaves nothing behind.
pub fn run(arena: &'static Arena) {
    begin(arena);
    let Ok(mut parent) = Parent::inherited() else { vanish(Exit::Unheard) };
    let exit = match flow(&mut parent) {
        Ok(()) => Exit::Done,
        Err(failed) => match say(&mut parent, &FromHelper::Failed(failed)) {
            Ok(()) => Exit::Failed,
            Err(_) => Exit::Unheard,
        },
    };
    vanish(exit)
}

fn flow(parent: &mut Parent) -> Result<(), Failed> {
    let sealed = seal()?;
    say(parent, &FromHelper::Sealed(sealed))?;

    // While the parent still connects: neither needs anything that it will say.
    let key = EphemeralKey::generate()?;
    let request = key.request()?;

    let Some(Message { body, socket }) = receive(parent)? else { return Ok(()) };
    let socket = socket.ok_or_else(|| out_of_turn("no Fulcio socket came with the job"))?;
    let (mut stream, digest, bounds) = scrubbed(|| ask(&body, socket, &request))?;
    // The token has done its work.
    drop(body);

    let issued = fulcio::answer(&mut stream, bounds.answer);
    stream.close();
    let issued = issued?;
    let signature = key.sign(&digest)?;
    let (certificates, sct) = (issued.certificates, issued.sct);
    say(parent, &FromHelper::Signed(Signed { signature, certificates, sct, public_key: key.public_key() }))?;
    sign_more(parent, &key, bounds.signatures - 1)
}

/// Closes the sandbox, with the exceptions that the arguments name.
fn seal() -> Result<Sealed, Failed> {
    let refused = |detail: &str| Failed::new(Step::Seal, FailureKind::Sandbox, detail);
    if env::vars_os().next().is_some() {
        return Err(refused("it must be started with an empty environment"));
    }
    let arguments: Option<Vec<String>> = env::args_os().skip(1).map(|argument| argument.into_string().ok()).collect();
    let exceptions = wire::exceptions(arguments.ok_or_else(|| refused("arguments that are no text"))?)
        .map_err(|error| refused(&error.to_string()))?;
    sandbox::seal(exceptions).map_err(|missing| refused(&format!("{}: {}", missing.layer.name(), missing.error)))
}

/// Connects and sends the request; the token is not looked at again.
fn ask(body: &[u8], socket: Fulcio, request: &str) -> Result<(Stream, [u8; 32], Bounds), Failed> {
    let ToHelper::Job(job) = decode_to_helper(body).map_err(malformed)? else {
        return Err(out_of_turn("a digest before the job"));
    };
    let mut stream = Stream::connect(socket, &job)?;
    match fulcio::ask(&mut stream, &job, request) {
        Ok(()) => Ok((stream, job.digest, job.bounds)),
        Err(failed) => {
            stream.close();
            Err(failed)
        }
    }
}

/// Further digests under the same certificate, until the bound or until the parent closes its end.
fn sign_more(parent: &mut Parent, key: &EphemeralKey, most: u32) -> Result<(), Failed> {
    for _ in 0..most {
        let Some(Message { body, socket }) = receive(parent)? else { return Ok(()) };
        let (ToHelper::Digest(digest), None) = (decode_to_helper(&body).map_err(malformed)?, socket) else {
            return Err(out_of_turn("not a digest alone"));
        };
        say(parent, &FromHelper::Signature(key.sign(&digest)?))?;
    }
    Ok(())
}

/// What the parent sent, not yet decoded.
struct Message {
    body: Zeroizing<Vec<u8>>,
    socket: Option<Fulcio>,
}

/// One message of the parent; none when it closed its end between two messages.
fn receive(parent: &mut Parent) -> Result<Option<Message>, Failed> {
    let mut header = [0; HEADER];
    let Some(socket) = fill(parent, &mut header)? else { return Ok(None) };
    let length = body_length(header, MAX_TO_HELPER).map_err(malformed)?;
    let mut body = Zeroizing::new(vec![0; length]);
    match fill(parent, &mut body)? {
        Some(None) => Ok(Some(Message { body, socket })),
        Some(Some(_)) => Err(out_of_turn("a socket in the middle of a message")),
        None => Err(malformed(wire::WireError::Truncated)),
    }
}

/// Fills the buffer; the socket is what came with its first byte. None when there is not even that.
fn fill(parent: &mut Parent, buffer: &mut [u8]) -> Result<Option<Option<Fulcio>>, Failed> {
    let mut socket = None;
    let mut filled = 0;
    while filled < buffer.len() {
        let (count, passed) = parent.receive(&mut buffer[filled..]).map_err(|error| unheard(&error))?;
        match (count, filled) {
            (0, 0) => return Ok(None),
            (0, _) => return Err(malformed(wire::WireError::Truncated)),
            _ if passed.is_some() && filled > 0 => return Err(out_of_turn("a socket in the middle of a message")),
            _ => socket = socket.or(passed),
        }
        filled += count;
    }
    Ok(Some(socket))
}

fn say(parent: &mut Parent, message: &FromHelper) -> Result<(), Failed> {
    let frame = encode_from_helper(message).map_err(malformed)?;
    parent.send(&frame).map_err(|error| unheard(&error))
}

/// How the job says to speak to Fulcio.
enum Stream {
    Tls(Box<Session>),
    Plain(Fulcio),
}

impl Stream {
    fn connect(socket: Fulcio, job: &Job<'_>) -> Result<Self, Failed> {
        match &job.transport {
            Transport::Tls { server_name, roots } => Ok(Self::Tls(Box::new(tls::connect(socket, server_name, roots)?))),
            Transport::PlainLoopback => Ok(Self::Plain(socket)),
        }
    }

    fn close(&mut self) {
        if let Self::Tls(session) = self {
            tls::close(session);
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tls(session) => session.read(into),
            Self::Plain(socket) => socket.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tls(session) => session.write(bytes),
            Self::Plain(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(session) => session.flush(),
            Self::Plain(socket) => socket.flush(),
        }
    }
}

fn malformed(error: wire::WireError) -> Failed {
    Failed::new(Step::Receive, FailureKind::BadJob, &error.to_string())
}

fn out_of_turn(detail: &str) -> Failed {
    Failed::new(Step::Receive, FailureKind::BadJob, detail)
}

fn unheard(error: &io::Error) -> Failed {
    tls::failed(Step::Receive, error)
}
