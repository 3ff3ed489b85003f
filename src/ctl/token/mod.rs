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
use crate::custody::token::admin::{Object, Slot};
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
    let consequence = if args.reinitialise {
        admin = admin.args(["--reinitialise"]);
        format!(
            "Every key on the token `{label}` will be destroyed, and every signature by one of them becomes the last"
        )
    } else {
        format!("An empty token becomes the token `{label}`")
    };
    confirm::by_typing(&label, &consequence, args.yes)?;
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

/// As a value of a PKCS#11 URI (RFC 7512, section 2.3).
pub(crate) fn percent(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
