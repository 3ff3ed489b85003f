//! `signerctl keys delete`.

use serde_json::json;

use super::cli::KeysDeleteArgs;
use super::public_half::{self, configured};
use crate::config::{self, Key, KeyState, Loaded};
use crate::ctl::confirm;
use crate::ctl::error::CtlError;
use crate::ctl::output::{Report, plain};
use crate::ctl::token::child::Admin;
use crate::custody::PublicKey;
use crate::custody::history::History;
use crate::custody::token::admin::Object;
use crate::custody::uri::KeyUri;
use crate::hex::hex;

pub(crate) fn run(args: &KeysDeleteArgs) -> Result<Report, CtlError> {
    let loaded = config::open(&args.reach.config).map_err(CtlError::Config)?;
    let (name, key) = (&args.key, configured(&loaded, &args.key)?);
    if key.state == KeyState::Active {
        let place = loaded.origin(&["keys", name, "state"]);
        return Err(CtlError::KeyLife(format!(
            "key `{name}` is active ({place}); rotate it away and retire it first, or take it out of the configuration"
        )));
    }
    let uri: KeyUri = key.uri.parse().map_err(|error| CtlError::Usage(format!("keys.{name}.uri: {error}")))?;
    let history = History::of(&loaded.config);
    let public_key = match (public_half::pinned(key)?, public_half::in_token(&loaded, &args.reach, key)?) {
        (Some(pinned), Some(shown)) if pinned != shown => {
            return Err(CtlError::KeyLife(format!(
                "`{name}` is pinned to {}, and the token has {} under its URI: another key, which is left alone",
                pinned.keyid(),
                shown.keyid()
            )));
        }
        (None, None) => public_half::remembered(&history, name)?,
        (pinned, shown) => pinned.or(shown),
    };
    let Some(public_key) = public_key else {
        return Err(CtlError::KeyLife(format!(
            "the public half of `{name}` is known nowhere but in the token, so its signatures could never be verified \
             again; write it to a file and name that as keys.{name}.public_key"
        )));
    };
    not_in_use(args, &loaded, &history, &public_key)?;
    public_half::remember(&history, name, &key.token, &public_key)?;
    // What is typed is what the object is called in the token, not the word that was typed a moment ago.
    let called = match (&uri.id, &uri.object) {
        (Some(id), _) => hex(id),
        (None, Some(label)) => label.clone(),
        (None, None) => name.clone(),
    };
    let elsewhere = replicas(name, key);
    let consequence = format!(
        "The private key {} (`{name}`) in token `{}` will be destroyed; nobody can bring it back{}{elsewhere}",
        public_key.keyid(),
        key.token,
        if elsewhere.is_empty() { "" } else { ".\n" },
    );
    confirm::by_typing(&called, &consequence, args.yes)?;
    let admin = Admin::configured(&args.reach, &key.token)?.args(["delete", "--uri", &key.uri]);
    // What the URI names now may be another key than what it named when the configuration was written.
    let gone: Vec<Object> = admin.args(["--expect", &hex(public_key.sec1())]).run()?;
    let mut text = String::new();
    for object in &gone {
        text.push_str(&format!("destroyed: {} `{}` (id {})\n", object.class, plain(&object.label), plain(&object.id)));
    }
    text.push_str(&format!("its public key {} stays in {}\n", public_key.keyid(), history.path().display()));
    if !elsewhere.is_empty() {
        text.push_str(&format!("{elsewhere}\n"));
    }
    let still_in: Vec<&str> = key.replica.iter().map(|replica| replica.token.as_str()).collect();
    let json = json!({ "name": name, "keyid": public_key.keyid(), "destroyed": gone, "stillIn": still_in });
    Ok(Report::new(text, json))
}

/// The other tokens that hold the key, and how it is destroyed there; empty when there are none.
fn replicas(name: &str, key: &Key) -> String {
    if key.replica.is_empty() {
        return String::new();
    }
    let tokens: Vec<String> =
        key.replica.iter().map(|replica| format!("`{}` ({})", plain(&replica.token), plain(&replica.uri))).collect();
    format!(
        "Its replicas still hold the key: {}. To destroy it there, write a replica's token and uri as those of \
         [keys.{name}], without the replica, and run this again",
        tokens.join(", ")
    )
}

/// Two names for one key: what one of them still needs is not destroyed under the other.
fn not_in_use(
    args: &KeysDeleteArgs,
    loaded: &Loaded,
    history: &History,
    public_key: &PublicKey,
) -> Result<(), CtlError> {
    let others = loaded.config.keys.iter().filter(|(name, key)| **name != args.key && key.state != KeyState::Retired);
    for (other, key) in others {
        let known = match public_half::pinned(key)? {
            Some(pinned) => Some(pinned),
            // A token that is away does not keep the key of another one from being deleted.
            None => match public_half::in_token(loaded, &args.reach, key) {
                Ok(Some(shown)) => Some(shown),
                Ok(None) | Err(_) => public_half::remembered(history, other)?,
            },
        };
        if known.as_ref() == Some(public_key) {
            let place = loaded.origin(&["keys", other]);
            return Err(CtlError::KeyLife(format!(
                "{place}: key `{other}` is this very key ({}) and is not retired; retire it first, or take it out of \
                 the configuration",
                public_key.keyid()
            )));
        }
    }
    Ok(())
}
