//! The exported functions and the device behind them.
//!
//! - `entry`: the way of a call: what the application may do, what the device is like, what was injected, then the work.
//! - `library`, `session`, `sign`, `objects`, `forward`: the functions, by what they need of their own.
//! - `device`, `sessions`, `virtual_keys`, `lanes`, `armed`, `hold`, `tally`: the parts of the device.
//! - `control`: the thread that takes commands.

#![allow(non_snake_case)]

mod armed;
mod control;
mod device;
mod entry;
mod forward;
mod hold;
mod lanes;
mod library;
mod objects;
mod session;
mod sessions;
mod sign;
mod tally;
mod virtual_keys;

use std::env;
use std::io::{self, Write as _};
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_FUNCTION_LIST_PTR_PTR, CK_RV, CKR_ARGUMENTS_BAD, CKR_GENERAL_ERROR, CKR_OK, Pkcs11 as Library,
};

use crate::{MODULE_VARIABLE, STATE_VARIABLE, State, StateFile};

/// Gives the function list; the one symbol that this module exports. `C_GetInterface` is not among them, so that an
/// application that prefers PKCS#11 3.x falls back to this list, which holds everything that faults are made for.
///
/// The first call loads the real module and starts listening for commands.
///
/// # Safety
/// `list` must be null or point to where a pointer can be written.
#[allow(non_snake_case)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    let loaded = catch_unwind(|| Module::load().is_some()).unwrap_or(false);
    if !loaded {
        return CKR_GENERAL_ERROR;
    }
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: not null, and the caller vouches for the rest. Applications only read the list; PKCS#11 lacks the const.
    unsafe { list.write(ptr::from_ref(&forward::LIST).cast_mut()) };
    CKR_OK
}

/// The device, of which there is one in a process, until its end.
struct Module {
    real: CK_FUNCTION_LIST,
    // Keeps the functions above mapped.
    _library: Library,
    /// Held to read by every call into the real module, and to write where nobody may be in it. Never held while a
    /// call waits.
    gate: RwLock<()>,
    life: library::Life,
    sessions: sessions::Sessions,
    device: Mutex<device::Device>,
    faults: armed::Faults,
    hold: hold::Hold,
    lanes: lanes::Lanes,
    memo: Mutex<sign::Memo>,
    virtual_keys: virtual_keys::VirtualKeys,
    slot_events: library::SlotEvents,
    tally: tally::Tally,
    state: StateFile,
}

impl Module {
    /// The device, if its real module was loaded.
    fn loaded() -> Option<&'static Self> {
        MODULE.get().and_then(Option::as_ref)
    }

    fn load() -> Option<&'static Self> {
        let mut fresh = false;
        let module = MODULE.get_or_init(|| {
            fresh = true;
            Self::start().map_err(complain).ok()
        });
        let module = module.as_ref()?;
        if fresh {
            control::listen(module).map_err(complain).ok()?;
        }
        Some(module)
    }

    fn start() -> Result<Self, String> {
        let path = env::var_os(MODULE_VARIABLE).ok_or_else(|| format!("{MODULE_VARIABLE} does not name a module"))?;
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", PathBuf::from(&path).display());
        // SAFETY: loading runs the module's initialisers, for which whoever set the variable vouches.
        let library = unsafe { Library::new(&path) }.map_err(|error| said(&error))?;
        if library.C_GetFunctionList.is_err() {
            return Err(said(&"no C_GetFunctionList"));
        }
        let mut list = ptr::null_mut();
        // SAFETY: the symbol was just found to exist; it may be called before C_Initialize and writes one pointer.
        let code = unsafe { library.C_GetFunctionList(&mut list) };
        if code != CKR_OK || list.is_null() {
            return Err(said(&"C_GetFunctionList failed"));
        }
        // SAFETY: not null, and PKCS#11 has the module own it for as long as it is mapped.
        let real = unsafe { *list };

        let state = env::var_os(STATE_VARIABLE).map_or_else(StateFile::in_memory, StateFile::at);
        let found = state.update(State::next_process).map_err(|error| format!("the state file: {error}"))?;
        let module = Self {
            real,
            _library: library,
            gate: RwLock::default(),
            life: library::Life::default(),
            sessions: sessions::Sessions::default(),
            device: Mutex::new(device::Device::remembering(&found)),
            faults: armed::Faults::default(),
            hold: hold::Hold::default(),
            lanes: lanes::Lanes::default(),
            memo: Mutex::default(),
            virtual_keys: virtual_keys::VirtualKeys::default(),
            slot_events: library::SlotEvents::default(),
            tally: tally::Tally::new(found.loads),
            state,
        };
        for fault in found.faults {
            module.faults.arm(fault);
        }
        module.apply_lanes();
        Ok(module)
    }

    /// The real module, for one call into it or several.
    fn real(&self) -> Real<'_> {
        Real { list: &self.real, _gate: self.gate.read().unwrap_or_else(PoisonError::into_inner) }
    }

    fn device(&self) -> MutexGuard<'_, device::Device> {
        lock(&self.device)
    }

    /// Changes what outlives the process. That it cannot be written is said, and the device goes on with what it has
    /// in memory.
    fn remember<T: Default>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.state.update(change).map_err(|error| complain(format!("the state file: {error}"))).unwrap_or_default()
    }
}

/// The real module's functions. While this lives, nobody closes its sessions from aside.
struct Real<'a> {
    list: &'a CK_FUNCTION_LIST,
    _gate: RwLockReadGuard<'a, ()>,
}

/// Calls a function of the real module by name; must stand in `unsafe`.
macro_rules! call {
    ($list:expr, $name:ident ( $($argument:expr),* $(,)? )) => {
        match $list.$name {
            Some(function) => function($($argument),*),
            None => ::cryptoki_sys::CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}
use call;

static MODULE: OnceLock<Option<Module>> = OnceLock::new();

/// A panic in one call must not stop the others.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A module has no other place to say it.
#[allow(clippy::needless_pass_by_value)]
fn complain(what: String) {
    // Where there is no standard error, nobody is told; that is no reason to panic.
    let _ = writeln!(io::stderr(), "faulty-token: {what}");
}
