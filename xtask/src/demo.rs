//! `cargo xtask demo`: provides, builds, and hands over to the package `demo`.

#![forbid(unsafe_code)]

use std::fs;
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::{Args, ValueEnum};
use xtask::ui;

use crate::{Outcome, cargo, host, sbom};

/// `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Leave everything running until Ctrl-C, and print how to call it.
    #[arg(long)]
    keep: bool,
    /// The token that signs. Without it SoftHSM2, or the simulated YubiHSM where SoftHSM2 cannot be had.
    #[arg(long, value_enum)]
    token: Option<Token>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Token {
    /// SoftHSM2 through PKCS#11; it is installed where that is possible.
    Softhsm,
    /// A simulated YubiHSM 2 behind its connector's HTTP protocol; needs nothing installed.
    Yubihsm,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    let start = Instant::now();
    ui::heading("StellaOps Signer: one keyful signature, end to end, over mTLS");
    host::provide(&[&host::OPENSSL])?;
    let token = choose(arguments.token)?;

    let metadata = cargo::metadata()?;
    let target = cargo::target_dir(&metadata);
    let programs = cargo::build_programs("quick", "demo")?;
    ui::done(format!("the programs are built ({})", ui::spoken(start.elapsed())));

    let output = target.join("demo");
    fs::create_dir_all(&output).map_err(|error| format!("cannot make {}: {error}", output.display()))?;
    let components = sbom::write(&metadata, &[], &output.join("sbom.cdx.json"))?;
    ui::done(format!("this project's SBOM, CycloneDX 1.6, lists {components} components"));

    let mut demo = Command::new(programs.join("demo"));
    demo.arg("--programs").arg(&programs).arg("--output").arg(&output).args(["--token", token]);
    if arguments.keep {
        demo.arg("--keep");
    }
    let status = demo.status().map_err(|error| format!("cannot run the demo: {error}"))?;
    if status.success() && !arguments.keep {
        ui::note(format!("{} in all", ui::spoken(start.elapsed())));
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The token as the package `demo` calls it.
fn choose(wanted: Option<Token>) -> Outcome<&'static str> {
    if wanted == Some(Token::Yubihsm) {
        ui::done("openssl is installed, and a simulated YubiHSM 2 needs nothing");
        return Ok("yubihsm");
    }
    match (host::provide(&[&host::SOFTHSM, &host::OPENSC]), wanted) {
        (Ok(()), _) => {
            ui::done("SoftHSM2, pkcs11-tool and openssl are installed");
            Ok("softhsm")
        }
        (Err(problem), Some(_)) => Err(problem),
        (Err(problem), None) => {
            ui::note(problem);
            ui::done("a simulated YubiHSM 2 signs instead, which needs nothing installed");
            Ok("yubihsm")
        }
    }
}
