//! Administering a YubiHSM: keys are made and destroyed in it, certificates kept beside them, and a device fresh from the
//! factory is made one for a worker.
//!
//! All of it as another authentication key than the worker's, which may sign and nothing else. What is done here leaves
//! entries in the device's log, which the worker takes.

#![forbid(unsafe_code)]

mod concerns;
mod setup;

use std::cell::RefCell;
use std::sync::Arc;

use x509_parser::prelude::{FromDer as _, X509Certificate};
use yubihsm::authentication;

use super::YubiHsmError;
use super::auth_session::{AuthSession, Opener, Places};
use super::bus::Bus;
use super::fault::Fault;
use super::frame::{Command, DeviceError};
use super::ledger::id as shown;
use super::objects::{self, ObjectInfo, kind};
use crate::config::YubiHsmConnector;
use crate::custody::PublicKey;
use crate::custody::token::admin::{
    AdminError, AdminSession, Concern, KeyFacts, NewToken, Object, Slot, TokenAdmin, TokenSeen, proves_itself,
};
use crate::custody::token::{Pin, TokenError};
use crate::custody::uri::{KeyUri, TokenUri};

/// One YubiHSM, as an administrator's authentication key.
pub struct YubiHsmAdmin {
    reach: Reach,
}

#[derive(Clone)]
struct Reach {
    bus: Arc<Bus>,
    places: Arc<Places>,
    /// Who acts.
    auth_key: u16,
    /// Who will sign.
    worker_key: u16,
}

struct YubiHsmAdminSession {
    reach: Reach,
    slot: Slot,
    /// `None` before the login.
    session: RefCell<Option<AuthSession>>,
}

impl YubiHsmAdmin {
    /// Prepares everything but the connection. `auth_key` is the authentication key to act as, `worker_key` the one of
    /// the configuration.
    ///
    /// # Errors
    /// When the connector is of no use in this build.
    pub fn new(
        connector: &YubiHsmConnector,
        serial: Option<u32>,
        auth_key: u16,
        worker_key: u16,
    ) -> Result<Self, YubiHsmError> {
        let bus = Arc::new(Bus::new(connector, serial).map_err(YubiHsmError::Connector)?);
        Ok(Self { reach: Reach { bus, places: Places::new(2), auth_key, worker_key } })
    }
}

impl TokenAdmin for YubiHsmAdmin {
    fn slots(&self) -> Result<Vec<Slot>, AdminError> {
        Ok(vec![self.reach.slot()?])
    }

    fn initialise(&self, wanted: &NewToken<'_>) -> Result<Slot, AdminError> {
        setup::run(&self.reach, wanted)?;
        self.reach.slot()
    }

    fn open(&self, _: &TokenUri) -> Result<Box<dyn AdminSession>, AdminError> {
        let slot = self.reach.slot()?;
        Ok(Box::new(YubiHsmAdminSession { reach: self.reach.clone(), slot, session: RefCell::default() }))
    }
}

impl Reach {
    fn slot(&self) -> Result<Slot, AdminError> {
        let token = TokenSeen {
            initialized: true,
            max_sessions: Some(16),
            ecdsa_bits: Some((224, 521)),
            ..TokenSeen::from(super::facts(&self.bus)?)
        };
        Ok(Slot { id: 0, description: "YubiHSM connector".to_owned(), token: Some(token) })
    }

    /// A session as that authentication key, of a device that has said which one it is.
    fn open(&self, auth_key: u16, password: &[u8]) -> Result<AuthSession, Fault> {
        let key = authentication::Key::derive_from_password(password);
        let mut session = Opener { bus: &self.bus, places: &self.places, auth_key }.open(key)?;
        session.identify()?;
        Ok(session)
    }
}

