//! Administering a token through its vendor's PKCS#11 module.

#![forbid(unsafe_code)]

mod session;

use std::sync::Arc;

use cryptoki::mechanism::{MechanismInfo, MechanismType};
use cryptoki::session::UserType;
use cryptoki::slot::{Limit, Slot as SlotHandle, TokenInfo};
use cryptoki::types::AuthPin;

use self::session::Pkcs11AdminSession;
use super::classify::{failed, login_failed};
use super::{ModuleError, PinnedModule, Pkcs11Token, facts};
use crate::custody::token::admin::{
    AdminError, AdminSession, NewToken, Slot, TokenAdmin, TokenSeen, USER_PIN_COUNT_LOW,
};
use crate::custody::token::{Pin, Remedy, TokenError};
use crate::custody::uri::TokenUri;

/// A loaded and initialised module with all its slots. One per process.
pub struct Pkcs11Admin(Pkcs11Token);

impl Pkcs11Admin {
    /// Loads the vendor's module, as [`Pkcs11Token::load`] does.
    ///
    /// # Errors
    /// As there.
    pub fn load(module: &PinnedModule) -> Result<Self, ModuleError> {
        Pkcs11Token::load(module, TokenUri::default()).map(Self)
    }

    /// Initialises it; before that nothing can be asked.
    ///
    /// # Errors
    /// When the module does not initialise.
    pub fn start(&self) -> Result<(), TokenError> {
        self.0.initialized()
    }

    fn seen(&self, slot: SlotHandle) -> Result<Slot, AdminError> {
        let about = self.0.context.get_slot_info(slot).map_err(|e| failed("C_GetSlotInfo", e))?;
        let token = if about.token_present() {
            let info = self.0.context.get_token_info(slot).map_err(|e| failed("C_GetTokenInfo", e))?;
            Some(self.describe(slot, &info))
        } else {
            None
        };
        Ok(Slot { id: slot.id(), description: about.slot_description().to_owned(), token })
    }

    fn describe(&self, slot: SlotHandle, info: &TokenInfo) -> TokenSeen {
        // A token without CKM_ECDSA answers with an error, which says the same.
        let ecdsa = self.0.context.get_mechanism_info(slot, MechanismType::ECDSA).ok().filter(MechanismInfo::sign);
        TokenSeen {
            initialized: info.token_initialized(),
            flags: flags(info),
            max_sessions: match info.max_session_count() {
                Limit::Max(most) => Some(most),
                Limit::Unavailable | Limit::Infinite => None,
            },
            ecdsa_bits: ecdsa.map(|ecdsa| (ecdsa.min_key_size() as u64, ecdsa.max_key_size() as u64)),
            ..TokenSeen::from(facts(info))
        }
    }

    /// The slot to initialise; everything that can be refused is refused here, before anything is destroyed.
    fn choose(&self, wanted: &NewToken<'_>) -> Result<SlotHandle, AdminError> {
        let printable = wanted.label.chars().all(|c| !c.is_control()) && wanted.label.trim() == wanted.label;
        if !(1..=32).contains(&wanted.label.len()) || !printable {
            return Err(AdminError::Label(wanted.label.to_owned()));
        }
        let all = self.0.context.get_all_slots().map_err(|e| failed("C_GetSlotList", e))?;
        let mut tokens = Vec::new();
        for slot in all {
            tokens.extend(self.seen(slot)?.token.map(|token| (slot, token)));
        }
        let labelled = |token: &TokenSeen| token.initialized && token.label == wanted.label;
        let chosen = match wanted.slot {
            Some(id) => tokens.iter().find(|(slot, _)| slot.id() == id),
            None if wanted.reinitialise => tokens.iter().find(|(_, token)| labelled(token)),
            None => None,
        };
        // Without --slot, a token of this label is in the way of another one with it, so it is the one that is meant.
        let taken = tokens.iter().find(|(slot, token)| labelled(token) && chosen.is_none_or(|(c, _)| c != slot));
        if let Some((slot, token)) = taken {
            return Err(match chosen {
                Some(_) => AdminError::LabelTaken { slot: slot.id(), label: token.label.clone() },
                None => initialised(*slot, token),
            });
        }
        let empty = || tokens.iter().find(|(_, token)| !token.initialized);
        let chosen = chosen.or_else(|| if wanted.slot.is_none() { empty() } else { None });
        match chosen {
            Some((slot, token)) if token.initialized && !wanted.reinitialise => Err(initialised(*slot, token)),
            Some((slot, _)) => Ok(*slot),
            None => Err(AdminError::NoSlot(match wanted.slot {
                Some(id) => format!("there is no token in slot {id}; `signerctl token list` shows the slots"),
                None => "no slot holds an empty token; insert one, or name the slot to reinitialise".to_owned(),
            })),
        }
    }
}

