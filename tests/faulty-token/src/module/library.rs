//! The module's life, slots and tokens.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use cryptoki_sys::{
    CK_BBOOL, CK_C_INITIALIZE_ARGS, CK_FLAGS, CK_INFO_PTR, CK_RV, CK_SLOT_ID, CK_SLOT_ID_PTR, CK_SLOT_INFO_PTR,
    CK_TOKEN_INFO_PTR, CK_TRUE, CK_ULONG, CK_ULONG_PTR, CK_UTF8CHAR_PTR, CK_VOID_PTR, CKF_DONT_BLOCK,
    CKF_OS_LOCKING_OK, CKF_TOKEN_PRESENT, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED,
    CKR_ARGUMENTS_BAD, CKR_CRYPTOKI_ALREADY_INITIALIZED, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_NO_EVENT, CKR_OK,
    CKR_SLOT_ID_INVALID,
};

use super::entry::{On, enter};
use super::sessions::Fate;
use super::{Module, call, lock};
use crate::{Function, MisuseKind};

/// Where the application is between `C_Initialize` and `C_Finalize`.
#[derive(Default)]
pub(super) struct Life {
    phase: AtomicU8,
    threads: AtomicBool,
}

impl Life {
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Before,
            1 => Phase::Live,
            _ => Phase::After,
        }
    }

    /// Whether the application said that it would use threads.
    pub(super) fn threads_allowed(&self) -> bool {
        self.threads.load(Ordering::Acquire)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Before,
    Live,
    After,
}

/// Slots whose token came or went, for those who wait for it.
#[derive(Default)]
pub(super) struct SlotEvents {
    changed: Mutex<VecDeque<CK_SLOT_ID>>,
    happened: Condvar,
}

impl Module {
    /// Tells those who wait that tokens came or went.
    pub(super) fn announce_slots(&self) {
        if self.life.phase() != Phase::Live {
            return;
        }
        let mut slots: [CK_SLOT_ID; 64] = [0; 64];
        let mut count = slots.len() as CK_ULONG;
        let real = self.real();
        // SAFETY: the array is as long as said and outlives the call.
        let code = unsafe { call!(real.list, C_GetSlotList(CK_TRUE, slots.as_mut_ptr(), &mut count)) };
        if code == CKR_OK {
            lock(&self.slot_events.changed).extend(&slots[..slots.len().min(count as usize)]);
            self.slot_events.happened.notify_all();
        }
    }
}

