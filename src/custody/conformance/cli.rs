//! `signer-token conformance`: from the command line to a run, its lines on standard output.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Key, KnownPin, Line, Plan, run};
use crate::config;
use crate::custody::profiles::{self, Defaults};
use crate::custody::token::Pin;
use crate::custody::token::pkcs11::{PinnedModule, Pkcs11Token, set_quirks};
use crate::custody::uri::TokenUri;

/// What `signerctl token conformance` and `signer-token conformance` take.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The vendor's PKCS#11 module.
    #[arg(long, value_name = "PATH", env = "SIGNER_TEST_MODULE")]
    pub module: PathBuf,
    /// Which token: its label, or an RFC 7512 URI.
    #[arg(long, value_name = "LABEL|URI", env = "SIGNER_TEST_TOKEN")]
    pub token: String,
    /// File with the user PIN, mode 0600 or 0400; without it, the PIN is what the environment variable
    /// `SIGNER_TEST_PIN` holds.
    #[arg(long, value_name = "FILE", env = "SIGNER_TEST_PIN_FILE")]
    pub pin_file: Option<PathBuf>,
    /// The configuration [default: the installed one, where there is one]: where a worker serves a token of this module, what it remembers of refused PINs counts here, too.
    #[arg(long, value_name = "FILE", env = "SIGNER_CONFIG")]
    pub config: Option<PathBuf>,
    /// A P-256 key in the token, by its RFC 7512 URI; it is signed with and stays.
    #[arg(long, value_name = "URI", required_unless_present = "generate", conflicts_with = "generate")]
    pub key: Option<String>,
    /// Make a key for the run and remove it after.
    #[arg(long)]
    pub generate: bool,
    /// The device's profile; it says how many sessions there are and where the module differs from the standard.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Sessions to open and sign on at once [default: what the profile says, else 4].
    #[arg(long, value_name = "N")]
    pub sessions: Option<NonZeroU32>,
    /// Digests to have signed and verified.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub signatures: u32,
    /// Seconds to measure the throughput.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
}

type Failure = Box<dyn std::error::Error>;

/// Runs the checks and writes one JSON object a line. `Ok(true)`: conformant.
///
/// # Errors
/// When nothing could be run: no module, no PIN, a wrong URI.
pub fn main(arguments: &Arguments) -> Result<bool, Failure> {
    let profile = arguments.profile.as_deref().map(|name| {
        profiles::find(name).ok_or_else(|| {
            let known: Vec<_> = profiles::names().collect();
            format!("there is no profile `{name}`; known: {}", known.join(", "))
        })
    });
    let profile = profile.transpose()?;
    let token: TokenUri = if arguments.token.starts_with("pkcs11:") {
        arguments.token.parse()?
    } else {
        TokenUri { token: Some(arguments.token.clone()), ..TokenUri::default() }
    };
    let key = match &arguments.key {
        Some(uri) => Key::Existing(uri.parse().map_err(|error| format!("--key `{uri}`: {error}"))?),
        // Unlike any other run's, and unlike what anybody would call a key that matters.
        None => {
            let id = uuid::Uuid::new_v4();
            let label = format!("conformance-{}", &id.simple().to_string()[..8]);
            Key::Generate { label, id: id.as_bytes().to_vec() }
        }
    };
    let plan = Plan {
        sessions: arguments.sessions.unwrap_or(Defaults::of(profile).sessions),
        signatures: arguments.signatures,
        measure: Duration::from_secs(arguments.seconds),
        key,
    };
    let installed = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|file| std::fs::File::open(file).is_ok());
    let config = match arguments.config.clone().or_else(installed) {
        Some(file) => Some(config::load(&file)?),
        None => None,
    };
    let mut pin = KnownPin::of(pin(arguments)?, &arguments.module, config.as_ref())?;
    if let Some(profile) = profile {
        set_quirks(profile.module_quirks());
    }
    let device = Pkcs11Token::load(&PinnedModule::open(&arguments.module, None)?, token)?;
    let mut unwritten = None;
    let verdict = run(&device, &mut pin, &plan, &mut |line| {
        if let Err(error) = write(&line) {
            unwritten = Some(error);
        }
    });
    unwritten.map_or(Ok(verdict.conformant), |error| Err(error.into()))
}

/// As `signerctl` has it.
const DEFAULT_CONFIG: &str = "/etc/stellaops-signer/signer.toml";

fn pin(arguments: &Arguments) -> Result<Pin, Failure> {
    if let Some(file) = &arguments.pin_file {
        return Ok(Pin::read(file)?);
    }
    let none = "no PIN: give --pin-file FILE, or set SIGNER_TEST_PIN_FILE or SIGNER_TEST_PIN";
    let value = zeroize::Zeroizing::new(std::env::var("SIGNER_TEST_PIN").map_err(|_| none)?);
    Pin::from_bytes(value.as_bytes()).ok_or_else(|| "SIGNER_TEST_PIN is empty or too long".into())
}

/// At once: the reader must know which check was under way when the module hangs.
fn write(line: &Line) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}
