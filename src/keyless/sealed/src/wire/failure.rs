//! Why a flow ended without a signature.

use std::fmt;

use super::MAX_DETAIL;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// How far the flow had come.
    pub step: Step,
    /// What the parent acts on.
    pub kind: FailureKind,
    /// Fulcio's HTTP status, where it gave one.
    pub status: Option<u16>,
    /// Fulcio's `Retry-After` in seconds, where it gave one.
    pub retry_after: Option<u32>,
    detail: String,
}

/// The steps of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Closing the sandbox.
    Seal = 1,
    /// Making the ephemeral key and the certificate signing request.
    Key = 2,
    /// Reading a message of the parent.
    Receive = 3,
    /// The TLS handshake.
    Handshake = 4,
    /// Sending the request.
    Request = 5,
    /// Reading Fulcio's answer.
    Answer = 6,
    /// Signing a digest.
    Sign = 7,
}

/// The situations that the parent tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// A layer of the sandbox cannot be had, or the helper was not started as it must be. The operator's to mend.
    Sandbox = 1,
    /// The parent's message is malformed, or comes out of turn. A defect.
    BadJob = 2,
    /// The server is not the one that the roots vouch for, or speaks no TLS that we do. Retrying is of no use.
    TlsRefused = 3,
    /// Fulcio said no (any status that is not 200, 201, 429 or 5xx). Retrying the same token is of no use.
    Refused = 4,
    /// Fulcio cannot now (429, 5xx). Nothing was issued that anybody could use; may be retried.
    Busy = 5,
    /// The answer is not what a Fulcio answers.
    BadAnswer = 6,
    /// The answer is longer than the bound.
    TooLarge = 7,
    /// The socket's time-out passed.
    TimedOut = 8,
    /// The connection ended before the answer did.
    Closed = 9,
    /// No random bytes, or the key does not sign.
    Crypto = 10,
}

impl Failed {
    /// A failure; `detail` is cut and cleaned as the wire wants it.
    pub fn new(step: Step, kind: FailureKind, detail: &str) -> Self {
        Self { step, kind, status: None, retry_after: None, detail: clean(detail) }
    }

    /// With what Fulcio's answer said of it.
    #[must_use]
    pub fn answered(self, status: Option<u16>, retry_after: Option<u32>) -> Self {
        Self { status, retry_after, ..self }
    }

    /// Plain words for a log: no secret, no control character, at most [`MAX_DETAIL`] bytes.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl Step {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seal => "closing the sandbox",
            Self::Key => "making the ephemeral key",
            Self::Receive => "reading the job",
            Self::Handshake => "the TLS handshake",
            Self::Request => "sending the request",
            Self::Answer => "reading Fulcio's answer",
            Self::Sign => "signing",
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let all = [Self::Seal, Self::Key, Self::Receive, Self::Handshake, Self::Request, Self::Answer, Self::Sign];
        all.into_iter().find(|step| *step as u8 == byte)
    }
}

impl FailureKind {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "the sandbox cannot be closed",
            Self::BadJob => "malformed or untimely message",
            Self::TlsRefused => "TLS refused",
            Self::Refused => "Fulcio refused",
            Self::Busy => "Fulcio is busy",
            Self::BadAnswer => "not an answer of Fulcio",
            Self::TooLarge => "answer too large",
            Self::TimedOut => "timed out",
            Self::Closed => "connection closed",
            Self::Crypto => "cryptography failed",
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let all = [
            Self::Sandbox,
            Self::BadJob,
            Self::TlsRefused,
            Self::Refused,
            Self::Busy,
            Self::BadAnswer,
            Self::TooLarge,
            Self::TimedOut,
            Self::Closed,
            Self::Crypto,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step.name(), self.kind.name())?;
        if let Some(status) = self.status {
            write!(f, " (HTTP {status})")?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl std::error::Error for Failed {}

/// What is fit for a log: a peer's text may hold terminal escapes, or the token that it was sent.
fn clean(detail: &str) -> String {
    let mut text = String::new();
    let mut run = String::new();
    for character in detail.chars().chain([' ']) {
        if character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '=') {
            run.push(character);
            continue;
        }
        // No word is as long as a part of a token or key is.
        text.push_str(if run.len() > LONGEST_WORD { "[…]" } else { &run });
        run.clear();
        text.push(if character.is_control() { ' ' } else { character });
    }
    let mut end = text.len().min(MAX_DETAIL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.truncate(text.trim_end().len());
    text
}

const LONGEST_WORD: usize = 28;
