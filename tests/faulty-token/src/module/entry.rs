//! The way of a call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use cryptoki_sys::{
    CK_RV, CK_SESSION_HANDLE, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_DEVICE_ERROR, CKR_DEVICE_REMOVED, CKR_GENERAL_ERROR,
    CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED, CKR_SESSION_CLOSED, CKR_SESSION_HANDLE_INVALID,
    CKR_TOKEN_NOT_PRESENT,
};
use nix::sys::signal::{SigHandler, Signal, raise, signal};

use super::lanes::sleep_until;
use super::library::Phase;
use super::sessions::{Busy, Fate, Session};
use super::{Module, Real, call, complain};
use crate::{Corruption, Crash, Effect, Function, IdleEnd, MisuseKind};

/// What a call is on.
#[derive(Clone, Copy)]
pub(super) enum On {
    Library,
    Slot,
    Session(CK_SESSION_HANDLE),
}

/// Takes a call from the application through the device to `work`, which speaks to the real module. No panic passes.
pub(super) fn enter(function: Function, on: On, work: impl FnOnce(&Call) -> CK_RV) -> CK_RV {
    enter_as(function, on, Kind::Full, work)
}

/// The same for a call that only asks for a length, which faults pass by.
pub(super) fn enter_query(function: Function, on: On, work: impl FnOnce(&Call) -> CK_RV) -> CK_RV {
    enter_as(function, on, Kind::LengthQuery, work)
}

/// A call on its way.
pub(super) struct Call {
    pub(super) module: &'static Module,
    pub(super) function: Function,
    /// In calls on a session, that session.
    session: Option<Arc<Session>>,
    /// How the signature is to be spoilt.
    pub(super) corruption: Option<Corruption>,
    /// Whether the call has failed already and only its operation is to be ended.
    pub(super) ending: bool,
}

impl Call {
    pub(super) fn real(&self) -> Real<'static> {
        self.module.real()
    }

    /// The session of a call on one.
    pub(super) fn session(&self) -> &Arc<Session> {
        self.session.as_ref().expect("only calls entered with a session ask for it")
    }

    pub(super) fn misuse(&self, kind: MisuseKind) {
        self.module.tally.misuse(kind, self.function);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    LengthQuery,
}

fn enter_as(function: Function, on: On, kind: Kind, work: impl FnOnce(&Call) -> CK_RV) -> CK_RV {
    let walk = || Module::loaded().map_or(CKR_GENERAL_ERROR, |module| module.pass(function, on, kind, work));
    catch_unwind(AssertUnwindSafe(walk)).unwrap_or_else(|_| {
        complain(format!("{function} panicked"));
        CKR_GENERAL_ERROR
    })
}

impl Module {
    fn pass(&'static self, function: Function, on: On, kind: Kind, work: impl FnOnce(&Call) -> CK_RV) -> CK_RV {
        let _under_way = self.tally.begin(function, kind == Kind::LengthQuery);
        if let Err(code) = self.admit(function) {
            return code;
        }
        let mut call = Call { module: self, function, session: None, corruption: None, ending: false };
        let mut on_session = None;
        if let On::Session(handle) = on {
            match self.admit_session(function, handle) {
                Ok((session, busy)) => {
                    call.session = Some(session);
                    on_session = busy;
                }
                Err(code) => return code,
            }
        }
        let code = self.obey(call, on, kind, work);
        if let (Some(on_session), true) = (&on_session, means_lost(code)) {
            on_session.session.known_lost.store(true, Ordering::Release);
        }
        code
    }

    /// What the device and the faults make of a call that the application may make.
    fn obey(&'static self, mut call: Call, on: On, kind: Kind, work: impl FnOnce(&Call) -> CK_RV) -> CK_RV {
        self.idle(&call);
        if let Some(code) = self.trouble(&call, on) {
            return self.fail(call, code, work);
        }
        if kind == Kind::Full {
            let drawn = self.draw(call.function);
            if drawn.fallen {
                self.tally.injected(call.function);
                if !drawn.delay.is_zero() {
                    sleep_until(Instant::now() + drawn.delay);
                }
                match drawn.effect {
                    None | Some(Effect::Proceed) => {}
                    Some(Effect::Return { code }) => return self.fail(call, code.0, work),
                    Some(Effect::Hang) => self.hold.wait(),
                    Some(Effect::Crash { how }) => crash(how),
                    Some(Effect::Corrupt { how }) => call.corruption = Some(how),
                    Some(Effect::Strike { event }) => self.strike(event),
                }
                // The world may have changed in the meantime.
                if let Err(code) = self.admit(call.function) {
                    return code;
                }
                if let Some(code) = self.trouble(&call, on) {
                    return self.fail(call, code, work);
                }
            }
        }
        let code = work(&call);
        match code {
            CKR_OPERATION_ACTIVE => call.misuse(MisuseKind::OperationActive),
            CKR_OPERATION_NOT_INITIALIZED => call.misuse(MisuseKind::OperationNotInitialized),
            _ => {}
        }
        code
    }

