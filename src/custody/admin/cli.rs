//! The command line of `signer-token admin`, which `signerctl` types.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::message::{Csr, Failure, Message, Step};
use super::{csr, pins, probe};
use crate::config::{self, Backend, Config};
use crate::custody::PublicKey;
use crate::custody::token::admin::{AdminSession, NewToken, TokenAdmin};
use crate::custody::token::explain;
use crate::custody::token::pkcs11::PinnedModule;
use crate::custody::token::pkcs11::admin::Pkcs11Admin;
use crate::custody::uri::{KeyUri, TokenUri};
use crate::custody::worker::harden;

/// Administers a token: what `signerctl token` and `signerctl keys` run. Prints JSON, one message a line.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The configuration file; with --name.
    #[arg(long, value_name = "FILE", requires = "name", required_unless_present = "module")]
    config: Option<PathBuf>,
    /// The token's name in the configuration.
    #[arg(long, requires = "config")]
    name: Option<String>,
    /// A PKCS#11 module, where there is no configuration yet.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    module: Option<PathBuf>,
    /// File with the user PIN, in place of the configured one.
    #[arg(long, value_name = "FILE", global = true)]
    pin_file: Option<PathBuf>,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Slots and tokens.
    Slots,
    /// Keys and certificates on the token.
    Objects {
        /// Log in first: private keys are invisible otherwise.
        #[arg(long)]
        login: bool,
    },
    /// Makes a token out of an empty one.
    Init {
        #[arg(long)]
        label: String,
        #[arg(long, value_name = "FILE")]
        so_pin_file: Option<PathBuf>,
        #[arg(long)]
        slot: Option<u64>,
        #[arg(long)]
        reinitialise: bool,
        /// The token that may be destroyed.
        #[arg(long, requires = "reinitialise")]
        expect_serial: Option<String>,
    },
    /// Everything about the token and some keys.
    Probe {
        #[arg(long = "key", value_name = "URI")]
        keys: Vec<KeyUri>,
        #[arg(long)]
        login: bool,
    },
    /// Makes a P-256 key pair.
    Generate {
        #[arg(long)]
        label: String,
        /// Hex.
        #[arg(long, value_parser = hex)]
        id: HexBytes,
    },
    /// A certificate signing request.
    Csr {
        #[arg(long)]
        uri: KeyUri,
        #[arg(long)]
        subject: String,
        #[arg(long)]
        san: Vec<String>,
    },
    /// Stores a certificate beside its key.
    ImportCert {
        #[arg(long)]
        uri: KeyUri,
        /// DER.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
    },
    /// Renames a key's objects.
    SetLabel {
        #[arg(long)]
        uri: KeyUri,
        #[arg(long)]
        label: String,
    },
    /// Destroys a key and what belongs to it.
    Delete {
        #[arg(long)]
        uri: KeyUri,
        /// Fingerprint of the key that is meant.
        #[arg(long, value_name = "KEYID")]
        expect: String,
    },
}

#[derive(Clone, Debug)]
struct HexBytes(Vec<u8>);

fn hex(text: &str) -> Result<HexBytes, String> {
    let wrong = || "an id is 1 to 32 bytes in hex".to_owned();
    if !(2..=64).contains(&text.len()) || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err(wrong());
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong());
    (0..text.len()).step_by(2).map(byte).collect::<Result<_, _>>().map(HexBytes)
}

/// Runs the command and says what came of it.
pub(crate) fn run(args: &AdminArgs) -> ExitCode {
    let (message, code) = match command(args) {
        Ok(result) => (Message::Done { result }, ExitCode::SUCCESS),
        Err(failure) => (Message::Failed { failure }, ExitCode::FAILURE),
    };
    message.say();
    code
}

/// The module, and of the configuration what is known.
struct Target {
    module: PathBuf,
    sha256: Option<String>,
    uri: Option<TokenUri>,
    pin_file: Option<PathBuf>,
    what: String,
}

impl Target {
    fn of(args: &AdminArgs) -> Result<Self, Failure> {
        match (&args.config, &args.name, &args.module) {
            (Some(file), Some(name), _) => {
                let config = config::load(file).map_err(|errors| Failure::new("config", errors.to_string()))?;
                Self::configured(&config, name)
            }
            (_, _, Some(module)) => {
                let what = format!("the token in {}", module.display());
                Ok(Self { module: module.clone(), sha256: None, uri: None, pin_file: None, what })
            }
            _ => Err(Failure::new("input", "give --config and --name, or --module")),
        }
    }

