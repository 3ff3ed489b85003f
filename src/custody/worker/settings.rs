//! The worker's part of the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Plan;
use super::watchdog::Limits;
use crate::config::{self, ConfigErrors, Key, Log, Span, Token, UnknownToken, Viewer};
use crate::custody::profiles::{self, Defaults, Profile};
use crate::custody::user_id;

/// Why the worker cannot be configured.
#[derive(Debug, thiserror::Error)]
pub(in crate::custody) enum SettingsError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    UnknownToken(#[from] UnknownToken),
    #[error("tokens.{name}.front_user: there is no user `{user}` on this system; write a user's name or number")]
    NoUser { name: String, user: String },
    #[error(
        "tokens.{name}.state_dir: there is no directory in which the worker can remember refused PINs; write \
         `StateDirectory=` in its unit, or `state_dir` here, as in state_dir = \"/var/lib/stellaops-signer-token/{name}\""
    )]
    NoStateDirectory { name: String },
}

/// The token as configured, and the keys in it. What the configuration leaves open has its default here.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) token: Token,
    pub(super) plan: Plan,
    /// Longest that calls into the module may take.
    pub(super) limits: Limits,
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
        let front_uid = user_id(&token.front_user)
            .ok_or_else(|| SettingsError::NoUser { name: name.to_owned(), user: token.front_user.clone() })?;
        let exceptions = config.keys.values().filter_map(|key| {
            let uri = key.in_token(name)?.parse().ok()?;
            let excepted = key.custody_exception.iter().map(|exception| exception.attribute).collect();
            Some((uri, excepted))
        });
        // The loader has refused a name that no profile has.
        let profile = token.profile.as_deref().and_then(profiles::find);
        let defaults = Defaults::of(profile);
        let plan = Plan {
            name: name.to_owned(),
            front_uid,
            sessions: token.sessions.unwrap_or(defaults.sessions).get(),
            max_queue: usize::try_from(token.max_queue.get()).unwrap_or(usize::MAX),
            pin_file: token.pin_file.clone(),
            pin_warns: profile.is_none_or(|profile| profile.login.warns.value),
            state_dir: state_directory(name, &token)?,
            keep_alive: token.keep_alive.or(defaults.keep_alive).map(Span::get),
            exceptions: exceptions.collect(),
        };
        let call = token.call_timeout.unwrap_or(defaults.call_timeout);
        // What the configuration says of every call, it says of the login, too, unless it says more.
        let login = token.login_timeout.or(defaults.login_timeout.map(|login| login.max(call))).unwrap_or(call);
        let limits = Limits { call: call.get(), login: login.get() };
        config.keys.retain(|_, key| match key.in_token(name).map(str::to_owned) {
            Some(uri) => {
                key.uri = uri;
                true
            }
            None => false,
        });
        Ok(Self { token, plan, limits, profile, keys: config.keys, log: config.log })
    }
}

/// As configured, else the first of those that the service manager names (systemd.exec(5), `StateDirectory=`).
pub(in crate::custody) fn state_directory(name: &str, token: &Token) -> Result<PathBuf, SettingsError> {
    let managed = || {
        let named = std::env::var_os("STATE_DIRECTORY")?;
        std::env::split_paths(&named).next().filter(|first| first.is_absolute())
    };
    let directory = token.state_dir.clone().or_else(managed);
    directory.ok_or_else(|| SettingsError::NoStateDirectory { name: name.to_owned() })
}
