//! A token behind a vendor's PKCS#11 module.

pub mod admin;
mod classify;
mod direct;
mod elf;
mod lab;
mod lookup;
mod pinned;
mod quirks;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use cryptoki_sys::CK_OBJECT_HANDLE;

pub use self::pinned::{PinError, PinnedModule};

use self::classify::{failed, initialize_failed, login_failed};
pub use self::quirks::{Quirks, set_quirks};

use self::direct::DirectCalls;
use super::{FoundKey, KeySlot, Pin, PinState, Remedy, Token, TokenError, TokenFacts, TokenSession, explain, watch};
use crate::custody::uri::{KeyUri, TokenUri};

/// A loaded module and the one token in it that the URI names. One per process.
///
/// The module is initialised by the first call that needs it, and finalised when this is dropped. To initialise it anew
/// the library stays mapped and its function list is kept: a vendor's library is not made to be unloaded, least of all
/// with threads of its own, and mapped again it would be the same one. What must not happen twice is an initialisation
/// without the end of the one before, and that is held by [`Module`] and its lock.
pub struct Pkcs11Token {
    context: Pkcs11,
    calls: Arc<DirectCalls>,
    uri: TokenUri,
    module: Mutex<Module>,
}

/// How the module stands; no call into it is made but while it is `Up`.
enum Module {
    Untouched,
    Up,
    /// `C_Initialize` failed: with what, and what it takes to go on.
    Down(String, Remedy),
}

/// Why there is no module to talk to. Trying again in the same process does not help.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// PKCS#11 leaves a second initialisation in one process undefined, and two modules share locks, signals and names.
    #[error("this process has already loaded a PKCS#11 module; one process serves one token")]
    SecondModule,
    /// Not a loadable PKCS#11 module.
    #[error("cannot load the PKCS#11 module {path}")]
    Load {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: Error,
    },
    /// Not the file that was judged.
    #[error(transparent)]
    Pinned(#[from] PinError),
}

impl Pkcs11Token {
    /// Loads the vendor's module.
    ///
    /// # Errors
    /// When the file is no PKCS#11 module, is not the one that was judged any more, or is the second one of this
    /// process.
    pub fn load(module: &PinnedModule, uri: TokenUri) -> Result<Self, ModuleError> {
        static LOADED: AtomicBool = AtomicBool::new(false);
        if LOADED.swap(true, Ordering::SeqCst) {
            return Err(ModuleError::SecondModule);
        }
        let load = |source| ModuleError::Load { path: module.path().to_owned(), source };
        // A library runs code of its own when it is mapped, and that can block, too.
        let loading = watch::call("loading the PKCS#11 module");
        let context = Pkcs11::new(module.path()).map_err(load)?;
        module.check_again()?;
        let calls = Arc::new(DirectCalls::of(module.path()).map_err(load)?);
        drop(loading);
        Ok(Self { context, calls, uri, module: Mutex::new(Module::Untouched) })
    }

    /// Initialises the module if nobody has tried yet. After a failed attempt only [`Token::reinitialize`] tries again.
    fn initialized(&self) -> Result<(), TokenError> {
        let mut module = self.module.lock().unwrap_or_else(PoisonError::into_inner);
        match &*module {
            Module::Up => Ok(()),
            Module::Untouched => self.initialize(&mut module),
            Module::Down(why, remedy) => {
                Err(TokenError::Device { operation: "C_Initialize", remedy: *remedy, source: why.clone().into() })
            }
        }
    }

    fn initialize(&self, module: &mut Module) -> Result<(), TokenError> {
        let _call = watch::call("C_Initialize");
        let done = self.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let done = done.map_err(initialize_failed);
        *module = match &done {
            Ok(()) => Module::Up,
            Err(error) => {
                Module::Down(std::error::Error::source(error).map(explain).unwrap_or_default(), error.remedy())
            }
        };
        done
    }

    fn finalize(&self) {
        let _call = watch::call("C_Finalize");
        if let Err(error) = self.context.clone().finalize() {
            tracing::debug!(%error, "the PKCS#11 module did not finalise");
        }
    }

    /// A session for reading, or for reading and writing where the module knows no other.
    fn open(&self, slot: Slot) -> Result<Session, TokenError> {
        let _call = watch::call("C_OpenSession");
        let opened = if quirks::read_write_sessions() {
            self.context.open_rw_session(slot)
        } else {
            self.context.open_ro_session(slot)
        };
        opened.map_err(|e| failed("C_OpenSession", e))
    }

    /// Looked up each time: slots come and go with tokens.
    fn slot(&self) -> Result<(Slot, TokenInfo), TokenError> {
        self.find_slot(&self.uri)
    }