    fn configured(config: &Config, name: &str) -> Result<Self, Failure> {
        let token = config.token(name).map_err(|error| Failure::new("config", error.to_string()))?;
        let Backend::Pkcs11 { module, uri } = token
            .backend()
            .map_err(|error| Failure::new("config", format!("tokens.{name}.{}: {}", error.key, error.message)))?
        else {
            let message = format!("token `{name}` is a YubiHSM; administer it with Yubico's yubihsm-shell");
            return Err(Failure::new("input", message));
        };
        let uri = uri.parse().map_err(|error| Failure::new("config", format!("tokens.{name}.uri: {error}")))?;
        Ok(Self {
            module: module.to_owned(),
            sha256: token.module_sha256.clone(),
            uri: Some(uri),
            pin_file: Some(token.pin_file.clone()),
            what: format!("token `{name}`"),
        })
    }

    fn uri(&self) -> Result<&TokenUri, Failure> {
        self.uri.as_ref().ok_or_else(|| Failure::new("input", "this needs a configured token: --config and --name"))
    }
}

fn command(args: &AdminArgs) -> Result<Value, Failure> {
    harden::this_process().map_err(|error| Failure::new("process", error.to_string()))?;
    let target = Target::of(args)?;
    let user_pin = || pins::user_pin(args.pin_file.as_deref(), target.pin_file.as_deref(), &target.what);
    // Whatever a person has to be asked or a file has to give comes before the module is loaded.
    let init = match &args.command {
        AdminCommand::Init { so_pin_file, reinitialise, expect_serial, .. } => {
            let configured = target.uri.as_ref().and_then(|uri| uri.serial.as_ref());
            if let (Some(configured), Some(expected)) = (configured, expect_serial)
                && configured != expected
            {
                let message = format!("{} has the serial number {configured} in its URI, not {expected}", target.what);
                return Err(Failure::new("input", message));
            }
            let so_pin = match (so_pin_file, reinitialise) {
                (None, true) => pins::user_pin(None, None, "the security officer, as it is now")?.pin,
                (named, _) => pins::new_pin(named.as_deref(), "new security officer's PIN")?,
            };
            let configured = target.pin_file.as_deref().filter(|file| file.is_file());
            Some((so_pin, pins::new_pin(args.pin_file.as_deref().or(configured), "new user PIN")?))
        }
        _ => None,
    };
    let login = matches!(args.command, AdminCommand::Probe { login: true, .. }).then(user_pin);
    Message::Step { step: Step::Load }.say();
    let module = PinnedModule::open(&target.module, target.sha256.as_deref())
        .map_err(|error| Failure::new("module_load", explain(&error)))?;
    let admin = Pkcs11Admin::load(&module)?;
    admin.start().map_err(|error| Failure::new("module_initialise", explain(&error)))?;
    let session = |login: bool| -> Result<Box<dyn AdminSession>, Failure> {
        Message::Step { step: Step::Look }.say();
        let session = admin.open(target.uri()?)?;
        if login {
            let chosen = user_pin()?;
            Message::Step { step: Step::Login }.say();
            session.login(&chosen.pin, chosen.unattended)?;
        }
        Message::Step { step: Step::Work }.say();
        Ok(session)
    };
    match &args.command {
        AdminCommand::Slots => {
            Message::Step { step: Step::Look }.say();
            done(&admin.slots()?)
        }
        AdminCommand::Objects { login } => done(&session(*login)?.objects()?),
        AdminCommand::Init { label, slot, reinitialise, expect_serial, .. } => {
            let (so_pin, user_pin) = init.as_ref().ok_or_else(|| Failure::new("input", "no PINs"))?;
            Message::Step { step: Step::Initialise }.say();
            let (slot, reinitialise) = (*slot, *reinitialise);
            let expect_serial = expect_serial.as_deref();
            done(&admin.initialise(&NewToken { slot, label, so_pin, user_pin, reinitialise, expect_serial })?)
        }
        AdminCommand::Probe { keys, .. } => done(&probe::run(&admin, target.uri()?, keys, login)),
        AdminCommand::Generate { label, id } => done(&session(true)?.generate(label, &id.0)?),
        AdminCommand::Csr { uri, subject, san } => {
            let input = |error: csr::SubjectError| Failure::new("input", error.to_string());
            let subject = csr::subject(subject).map_err(input)?;
            let names = san.iter().map(|name| csr::alternative_name(name)).collect::<Result<_, _>>().map_err(input)?;
            let session = session(true)?;
            let key = session.key(uri)?;
            let public = PublicKey::from_pem(key.public_key.as_bytes())
                .map_err(|error| Failure::new("key_unsuitable", error.to_string()))?;
            done(&Csr { csr: csr::request(&*session, uri, public, subject, names)?, key })
        }
        AdminCommand::ImportCert { uri, certificate } => {
            let der = read(certificate)?;
            session(true)?.import_certificate(uri, &der)?;
            done(&json!({}))
        }
        AdminCommand::SetLabel { uri, label } => {
            session(true)?.set_label(uri, label)?;
            done(&json!({}))
        }
        AdminCommand::Delete { uri, expect } => done(&session(true)?.delete(uri, expect)?),
    }
}

fn done(result: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(result).map_err(|error| Failure::new("protocol", explain(&error)))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::new("input", format!("cannot read {}: {error}", file.display())))
}
