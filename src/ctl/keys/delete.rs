//! `signerctl keys delete`.

use serde_json::json;

use super::cli::KeysDeleteArgs;
use super::public_half::{self, configured};
use crate::config::{self, KeyState};
use crate::ctl::confirm;
use crate::ctl::error::CtlError;
use crate::ctl::files::hex;
use crate::ctl::output::{Report, plain};
use crate::ctl::token::child::Admin;
use crate::custody::history::History;
use crate::custody::token::admin::Object;
use crate::custody::uri::KeyUri;

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
    let public_key = match (public_half::pinned(key)?, public_half::in_token(&args.reach, key)?) {
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
    public_half::remember(&history, name, &key.token, &public_key)?;
    // What is typed is what the object is called in the token, not the word that was typed a moment ago.
    let called = match (&uri.id, &uri.object) {
        (Some(id), _) => hex(id),
        (None, Some(label)) => label.clone(),
        (None, None) => name.clone(),
    };
    let consequence = format!(
        "The private key {} (`{name}`) in token `{}` will be destroyed; nobody can bring it back",
        public_key.keyid(),
        key.token
    );
    confirm::by_typing(&called, &consequence, args.yes)?;
    let gone: Vec<Object> = Admin::configured(&args.reach, &key.token)?.args(["delete", "--uri", &key.uri]).run()?;
    let mut text = String::new();
    for object in &gone {
        text.push_str(&format!("destroyed: {} `{}` (id {})\n", object.class, plain(&object.label), plain(&object.id)));
    }
    text.push_str(&format!("its public key {} stays in {}\n", public_key.keyid(), history.path().display()));
    Ok(Report::new(text, json!({ "name": name, "keyid": public_key.keyid(), "destroyed": gone })))
}
