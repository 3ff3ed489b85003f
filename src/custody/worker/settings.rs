//! The worker's part of the configuration: its token, and nothing that it has no right to read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Plan;
use crate::config::{Key, Log, Token};
use crate::custody::uri::{TokenUri, UriError};
use crate::custody::user_id;

/// Why the worker cannot be configured.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error("cannot read {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} does not parse: {source}")]
    Toml { path: PathBuf, source: Box<toml::de::Error> },
    #[error("no token `{name}` in the configuration; there are: {known}")]
    NoToken { name: String, known: String },
    #[error("tokens.{name}.uri: {source}")]
    Uri { name: String, source: UriError },
    #[error("{key} = \"{user}\" is no user of this system; write a user name or number")]
    NoUser { key: String, user: String },
}

/// The token as configured, and the keys in it.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) token: Token,
    pub(super) uri: TokenUri,
    pub(super) plan: Plan,
    pub(super) keys: BTreeMap<String, Key>,
    pub(super) log: Log,
}

/// Only what the worker uses: the rest names files that its user may not read.
#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    tokens: BTreeMap<String, Token>,
    #[serde(default)]
    keys: BTreeMap<String, Key>,
    #[serde(default)]
    log: Log,
}

impl Settings {
    /// Reads FILE and its drop-ins, `FILE.d/*.toml` in the order of their names.
    pub(super) fn read(file: &Path, name: &str) -> Result<Self, SettingsError> {
        let mut whole = table(file)?;
        for drop_in in drop_ins(file)? {
            merge(&mut whole, table(&drop_in)?);
        }
        let part: Part = whole
            .try_into()
            .map_err(|e| SettingsError::Toml { path: file.to_owned(), source: Box::new(e) })?;
        let Part { mut tokens, mut keys, log } = part;
        let Some(token) = tokens.remove(name) else {
            let known = tokens.into_keys().collect::<Vec<_>>().join(", ");
            return Err(SettingsError::NoToken { name: name.to_owned(), known });
        };
        let uri = token.uri.parse().map_err(|source| SettingsError::Uri { name: name.to_owned(), source })?;
        keys.retain(|_, key| key.token == name);
        let plan = plan(name, &token)?;
        Ok(Self { token, uri, plan, keys, log })
    }
}

fn plan(name: &str, token: &Token) -> Result<Plan, SettingsError> {
    let key = format!("tokens.{name}.front_user");
    Ok(Plan {
        name: name.to_owned(),
        front_uid: user_id(&token.front_user).ok_or(SettingsError::NoUser { key, user: token.front_user.clone() })?,
        sessions: token.sessions.get(),
        max_queue: usize::try_from(token.max_queue.get()).unwrap_or(usize::MAX),
        pin_file: token.pin_file.clone(),
    })
}

fn table(path: &Path) -> Result<toml::Table, SettingsError> {
    let text = fs::read_to_string(path).map_err(|source| SettingsError::Io { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|e| SettingsError::Toml { path: path.to_owned(), source: Box::new(e) })
}

fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, SettingsError> {
    let mut directory = file.as_os_str().to_owned();
    directory.push(".d");
    let directory = PathBuf::from(directory);
    let failed = |source| SettingsError::Io { path: directory.clone(), source };
    let mut found = Vec::new();
    match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(failed)?.path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    found.push(path);
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Tables are merged, everything else is replaced.
fn merge(whole: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (whole.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                whole.insert(key, value);
            }
        }
    }
}
