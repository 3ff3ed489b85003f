//! `signerctl keys rotate` and `retire`: the life of a key, one step at a time.
//!
//! `next` (published) → `active` from a moment on, while the one before is `active` up to that moment and verifies
//! after it → the one before `retired`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;
use toml_edit::Value;

use super::cli::{KeysRetireArgs, KeysRotateArgs};
use super::drop_in::{Change, Set};
use super::public_half::{self, configured};
use crate::config::{self, Key, KeyState, Loaded};
use crate::ctl::confirm;
use crate::ctl::error::CtlError;
use crate::ctl::files;
use crate::ctl::output::Report;
use crate::ctl::token::cli::Reach;
use crate::custody::PublicKey;
use crate::custody::history::History;

pub(crate) fn rotate(args: &KeysRotateArgs) -> Result<Report, CtlError> {
    let loaded = config::open(&args.reach.config).map_err(CtlError::Config)?;
    let (name, key) = (&args.key, configured(&loaded, &args.key)?);
    if key.state != KeyState::Next {
        let place = loaded.origin(&["keys", name, "state"]);
        return Err(CtlError::KeyLife(format!(
            "{place}: key `{name}` is `{}`; only a `next` key can take over, after verifiers had time to fetch it",
            state(key.state)
        )));
    }
    let now = whole_seconds(Timestamp::now());
    let at = args.at.map_or(now, whole_seconds);
    if at < now {
        return Err(CtlError::Usage(format!("--at: {at} has passed; what was signed since cannot be signed again")));
    }
    if key.not_after.is_some_and(|end| end <= at) {
        let place = loaded.origin(&["keys", name, "not_after"]);
        return Err(CtlError::KeyLife(format!("{place}: key `{name}` ends before it would begin")));
    }
    let outgoing = outgoing(&loaded, name, at)?;
    let mut halves = vec![public(&args.reach, &loaded, name, key, true)?];
    for old in &outgoing {
        halves.push(public(&args.reach, &loaded, old, configured(&loaded, old)?, false)?);
    }
    let mut sets: Vec<Set> = halves.iter().filter_map(Half::to_set).collect();
    sets.push(Set { key: name.clone(), field: "state", value: Value::from("active") });
    sets.push(Set { key: name.clone(), field: "not_before", value: moment(at)? });
    for old in &outgoing {
        sets.push(Set { key: old.clone(), field: "not_after", value: moment(at)? });
    }
    let then = match &outgoing[..] {
        [] => String::new(),
        names => format!("later, when nothing they signed is in flight: signerctl keys retire {}\n", names.join(" ")),
    };
    finish(&args.reach, &loaded, &sets, &halves, args.yes, name, &format!("`{name}` signs from {at} on"), &then)
}

pub(crate) fn retire(args: &KeysRetireArgs) -> Result<Report, CtlError> {
    let loaded = config::open(&args.reach.config).map_err(CtlError::Config)?;
    let (name, key) = (&args.key, configured(&loaded, &args.key)?);
    if key.state != KeyState::Active {
        let place = loaded.origin(&["keys", name, "state"]);
        return Err(CtlError::KeyLife(format!("{place}: key `{name}` is `{}`, not `active`", state(key.state))));
    }
    if key.not_after.is_none_or(|end| end > Timestamp::now()) && !tenants_of(&loaded, name).is_empty() {
        let when = key.not_after.map_or("has no end".to_owned(), |end| format!("signs until {end}"));
        return Err(CtlError::KeyLife(format!(
            "key `{name}` {when}; let another one take over first: signerctl keys rotate"
        )));
    }
    let halves = [public(&args.reach, &loaded, name, key, false)?];
    let mut sets: Vec<Set> = halves.iter().filter_map(Half::to_set).collect();
    sets.push(Set { key: name.clone(), field: "state", value: Value::from("retired") });
    let then = format!("its private key can go now: signerctl keys delete {name}\n");
    finish(&args.reach, &loaded, &sets, &halves, args.yes, name, &format!("`{name}` verifies only"), &then)
}

/// A key's public half, and the file that it has to be written to, if it is in none yet.
struct Half {
    name: String,
    token: String,
    key: PublicKey,
    file: Option<PathBuf>,
}

impl Half {
    fn to_set(&self) -> Option<Set> {
        let file = self.file.as_ref()?.display().to_string();
        Some(Set { key: self.name.clone(), field: "public_key", value: Value::from(file) })
    }
}

#[allow(clippy::too_many_arguments, reason = "the last step of two commands, called from here alone")]
fn finish(
    reach: &Reach,
    loaded: &Loaded,
    sets: &[Set],
    halves: &[Half],
    yes: bool,
    name: &str,
    what: &str,
    then: &str,
) -> Result<Report, CtlError> {
    let history = History::of(&loaded.config);
    let change = Change::prepare(&reach.config, loaded, sets)?;
    eprint_change(&change, yes);
    confirm::by_typing(name, &format!("{} will say so, and {what}", change.file().display()), yes)?;
    // The public halves first: were the rest to fail, nothing is lost.
    for half in halves {
        public_half::remember(&history, &half.name, &half.token, &half.key)?;
        if let Some(file) = half.file.as_deref().filter(|file| !file.exists()) {
            write_public_key(file, &half.key, &reach.config)?;
        }
    }
    change.put_in_force()?;
    let text = format!(
        "{}is in force in {}: {what}\n\nrestart signerd: systemctl restart signerd\n{then}",
        change.describe(),
        change.file().display()
    );
    let keys: Vec<_> = halves.iter().map(|half| json!({ "name": half.name, "keyid": half.key.keyid() })).collect();
    let json = json!({
        "file": change.file().display().to_string(), "changes": change.lines(), "keys": keys,
    });
    Ok(Report::new(text, json))
}

