//! `signerctl token`: tokens as an operator sees, makes and mends them.

pub(crate) mod child;
pub(crate) mod cli;
mod doctor;

use serde_json::json;

use self::child::Admin;
use self::cli::{TokenCommand, TokenInitArgs, TokenListArgs};
use super::cli::ProfilesCommand;
use super::error::CtlError;
use super::output::{Report, plain, table};
use super::{confirm, conformance, drain, profiles};
use crate::config;
use crate::custody::token::admin::{Object, Slot, TokenSeen};
use crate::custody::uri::TokenUri;

pub(crate) fn run(command: TokenCommand, json: bool) -> Result<Report, CtlError> {
    match command {
        TokenCommand::List(args) if args.objects => objects(&args),
        TokenCommand::List(args) => list(&args),
        TokenCommand::Init(args) => init(&args),
        TokenCommand::Doctor(args) => doctor::run(&args),
        TokenCommand::Drain(args) => drain::run(&args, true),
        TokenCommand::Undrain(args) => drain::run(&args, false),
        TokenCommand::Profiles(args) => match args.command {
            None => Ok(profiles::list()),
            Some(ProfilesCommand::Show(args)) => profiles::show(&args),
        },
        TokenCommand::Conformance(args) => conformance::run(&args, json),
    }
}

fn list(args: &TokenListArgs) -> Result<Report, CtlError> {
    let slots: Vec<Slot> = reach(args.name.as_deref(), args.module.as_deref(), &args.reach)?.args(["slots"]).run()?;
    let mut rows = vec![["SLOT", "LABEL", "SERIAL", "MODEL", "FIRMWARE", "FLAGS"].map(str::to_owned).to_vec()];
    for slot in &slots {
        rows.push(match &slot.token {
            Some(token) if token.initialized => vec![
                slot.id.to_string(),
                plain(&token.label),
                plain(&token.serial),
                plain(&format!("{} {}", token.manufacturer, token.model)),
                plain(&token.firmware),
                plain(&token.flags.join(", ")),
            ],
            Some(token) => vec![
                slot.id.to_string(),
                "(not initialised)".to_owned(),
                "-".to_owned(),
                plain(&format!("{} {}", token.manufacturer, token.model)),
            ],
            None => vec![slot.id.to_string(), "(no token)".to_owned(), "-".to_owned(), plain(&slot.description)],
        });
    }
    Ok(Report::new(table(&rows), json!({ "slots": slots })))
}

fn objects(args: &TokenListArgs) -> Result<Report, CtlError> {
    let admin = reach(args.name.as_deref(), args.module.as_deref(), &args.reach)?.args(["objects"]);
    let admin = if args.login { admin.args(["--login"]) } else { admin };
    let objects: Vec<Object> = admin.run()?;
    let mut rows = vec![["CLASS", "LABEL", "ID"].map(str::to_owned).to_vec()];
    rows.extend(objects.iter().map(|object| vec![plain(&object.class), plain(&object.label), plain(&object.id)]));
    Ok(Report::new(table(&rows), json!({ "objects": objects })))
}

fn init(args: &TokenInitArgs) -> Result<Report, CtlError> {
    if let Some(name) = &args.name {
        let loaded = config::open(&args.reach.config).map_err(CtlError::Config)?;
        let token = loaded.config.token(name).map_err(|error| CtlError::Usage(error.to_string()))?;
        if let Some(worker) = token.auth_key.filter(|_| token.connector.is_some()) {
            return init_yubihsm(args, name, worker);
        }
    }
    let label = match (&args.label, &args.name) {
        (Some(label), _) => label.clone(),
        (None, Some(name)) => configured_label(args, name)?,
        (None, None) => return Err(CtlError::Usage("--module needs --label".to_owned())),
    };
    let mut admin = reach(args.name.as_deref(), args.module.as_deref(), &args.reach)?.args(["init", "--label", &label]);
    if let Some(file) = &args.so_pin_file {
        admin = admin.args(["--so-pin-file".as_ref(), file.as_os_str()]);
    }
    if let Some(slot) = args.slot {
        admin = admin.args(["--slot", &slot.to_string()]);
    }
    let mut typed = label.clone();
    let mut consequence = format!("An empty token becomes the token `{}`", plain(&label));
    if args.reinitialise {
        admin = admin.args(["--reinitialise"]);
        if let Some((slot, victim)) = victim(args, &label)? {
            expected(args, &victim)?;
            admin = admin.args([format!("--expect-serial={}", victim.serial)]);
            consequence = format!(
                "Every key on the token `{}` will be destroyed, and every signature by one of them becomes the last. \
                 It is in slot {slot}: serial {}, {} {}; it becomes the token `{}`",
                plain(&victim.label),
                plain(&victim.serial),
                plain(&victim.manufacturer),
                plain(&victim.model),
                plain(&label)
            );
            // What is typed is what will be gone, not what will be there.
            typed = [victim.label, victim.serial].into_iter().find(|name| !name.is_empty()).unwrap_or(typed);
        }
    }
    confirm::by_typing(&typed, &consequence, args.yes)?;
    let slot: Slot = admin.run()?;
    let token = slot.token.clone().unwrap_or_default();
    let text = format!(
        "token `{}` is ready in slot {}: serial {}, {}\n\nto use it, name it in the configuration:\n\n    uri = \"pkcs11:token={};serial={}\"\n",
        plain(&token.label),
        slot.id,
        plain(&token.serial),
        plain(&token.model),
        percent(&token.label),
        percent(&token.serial),
    );
    Ok(Report::new(text, json!({ "slot": slot })))
}