impl AdminSession for YubiHsmAdminSession {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    fn login(&self, pin: &Pin, _: bool) -> Result<(), AdminError> {
        let opened = self.reach.open(self.reach.auth_key, pin.expose());
        let session = opened.map_err(|fault| match fault {
            Fault::WrongPassword => {
                TokenError::PinRefused(format!("authentication key {}", shown(self.reach.auth_key)))
            }
            fault @ Fault::Device(DeviceError::LogFull) => TokenError::Device {
                operation: "anything but taking the device's log, which the worker does when it is started,",
                remedy: fault.remedy(),
                source: Box::new(fault),
            },
            fault => fault.during(Command::CreateSession),
        })?;
        *self.session.borrow_mut() = Some(session);
        Ok(())
    }

    fn objects(&self) -> Result<Vec<Object>, AdminError> {
        self.with(|session| {
            let mut all = Vec::new();
            for (kind, id) in objects::list(session)? {
                let info = objects::info(session, id, kind)?;
                all.push(object(kind, &info));
            }
            Ok(all)
        })
    }

    fn key(&self, uri: &KeyUri) -> Result<KeyFacts, AdminError> {
        self.with(|session| facts(session, uri))
    }

    /// Nothing is shown to nobody.
    fn public_key(&self, uri: &KeyUri) -> Result<Option<PublicKey>, AdminError> {
        if self.session.borrow().is_none() {
            return Ok(None);
        }
        match self.with(|session| Ok(objects::look_up(session, uri)?.public_key)) {
            Err(AdminError::Token(TokenError::KeyNotFound { .. })) => Ok(None),
            found => found.map(Some),
        }
    }

    /// In the domains that the worker's authentication key and the one that acts here share.
    fn generate(&self, label: &str, id: &[u8]) -> Result<KeyFacts, AdminError> {
        let id = <[u8; 2]>::try_from(id).map(u16::from_be_bytes).ok().filter(|id| !matches!(id, 0 | 0xffff));
        let id =
            id.ok_or_else(|| AdminError::Label("an object id of a YubiHSM is two bytes, 0001 to fffe".to_owned()))?;
        let text = objects::label(label).ok_or_else(|| AdminError::Label(label.to_owned()))?;
        let (acting, worker) = (self.reach.auth_key, self.reach.worker_key);
        self.with(|session| {
            vacant(session, id, label)?;
            let domains = shared_domains(session, acting, worker)?;
            let algorithm = [objects::EC_P256];
            let capabilities = objects::SIGN_ECDSA.to_be_bytes();
            let parts: [&[u8]; 5] = [&id.to_be_bytes(), &text, &domains.to_be_bytes(), &capabilities, &algorithm];
            carry_out(session, Command::GenerateAsymmetricKey, &parts)?;
            let uri = uri_of(id)?;
            let may_sign =
                objects::info(session, acting, kind::AUTHENTICATION_KEY)?.capabilities & objects::SIGN_ECDSA != 0;
            let judged = facts(session, &uri).and_then(|facts| {
                let objections = facts.objections();
                if !objections.is_empty() {
                    return Err(AdminError::Unsafe { objections, destroyed: false });
                }
                // The worker's own key signs only what the worker asks for: its log would tell of this signature.
                if may_sign && acting != worker {
                    proves_itself(&facts, |digest| sign(session, id, digest))?;
                }
                Ok(facts)
            });
            judged.map_err(|error| {
                let destroyed = delete(session, id, kind::ASYMMETRIC_KEY).is_ok();
                match error {
                    AdminError::Unsafe { objections, .. } => AdminError::Unsafe { objections, destroyed },
                    AdminError::BadSignature { .. } => AdminError::BadSignature { destroyed: Some(destroyed) },
                    error => error,
                }
            })
        })
    }

    fn sign(&self, uri: &KeyUri, digest: &[u8; 32]) -> Result<[u8; 64], AdminError> {
        self.with(|session| {
            let found = objects::look_up(session, uri)?;
            sign(session, found.info.id, digest)
        })
    }

