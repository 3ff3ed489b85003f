//! A YubiHSM 2, reached through Yubico's connector or over USB.
//!
//! | module | what it is |
//! |---|---|
//! | `bus` | messages to the device and back |
//! | `frame` | what a message looks like, and the errors of the device |
//! | `channel` | SCP03: what is sent within a session |
//! | `auth_session` | a session: opened, renewed before it expires, closed on every path |
//! | `admin` | keys made and destroyed, a device set up, what is wrong with one |
//! | `objects` | finding a key, and what its capabilities mean in the terms of PKCS#11 |
//! | `attestation` | the device's certificate for a key, led up to a pinned root |
//! | `entry`, `journal`, `ledger`, `drain` | the device's log: read, kept, joined to our requests, in time |
//! | `fault` | what went wrong, and what it takes to go on |

#![forbid(unsafe_code)]

pub mod admin;
mod attestation;
mod auth_session;
mod bus;
mod channel;
mod drain;
mod entry;
mod fault;
mod frame;
mod journal;
mod ledger;
mod objects;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use yubihsm::authentication;

use self::attestation::Roots;
use self::auth_session::{AuthSession, Opener, Places};
use self::bus::{Bus, DeviceInfo};
use self::drain::{Drain, Signal};
use self::fault::Fault;
use self::frame::{Command, DeviceError};
use self::journal::Journal;
use self::ledger::{DrainError, Ledger};
use self::objects::DeviceKey;
use super::{FoundKey, KeySlot, Pin, PinState, Remedy, Token, TokenError, TokenFacts, TokenSession};
use crate::config::YubiHsmConnector;
use crate::custody::PublicKey;
use crate::custody::evidence::attestation::Subject;
use crate::custody::uri::{KeyUri, TokenUri};
use crate::dsse;

/// What the worker needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the device is.
    pub connector: YubiHsmConnector,
    /// Which device it must be; without it, the one that is there first.
    pub serial: Option<u32>,
    /// The object id of the authentication key whose password is the PIN.
    pub auth_key: u16,
    /// PEM file with the certificates that vouch for devices.
    pub attestation_roots: Option<PathBuf>,
    /// Sessions that the worker opens. One more is open while the log is taken.
    pub sessions: u32,
    /// The directory of `yubihsm-log.jsonl`.
    pub state_dir: PathBuf,
}

/// Why there is no device to talk to. Trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum YubiHsmError {
    /// The connector cannot be used.
    #[error("the YubiHSM's connector cannot be used: {0}")]
    Connector(String),
    /// `attestation_roots` is of no use.
    #[error("attestation_roots: {0}")]
    Roots(String),
    /// Another worker keeps its device's log there.
    #[error(
        "another process has {0} open: two workers cannot keep one file; stop the other one, or give each token a \
         `state_dir` of its own"
    )]
    JournalInUse(PathBuf),
    /// The log of the device cannot be kept.
    #[error("the device's log cannot be kept in {path}")]
    Journal {
        /// `yubihsm-log.jsonl`.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// One YubiHSM 2.
pub struct YubiHsmToken {
    shared: Arc<Shared>,
    _drain: Drain,
}

struct Shared {
    bus: Arc<Bus>,
    places: Arc<Places>,
    auth_key: u16,
    roots: Option<Roots>,
    /// What was verified once: making a certificate keeps the device busy for a third of a second.
    attested: Mutex<HashMap<Attested, Chain>>,
    ledger: Ledger,
    signal: Arc<Signal>,
}

/// Object id, how many had it before, public key.
type Attested = (u16, u8, PublicKey);

/// DER certificates, the key's own first.
type Chain = Vec<Vec<u8>>;

struct YubiHsmSession {
    shared: Arc<Shared>,
    /// `None` before the login.
    session: RefCell<Option<AuthSession>>,
    facts: TokenFacts,
}

impl YubiHsmToken {
    /// Prepares everything but the connection, which is made at the first use.
    ///
    /// # Errors
    /// When the options are of no use on this machine or in this build.
    pub fn new(options: &Options) -> Result<Self, YubiHsmError> {
        let roots = options.attestation_roots.as_deref().map(Roots::read).transpose().map_err(YubiHsmError::Roots)?;
        let path = Path::new(&options.state_dir).join("yubihsm-log.jsonl");
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::ResourceBusy => YubiHsmError::JournalInUse(path.clone()),
            _ => YubiHsmError::Journal { path: path.clone(), source },
        };
        let journal = Journal::open(&path).map_err(failed)?;
        let shared = Arc::new(Shared {
            bus: Arc::new(Bus::new(&options.connector, options.serial).map_err(YubiHsmError::Connector)?),
            places: Places::new(options.sessions + 1),
            auth_key: options.auth_key,
            roots,
            attested: Mutex::default(),
            ledger: Ledger::new(journal, options.auth_key),
            signal: Arc::default(),
        });
        let drain = Drain::start(Arc::clone(&shared)).map_err(failed)?;
        Ok(Self { shared, _drain: drain })
    }
}

