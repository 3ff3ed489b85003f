//! `signerctl keys export`: the public keys of the appliance, from its own files.

use serde_json::{Value, json};

use super::cli::{ExportForm, KeysExportArgs};
use super::public_half;
use crate::config::{self, KeyState, Loaded};
use crate::ctl::error::CtlError;
use crate::ctl::output::{Report, plain};
use crate::ctl::token::cli::Reach;
use crate::custody::PublicKey;
use crate::custody::history::{History, Remembered};

/// A key and what is said of it.
pub(crate) struct Exported {
    pub(crate) name: String,
    state: &'static str,
    token: String,
    pub(crate) key: PublicKey,
    not_before: Option<jiff::Timestamp>,
    not_after: Option<jiff::Timestamp>,
}

pub(crate) fn run(args: &KeysExportArgs) -> Result<Report, CtlError> {
    let loaded = config::open(&args.reach.config).map_err(CtlError::Config)?;
    let exported = exported(&loaded, &args.reach, args.all)?;
    let set = json!({ "keys": exported.iter().map(Exported::jwk).collect::<Vec<Value>>() });
    let text = match args.format {
        ExportForm::Jwks => format!("{set:#}\n"),
        ExportForm::Pem => exported
            .iter()
            .map(|key| format!("{} {} ({})\n{}", key.key.keyid(), plain(&key.name), key.state, key.key.to_pem()))
            .collect(),
    };
    Ok(Report::new(text, set))
}

/// The keys of the configuration; with `all`, also those that only the history knows.
pub(crate) fn exported(loaded: &Loaded, reach: &Reach, all: bool) -> Result<Vec<Exported>, CtlError> {
    let history = History::of(&loaded.config);
    let mut exported = Vec::new();
    for (name, key) in &loaded.config.keys {
        let known = match public_half::pinned(key)? {
            Some(pinned) => Some(pinned),
            None => match public_half::remembered(&history, name)? {
                Some(remembered) => Some(remembered),
                None => public_half::in_token(loaded, reach, key)?,
            },
        };
        let public_key = known.ok_or_else(|| {
            let place = loaded.origin(&["keys", name]);
            CtlError::KeyLife(format!(
                "{place}: the public half of `{name}` is known nowhere: no public_key, no history, and the token shows \
                 none without login; set keys.{name}.public_key"
            ))
        })?;
        exported.push(Exported {
            name: name.clone(),
            state: state(key.state),
            token: key.token.clone(),
            key: public_key,
            not_before: key.not_before,
            not_after: key.not_after,
        });
    }
    if all {
        let past = history.read().map_err(|error| public_half::unusable(&error))?;
        for old in &past {
            add(&mut exported, old);
        }
    }
    Ok(exported)
}

fn add(exported: &mut Vec<Exported>, old: &Remembered) {
    let Some(key) = old.key() else { return };
    if exported.iter().all(|known| known.key != key) {
        let (name, token) = (old.name.clone(), old.token.clone());
        exported.push(Exported { name, state: "retired", token, key, not_before: None, not_after: None });
    }
}

impl Exported {
    /// As `GET /keys` has it, without what only a running appliance knows.
    pub(crate) fn jwk(&self) -> Value {
        let (x, y) = self.key.jwk_coordinates();
        let mut jwk = json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.key.keyid(), "alg": "ES256", "use": "sig",
            "name": self.name, "state": self.state, "token": self.token,
        });
        for (member, moment) in [("notBefore", self.not_before), ("notAfter", self.not_after)] {
            if let Some(moment) = moment {
                jwk[member] = moment.to_string().into();
            }
        }
        jwk
    }
}

fn state(state: KeyState) -> &'static str {
    match state {
        KeyState::Next => "next",
        KeyState::Active => "active",
        KeyState::Retired => "retired",
    }
}