    /// As an opaque object of the key's own id, which is where Yubico's PKCS#11 module looks for it, too.
    fn import_certificate(&self, uri: &KeyUri, certificate: &[u8]) -> Result<(), AdminError> {
        self.with(|session| {
            let key = objects::look_up(session, uri)?;
            let wrong = |why: String| TokenError::KeyUnsuitable { uri: uri.to_string(), why };
            match certified(certificate) {
                Some(certified) if certified == key.public_key => {}
                Some(other) => return Err(wrong(format!("the certificate is for the key {}", other.keyid())).into()),
                None => return Err(wrong("no X.509 certificate of a P-256 key".to_owned()).into()),
            }
            let before = match objects::info(session, key.info.id, kind::OPAQUE) {
                Ok(info) => Some(info),
                Err(error) if objects::is_not_found(&error) => None,
                Err(error) => return Err(error.into()),
            };
            let mut kept = None;
            if let Some(before) = before {
                let bytes = carry_out(session, Command::GetOpaque, &[&before.id.to_be_bytes()])?;
                if certified(&bytes) != Some(key.public_key) {
                    let Object { class, label, id } = object(kind::OPAQUE, &before);
                    return Err(AdminError::Exists { class, label, id });
                }
                kept = Some((before, bytes));
                // Two objects of one kind cannot have one id, so the old one goes first.
                delete(session, key.info.id, kind::OPAQUE)?;
            }
            put_certificate(session, &key.info, certificate).inspect_err(|_| {
                if let Some((before, bytes)) = &kept
                    && let Err(error) = put_certificate(session, before, bytes)
                {
                    tracing::error!("the certificate that was there before is gone: {error}");
                }
            })
        })
    }

    fn set_label(&self, uri: &KeyUri, _: &str) -> Result<(), AdminError> {
        let why = "the label of an object in a YubiHSM cannot be changed".to_owned();
        Err(TokenError::KeyUnsuitable { uri: uri.to_string(), why }.into())
    }

