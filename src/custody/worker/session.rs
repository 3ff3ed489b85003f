//! One thread, one session: takes requests from the queue, has the device sign, answers.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::device::{Opened, unavailable};
use super::queue::{Job, Work};
use super::state::Shared;
use crate::custody::token::{FoundKey, KeySlot, Remedy, TokenError, TokenSession, explain};
use crate::custody::uri::KeyUri;
use crate::custody::wire::{FailureCode, KeyHandle, OpenedKey, Reply};

/// Keeps one session open until the worker stops. A session that returned a fatal code is closed and never used
/// again. The next one is opened at once when the lost one had done some work, and with growing pauses otherwise.
pub(super) fn run(shared: &Shared) {
    let mut pause = FIRST_PAUSE;
    while !shared.state.stopping() {
        let trouble = match shared.device.session() {
            Ok(opened) => match serve(shared, opened) {
                None => break,
                Some((error, served)) if served > 0 && error.remedy() < Remedy::NewProcess => {
                    pause = FIRST_PAUSE;
                    continue;
                }
                Some((error, _)) => unavailable(&error),
            },
            Err(trouble) => trouble,
        };
        shared.state.trouble(trouble.state, trouble.detail);
        shared.answer_orphans();
        if trouble.remedy == Remedy::NewProcess {
            tracing::error!("only a new process can initialise the module again; this one ends");
            shared.state.beyond_repair();
        }
        shared.state.wait(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    shared.answer_orphans();
}

/// Works until the queue is closed: `None`; or until the session is lost: why, and how many requests it carried out.
fn serve(shared: &Shared, opened: Opened) -> Option<(TokenError, u64)> {
    shared.counters.sessions_opened.fetch_add(1, Relaxed);
    if opened.logged_in_now {
        shared.counters.logins.fetch_add(1, Relaxed);
    }
    shared.state.session_opened(opened.facts);
    let _open = OpenSession(shared);
    let mut session = Session { shared, session: opened.session, slots: Vec::new() };
    let mut served = 0;
    while let Some(job) = shared.queue.pop() {
        match session.carry_out(job) {
            Ok(()) => served += 1,
            Err(Lost(error)) => {
                shared.counters.sessions_lost.fetch_add(1, Relaxed);
                tracing::error!("session closed: {}", explain(&error));
                return Some((error, served));
            }
        }
    }
    None
}

/// Counted as open for exactly as long as it lives, whatever ends it.
struct OpenSession<'a>(&'a Shared);

impl Drop for OpenSession<'_> {
    fn drop(&mut self) {
        self.0.state.session_closed();
        self.0.answer_orphans();
    }
}

struct Lost(TokenError);

struct Session<'a> {
    shared: &'a Shared,
    session: Box<dyn TokenSession>,
    /// Where each key is in this session, by handle; looking it up costs a search on the device.
    slots: Vec<Option<KeySlot>>,
}

impl Session<'_> {
    fn carry_out(&mut self, mut job: Job) -> Result<(), Lost> {
        if Instant::now() >= job.deadline {
            self.shared.counters.expired.fetch_add(1, Relaxed);
            job.connection.fail(job.id, FailureCode::DeadlineExceeded, "the request waited longer than it had time");
            return Ok(());
        }
        let done = match &job.work {
            Work::Sign { handle, digest } => self.sign(*handle, digest).map(Reply::Signed),
            Work::Open { uri } => self.open(uri).map(Reply::KeyOpened),
        };
        match done {
            Ok(reply) => job.connection.reply(job.id, &reply),
            Err(Refused::Unknown(detail)) => job.connection.fail(job.id, FailureCode::UnknownKey, detail),
            Err(Refused::BadRequest(detail)) => job.connection.fail(job.id, FailureCode::BadRequest, detail),
            Err(Refused::Token(error)) => {
                let lost = error.remedy() > Remedy::None;
                if lost && !job.retried {
                    // The device returned an error, so there is no signature; another session may do better, once.
                    job.retried = true;
                    self.shared.queue.put_back(job);
                } else {
                    self.shared.counters.failed.fetch_add(1, Relaxed);
                    job.connection.fail(job.id, code(&error), explain(&error));
                }
                return if lost { Err(Lost(error)) } else { Ok(()) };
            }
        }
        Ok(())
    }

    fn sign(&mut self, handle: KeyHandle, digest: &[u8; 32]) -> Result<[u8; 64], Refused> {
        let index = usize::try_from(handle.0).unwrap_or(usize::MAX);
        let slot = match self.slots.get(index) {
            Some(Some(slot)) => *slot,
            _ => self.look_up(handle)?,
        };
        let signature = self.session.sign(slot, digest)?;
        self.shared.counters.signatures.fetch_add(1, Relaxed);
        Ok(signature)
    }

    fn look_up(&mut self, handle: KeyHandle) -> Result<KeySlot, Refused> {
        let known = self
            .shared
            .keys
            .key(handle)
            .ok_or_else(|| Refused::Unknown("a key handle that was never given out".to_owned()))?;
        let found = self.session.find_key(&known.uri)?;
        if found.public_key != known.public_key {
            let uri = &known.uri;
            return Err(Refused::Unknown(format!("`{uri}` names another key now than when it was opened")));
        }
        self.remember(handle, &found);
        Ok(found.slot)
    }

    fn open(&mut self, uri: &str) -> Result<OpenedKey, Refused> {
        let uri: KeyUri = uri.parse().map_err(|error| Refused::BadRequest(format!("`{uri}`: {error}")))?;
        let found = self.session.find_key(&uri)?;
        let handle = self
            .shared
            .keys
            .handle(&uri, found.public_key)
            .ok_or_else(|| Refused::BadRequest("too many different keys were opened".to_owned()))?;
        self.remember(handle, &found);
        Ok(OpenedKey { handle, public_key: found.public_key, attributes: found.attributes })
    }

    fn remember(&mut self, handle: KeyHandle, found: &FoundKey) {
        // Handles are given out densely and are bounded in number.
        let index = usize::try_from(handle.0).unwrap_or(0);
        if self.slots.len() <= index {
            self.slots.resize(index + 1, None);
        }
        self.slots[index] = Some(found.slot);
    }
}

enum Refused {
    Unknown(String),
    BadRequest(String),
    Token(TokenError),
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

fn code(error: &TokenError) -> FailureCode {
    match error {
        TokenError::KeyNotFound { .. } | TokenError::SeveralKeys { .. } => FailureCode::UnknownKey,
        TokenError::KeyUnsuitable { .. } => FailureCode::KeyUnsuitable,
        TokenError::Absent { .. } | TokenError::SeveralTokens { .. } => FailureCode::TokenUnavailable,
        TokenError::PinRefused(_) | TokenError::LoginUnclear(_) => FailureCode::PinRefused,
        TokenError::Device { remedy: Remedy::NewLogin | Remedy::NewProcess, .. } => FailureCode::TokenUnavailable,
        TokenError::Device { .. } => FailureCode::DeviceError,
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
