//! The token as the sessions see it: sessions that are logged in, and a PIN that is never tried twice.

use std::path::PathBuf;
use std::sync::Mutex;

use super::state::locked;
use crate::custody::token::{Pin, PinState, Remedy, Token, TokenError, TokenFacts, TokenSession, explain};
use crate::custody::wire::WorkerState;

pub(super) struct Device {
    token: Box<dyn Token>,
    pin_file: PathBuf,
    login: Mutex<LoginRecord>,
}

/// PINs that the token refused. In memory here; a durable one would outlive a restart by the service manager.
pub(super) trait RefusedPins: Send {
    /// Was this PIN refused before?
    fn contains(&self, pin: &Pin) -> bool;
    /// Never again.
    fn remember(&mut self, pin: Pin);
}

struct LoginRecord {
    refused: Box<dyn RefusedPins>,
    /// Attempts of which nobody knows whether the token counted them, since the last good login.
    unclear: u32,
}

/// A session that can sign.
pub(super) struct Opened {
    pub(super) session: Box<dyn TokenSession>,
    pub(super) facts: TokenFacts,
    /// This session did the login, the others share it.
    pub(super) logged_in_now: bool,
}

/// Why there is no session.
pub(super) struct NoSession {
    pub(super) state: WorkerState,
    pub(super) detail: String,
    pub(super) remedy: Remedy,
}

impl Device {
    pub(super) fn new(token: Box<dyn Token>, pin_file: PathBuf) -> Self {
        let refused = Box::new(InThisProcess::default());
        Self { token, pin_file, login: Mutex::new(LoginRecord { refused, unclear: 0 }) }
    }

    /// A new session, logged in: by this call when no other session of the process is.
    pub(super) fn session(&self) -> Result<Opened, NoSession> {
        let session = self.token.open_session().map_err(|error| unavailable(&error))?;
        let facts = self.token.facts().map_err(|error| unavailable(&error))?;
        // One session at a time: two must not present the same wrong PIN.
        let mut record = locked(&self.login);
        let logged_in_now = !session.is_logged_in().map_err(|error| unavailable(&error))?;
        if logged_in_now {
            self.log_in(&*session, &facts, &mut record)?;
        }
        Ok(Opened { session, facts, logged_in_now })
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
        if record.unclear > 0 && (facts.pin != PinState::Good || record.unclear >= MAX_UNCLEAR) {
            return Err(refused(
                "earlier logins failed and the token may have counted them; check the token and its PIN, then restart \
                 this worker"
                    .to_owned(),
            ));
        }
        if facts.pin == PinState::CountLow {
            tracing::warn!("the token counts a wrong PIN since its last good login (CKF_USER_PIN_COUNT_LOW)");
        }
        let pin = Pin::read(&self.pin_file).map_err(|error| NoSession {
            state: WorkerState::TokenUnavailable,
            detail: explain(&error),
            remedy: Remedy::NewSession,
        })?;
        if record.refused.contains(&pin) {
            return Err(refused(
                "the token has refused the PIN in `pin_file`; it is not tried again. Correct the file, then restart \
                 this worker"
                    .to_owned(),
            ));
        }
        match session.login(&pin) {
            Ok(()) => {
                record.unclear = 0;
                Ok(())
            }
            Err(TokenError::PinRefused(code)) => {
                record.refused.remember(pin);
                Err(refused(format!(
                    "the token refused the PIN in `pin_file` ({code}); it is not tried again. Correct the file, then \
                     restart this worker"
                )))
            }
            Err(error) => {
                if matches!(error, TokenError::LoginUnclear(_)) {
                    record.unclear += 1;
                }
                Err(unavailable(&error))
            }
        }
    }
}

#[derive(Default)]
struct InThisProcess(Vec<Pin>);

impl RefusedPins for InThisProcess {
    fn contains(&self, pin: &Pin) -> bool {
        self.0.iter().any(|refused| refused.same_as(pin))
    }

    fn remember(&mut self, pin: Pin) {
        self.0.push(pin);
    }
}

pub(super) fn unavailable(error: &TokenError) -> NoSession {
    NoSession { state: WorkerState::TokenUnavailable, detail: explain(error), remedy: error.remedy() }
}

fn refused(detail: String) -> NoSession {
    NoSession { state: WorkerState::PinRefused, detail, remedy: Remedy::NewSession }
}

/// Fewer than any token allows before it locks.
const MAX_UNCLEAR: u32 = 2;
