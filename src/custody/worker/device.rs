//! The token as the sessions see it: sessions that are logged in, and a PIN that is never tried twice.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Mutex;

use super::pins::{Outcome, PinMemory, PinMemoryError};
use super::state::locked;
use crate::custody::token::{Pin, PinState, Remedy, Token, TokenError, TokenFacts, TokenSession, explain};
use crate::custody::wire::WorkerState;

pub(super) struct Device {
    token: Box<dyn Token>,
    pin_file: PathBuf,
    login: Mutex<LoginRecord>,
}

struct LoginRecord {
    pins: PinMemory,
    /// How many logins there were in this process: a session knows by which one it came to be.
    logins: u64,
    /// The device says that nobody is logged in, whatever it says else.
    doubted: bool,
}

/// A session that can sign.
pub(super) struct Opened {
    pub(super) session: Box<dyn TokenSession>,
    pub(super) facts: TokenFacts,
    /// This session did the login, the others share it.
    pub(super) logged_in_now: bool,
    /// For [`Device::doubt_login`].
    pub(super) login: u64,
}

/// Why there is no session.
pub(super) struct NoSession {
    pub(super) state: WorkerState,
    pub(super) detail: String,
    /// What the device's error asks for; `None` when the device has no part in it, so that no rung of the ladder helps.
    pub(super) remedy: Option<Remedy>,
}

impl Device {
    pub(super) fn new(token: Box<dyn Token>, pin_file: PathBuf, pins: PinMemory) -> Self {
        Self { token, pin_file, login: Mutex::new(LoginRecord { pins, logins: 0, doubted: false }) }
    }

    /// A new session, logged in: by this call when no other session of the process is.
    pub(super) fn session(&self) -> Result<Opened, NoSession> {
        let session = self.token.open_session().map_err(|error| unavailable(&error))?;
        // One session at a time: two must not present the same wrong PIN.
        let mut record = locked(&self.login);
        let logged_in = session.is_logged_in().map_err(|error| unavailable(&error))?;
        if logged_in && record.doubted {
            // What the login then says matters; that there was nothing to end does not.
            if let Err(error) = session.logout() {
                tracing::debug!(error = explain(&error), "logout before a new login");
            }
        }
        // Behind the lock and just before the attempt: what the flags said while another session's attempt was under
        // way says nothing of it.
        let facts = self.token.facts().map_err(|error| unavailable(&error))?;
        let logged_in_now = !logged_in || record.doubted;
        if logged_in_now {
            self.log_in(&*session, &facts, &mut record)?;
            record.logins += 1;
            record.doubted = false;
        }
        Ok(Opened { session, facts, logged_in_now, login: record.logins })
    }

    /// A session that came to be by this login heard that nobody is logged in. The next one logs in, even when the
    /// device says that somebody is.
    pub(super) fn doubt_login(&self, login: u64) {
        let mut record = locked(&self.login);
        record.doubted |= record.logins == login;
    }

    /// See [`Token::reinitialize`].
    pub(super) fn reinitialize(&self) -> Result<(), TokenError> {
        self.token.reinitialize()
    }

    fn log_in(
        &self,
        session: &dyn TokenSession,
        facts: &TokenFacts,
        record: &mut LoginRecord,
    ) -> Result<(), NoSession> {
        if let Some(objection) = facts.pin.objection() {
            return Err(refused(format!("no login was tried: {objection}")));
        }
        let pin = Pin::read(&self.pin_file).map_err(|error| NoSession {
            state: WorkerState::TokenUnavailable,
            detail: explain(&error),
            remedy: None,
        })?;
        let serial = if facts.serial.is_empty() { &facts.label } else { &facts.serial };
        let attempt = record.pins.attempt(&pin, serial, facts.pin).map_err(|error| match &error {
            // That passes without an operator.
            PinMemoryError::Later(_) | PinMemoryError::Busy(_) => {
                NoSession { state: WorkerState::TokenUnavailable, detail: explain(&error), remedy: None }
            }
            _ => refused(explain(&error)),
        })?;
        if facts.pin == PinState::CountLow {
            tracing::warn!("the token counts a wrong PIN since its last good login (CKF_USER_PIN_COUNT_LOW)");
        }
        let done = session.login(&pin);
        let outcome = match &done {
            Ok(()) => Outcome::Accepted,
            Err(TokenError::PinRefused(_)) => Outcome::Refused,
            Err(TokenError::LoginUnclear(_)) => Outcome::Unclear,
            Err(_) => Outcome::NotTried,
        };
        let kept = record.pins.resolve(&attempt, outcome);
        match done {
            Ok(()) => kept.map_err(|error| refused(explain(&error))),
            Err(TokenError::PinRefused(code)) => Err(refused(format!(
                "the token refused the PIN in `pin_file` ({code}); it is not tried again. Correct the file, and it is \
                 tried at once"
            ))),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

pub(super) fn unavailable(error: &TokenError) -> NoSession {
    // That the URI names several tokens is for the operator to mend.
    let remedy = (!matches!(error, TokenError::SeveralTokens { .. })).then(|| error.remedy());
    NoSession { state: WorkerState::TokenUnavailable, detail: explain(error), remedy }
}

fn refused(detail: String) -> NoSession {
    NoSession { state: WorkerState::PinRefused, detail, remedy: None }
}
