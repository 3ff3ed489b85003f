//! `signerctl`: what the operator and the client type.
//!
//! [`main`] parses the command line and calls one module per command. A command returns what it has to say as a
//! [`Report`], or a [`CtlError`] that knows its exit code; nothing else prints.

#![forbid(unsafe_code)]

mod answer;
mod answer_check;
mod appliance;
mod attest;
mod cli;
mod client;
mod config_check;
mod config_reload;
mod confirm;
mod conformance;
mod discovery;
mod drain;
mod error;
mod files;
mod init;
mod keys;
mod local;
mod manual;
mod optok;
mod output;
mod problem;
mod profile;
mod profiles;
mod proof_key;
mod release;
mod request;
mod settings;
mod sign;
mod status;
mod subject;
mod tls;
mod token;
mod trust;
mod upload;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, ConfigCommand, KeysCommand};
use error::CtlError;
use output::Report;

/// Runs `signerctl` with the arguments of this process and returns its exit code, one of those that `--help` lists.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    output::finish(run(cli.command, json), json)
}

fn run(command: Command, json: bool) -> Result<Report, CtlError> {
    match command {
        Command::Sign(args) => sign::run(args, json),
        Command::Verify(args) => verify::run(&args),
        Command::Keys(KeysCommand::List(args)) => keys::list(args),
        Command::Keys(KeysCommand::Attest(args)) => attest::run(&args),
        Command::Keys(KeysCommand::Generate(args)) => keys::generate::run(&args),
        Command::Keys(KeysCommand::Csr(args)) => keys::csr::run(&args),
        Command::Keys(KeysCommand::ImportCert(args)) => keys::import_cert::run(&args),
        Command::Keys(KeysCommand::Export(args)) => keys::export::run(&args),
        Command::Keys(KeysCommand::Rotate(args)) => keys::rotate::rotate(&args),
        Command::Keys(KeysCommand::Retire(args)) => keys::rotate::retire(&args),
        Command::Keys(KeysCommand::Delete(args)) => keys::delete::run(&args),
        Command::Token(command) => token::run(command, json),
        Command::Release(command) => release::run(&command),
        Command::Trust(command) => trust::run(&command),
        Command::Config(ConfigCommand::Check(args)) => config_check::run(&args),
        Command::Config(ConfigCommand::Reload(args)) => config_reload::run(&args),
        Command::Init(args) => init::run(&args, json),
        Command::Status(args) => status::run(&args),
        Command::Completions(args) => manual::completions(args.shell),
        Command::Man(args) => manual::man_pages(&args.dir),
    }
}