impl Token for YubiHsmToken {
    fn facts(&self) -> Result<TokenFacts, TokenError> {
        facts(&self.shared.bus)
    }

    fn open_session(&self) -> Result<Box<dyn TokenSession>, TokenError> {
        let facts = facts(&self.shared.bus)?;
        Ok(Box::new(YubiHsmSession { shared: Arc::clone(&self.shared), session: RefCell::default(), facts }))
    }
}

impl TokenSession for YubiHsmSession {
    fn is_logged_in(&self) -> Result<bool, TokenError> {
        Ok(self.session.borrow().is_some())
    }

    /// Opens the session on the device: on a YubiHSM each session authenticates itself.
    fn login(&self, pin: &Pin) -> Result<(), TokenError> {
        let key = authentication::Key::derive_from_password(pin.expose());
        let opened = self.shared.opener().open(key.clone());
        let mut session = opened.map_err(|fault| match fault {
            Fault::WrongPassword => TokenError::PinRefused(format!("authentication key {:#06x}", self.shared.auth_key)),
            fault => fault.during(Command::CreateSession),
        })?;
        match session.identify() {
            Err(Fault::Device(DeviceError::LogFull)) => self.shared.make_room(&mut session)?,
            identified => identified.map_err(|fault| fault.during(Command::DeviceInfo))?,
        }
        *self.session.borrow_mut() = Some(session);
        self.shared.signal.opened(&key);
        Ok(())
    }

    fn find_key(&self, uri: &KeyUri) -> Result<FoundKey, TokenError> {
        if !self.is(&uri.token) {
            return Err(TokenError::KeyNotFound { uri: uri.to_string() });
        }
        let mut session = self.session.borrow_mut();
        let session = session.as_mut().ok_or_else(|| Fault::Over.during(Command::GetObjectInfo))?;
        match self.shared.find_key(session, uri) {
            Err(error) if fault::is_log_full(&error) => {
                self.shared.make_room(session)?;
                self.shared.find_key(session, uri)
            }
            found => found,
        }
    }

    fn sign(&self, key: KeySlot, digest: &[u8; 32]) -> Result<[u8; 64], TokenError> {
        let mut session = self.session.borrow_mut();
        let session = session.as_mut().ok_or_else(|| Fault::Over.during(Command::SignEcdsa))?;
        let object =
            u16::try_from(key.0).map_err(|_| Fault::Device(DeviceError::ObjectNotFound).during(Command::SignEcdsa))?;
        let mut answer = self.shared.ledger.sign(session, object, digest);
        if let Err(Fault::Device(DeviceError::LogFull)) = answer {
            // Nothing was signed. The log is taken here and now, and the device asked once more; whatever came of
            // that, its answer says what is the matter. Another device is not asked.
            if let Err(error) = self.shared.make_room(session) {
                tracing::error!("{}", super::explain(&error));
                if error.remedy() >= Remedy::NewLogin {
                    return Err(error);
                }
            }
            answer = self.shared.ledger.sign(session, object, digest);
        }
        let signature = answer.map_err(|fault| fault.during(Command::SignEcdsa))?;
        if self.shared.ledger.waiting() >= DRAIN_AFTER {
            self.shared.signal.due();
        }
        dsse::Signature::from_der(&signature).map(|signature| *signature.raw()).map_err(|error| TokenError::Device {
            operation: Command::SignEcdsa.name(),
            remedy: Remedy::NewSession,
            source: Box::new(error),
        })
    }
}

impl YubiHsmSession {
    fn is(&self, uri: &TokenUri) -> bool {
        let equal = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        equal(&uri.token, &self.facts.label)
            && equal(&uri.serial, &self.facts.serial)
            && equal(&uri.manufacturer, &self.facts.manufacturer)
            && equal(&uri.model, &self.facts.model)
            && uri.slot_id.is_none()
    }
}