    fn delete(&self, uri: &KeyUri, expect: &PublicKey) -> Result<Vec<Object>, AdminError> {
        self.with(|session| {
            let mut gone = Vec::new();
            let id = match objects::look_up(session, uri) {
                Ok(key) if key.public_key != *expect => {
                    let (is, expected) = (key.public_key.keyid(), expect.keyid());
                    return Err(AdminError::OtherKey { uri: uri.to_string(), is, expected });
                }
                Ok(key) => {
                    delete(session, key.info.id, kind::ASYMMETRIC_KEY)?;
                    gone.push(object(kind::ASYMMETRIC_KEY, &key.info));
                    Some(key.info.id)
                }
                // An earlier run may have come so far.
                Err(TokenError::KeyNotFound { .. }) => {
                    uri.id.as_deref().and_then(|id| <[u8; 2]>::try_from(id).ok()).map(u16::from_be_bytes)
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(id) = id {
                match objects::info(session, id, kind::OPAQUE) {
                    Ok(info) => {
                        let bytes = carry_out(session, Command::GetOpaque, &[&id.to_be_bytes()])
                            .map_err(|error| AdminError::after(&gone, error))?;
                        if certified(&bytes) == Some(*expect) {
                            delete(session, id, kind::OPAQUE).map_err(|error| AdminError::after(&gone, error))?;
                            gone.push(object(kind::OPAQUE, &info));
                        }
                    }
                    Err(error) if objects::is_not_found(&error) => {}
                    Err(error) => return Err(AdminError::after(&gone, error.into())),
                }
            }
            if gone.is_empty() { Err(TokenError::KeyNotFound { uri: uri.to_string() }.into()) } else { Ok(gone) }
        })
    }

    fn concerns(&self) -> Vec<Concern> {
        concerns::of(&self.reach, self.session.borrow_mut().as_mut())
    }
}

impl YubiHsmAdminSession {
    fn with<T>(&self, act: impl FnOnce(&mut AuthSession) -> Result<T, AdminError>) -> Result<T, AdminError> {
        let mut session = self.session.borrow_mut();
        act(session.as_mut().ok_or_else(|| Fault::Over.during(Command::GetObjectInfo))?)
    }
}

fn facts(session: &mut AuthSession, uri: &KeyUri) -> Result<KeyFacts, AdminError> {
    let key = objects::look_up(session, uri)?;
    Ok(KeyFacts {
        label: key.info.label(),
        id: format!("{:04x}", key.info.id),
        keyid: key.public_key.keyid(),
        public_key: key.public_key.to_pem(),
        attributes: key.info.named_attributes(),
    })
}

fn carry_out(session: &mut AuthSession, command: Command, parts: &[&[u8]]) -> Result<Vec<u8>, AdminError> {
    match session.command(command, parts) {
        Ok(answer) => Ok(answer.to_vec()),
        Err(fault) => Err(fault.during(command).into()),
    }
}

fn sign(session: &mut AuthSession, id: u16, digest: &[u8; 32]) -> Result<[u8; 64], AdminError> {
    let signature = carry_out(session, Command::SignEcdsa, &[&id.to_be_bytes(), digest])?;
    let signature = crate::dsse::Signature::from_der(&signature);
    signature.map(|signature| *signature.raw()).map_err(|_| AdminError::BadSignature { destroyed: None })
}

fn delete(session: &mut AuthSession, id: u16, kind: u8) -> Result<(), AdminError> {
    carry_out(session, Command::DeleteObject, &[&id.to_be_bytes(), &[kind]]).map(drop)
}

fn put_certificate(session: &mut AuthSession, key: &ObjectInfo, der: &[u8]) -> Result<(), AdminError> {
    let (id, domains) = (key.id.to_be_bytes(), key.domains.to_be_bytes());
    let parts: [&[u8]; 6] = [&id, &key.label, &domains, &[0; 8], &[objects::OPAQUE_X509], der];
    carry_out(session, Command::PutOpaque, &parts).map(drop)
}

/// Neither id nor label may be another key's.
fn vacant(session: &mut AuthSession, id: u16, label: &str) -> Result<(), AdminError> {
    for (kind, other) in objects::list(session)? {
        let info = objects::info(session, other, kind)?;
        let same = kind != kind::AUTHENTICATION_KEY && other == id;
        if same || (kind == kind::ASYMMETRIC_KEY && info.label() == label) {
            let Object { class, label, id } = object(kind, &info);
            return Err(AdminError::Exists { class, label, id });
        }
    }
    Ok(())
}

fn shared_domains(session: &mut AuthSession, acting: u16, worker: u16) -> Result<u16, AdminError> {
    let own = objects::info(session, acting, kind::AUTHENTICATION_KEY)?.domains;
    let worker_has = match objects::info(session, worker, kind::AUTHENTICATION_KEY) {
        Ok(info) => info.domains,
        Err(error) if objects::is_not_found(&error) => 0,
        Err(error) => return Err(error.into()),
    };
    match own & worker_has {
        0 => {
            let (acting, worker) = (shown(acting), shown(worker));
            Err(AdminError::NoSharedDomain { acting, worker })
        }
        shared => Ok(shared),
    }
}

fn certified(der: &[u8]) -> Option<PublicKey> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    PublicKey::from_spki(certificate.public_key().raw).ok()
}

fn object(kind: u8, info: &ObjectInfo) -> Object {
    let class = match kind {
        kind::ASYMMETRIC_KEY => "private key",
        kind::AUTHENTICATION_KEY => "authentication key",
        kind::OPAQUE if info.algorithm == objects::OPAQUE_X509 => "certificate",
        kind::OPAQUE => "opaque object",
        _ => "other object",
    };
    Object { class: class.to_owned(), label: info.label(), id: format!("{:04x}", info.id) }
}

fn uri_of(id: u16) -> Result<KeyUri, AdminError> {
    let [high, low] = id.to_be_bytes();
    format!("pkcs11:id=%{high:02X}%{low:02X}").parse().map_err(|_| AdminError::Label(shown(id)))
}
