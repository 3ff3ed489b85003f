//! Sessions and logins.

use std::hash::{DefaultHasher, Hasher};
use std::ptr;

use cryptoki_sys::{
    CK_FLAGS, CK_NOTIFY, CK_RV, CK_SESSION_HANDLE, CK_SESSION_HANDLE_PTR, CK_SLOT_ID, CK_ULONG, CK_USER_TYPE,
    CK_UTF8CHAR_PTR, CK_VOID_PTR, CKR_ARGUMENTS_BAD, CKR_OK, CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKR_SESSION_COUNT,
    CKR_SESSION_HANDLE_INVALID, CKU_USER,
};

use super::entry::{Call, On, enter};
use super::sessions::Fate;
use super::{Module, call, lock};
use crate::{Function, MisuseKind};

pub(super) unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    _application: CK_VOID_PTR,
    _notify: CK_NOTIFY,
    session: CK_SESSION_HANDLE_PTR,
) -> CK_RV {
    enter(Function::C_OpenSession, On::Slot, |call| {
        if session.is_null() {
            return CKR_ARGUMENTS_BAD;
        }
        let limit = call.module.device().session_limit();
        let _one_at_a_time = lock(&call.module.sessions.opening);
        if limit.is_some_and(|limit| call.module.sessions.open().0 >= limit) {
            return CKR_SESSION_COUNT;
        }
        let mut opened = 0;
        let real = call.real();
        // SAFETY: `opened` outlives the call. The application's callback is kept from the real module, which would call
        // it with its own handle.
        let code = unsafe { call!(real.list, C_OpenSession(slot, flags, ptr::null_mut(), None, &mut opened)) };
        if code == CKR_OK {
            // SAFETY: not null, and the application vouches for the rest.
            unsafe { session.write(call.module.sessions.enter(opened, slot)) };
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    enter(Function::C_CloseSession, On::Session(session), |call| {
        let session = call.session();
        let real = call.real();
        if !session.meets(Fate::Closed) {
            return CKR_SESSION_HANDLE_INVALID;
        }
        // SAFETY: takes no pointer.
        let code = unsafe { call!(real.list, C_CloseSession(session.real)) };
        if call.module.sessions.open().0 == 0 {
            call.module.device().epoch += 1;
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    enter(Function::C_CloseAllSessions, On::Slot, |call| {
        let real = call.real();
        // SAFETY: takes no pointer.
        let code = unsafe { call!(real.list, C_CloseAllSessions(slot)) };
        if code == CKR_OK {
            for session in call.module.sessions.having(|session| session.slot == slot) {
                session.meets(Fate::Closed);
            }
            call.module.device().epoch += 1;
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    length: CK_ULONG,
) -> CK_RV {
    enter(Function::C_Login, On::Session(session), |call| {
        let attempt = || {
            // SAFETY: the arguments are the application's, handed on as they came.
            unsafe { call!(call.real().list, C_Login(call.session().real, user, pin, length)) }
        };
        if user != CKU_USER {
            return attempt();
        }
        // SAFETY: the application vouches that a PIN that is not null has its length, and nobody writes to it.
        let mark = (!pin.is_null()).then(|| mark(unsafe { std::slice::from_raw_parts(pin, length as usize) }));
        let code = judge(call, mark, attempt);
        if code == CKR_OK {
            let mut device = call.module.device();
            device.login_lost = false;
            device.epoch += 1;
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_Logout(session: CK_SESSION_HANDLE) -> CK_RV {
    enter(Function::C_Logout, On::Session(session), |call| {
        // SAFETY: takes no pointer.
        let code = unsafe { call!(call.real().list, C_Logout(call.session().real)) };
        call.module.device().epoch += 1;
        code
    })
}

pub(super) unsafe extern "C" fn C_SetPIN(
    session: CK_SESSION_HANDLE,
    old: CK_UTF8CHAR_PTR,
    old_length: CK_ULONG,
    new: CK_UTF8CHAR_PTR,
    new_length: CK_ULONG,
) -> CK_RV {
    enter(Function::C_SetPIN, On::Session(session), |call| {
        // SAFETY: the application vouches that a PIN that is not null has its length, and nobody writes to it.
        let mark = (!old.is_null()).then(|| mark(unsafe { std::slice::from_raw_parts(old, old_length as usize) }));
        judge(call, mark, || {
            // SAFETY: the arguments are the application's, handed on as they came.
            unsafe { call!(call.real().list, C_SetPIN(call.session().real, old, old_length, new, new_length)) }
        })
    })
}

pub(super) unsafe extern "C" fn C_InitPIN(session: CK_SESSION_HANDLE, pin: CK_UTF8CHAR_PTR, length: CK_ULONG) -> CK_RV {
    enter(Function::C_InitPIN, On::Session(session), |call| {
        // SAFETY: the arguments are the application's, handed on as they came.
        let code = unsafe { call!(call.real().list, C_InitPIN(call.session().real, pin, length)) };
        if code == CKR_OK {
            call.module.unblock_pin();
        }
        code
    })
}

impl Module {
    /// Forgets failed attempts, as the security officer does.
    pub(super) fn unblock_pin(&self) {
        self.remember(|state| state.pin.failed = 0);
    }
}

/// Has the real module judge a user's PIN, unless it is locked, and keeps the account as a device does.
fn judge(call: &Call, mark: Option<u64>, attempt: impl FnOnce() -> CK_RV) -> CK_RV {
    let module = call.module;
    let limit = module.device().pin_attempts();
    let pin = module.state.read().map(|state| state.pin).unwrap_or_default();
    if limit.is_some_and(|limit| pin.failed >= limit) {
        call.misuse(MisuseKind::LoginWhileLocked);
        module.remember(|state| state.pin.while_locked += 1);
        return CKR_PIN_LOCKED;
    }
    let code = attempt();
    match code {
        CKR_OK => module.remember(|state| {
            state.pin.attempts += 1;
            state.pin.accepted += 1;
            state.pin.failed = 0;
        }),
        CKR_PIN_INCORRECT => {
            if mark.is_some() && mark == pin.refused {
                call.misuse(MisuseKind::RefusedPinAgain);
            }
            module.remember(|state| {
                state.pin.attempts += 1;
                state.pin.incorrect += 1;
                state.pin.failed += 1;
                state.pin.refused = mark;
            });
        }
        // Refused for another reason, without a look at the PIN.
        _ => {}
    }
    code
}

/// Recognises a PIN that was refused before. A test's PIN needs no better hiding.
fn mark(pin: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(pin);
    hasher.finish()
}