    fn find_slot(&self, uri: &TokenUri) -> Result<(Slot, TokenInfo), TokenError> {
        self.initialized()?;
        let slots = {
            let _call = watch::call("C_GetSlotList");
            self.context.get_slots_with_token().map_err(|e| failed("C_GetSlotList", e))?
        };
        // A slot that cannot be read must not hide the token in another one.
        let (mut tokens, mut unread) = (Vec::new(), None);
        for slot in slots {
            let _call = watch::call("C_GetTokenInfo");
            match self.context.get_token_info(slot) {
                Ok(info) => tokens.push((slot, info)),
                Err(error) => unread = unread.or(Some(error)),
            }
        }
        let mut matching = tokens.iter().filter(|(slot, info)| matches(uri, Some(*slot), info));
        match (matching.next(), matching.count()) {
            (Some(found), 0) => Ok(found.clone()),
            (Some(_), more) => Err(TokenError::SeveralTokens { count: more + 1 }),
            (None, _) => {
                if let Some(error) = unread {
                    return Err(failed("C_GetTokenInfo", error));
                }
                let named = |(_, info): &(Slot, TokenInfo)| format!("`{}` {}", info.label(), info.serial_number());
                let initialised = tokens.iter().filter(|(_, info)| info.token_initialized()).take(8);
                let present = initialised.map(named).collect::<Vec<_>>().join(", ");
                Err(TokenError::Absent { present: if present.is_empty() { "none".to_owned() } else { present } })
            }
        }
    }
}

impl Token for Pkcs11Token {
    fn facts(&self) -> Result<TokenFacts, TokenError> {
        self.slot().map(|(_, info)| facts(&info))
    }

    fn open_session(&self) -> Result<Box<dyn TokenSession>, TokenError> {
        let (slot, info) = self.slot()?;
        let session = self.open(slot)?;
        Ok(Box::new(Pkcs11Session { session, closing: None, calls: Arc::clone(&self.calls), info }))
    }

    fn reinitialize(&self) -> Result<(), TokenError> {
        let mut module = self.module.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*module, Module::Up) {
            self.finalize();
        }
        self.initialize(&mut module)
    }
}

impl Drop for Pkcs11Token {
    fn drop(&mut self) {
        if matches!(self.module.get_mut().unwrap_or_else(PoisonError::into_inner), Module::Up) {
            self.finalize();
        }
    }
}

struct Pkcs11Session {
    // Closed when it is dropped, which is watched by the field after it.
    session: Session,
    closing: Option<watch::Call>,
    calls: Arc<DirectCalls>,
    info: TokenInfo,
}

impl Drop for Pkcs11Session {
    fn drop(&mut self) {
        self.closing = Some(watch::call("C_CloseSession"));
    }
}

impl TokenSession for Pkcs11Session {
    fn is_logged_in(&self) -> Result<bool, TokenError> {
        let _call = watch::call("C_GetSessionInfo");
        let info = self.session.get_session_info().map_err(|e| failed("C_GetSessionInfo", e))?;
        Ok(matches!(info.session_state(), SessionState::RoUser | SessionState::RwUser))
    }

    fn login(&self, pin: &Pin) -> Result<(), TokenError> {
        // Of its exact size, wiped on drop.
        let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        let _call = watch::call(watch::LOGIN);
        match self.session.login_with_raw(UserType::User, &pin) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) => Err(login_failed(error)),
        }
    }

    fn logout(&self) -> Result<(), TokenError> {
        let _call = watch::call("C_Logout");
        self.session.logout().map_err(|e| failed("C_Logout", e))
    }

    fn find_key(&self, uri: &KeyUri) -> Result<FoundKey, TokenError> {
        if !matches(&uri.token, None, &self.info) {
            return Err(TokenError::KeyNotFound { uri: uri.to_string() });
        }
        lookup::find_key(&self.session, &self.calls, uri)
    }

    fn sign(&self, key: KeySlot, digest: &[u8; 32]) -> Result<[u8; 64], TokenError> {
        match self.calls.ecdsa(self.session.handle(), key.0 as CK_OBJECT_HANDLE, digest) {
            Ok(Ok(signature)) => Ok(signature),
            #[allow(clippy::useless_conversion, reason = "a CK_ULONG is not 64 bits wide everywhere")]
            Ok(Err(length)) => Err(TokenError::OddSignature { operation: "C_Sign", length: length.into() }),
            Err(error) => Err(failed("C_Sign", error)),
        }
    }
}

fn matches(uri: &TokenUri, slot: Option<Slot>, info: &TokenInfo) -> bool {
    let equal = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    equal(&uri.token, info.label())
        && equal(&uri.serial, info.serial_number())
        && equal(&uri.manufacturer, info.manufacturer_id())
        && equal(&uri.model, info.model())
        && uri.slot_id.is_none_or(|wanted| slot.is_none_or(|slot| slot.id() == wanted))
}

fn facts(info: &TokenInfo) -> TokenFacts {
    let pin = if info.user_pin_locked() {
        PinState::Locked
    } else if info.user_pin_final_try() {
        PinState::FinalTry
    } else if !info.user_pin_initialized() {
        PinState::NotInitialized
    } else if info.user_pin_to_be_changed() {
        PinState::MustChange
    } else if info.user_pin_count_low() {
        PinState::CountLow
    } else {
        PinState::Good
    };
    TokenFacts {
        label: info.label().to_owned(),
        serial: info.serial_number().to_owned(),
        manufacturer: info.manufacturer_id().to_owned(),
        // tpm2-pkcs11 pads the model with NUL, where the standard has blanks.
        model: info.model().trim_end_matches('\0').trim_end().to_owned(),
        firmware: info.firmware_version().to_string(),
        pin,
    }
}