pub(super) unsafe extern "C" fn C_Initialize(arguments: CK_VOID_PTR) -> CK_RV {
    enter(Function::C_Initialize, On::Library, |call| {
        let module = call.module;
        if module.life.phase() == Phase::Live {
            call.misuse(MisuseKind::InitializedTwice);
            return CKR_CRYPTOKI_ALREADY_INITIALIZED;
        }
        let mut own = CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..CK_C_INITIALIZE_ARGS::default() };
        let mut threads = false;
        if !arguments.is_null() {
            // SAFETY: PKCS#11 has the application pass null or this structure.
            let given = unsafe { *arguments.cast::<CK_C_INITIALIZE_ARGS>() };
            threads = given.flags & CKF_OS_LOCKING_OK != 0 || given.CreateMutex.is_some();
            own.flags |= given.flags;
            own.pReserved = given.pReserved;
        }
        let gate = module.gate.write();
        // SAFETY: the structure outlives the call; the real module locks by itself, because the control thread enters
        // it too. What `pReserved` points to is the application's, as it was.
        let code = unsafe { call!(module.real, C_Initialize((&raw mut own).cast())) };
        if code == CKR_OK {
            module.life.threads.store(threads, Ordering::Release);
            module.life.phase.store(1, Ordering::Release);
            lock(&module.slot_events.changed).clear();
        }
        drop(gate);
        if code == CKR_OK {
            module.recall_device();
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_Finalize(reserved: CK_VOID_PTR) -> CK_RV {
    enter(Function::C_Finalize, On::Library, |call| {
        let module = call.module;
        if module.tally.under_way() > 1 {
            call.misuse(MisuseKind::FinalizeDuringCall);
        }
        let gate = module.gate.write();
        // SAFETY: the argument is the application's, which passes null.
        let code = unsafe { call!(module.real, C_Finalize(reserved)) };
        if code == CKR_OK {
            module.life.phase.store(2, Ordering::Release);
            for session in module.sessions.having(|_| true) {
                session.meets(Fate::Closed);
            }
        }
        drop(gate);
        // Between a waiter's look at the phase and its sleep it holds the lock.
        drop(lock(&module.slot_events.changed));
        module.slot_events.happened.notify_all();
        code
    })
}

pub(super) unsafe extern "C" fn C_GetInfo(info: CK_INFO_PTR) -> CK_RV {
    enter(Function::C_GetInfo, On::Library, |call| {
        // SAFETY: the argument is the application's, handed on as it came.
        unsafe { call!(call.real().list, C_GetInfo(info)) }
    })
}

pub(super) unsafe extern "C" fn C_GetSlotList(present: CK_BBOOL, slots: CK_SLOT_ID_PTR, count: CK_ULONG_PTR) -> CK_RV {
    enter(Function::C_GetSlotList, On::Library, |call| {
        let away = call.module.device().removed.is_some_and(|removal| removal.with_slot || present == CK_TRUE);
        if !away {
            // SAFETY: the arguments are the application's, handed on as they came.
            return unsafe { call!(call.real().list, C_GetSlotList(present, slots, count)) };
        }
        if count.is_null() {
            return CKR_ARGUMENTS_BAD;
        }
        // SAFETY: not null, and the application vouches for the rest.
        unsafe { count.write(0) };
        CKR_OK
    })
}

pub(super) unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: CK_SLOT_INFO_PTR) -> CK_RV {
    enter(Function::C_GetSlotInfo, On::Slot, |call| {
        let removed = call.module.device().removed;
        if removed.is_some_and(|removal| removal.with_slot) {
            return CKR_SLOT_ID_INVALID;
        }
        // SAFETY: the arguments are the application's, handed on as they came.
        let code = unsafe { call!(call.real().list, C_GetSlotInfo(slot, info)) };
        if code == CKR_OK && removed.is_some() {
            // SAFETY: the real module has just written it.
            unsafe { (*info).flags &= !CKF_TOKEN_PRESENT };
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR) -> CK_RV {
    enter(Function::C_GetTokenInfo, On::Slot, |call| {
        // SAFETY: the arguments are the application's, handed on as they came.
        let code = unsafe { call!(call.real().list, C_GetTokenInfo(slot, info)) };
        if code != CKR_OK {
            return code;
        }
        let (limit, sessions) = {
            let device = call.module.device();
            (device.pin_attempts(), device.session_limit())
        };
        // SAFETY: the real module has just written it, so the application's pointer is good; nobody else has it.
        let info = unsafe { &mut *info };
        info.flags &= !(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED);
        info.flags |= pin_flags(call.module.state.read().map(|state| state.pin.failed).unwrap_or_default(), limit);
        if let Some(sessions) = sessions {
            info.ulMaxSessionCount = sessions as CK_ULONG;
            info.ulMaxRwSessionCount = sessions as CK_ULONG;
            info.ulSessionCount = call.module.sessions.open().0 as CK_ULONG;
        }
        CKR_OK
    })
}

pub(super) unsafe extern "C" fn C_InitToken(
    slot: CK_SLOT_ID,
    pin: CK_UTF8CHAR_PTR,
    length: CK_ULONG,
    label: CK_UTF8CHAR_PTR,
) -> CK_RV {
    enter(Function::C_InitToken, On::Slot, |call| {
        // SAFETY: the arguments are the application's, handed on as they came.
        let code = unsafe { call!(call.real().list, C_InitToken(slot, pin, length, label)) };
        if code == CKR_OK {
            call.module.unblock_pin();
        }
        code
    })
}

pub(super) unsafe extern "C" fn C_WaitForSlotEvent(flags: CK_FLAGS, slot: CK_SLOT_ID_PTR, _: CK_VOID_PTR) -> CK_RV {
    enter(Function::C_WaitForSlotEvent, On::Library, |call| {
        let SlotEvents { changed, happened } = &call.module.slot_events;
        let mut changed = lock(changed);
        if flags & CKF_DONT_BLOCK == 0 {
            let idle = |changed: &mut VecDeque<_>| changed.is_empty() && call.module.life.phase() == Phase::Live;
            changed = happened.wait_while(changed, idle).unwrap_or_else(PoisonError::into_inner);
        }
        if call.module.life.phase() != Phase::Live {
            return CKR_CRYPTOKI_NOT_INITIALIZED;
        }
        if slot.is_null() {
            return CKR_ARGUMENTS_BAD;
        }
        let Some(event) = changed.pop_front() else { return CKR_NO_EVENT };
        // SAFETY: not null, and the application vouches for the rest.
        unsafe { slot.write(event) };
        CKR_OK
    })
}

/// What the flags of a token say after so many wrong PINs in a row (PKCS#11 3.1, table 6).
fn pin_flags(failed: u32, limit: Option<u32>) -> CK_FLAGS {
    let mut flags = 0;
    if failed > 0 {
        flags |= CKF_USER_PIN_COUNT_LOW;
    }
    match limit {
        Some(limit) if failed >= limit => flags |= CKF_USER_PIN_LOCKED,
        Some(limit) if failed + 1 == limit => flags |= CKF_USER_PIN_FINAL_TRY,
        _ => {}
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_a_token_tell_the_wrong_pins_in_a_row() {
        let cases = [
            (0, Some(3), 0),
            (1, Some(3), CKF_USER_PIN_COUNT_LOW),
            (2, Some(3), CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY),
            (3, Some(3), CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_LOCKED),
            (0, Some(1), CKF_USER_PIN_FINAL_TRY),
            (9, None, CKF_USER_PIN_COUNT_LOW),
        ];
        for (failed, limit, flags) in cases {
            assert_eq!(pin_flags(failed, limit), flags, "{failed} of {limit:?}");
        }
    }
}