impl Shared {
    fn opener(&self) -> Opener<'_> {
        Opener { bus: &self.bus, places: &self.places, auth_key: self.auth_key }
    }

    /// Takes a log that is full. Not from within [`Ledger::sign`], whose lock this takes, too.
    fn make_room(&self, session: &mut AuthSession) -> Result<(), TokenError> {
        let device = self.bus.serial().map_err(|fault| fault.during(Command::DeviceInfo))?;
        self.ledger.drain(session, device).map_err(|error| match error {
            DrainError::Device(fault @ Fault::OtherDevice { .. }) => fault.during(Command::DeviceInfo),
            error => TokenError::Device {
                operation: "taking the device's log, which is full,",
                remedy: Remedy::NewSession,
                source: Box::new(error),
            },
        })
    }

    fn find_key(&self, session: &mut AuthSession, uri: &KeyUri) -> Result<FoundKey, TokenError> {
        let DeviceKey { info, public_key } = objects::find(session, self.auth_key, uri)?;
        let attributes = info.attributes();
        let unsuitable = |why: String| TokenError::KeyUnsuitable { uri: uri.to_string(), why };
        let attestation = self.attestation(session, &info, &public_key, &unsuitable)?;
        Ok(FoundKey { slot: KeySlot(info.id.into()), public_key, attributes, attestation })
    }

    /// Takes the log in a session of its own, which is closed at once.
    fn drain_with(&self, key: authentication::Key) -> Result<(), DrainError> {
        let device = self.bus.serial().map_err(DrainError::Device)?;
        let mut session = self.opener().open(key).map_err(DrainError::Device)?;
        self.ledger.drain(&mut session, device)
    }

    /// The device's certificate for a key and those above it. Without pinned roots they are passed on unchecked, and
    /// are absent where the authentication key may not have them made.
    fn attestation(
        &self,
        session: &mut AuthSession,
        info: &objects::ObjectInfo,
        public_key: &PublicKey,
        unsuitable: &dyn Fn(String) -> TokenError,
    ) -> Result<Chain, TokenError> {
        let cached = (info.id, info.sequence, *public_key);
        let attested = || self.attested.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chain) = attested().get(&cached) {
            return Ok(chain.clone());
        }
        let id = info.id.to_be_bytes();
        let made = session
            .command(Command::SignAttestationCertificate, &[&id, &[0, 0]])
            .and_then(|key| Ok([key.to_vec(), session.command(Command::GetOpaque, &[&[0, 0]])?.to_vec()]));
        let chain = match (made, &self.roots) {
            (Ok(made), None) => made.to_vec(),
            (Ok([key, device]), Some(roots)) => {
                let serial = self.bus.serial().map_err(|fault| fault.during(Command::DeviceInfo))?.to_string();
                let subject = Subject { key: public_key, serial: Some(&serial), object: Some(info.id) };
                roots
                    .verify(&key, &device, &subject)
                    .map_err(|error| unsuitable(format!("its attestation does not hold: {error}")))?
            }
            (Err(fault @ Fault::Device(DeviceError::LogFull)), _) => {
                return Err(fault.during(Command::SignAttestationCertificate));
            }
            (Err(fault), _)
                if fault.remedy() > Remedy::None && !matches!(fault, Fault::Device(DeviceError::ObjectNotFound)) =>
            {
                return Err(fault.during(Command::SignAttestationCertificate));
            }
            (Err(fault), Some(_)) => {
                return Err(unsuitable(format!(
                    "`attestation_roots` is configured and the device attests nothing: {fault}; the authentication key \
                     needs the capability sign-attestation-certificate"
                )));
            }
            (Err(_), None) => Vec::new(),
        };
        attested().insert(cached, chain.clone());
        Ok(chain)
    }
}

/// How many certificates there are in a file of `attestation_roots`.
///
/// # Errors
/// In words, when it is none.
pub fn check_attestation_roots(file: &Path) -> Result<usize, String> {
    Roots::read(file).map(|roots| roots.count())
}

fn facts(bus: &Bus) -> Result<TokenFacts, TokenError> {
    let DeviceInfo { version: [major, minor, build], serial } =
        bus.device_info().map_err(|fault| fault.during(Command::DeviceInfo))?;
    Ok(TokenFacts {
        label: "YubiHSM".to_owned(),
        serial: serial.to_string(),
        manufacturer: "Yubico".to_owned(),
        model: "YubiHSM 2".to_owned(),
        firmware: format!("{major}.{minor}.{build}"),
        // The device counts no wrong passwords and locks nobody out.
        pin: PinState::Good,
    })
}

/// The device's log has 62 places, and opening sessions takes some, too.
const DRAIN_AFTER: usize = 16;