impl TokenAdmin for Pkcs11Admin {
    fn slots(&self) -> Result<Vec<Slot>, AdminError> {
        let slots = self.0.context.get_all_slots().map_err(|e| failed("C_GetSlotList", e))?;
        slots.into_iter().map(|slot| self.seen(slot)).collect()
    }

    fn initialise(&self, wanted: &NewToken<'_>) -> Result<Slot, AdminError> {
        let slot = self.choose(wanted)?;
        let info = self.0.context.get_token_info(slot).map_err(|e| failed("C_GetTokenInfo", e))?;
        if info.token_initialized() {
            // Slots may be numbered anew and tokens exchanged while a person reads the question.
            let token = TokenSeen::from(facts(&info));
            if wanted.expect_serial != Some(token.serial.as_str()) {
                let TokenSeen { label, serial, .. } = token;
                return Err(AdminError::OtherToken { slot: slot.id(), label, serial });
            }
        }
        let so_pin = settable(&info, wanted.so_pin, "the security officer's PIN")?;
        let user_pin = settable(&info, wanted.user_pin, "the user PIN")?;
        if info.token_initialized() && (info.so_pin_final_try() || info.so_pin_locked()) {
            let why = "one more wrong security officer's PIN locks the token for ever, or it is locked already";
            return Err(AdminError::PinNotTried(why.to_owned()));
        }
        self.0.context.init_token(slot, &so_pin, wanted.label).map_err(|error| match login_failed(error) {
            TokenError::PinRefused(why) => {
                TokenError::PinRefused(format!("the security officer's PIN is wrong: {why}"))
            }
            // C_InitToken logs nobody in; what it says is about the token.
            TokenError::LoginUnclear(source) => {
                TokenError::Device { operation: "C_InitToken", remedy: Remedy::NewSession, source }
            }
            other => other,
        })?;
        let half = |error: TokenError| AdminError::HalfInitialised(Box::new(error.into()));
        let session = self.0.context.open_rw_session(slot).map_err(|e| half(failed("C_OpenSession", e)))?;
        session.login(UserType::So, Some(&so_pin)).map_err(|e| half(login_failed(e)))?;
        session.init_pin(&user_pin).map_err(|e| half(failed("C_InitPIN", e)))?;
        session.logout().map_err(|e| failed("C_Logout", e))?;
        self.seen(slot)
    }

    fn open(&self, token: &TokenUri) -> Result<Box<dyn AdminSession>, AdminError> {
        // The one way to find a token is the worker's own.
        let (found, _) = self.0.find_slot(token)?;
        let slot = self.seen(found)?;
        let session = self.0.context.open_rw_session(found).map_err(|e| failed("C_OpenSession", e))?;
        Ok(Box::new(Pkcs11AdminSession { session, calls: Arc::clone(&self.0.calls), slot }))
    }
}

/// `CKF_…` flags in words, the ones an operator acts on first.
fn flags(info: &TokenInfo) -> Vec<String> {
    let all = [
        (info.error_state(), "device failed its self-test"),
        (info.user_pin_locked(), "user PIN locked"),
        (info.user_pin_final_try(), "one wrong user PIN from being locked"),
        (info.user_pin_count_low(), USER_PIN_COUNT_LOW),
        (info.user_pin_to_be_changed(), "user PIN must be changed"),
        (info.token_initialized() && !info.user_pin_initialized(), "user PIN never set"),
        (info.so_pin_locked(), "security officer's PIN locked"),
        (info.so_pin_final_try(), "one wrong security officer's PIN from being locked"),
        (info.so_pin_count_low(), "wrong security officer's PIN seen"),
        (info.write_protected(), "write protected"),
        (info.protected_authentication_path(), "PIN pad of its own"),
        (info.login_required(), "login required"),
        (info.rng(), "random numbers"),
        (info.clock_on_token(), "clock"),
    ];
    all.into_iter().filter(|(set, _)| *set).map(|(_, words)| words.to_owned()).collect()
}

fn initialised(slot: SlotHandle, token: &TokenSeen) -> AdminError {
    AdminError::Initialised { slot: slot.id(), label: token.label.clone(), serial: token.serial.clone() }
}

/// As the calls that set a PIN take it, which is as UTF-8 (PKCS#11 3.1, section 5.5.7); of its exact size.
fn settable(info: &TokenInfo, pin: &Pin, what: &'static str) -> Result<AuthPin, AdminError> {
    let (least, most) = (info.min_pin_length(), info.max_pin_length());
    // A token that says 0 for the longest PIN does not say.
    if pin.expose().len() < least || (most > 0 && pin.expose().len() > most) {
        return Err(AdminError::PinLength { what, least, most });
    }
    let text = std::str::from_utf8(pin.expose()).map_err(|_| AdminError::PinText(what))?;
    Ok(AuthPin::from(Box::<str>::from(text)))
}
