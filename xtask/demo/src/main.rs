//! `cargo xtask demo`: one keyful signature, end to end, watched by a person.

#![forbid(unsafe_code)]

mod keep;
mod refusals;
mod signing;
mod stage;
mod verification;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use testkit::Result;
use testkit::token::TokenKind;
use xtask::ui;

use crate::stage::Stage;

/// Started by `cargo xtask demo`, which builds the programs and writes the SBOM.
#[derive(Parser)]
struct Arguments {
    /// Directory with signerd, signer-token and signerctl.
    #[arg(long)]
    programs: PathBuf,
    /// Directory with `sbom.cdx.json`, where the results go.
    #[arg(long)]
    output: PathBuf,
    /// The token that signs.
    #[arg(long, value_enum, default_value_t)]
    token: Token,
    /// Leave everything running until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Token {
    #[default]
    Softhsm,
    Yubihsm,
}

fn main() -> ExitCode {
    match play(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error}", ui::red("error:"));
            ExitCode::FAILURE
        }
    }
}

/// The story, in the order it is told.
fn play(arguments: &Arguments) -> Result<()> {
    let mut stage = Stage::set(&arguments.programs, &arguments.output, arguments.token.kind())?;
    signing::by_dpop(&stage)?;
    signing::by_certificate(&stage)?;
    let signatures = stage.signatures()?;
    verification::by_openssl(&stage)?;
    let signed_on_the_way = refusals::one_of_each_kind(&stage)?;
    stage.summarize(signatures + signed_on_the_way)?;
    if arguments.keep {
        keep::until_interrupted(&stage)?;
    }
    stage.clear()
}

impl Token {
    fn kind(self) -> TokenKind {
        match self {
            Self::Softhsm => TokenKind::SoftHsm,
            Self::Yubihsm => TokenKind::YUBIHSM,
        }
    }
}
