//! The command line of `signer-token admin`, which `signerctl` types.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::message::{Csr, Failure, Message, Step};
use super::target::Target;
use super::{csr, pins, probe};
use crate::custody::PublicKey;
use crate::custody::token::admin::{AdminSession, NewToken};
use crate::custody::token::explain;
use crate::custody::uri::KeyUri;
use crate::custody::worker::harden;

/// Administers a token: what `signerctl token` and `signerctl keys` run. Prints JSON, one message a line.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The configuration file; with --name.
    #[arg(long, value_name = "FILE", requires = "name", required_unless_present = "module")]
    pub(super) config: Option<PathBuf>,
    /// The token's name in the configuration.
    #[arg(long, requires = "config")]
    pub(super) name: Option<String>,
    /// A PKCS#11 module, where there is no configuration yet.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub(super) module: Option<PathBuf>,
    /// Of a YubiHSM: the authentication key to act as, in place of the configured one.
    #[arg(long, value_name = "ID", global = true, value_parser = object_id)]
    pub(super) auth_key: Option<u16>,
    /// File with the user PIN, in place of the configured one.
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) pin_file: Option<PathBuf>,
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
        /// Public point of the key that is meant, hex (SEC 1, uncompressed).
        #[arg(long, value_name = "HEX", value_parser = point)]
        expect: HexBytes,
    },
}

#[derive(Clone, Debug)]
struct HexBytes(Vec<u8>);

fn hex(text: &str) -> Result<HexBytes, String> {
    bytes(text).filter(|id| (1..=32).contains(&id.0.len())).ok_or_else(|| "an id is 1 to 32 bytes in hex".to_owned())
}

fn point(text: &str) -> Result<HexBytes, String> {
    bytes(text).filter(|point| point.0.len() == 65).ok_or_else(|| "a point of P-256 is 65 bytes in hex".to_owned())
}

fn bytes(text: &str) -> Option<HexBytes> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    (0..text.len()).step_by(2).map(byte).collect::<Option<_>>().map(HexBytes)
}

/// As people write the object ids of a YubiHSM: `3`, or `0x0003` as its own tools do.
pub(crate) fn object_id(text: &str) -> Result<u16, String> {
    let number = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u16::from_str_radix(hex, 16));
    let known = number.ok().filter(|id| !matches!(id, 0 | 0xffff));
    known.ok_or_else(|| format!("`{text}` is no object id of a YubiHSM; write 1 to 65534, or 0x0001 to 0xfffe"))
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

fn command(args: &AdminArgs) -> Result<Value, Failure> {
    harden::this_process().map_err(|error| Failure::new("process", error.to_string()))?;
    let mut target = Target::of(args)?;
    // Whatever a person has to be asked or a file has to give comes before the device is spoken to.
    let chosen = match &args.command {
        AdminCommand::Probe { login: true, .. } | AdminCommand::Objects { login: true } => Some(target.user_pin(args)),
        AdminCommand::Slots | AdminCommand::Init { .. } | AdminCommand::Probe { .. } | AdminCommand::Objects { .. } => {
            None
        }
        _ => Some(target.user_pin(args)),
    };
    if let AdminCommand::Init { label, so_pin_file, slot, reinitialise, expect_serial } = &args.command {
        let pins = target.new_pins(args, so_pin_file.as_deref(), *reinitialise, expect_serial.as_deref())?;
        let wanted = NewToken {
            slot: *slot,
            label,
            so_pin: &pins.so,
            user_pin: &pins.user,
            reinitialise: *reinitialise,
            expect_serial: expect_serial.as_deref(),
        };
        return done(&target.initialise(&wanted)?);
    }
    let admin = target.load()?;
    if matches!(args.command, AdminCommand::Slots) {
        Message::Step { step: Step::Look }.say();
        return done(&admin.slots()?);
    }
    let (uri, account) = (target.uri()?.clone(), target.account.clone());
    if let AdminCommand::Probe { keys, .. } = &args.command {
        let login = match chosen {
            None => None,
            Some(Err(failure)) => Some(Err(failure)),
            Some(Ok(chosen)) => Some(target.memories().map(|memories| (chosen, memories))),
        };
        return done(&probe::run(&*admin, &uri, keys, login, &account));
    }
    Message::Step { step: Step::Look }.say();
    let session = admin.open(&uri)?;
    if let Some(chosen) = chosen.transpose()? {
        Message::Step { step: Step::Login }.say();
        pins::log_in(&*session, &chosen, target.memories()?, &account)?;
    }
    Message::Step { step: Step::Work }.say();
    work(&*session, &args.command)
}

/// What is done in a session that is logged in, or needs not be.
fn work(session: &dyn AdminSession, command: &AdminCommand) -> Result<Value, Failure> {
    match command {
        AdminCommand::Objects { .. } => done(&session.objects()?),
        AdminCommand::Generate { label, id } => done(&session.generate(label, &id.0)?),
        AdminCommand::Csr { uri, subject, san } => {
            let input = |error: csr::SubjectError| Failure::new("input", error.to_string());
            let subject = csr::subject(subject).map_err(input)?;
            let names = san.iter().map(|name| csr::alternative_name(name)).collect::<Result<_, _>>().map_err(input)?;
            let key = session.key(uri)?;
            let public = PublicKey::from_pem(key.public_key.as_bytes())
                .map_err(|error| Failure::new("key_unsuitable", error.to_string()))?;
            done(&Csr { csr: csr::request(session, uri, public, subject, names)?, key })
        }
        AdminCommand::ImportCert { uri, certificate } => {
            let der = read(certificate)?;
            session.import_certificate(uri, &der)?;
            done(&json!({}))
        }
        AdminCommand::SetLabel { uri, label } => {
            session.set_label(uri, label)?;
            done(&json!({}))
        }
        AdminCommand::Delete { uri, expect } => {
            let expect = PublicKey::from_sec1(&expect.0)
                .map_err(|error| Failure::new("input", format!("--expect: the public key is {error}")))?;
            done(&session.delete(uri, &expect)?)
        }
        AdminCommand::Slots | AdminCommand::Init { .. } | AdminCommand::Probe { .. } => {
            Err(Failure::new("input", "this is done without a session"))
        }
    }
}

fn done(result: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(result).map_err(|error| Failure::new("protocol", explain(&error)))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::new("input", format!("cannot read {}: {error}", file.display())))
}
