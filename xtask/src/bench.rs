//! `cargo xtask bench`: provides, builds, and hands over to the package `bench`.

#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use clap::Args;
use xtask::ui;

use crate::{Outcome, cargo, host};

/// `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Seconds of each measured phase.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    ui::heading("StellaOps Signer: what a signature costs");
    host::provide(&[&host::SOFTHSM, &host::OPENSC])?;
    let target = cargo::target_dir(&cargo::metadata()?);
    let programs = cargo::build_programs("release", "bench")?;
    let status = Command::new(programs.join("bench"))
        .arg("--programs")
        .arg(&programs)
        .arg("--json")
        .arg(target.join("bench.json"))
        .args(["--seconds", &arguments.seconds.to_string()])
        .status()
        .map_err(|error| format!("cannot run the bench: {error}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