/// Before the question; with `--yes` it is in the report alone.
fn eprint_change(change: &Change, yes: bool) {
    if !yes {
        // Standard output belongs to the report.
        let _ = write!(std::io::stderr().lock(), "{}", change.describe());
    }
}

/// The active keys of the tenants that `name` is listed for: what it takes over from at `at`.
fn outgoing(loaded: &Loaded, name: &str, at: Timestamp) -> Result<Vec<String>, CtlError> {
    let tenants = tenants_of(loaded, name);
    if tenants.is_empty() {
        return Err(CtlError::KeyLife(format!(
            "no tenant lists key `{name}`; add it to the `keys` of its tenant first"
        )));
    }
    let mut outgoing = BTreeSet::new();
    for tid in tenants {
        for listed in loaded.config.tenants.get(tid).map(|tenant| &tenant.keys[..]).unwrap_or_default() {
            let signs_then = |key: &&Key| key.state == KeyState::Active && key.not_after.is_none_or(|end| end > at);
            let Some(key) = loaded.config.keys.get(listed).filter(signs_then) else { continue };
            if key.not_before.is_some_and(|start| start >= at) {
                let place = loaded.origin(&["keys", listed, "not_before"]);
                return Err(CtlError::KeyLife(format!(
                    "{place}: `{listed}` takes over later; rotate to it, or choose another --at"
                )));
            }
            // Who shares the old key and does not know the new one would be left without a key.
            let left = tenants_of(loaded, listed).into_iter().find(|tid| {
                !loaded.config.tenants.get(*tid).is_some_and(|tenant| tenant.keys.iter().any(|key| key == name))
            });
            if let Some(left) = left {
                let place = loaded.origin(&["tenants", left, "keys"]);
                return Err(CtlError::KeyLife(format!(
                    "{place}: tenant `{left}` signs with `{listed}` and does not list `{name}`; add it there first"
                )));
            }
            outgoing.insert(listed.clone());
        }
    }
    Ok(outgoing.into_iter().collect())
}

fn tenants_of<'a>(loaded: &'a Loaded, name: &str) -> Vec<&'a str> {
    let lists = |keys: &[String]| keys.iter().any(|key| key == name);
    loaded.config.tenants.iter().filter(|(_, tenant)| lists(&tenant.keys)).map(|(tid, _)| tid.as_str()).collect()
}

/// The public half, compared with the token's where that shows it; a key that begins to sign must be there.
fn public(reach: &Reach, loaded: &Loaded, name: &str, key: &Key, must_be_there: bool) -> Result<Half, CtlError> {
    let pinned = public_half::pinned(key)?;
    let shown = match public_half::in_token(loaded, reach, key) {
        Ok(shown) => shown,
        Err(error) if must_be_there || pinned.is_none() => return Err(error),
        Err(_) => None,
    };
    let known = match (pinned, shown) {
        (Some(pinned), Some(shown)) if pinned != shown => {
            let place = loaded.origin(&["keys", name]);
            return Err(CtlError::KeyLife(format!(
                "{place}: `{name}` is pinned to {}, and the token has {} under its URI",
                pinned.keyid(),
                shown.keyid()
            )));
        }
        (None, None) => public_half::remembered(&History::of(&loaded.config), name)?,
        (pinned, shown) => pinned.or(shown),
    };
    let public_key = known.ok_or_else(|| {
        CtlError::KeyLife(format!("the public half of `{name}` is known nowhere; set keys.{name}.public_key"))
    })?;
    let file = if key.public_key.is_none() { Some(file_for(&reach.config, name, &public_key)?) } else { None };
    Ok(Half { name: name.to_owned(), token: key.token.clone(), key: public_key, file })
}

/// `keys/NAME.pub` beside the configuration.
fn file_for(config: &Path, name: &str, key: &PublicKey) -> Result<PathBuf, CtlError> {
    let config = std::path::absolute(config).map_err(|error| CtlError::read(config, error))?;
    let file = config.with_file_name("keys").join(format!("{name}.pub"));
    match std::fs::read(&file) {
        Ok(pem) if PublicKey::from_pem(&pem).ok().as_ref() != Some(key) => {
            Err(CtlError::content(&file, "is there and holds another key; move it away"))
        }
        _ => Ok(file),
    }
}

fn write_public_key(file: &Path, key: &PublicKey, config: &Path) -> Result<(), CtlError> {
    if let Some(directory) = file.parent().filter(|directory| !directory.exists()) {
        std::fs::create_dir(directory).map_err(|error| CtlError::write(directory, error))?;
        files::like(directory, config.parent().unwrap_or(Path::new("/"))).map_err(|e| CtlError::write(directory, e))?;
    }
    files::replace(file, key.to_pem().as_bytes(), config)
}

fn moment(at: Timestamp) -> Result<Value, CtlError> {
    let text = at.to_string();
    text.parse::<toml_edit::Datetime>()
        .map(Value::from)
        .map_err(|error| CtlError::Usage(format!("{text} cannot be written as a TOML moment: {error}")))
}

/// A fraction of a second helps nobody and reads badly.
fn whole_seconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

fn state(state: KeyState) -> &'static str {
    match state {
        KeyState::Next => "next",
        KeyState::Active => "active",
        KeyState::Retired => "retired",
    }
}
