//! A token behind a vendor's PKCS#11 module.

mod classify;
mod direct;
mod lab;
mod lookup;
mod quirks;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use cryptoki_sys::CK_OBJECT_HANDLE;

pub use self::quirks::{Quirks, set_quirks};

use self::classify::{failed, login_failed};
use self::direct::SignCalls;
use super::{FoundKey, KeySlot, Pin, PinState, Remedy, Token, TokenError, TokenFacts, TokenSession};
use crate::custody::uri::{KeyUri, TokenUri};

/// A loaded and initialised module and the one token in it that the URI names. One per process.
pub struct Pkcs11Token {
    context: Pkcs11,
    calls: Arc<SignCalls>,
    uri: TokenUri,
}

/// Why there is no module to talk to. Trying again in the same process does not help.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// PKCS#11 leaves a second initialisation in one process undefined.
    #[error("this process has already loaded a PKCS#11 module; one process serves one token")]
    SecondModule,
    /// Not a loadable PKCS#11 module.
    #[error("cannot load the PKCS#11 module {path}")]
    Load {
        /// Its path.
        path: std::path::PathBuf,
        /// Why.
        source: Error,
    },
    /// The module cannot be initialised.
    #[error("the PKCS#11 module {path} does not initialise")]
    Initialize {
        /// Its path.
        path: std::path::PathBuf,
        /// Why.
        source: Error,
    },
}

impl Pkcs11Token {
    /// Loads and initialises the vendor's module.
    ///
    /// # Errors
    /// When the file is no PKCS#11 module, does not initialise, or is the second one of this process.
    pub fn load(module: &Path, uri: TokenUri) -> Result<Self, ModuleError> {
        static LOADED: AtomicBool = AtomicBool::new(false);
        if LOADED.swap(true, Ordering::SeqCst) {
            return Err(ModuleError::SecondModule);
        }
        let load = |source| ModuleError::Load { path: module.to_owned(), source };
        let context = Pkcs11::new(module).map_err(load)?;
        let calls = Arc::new(SignCalls::of(module).map_err(load)?);
        context
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(|source| ModuleError::Initialize { path: module.to_owned(), source })?;
        Ok(Self { context, calls, uri })
    }

    /// A session for reading, or for reading and writing where the module knows no other.
    fn open(&self, slot: Slot) -> Result<Session, TokenError> {
        let opened = if quirks::read_write_sessions() {
            self.context.open_rw_session(slot)
        } else {
            self.context.open_ro_session(slot)
        };
        opened.map_err(|e| failed("C_OpenSession", e))
    }

    /// Looked up each time: slots come and go with tokens.
    fn slot(&self) -> Result<(Slot, TokenInfo), TokenError> {
        let slots = self.context.get_slots_with_token().map_err(|e| failed("C_GetSlotList", e))?;
        // A slot that cannot be read must not hide the token in another one.
        let tokens: Vec<_> =
            slots.into_iter().filter_map(|slot| Some((slot, self.context.get_token_info(slot).ok()?))).collect();
        let mut matching = tokens.iter().filter(|(slot, info)| matches(&self.uri, Some(*slot), info));
        match (matching.next(), matching.count()) {
            (Some(found), 0) => Ok(found.clone()),
            (Some(_), more) => Err(TokenError::SeveralTokens { count: more + 1 }),
            (None, _) => {
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
        Ok(Box::new(Pkcs11Session { session, calls: Arc::clone(&self.calls), info }))
    }
}

impl Drop for Pkcs11Token {
    fn drop(&mut self) {
        if let Err(error) = self.context.clone().finalize() {
            tracing::debug!(%error, "the PKCS#11 module did not finalise");
        }
    }
}

struct Pkcs11Session {
    session: Session,
    calls: Arc<SignCalls>,
    info: TokenInfo,
}

impl TokenSession for Pkcs11Session {
    fn is_logged_in(&self) -> Result<bool, TokenError> {
        let info = self.session.get_session_info().map_err(|e| failed("C_GetSessionInfo", e))?;
        Ok(matches!(info.session_state(), SessionState::RoUser | SessionState::RwUser))
    }

    fn login(&self, pin: &Pin) -> Result<(), TokenError> {
        // Of its exact size, wiped on drop.
        let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        match self.session.login_with_raw(UserType::User, &pin) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) => Err(login_failed(error)),
        }
    }

    fn find_key(&self, uri: &KeyUri) -> Result<FoundKey, TokenError> {
        if !matches(&uri.token, None, &self.info) {
            return Err(TokenError::KeyNotFound { uri: uri.to_string() });
        }
        lookup::find_key(&self.session, uri)
    }

    fn sign(&self, key: KeySlot, digest: &[u8; 32]) -> Result<[u8; 64], TokenError> {
        match self.calls.ecdsa(self.session.handle(), key.0 as CK_OBJECT_HANDLE, digest) {
            Ok(Some(signature)) => Ok(signature),
            Ok(None) => Err(TokenError::Device {
                operation: "C_Sign",
                remedy: Remedy::NewSession,
                source: "the module returned a signature that is not 64 bytes long".into(),
            }),
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
