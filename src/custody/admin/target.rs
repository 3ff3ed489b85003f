//! Which device, how it is reached, and what is known of its PINs.

use std::path::{Path, PathBuf};

use super::cli::AdminArgs;
use super::message::{Failure, Message, Step};
use super::pins::{self, Chosen};
use crate::config::{self, Backend, Config, YubiHsmConnector};
use crate::custody::presenting::Memories;
use crate::custody::token::admin::{NewToken, Slot, TokenAdmin};
use crate::custody::token::pkcs11::PinnedModule;
use crate::custody::token::pkcs11::admin::Pkcs11Admin;
use crate::custody::token::yubihsm::admin::YubiHsmAdmin;
use crate::custody::token::{Pin, explain};
use crate::custody::uri::TokenUri;

/// The device, and of the configuration what is known.
pub(super) struct Target {
    device: Device,
    uri: Option<TokenUri>,
    pin_file: Option<PathBuf>,
    what: String,
    /// Whose PIN it is, where it is not the worker's own.
    pub(super) account: String,
    configured: Option<(String, config::Token)>,
    memories: Memories,
}

enum Device {
    Module { path: PathBuf, sha256: Option<String> },
    YubiHsm { connector: YubiHsmConnector, serial: Option<u32>, auth_key: u16, worker_key: u16 },
}

/// The PINs that a token is to have.
pub(super) struct NewPins {
    pub(super) so: Pin,
    pub(super) user: Pin,
}

impl Target {
    pub(super) fn of(args: &AdminArgs) -> Result<Self, Failure> {
        match (&args.config, &args.name, &args.module) {
            (Some(file), Some(name), _) => {
                let config = config::load(file).map_err(|errors| Failure::new("config", errors.to_string()))?;
                Self::configured(&config, name, args.auth_key)
            }
            (_, _, Some(module)) => Ok(Self {
                device: Device::Module { path: module.clone(), sha256: None },
                uri: None,
                pin_file: None,
                what: format!("the token in {}", module.display()),
                account: String::new(),
                configured: None,
                memories: Memories::default(),
            }),
            _ => Err(Failure::new("input", "give --config and --name, or --module")),
        }
    }

    fn configured(config: &Config, name: &str, acting: Option<u16>) -> Result<Self, Failure> {
        let token = config.token(name).map_err(|error| Failure::new("config", error.to_string()))?;
        let backend = token
            .backend()
            .map_err(|error| Failure::new("config", format!("tokens.{name}.{}: {}", error.key, error.message)))?;
        let mut target = Self {
            device: Device::Module { path: PathBuf::new(), sha256: None },
            uri: Some(TokenUri::default()),
            pin_file: Some(token.pin_file.clone()),
            what: format!("token `{name}`"),
            account: String::new(),
            configured: Some((name.to_owned(), token.clone())),
            memories: Memories::default(),
        };
        match backend {
            Backend::Pkcs11 { .. } if acting.is_some() => {
                return Err(Failure::new("input", format!("--auth-key is for a YubiHSM, and token `{name}` is none")));
            }
            Backend::Pkcs11 { module, uri } => {
                let uri = uri.parse().map_err(|error| Failure::new("config", format!("tokens.{name}.uri: {error}")))?;
                target.uri = Some(uri);
                target.device = Device::Module { path: module.to_owned(), sha256: token.module_sha256.clone() };
            }
            Backend::YubiHsm { connector, serial, auth_key: worker_key, .. } => {
                let auth_key = acting.unwrap_or(worker_key);
                if auth_key != worker_key {
                    // `pin_file` holds the worker's password, which is not this one's.
                    target.pin_file = None;
                    target.account = format!(" (authentication key {auth_key:#06x})");
                    target.what = format!("authentication key {auth_key:#06x} of token `{name}`");
                }
                target.device = Device::YubiHsm { connector: connector.clone(), serial, auth_key, worker_key };
            }
        }
        Ok(target)
    }