    /// Gives an error; what the call would have ended, is over.
    fn fail(&self, mut call: Call, code: CK_RV, work: impl FnOnce(&Call) -> CK_RV) -> CK_RV {
        let open = call.session.as_ref().is_some_and(|session| session.fate() == Fate::Open);
        if open && call.function.ends_operation() {
            call.ending = true;
            work(&call);
        }
        code
    }

    fn admit(&self, function: Function) -> Result<(), CK_RV> {
        if function == Function::C_Initialize {
            return Ok(());
        }
        let kind = match self.life.phase() {
            Phase::Before => MisuseKind::BeforeInitialize,
            Phase::After => MisuseKind::AfterFinalize,
            Phase::Live => {
                if !self.life.threads_allowed() && self.tally.under_way() > 1 {
                    self.tally.misuse(MisuseKind::ThreadsWithoutLocking, function);
                }
                return Ok(());
            }
        };
        self.tally.misuse(kind, function);
        Err(CKR_CRYPTOKI_NOT_INITIALIZED)
    }

    fn admit_session(
        &self,
        function: Function,
        handle: CK_SESSION_HANDLE,
    ) -> Result<(Arc<Session>, Option<OnSession>), CK_RV> {
        let closing = function == Function::C_CloseSession;
        // Bindings end a search as they drop it, whatever became of the session.
        let tidying = closing || function == Function::C_FindObjectsFinal;
        let Some(session) = self.sessions.find(handle) else {
            self.tally.misuse(MisuseKind::UnknownSession, function);
            return Err(CKR_SESSION_HANDLE_INVALID);
        };
        if session.fate() == Fate::Closed {
            let kind = if closing { MisuseKind::ClosedTwice } else { MisuseKind::UsedAfterClose };
            self.tally.misuse(kind, function);
            return Err(CKR_SESSION_HANDLE_INVALID);
        }
        if !tidying && session.known_lost.load(Ordering::Acquire) {
            self.tally.misuse(MisuseKind::ReusedAfterLoss, function);
        }
        let busy = session.occupy();
        if busy.is_none() {
            self.tally.misuse(MisuseKind::SessionShared, function);
        }
        let on_session = Some(OnSession { session: Arc::clone(&session), _busy: busy });
        Ok((session, on_session))
    }

    /// What the device's state makes of the call.
    fn trouble(&self, call: &Call, on: On) -> Option<CK_RV> {
        match (call.function, on) {
            // Closing is the module's own affair, and these two say what slots there are.
            (Function::C_CloseSession | Function::C_CloseAllSessions | Function::C_GetSlotInfo, _) => None,
            (_, On::Library) => None,
            (_, On::Slot) => self.device().slot_trouble(),
            (function, On::Session(_)) => self.device().session_trouble(function, call.session().fate()),
        }
    }

    /// What idleness has made of the session.
    fn idle(&self, call: &Call) {
        let Some(session) = &call.session else { return };
        let idle = session.use_now();
        let Some((limit, end)) = self.device().idle_limit() else { return };
        if idle <= limit || call.function == Function::C_CloseSession {
            return;
        }
        match end {
            IdleEnd::Hang => self.hold.wait(),
            IdleEnd::Lose => {
                let real = self.real();
                if session.meets(Fate::Lost(crate::ckr::CKR_SESSION_HANDLE_INVALID)) {
                    // SAFETY: takes no pointer; the session is the real module's own and, as just found, open.
                    unsafe { call!(real.list, C_CloseSession(session.real)) };
                }
            }
        }
    }
}

struct OnSession {
    session: Arc<Session>,
    _busy: Option<Busy>,
}

/// Codes after which a good application closes the session and never uses it again.
fn means_lost(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_DEVICE_ERROR | CKR_DEVICE_REMOVED | CKR_SESSION_CLOSED | CKR_SESSION_HANDLE_INVALID | CKR_TOKEN_NOT_PRESENT
    )
}

fn crash(how: Crash) {
    let death = match how {
        Crash::Segv => Signal::SIGSEGV,
        Crash::Abort => Signal::SIGABRT,
        Crash::Kill => Signal::SIGKILL,
    };
    if how != Crash::Kill {
        // SAFETY: the default action is no code of ours. Without it a handler, as that of Rust's runtime for stack
        // overflows, would return from a signal that no instruction caused.
        let _ = unsafe { signal(death, SigHandler::SigDfl) };
    }
    let _ = raise(death);
    // The signal was blocked.
    process::abort();
}
