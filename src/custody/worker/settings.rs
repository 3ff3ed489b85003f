//! The worker's part of the configuration.

use std::collections::BTreeMap;
use std::path::Path;

use super::Plan;
use crate::config::{self, ConfigErrors, Key, Log, Token, UnknownToken, Viewer};
use crate::custody::profiles::{self, Defaults, Profile};
use crate::custody::uri::{TokenUri, UriError};
use crate::custody::user_id;

/// Why the worker cannot be configured.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    UnknownToken(#[from] UnknownToken),
    #[error("tokens.{name}.uri")]
    Uri { name: String, source: UriError },
    #[error("tokens.{name}.front_user: there is no user `{user}` on this system; write a user's name or number")]
    NoUser { name: String, user: String },
}

/// The token as configured, and the keys in it.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) token: Token,
    pub(super) uri: TokenUri,
    pub(super) plan: Plan,
    /// Of the device, where the configuration names one.
    pub(super) profile: Option<&'static Profile>,
    pub(super) keys: BTreeMap<String, Key>,
    pub(super) log: Log,
}

impl Settings {
    pub(super) fn read(file: &Path, name: &str) -> Result<Self, SettingsError> {
        let loaded = config::open(file)?;
        loaded.check_files(Viewer::Worker(name))?;
        let mut config = loaded.config;
        let token = config.token(name)?.clone();
        let uri = token.uri.parse().map_err(|source| SettingsError::Uri { name: name.to_owned(), source })?;
        let front_uid = user_id(&token.front_user)
            .ok_or_else(|| SettingsError::NoUser { name: name.to_owned(), user: token.front_user.clone() })?;
        // The loader has refused a name that no profile has.
        let profile = token.profile.as_deref().and_then(profiles::find);
        let defaults = Defaults::of(profile);
        let plan = Plan {
            name: name.to_owned(),
            front_uid,
            sessions: token.sessions.unwrap_or(defaults.sessions).get(),
            max_queue: usize::try_from(token.max_queue.get()).unwrap_or(usize::MAX),
            pin_file: token.pin_file.clone(),
        };
        config.keys.retain(|_, key| key.token == name);
        Ok(Self { token, uri, plan, profile, keys: config.keys, log: config.log })
    }
}
