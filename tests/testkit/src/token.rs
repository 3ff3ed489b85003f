//! The token of a fixture: SoftHSM2, or a simulated YubiHSM 2.

#![forbid(unsafe_code)]

use std::env;
use std::path::Path;
use std::time::Duration;

use crate::appliance::Settings;
use crate::device::Device;
use crate::softhsm::{SoftHsm, TokenKey};
use crate::yubihsm::YubiHsm;
use crate::{Error, Result};

/// Which token a fixture has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Through PKCS#11; must be installed.
    SoftHsm,
    /// Over its connector's HTTP protocol; needs nothing.
    YubiHsm {
        /// It drops sessions that are idle for this long.
        session_expiry: Duration,
    },
}

/// A token with keys in it.
// There is one to a fixture, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub enum Token {
    /// SoftHSM2.
    SoftHsm(SoftHsm),
    /// A simulated YubiHSM 2.
    YubiHsm(YubiHsm),
    /// Another device, through its PKCS#11 module.
    Device(Box<dyn Device>),
}

impl TokenKind {
    /// A YubiHSM that drops idle sessions when a real one does.
    pub const YUBIHSM: Self = Self::YubiHsm { session_expiry: Duration::from_secs(30) };

    /// What `SIGNER_TEST_DEVICE` says (`softhsm` or `yubihsm`), else SoftHSM2.
    ///
    /// # Errors
    /// When it says something else.
    pub fn from_environment() -> Result<Self> {
        match env::var("SIGNER_TEST_DEVICE").as_deref() {
            Err(_) | Ok("" | "softhsm") => Ok(Self::SoftHsm),
            Ok("yubihsm") => Ok(Self::YUBIHSM),
            Ok(other) => Err(Error(format!("SIGNER_TEST_DEVICE={other} is no token; write softhsm or yubihsm"))),
        }
    }
}

impl Token {
    pub(crate) fn create(kind: TokenKind, dir: &Path, label: &str) -> Result<Self> {
        Ok(match kind {
            TokenKind::SoftHsm => Self::SoftHsm(SoftHsm::create(dir, label)?),
            TokenKind::YubiHsm { session_expiry } => Self::YubiHsm(YubiHsm::create(dir, session_expiry)?),
        })
    }

    pub(crate) fn generate_key(&mut self, label: &str) -> Result<TokenKey> {
        match self {
            Self::SoftHsm(token) => token.generate_key(label),
            Self::YubiHsm(token) => token.generate_key(label),
            Self::Device(device) => device.generate_key(label),
        }
    }

    /// Names it under `[tokens.NAME]`.
    pub fn configure(&self, settings: &mut Settings, name: &str) {
        match self {
            Self::SoftHsm(token) => token.configure(settings, name),
            Self::YubiHsm(token) => token.configure(settings, name),
            Self::Device(device) => device.configure(settings, name),
        }
    }

    /// What its worker's environment must have.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        match self {
            Self::SoftHsm(token) => token.environment(),
            Self::YubiHsm(_) => Vec::new(),
            Self::Device(device) => device.environment(),
        }
    }

    /// File with the PIN or password.
    #[must_use]
    pub fn pin_file(&self) -> &Path {
        match self {
            Self::SoftHsm(token) => &token.pin_file,
            Self::YubiHsm(token) => &token.pin_file,
            Self::Device(device) => device.pin_file(),
        }
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SoftHsm(_) => "SoftHSM2 token",
            Self::YubiHsm(_) => "simulated YubiHSM 2",
            Self::Device(_) => "PKCS#11 token",
        }
    }

    /// The module or connector by which its worker reaches it.
    #[must_use]
    pub fn reached_by(&self) -> String {
        match self {
            Self::SoftHsm(token) => token.module.display().to_string(),
            Self::YubiHsm(token) => token.simulator.url(),
            Self::Device(device) => device.module().map(|module| module.display().to_string()).unwrap_or_default(),
        }
    }

    /// The YubiHSM.
    ///
    /// # Panics
    /// When it is another token.
    #[must_use]
    pub fn yubihsm(&self) -> &YubiHsm {
        match self {
            Self::YubiHsm(token) => token,
            _ => panic!("the fixture was built with another token"),
        }
    }

    /// The SoftHSM2 token.
    ///
    /// # Panics
    /// When it is another token.
    pub fn softhsm(&mut self) -> &mut SoftHsm {
        match self {
            Self::SoftHsm(token) => token,
            _ => panic!("the fixture was built with another token"),
        }
    }

    /// Called before each start of the worker, and after each of its ends.
    ///
    /// # Errors
    /// When the device cannot be made ready.
    pub fn settle(&mut self) -> Result<()> {
        match self {
            Self::Device(device) => device.settle(),
            Self::SoftHsm(_) | Self::YubiHsm(_) => Ok(()),
        }
    }
}
