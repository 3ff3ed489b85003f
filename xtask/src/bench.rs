//! `cargo xtask bench`: provides, builds, and hands over to the package `bench`.

#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use clap::{Args, ValueEnum};
use xtask::ui;

use crate::{Outcome, cargo, host};

/// `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Seconds of each measured phase.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// What to measure: the whole appliance, the token worker alone, or keyless signing.
    #[arg(value_enum, default_value_t = Subject::Appliance)]
    subject: Subject,
}

#[derive(Clone, Copy, ValueEnum)]
enum Subject {
    /// Signatures through the API.
    Appliance,
    /// The token worker, on devices of many speeds.
    Custody,
    /// Keyless signatures, beyond what Fulcio itself takes.
    Keyless,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    ui::heading("StellaOps Signer: what a signature costs");
    host::provide(&[&host::SOFTHSM, &host::OPENSC])?;
    let target = cargo::target_dir(&cargo::metadata()?);
    let programs = cargo::build_programs("release", "bench")?;
    let mut bench = Command::new(programs.join("bench"));
    let report = match arguments.subject {
        Subject::Appliance => "bench.json",
        Subject::Custody => {
            bench.arg("--custody");
            "bench-custody.json"
        }
        Subject::Keyless => {
            bench.arg("--keyless");
            "bench-keyless.json"
        }
    };
    let status = bench
        .arg("--programs")
        .arg(&programs)
        .arg("--json")
        .arg(target.join(report))
        .args(["--seconds", &arguments.seconds.to_string()])
        .status()
        .map_err(|error| format!("cannot run the bench: {error}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
