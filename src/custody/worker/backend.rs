//! From the configuration to the token: which backend, and with what.

use std::path::PathBuf;

use crate::config::{self, Backend, BackendError};
use crate::custody::token::Token;
use crate::custody::token::pkcs11::{ModuleError, Pkcs11Token};
use crate::custody::token::yubihsm::{Options, YubiHsmError, YubiHsmToken};
use crate::custody::uri::UriError;

/// Why there is no token to serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("tokens.{name}.{}: {}", error.key, error.message)]
    Config { name: String, error: BackendError },
    #[error("tokens.{name}.uri")]
    Uri { name: String, source: UriError },
    #[error(transparent)]
    Pkcs11(#[from] ModuleError),
    #[error(transparent)]
    YubiHsm(#[from] YubiHsmError),
    #[error(
        "tokens.{name}.state_dir is missing and systemd gave no $STATE_DIRECTORY: write a directory that belongs to this \
         worker alone"
    )]
    NoStateDirectory { name: String },
}

/// Loads the module, or prepares the connection to the device.
pub(super) fn open(token: &config::Token, name: &str) -> Result<Box<dyn Token>, OpenError> {
    let name = name.to_owned();
    match token.backend() {
        Err(error) => Err(OpenError::Config { name, error }),
        Ok(Backend::Pkcs11 { module, uri }) => {
            let uri = uri.parse().map_err(|source| OpenError::Uri { name: name.clone(), source })?;
            let loaded = Pkcs11Token::load(module, uri)?;
            tracing::info!(token = name, module = %module.display(), "worker started");
            Ok(Box::new(loaded))
        }
        Ok(Backend::YubiHsm { connector, serial, auth_key, attestation_roots }) => {
            let state_dir = token.state_dir.clone().or_else(systemd_state_directory);
            let options = Options {
                connector: connector.clone(),
                serial,
                auth_key,
                attestation_roots: attestation_roots.map(Into::into),
                sessions: token.sessions.get(),
                state_dir: state_dir.ok_or_else(|| OpenError::NoStateDirectory { name: name.clone() })?,
            };
            let device = YubiHsmToken::new(&options)?;
            tracing::info!(token = name, %connector, "worker started");
            Ok(Box::new(device))
        }
    }
}

/// systemd.exec(5): several directories are separated by colons; the first is the unit's main one.
fn systemd_state_directory() -> Option<PathBuf> {
    let directories = std::env::var_os("STATE_DIRECTORY")?;
    std::env::split_paths(&directories).next().filter(|directory| directory.is_absolute())
}