/// A device fresh from the factory becomes one for a worker.
fn init_yubihsm(args: &TokenInitArgs, name: &str, worker: u16) -> Result<Report, CtlError> {
    if args.reinitialise || args.slot.is_some() || args.label.is_some() {
        let why =
            "--label, --slot and --reinitialise are not for a YubiHSM; yubihsm-shell resets one to the factory's state";
        return Err(CtlError::Usage(why.to_owned()));
    }
    let administrator = args.reach.auth_key.unwrap_or(ADMINISTRATOR);
    let reached: Vec<Slot> = Admin::configured(&args.reach, name)?.args(["slots"]).run()?;
    let serial = reached.first().and_then(|slot| slot.token.as_ref()).map(|token| token.serial.clone());
    let serial = serial.ok_or_else(|| CtlError::Unexpected("the device tells no serial number".to_owned()))?;
    let consequence = format!(
        "YubiHSM {}: authentication key {worker:#06x} is made for the worker and {administrator:#06x} for an \
         administrator, signatures are logged and no entry is overwritten, and the factory's key 0x0001 is removed. \
         Whoever loses the administrator's password can only reset the device",
        plain(&serial)
    );
    confirm::by_typing(&serial, &consequence, args.yes)?;
    let mut admin = Admin::configured(&args.reach, name)?.args(["init", "--label", "YubiHSM"]);
    if args.reach.auth_key.is_none() {
        admin = admin.args([format!("--auth-key={administrator}")]);
    }
    if let Some(file) = &args.so_pin_file {
        admin = admin.args(["--so-pin-file".as_ref(), file.as_os_str()]);
    }
    let slot: Slot = admin.run()?;
    let text = format!(
        "YubiHSM {} is ready: the worker signs as {worker:#06x}; make a key as the administrator:\n\n    signerctl keys \
         generate NAME --token {name} --auth-key {administrator}\n",
        plain(&serial)
    );
    Ok(Report::new(text, json!({ "slot": slot, "administrator": administrator })))
}

/// The token that `--reinitialise` destroys, and its slot; `None` when there is an empty one in its place.
fn victim(args: &TokenInitArgs, label: &str) -> Result<Option<(u64, TokenSeen)>, CtlError> {
    let slots: Vec<Slot> = reach(args.name.as_deref(), args.module.as_deref(), &args.reach)?.args(["slots"]).run()?;
    let initialised =
        slots.into_iter().filter_map(|slot| Some((slot.id, slot.token.filter(|token| token.initialized)?)));
    let mut meant = initialised.filter(|(id, token)| args.slot.map_or(token.label == label, |slot| slot == *id));
    Ok(meant.next())
}

/// A serial number in the configuration says which device is meant, whatever slot it is in.
fn expected(args: &TokenInitArgs, victim: &TokenSeen) -> Result<(), CtlError> {
    let Some(name) = &args.name else { return Ok(()) };
    let loaded = config::open(&args.reach.config).map_err(CtlError::Config)?;
    let token = loaded.config.token(name).map_err(|error| CtlError::Usage(error.to_string()))?;
    let uri: Option<TokenUri> = token.uri.as_ref().and_then(|uri| uri.parse().ok());
    match uri.and_then(|uri| uri.serial) {
        Some(serial) if serial != victim.serial => {
            let place = loaded.origin(&["tokens", name, "uri"]);
            Err(CtlError::Usage(format!(
                "{place}: tokens.{name}.uri names serial {}, and the token that would be destroyed is `{}` with \
                 serial {}; it was left alone",
                plain(&serial),
                plain(&victim.label),
                plain(&victim.serial)
            )))
        }
        _ => Ok(()),
    }
}

fn configured_label(args: &TokenInitArgs, name: &str) -> Result<String, CtlError> {
    let loaded = config::open(&args.reach.config).map_err(CtlError::Config)?;
    let token = loaded.config.token(name).map_err(|error| CtlError::Usage(error.to_string()))?;
    let Some(uri) = &token.uri else {
        return Err(CtlError::Usage(format!("tokens.{name} is a YubiHSM; it is initialised with Yubico's tools")));
    };
    let uri: TokenUri = uri.parse().map_err(|error| CtlError::Usage(format!("tokens.{name}.uri: {error}")))?;
    uri.token.ok_or_else(|| {
        let place = loaded.origin(&["tokens", name, "uri"]);
        CtlError::Usage(format!("{place}: tokens.{name}.uri names no label (`token=`); give --label"))
    })
}

fn reach(name: Option<&str>, module: Option<&std::path::Path>, reach: &cli::Reach) -> Result<Admin, CtlError> {
    match (name, module) {
        (Some(name), _) => Admin::configured(reach, name),
        (None, Some(module)) => Admin::module(reach, module),
        (None, None) => Err(CtlError::Usage("give the token's name, or --module".to_owned())),
    }
}

/// The authentication key of an administrator where nobody says another.
const ADMINISTRATOR: u16 = 3;

/// As a value of a PKCS#11 URI (RFC 7512, section 2.3).
pub(crate) fn percent(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
