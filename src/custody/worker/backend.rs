//! From the configuration to the token: which backend, and with what.

use super::settings::Settings;
use crate::config::{Backend, BackendError};
use crate::custody::token::Token;
use crate::custody::token::pkcs11::{ModuleError, PinError, PinnedModule, Pkcs11Token, set_quirks};
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
    #[error(transparent)]
    Refused(#[from] PinError),
}

/// Loads the module, once it is found to be the one that the configuration means, or prepares the connection to the
/// device.
pub(super) fn open(settings: &Settings) -> Result<Box<dyn Token>, OpenError> {
    let (token, name) = (&settings.token, settings.plan.name.clone());
    match token.backend() {
        Err(error) => Err(OpenError::Config { name, error }),
        Ok(Backend::Pkcs11 { module, uri }) => {
            let uri = uri.parse().map_err(|source| OpenError::Uri { name: name.clone(), source })?;
            if let Some(profile) = settings.profile {
                set_quirks(profile.module_quirks());
            }
            let module = PinnedModule::open(module, token.module_sha256.as_deref())?;
            tracing::info!(token = name, module = %module.path().display(), sha256 = module.sha256(), "loading the PKCS#11 module");
            Ok(Box::new(Pkcs11Token::load(&module, uri)?))
        }
        Ok(Backend::YubiHsm { connector, serial, auth_key, attestation_roots }) => {
            let options = Options {
                connector: connector.clone(),
                serial,
                auth_key,
                attestation_roots: attestation_roots.map(Into::into),
                sessions: settings.plan.sessions,
                state_dir: settings.plan.state_dir.clone(),
            };
            let device = YubiHsmToken::new(&options)?;
            tracing::info!(token = name, %connector, "worker started");
            Ok(Box::new(device))
        }
    }
}
