//! A device fresh from the factory becomes one for a worker, as `yubihsm-setup` would do it: an authentication key that
//! may sign and nothing else, one for an administrator, the log switched on and never lost, and the factory's
//! authentication key, whose password everybody knows, removed.

#![forbid(unsafe_code)]

use yubihsm::authentication;

use super::super::auth_session::AuthSession;
use super::super::fault::Fault;
use super::super::frame::{Command, DeviceError};
use super::super::objects::{
    self, ADMINISTRATOR, AES_AUTHENTICATION, COMMAND_AUDIT, FACTORY_KEY, FACTORY_PASSWORD, FORCE_AUDIT, WORKER, kind,
};
use super::{Reach, carry_out, delete, shown};
use crate::custody::token::Pin;
use crate::custody::token::admin::{AdminError, NewToken};

/// `wanted.so_pin` becomes the administrator's password, `wanted.user_pin` the worker's.
pub(super) fn run(reach: &Reach, wanted: &NewToken<'_>) -> Result<(), AdminError> {
    let (worker, administrator) = (reach.worker_key, reach.auth_key);
    if worker == administrator || [worker, administrator].contains(&FACTORY_KEY) {
        return Err(AdminError::NoSlot(format!(
            "the worker ({}) and the administrator ({}) each need an authentication key of their own, and neither the \
             factory's ({}); correct `auth_key` or --auth-key",
            shown(worker),
            shown(administrator),
            shown(FACTORY_KEY)
        )));
    }
    for (pin, what) in [(wanted.so_pin, "the administrator's password"), (wanted.user_pin, "the worker's password")] {
        // Whoever listens to one handshake can try passwords at home, as fast as he likes.
        if pin.expose().len() < LEAST {
            return Err(AdminError::PinLength { what, least: LEAST, most: 1023 });
        }
    }
    let mut factory = reach.open(FACTORY_KEY, FACTORY_PASSWORD).map_err(|fault| match fault {
        Fault::WrongPassword | Fault::NoAuthKey(_) => AdminError::SetUpAlready,
        fault => fault.during(Command::CreateSession).into(),
    })?;
    for id in [worker, administrator] {
        match objects::info(&mut factory, id, kind::AUTHENTICATION_KEY) {
            Ok(info) => {
                let (class, id) = ("authentication key".to_owned(), format!("{id:04x}"));
                return Err(AdminError::Exists { class, label: info.label(), id });
            }
            Err(error) if objects::is_not_found(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let done = make(reach, wanted, &mut factory);
    if done.is_err() {
        for id in [worker, administrator] {
            // What was not made cannot be taken back; the factory's key is still there for another attempt.
            let _ = delete(&mut factory, id, kind::AUTHENTICATION_KEY);
        }
    }
    done
}

fn make(reach: &Reach, wanted: &NewToken<'_>, factory: &mut AuthSession) -> Result<(), AdminError> {
    put(factory, reach.worker_key, "signer-token", WORKER, 0, wanted.user_pin)?;
    put(factory, reach.auth_key, "signer-admin", ADMINISTRATOR, ADMINISTRATOR | WORKER, wanted.so_pin)?;
    for (option, value) in [(COMMAND_AUDIT, &[Command::SignEcdsa as u8, 1][..]), (FORCE_AUDIT, &[1])] {
        let length = u16::try_from(value.len()).unwrap_or(0).to_be_bytes();
        carry_out(factory, Command::SetOption, &[&[option], &length, value])?;
    }
    // Both are known to work before the one that is known to everybody goes.
    let opened = |id, pin: &Pin| reach.open(id, pin.expose()).map_err(|fault| fault.during(Command::CreateSession));
    drop(opened(reach.worker_key, wanted.user_pin)?);
    let mut administrator = opened(reach.auth_key, wanted.so_pin)?;
    match delete(&mut administrator, FACTORY_KEY, kind::AUTHENTICATION_KEY) {
        Ok(()) => Ok(()),
        Err(error) => Err(AdminError::FactoryKeyStays(Box::new(error))),
    }
}

fn put(
    session: &mut AuthSession,
    id: u16,
    label: &str,
    capabilities: u64,
    delegated: u64,
    password: &Pin,
) -> Result<(), AdminError> {
    let label = objects::label(label).ok_or_else(|| AdminError::Label(label.to_owned()))?;
    let key = authentication::Key::derive_from_password(password.expose());
    let parts: [&[u8]; 7] = [
        &id.to_be_bytes(),
        &label,
        &DOMAIN.to_be_bytes(),
        &capabilities.to_be_bytes(),
        &[AES_AUTHENTICATION],
        &delegated.to_be_bytes(),
        key.as_secret_slice(),
    ];
    carry_out(session, Command::PutAuthenticationKey, &parts).map(drop)
}

/// Of both authentication keys, and so of the keys that are made.
const DOMAIN: u16 = 1;

const LEAST: usize = 12;

/// Is the factory's authentication key there, with the password that everybody knows?
pub(super) fn factory_key_works(reach: &Reach) -> Result<bool, Fault> {
    match reach.open(FACTORY_KEY, FACTORY_PASSWORD) {
        // A full log keeps nobody out.
        Ok(_) | Err(Fault::Device(DeviceError::LogFull)) => Ok(true),
        Err(Fault::WrongPassword | Fault::NoAuthKey(_)) => Ok(false),
        Err(fault) => Err(fault),
    }
}