    pub(super) fn uri(&self) -> Result<&TokenUri, Failure> {
        self.uri.as_ref().ok_or_else(|| Failure::new("input", "this needs a configured token: --config and --name"))
    }

    pub(super) fn user_pin(&self, args: &AdminArgs) -> Result<Chosen, Failure> {
        pins::user_pin(args.pin_file.as_deref(), self.pin_file.as_deref(), &self.what)
    }

    /// What became of earlier attempts, of the worker's and of other commands.
    pub(super) fn memories(&mut self) -> Result<&mut Memories, Failure> {
        if let Some((name, token)) = &self.configured
            && self.memories.is_empty()
        {
            self.memories = Memories::of_token(name, token)?;
        }
        Ok(&mut self.memories)
    }

    /// Loads the module, or prepares the connection.
    pub(super) fn load(&self) -> Result<Box<dyn TokenAdmin>, Failure> {
        Message::Step { step: Step::Load }.say();
        match &self.device {
            Device::Module { path, sha256 } => {
                let module = PinnedModule::open(path, sha256.as_deref())
                    .map_err(|error| Failure::new("module_load", explain(&error)))?;
                let admin = Pkcs11Admin::load(&module)?;
                admin.start().map_err(|error| Failure::new("module_initialise", explain(&error)))?;
                Ok(Box::new(admin))
            }
            Device::YubiHsm { connector, serial, auth_key, worker_key } => {
                Ok(Box::new(YubiHsmAdmin::new(connector, *serial, *auth_key, *worker_key)?))
            }
        }
    }

    /// The PINs for [`Target::initialise`], from files or a person.
    pub(super) fn new_pins(
        &self,
        args: &AdminArgs,
        so_pin_file: Option<&Path>,
        reinitialise: bool,
        expect_serial: Option<&str>,
    ) -> Result<NewPins, Failure> {
        let named = self.uri.as_ref().and_then(|uri| uri.serial.as_deref());
        if let (Some(named), Some(expected)) = (named, expect_serial)
            && named != expected
        {
            let message = format!("{} has the serial number {named} in its URI, not {expected}", self.what);
            return Err(Failure::new("input", message));
        }
        if let Device::YubiHsm { auth_key, worker_key, .. } = &self.device {
            let so = pins::new_pin(so_pin_file, &format!("new password of the administrator ({auth_key:#06x})"))?;
            let of_worker =
                self.configured.as_ref().map(|(_, token)| token.pin_file.as_path()).filter(|file| file.is_file());
            let user = args.pin_file.as_deref().or(of_worker);
            let user = pins::new_pin(user, &format!("new password of the worker ({worker_key:#06x})"))?;
            return Ok(NewPins { so, user });
        }
        let so = match (so_pin_file, reinitialise) {
            (None, true) => pins::user_pin(None, None, "the security officer, as it is now")?.pin,
            (named, _) => pins::new_pin(named, "new security officer's PIN")?,
        };
        let configured = self.pin_file.as_deref().filter(|file| file.is_file());
        Ok(NewPins { so, user: pins::new_pin(args.pin_file.as_deref().or(configured), "new user PIN")? })
    }

    /// Makes a token out of an empty one. A PIN that was wrong before is right once the token was set to it.
    pub(super) fn initialise(&mut self, wanted: &NewToken<'_>) -> Result<Slot, Failure> {
        // Before anything is destroyed.
        self.memories()?;
        let admin = self.load()?;
        Message::Step { step: Step::Initialise }.say();
        let slot = match wanted.expect_serial {
            Some(serial) => pins::as_officer(serial, wanted.so_pin, self.memories()?, || admin.initialise(wanted))?,
            None => admin.initialise(wanted)?,
        };
        let serial = pins::known_as(&slot.token.clone().unwrap_or_default(), "");
        if let Err(error) = self.memories.set(wanted.user_pin, &serial) {
            // The token is ready; what stands in the way of its login is said there again.
            eprintln!("signer-token: that the PIN is right now is not written down: {}", explain(&error));
        }
        Ok(slot)
    }
}
