//! The command line of `signerctl init`.

use std::path::PathBuf;

use clap::Args;

use crate::ctl::cli::EXIT_STATUS;

/// Take this machine from an installed package to an appliance that has signed.
///
/// Asks for the device, the Authority, the Licensing Service and the first tenant, or takes all of it from --answers.
/// Then: installs certificates, seals the PIN, initialises the token and makes the key where asked to, has the worker's
/// user examine the device, puts the configuration in force, starts the units, and waits for the first signature.
///
/// What is there already is left as it is: run it again after an error, it goes on where it ended. A file that is there
/// and differs from what would be written is an error, unless --force is given. PINs come from files of mode 0400 or are
/// typed; there is no option for one. docs/install.md lists the answers.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct InitArgs {
    /// The answers, TOML; what is not in it is asked for on the terminal, or an error where there is none.
    #[arg(long, value_name = "FILE")]
    pub(crate) answers: Option<PathBuf>,
    /// One answer by its dotted name, as in `profile=softhsm2` or `config.authority.issuer=https://…`; over those of the
    /// file; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Say what would be done and print the configuration; nothing is written and no device is spoken to.
    #[arg(long)]
    pub(crate) check: bool,
    /// Replace files that are there and differ; the old ones stay beside them as NAME.before-init (then .before-init.1 and so
    /// on). The server's certificate and revocation lists, which you keep fresh, are never replaced.
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not start the units.
    #[arg(long)]
    pub(crate) no_start: bool,
    /// Write the files below this directory and no more: for making images. No device, no PIN, no units.
    #[arg(long, value_name = "DIR", conflicts_with = "no_start")]
    pub(crate) root: Option<PathBuf>,
    /// How long to wait until the appliance is ready.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub(crate) patience: crate::config::Span,
    /// The program that loads the vendor's module [default: the one beside signerctl].
    #[arg(long, value_name = "PATH")]
    pub(crate) signer_token: Option<PathBuf>,
}
