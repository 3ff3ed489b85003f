//! `cargo xtask bench`: what a signature costs, as ratios within one run, because machines are noisy.

#![forbid(unsafe_code)]

mod bare_tls;
mod custody;
mod keyless;
mod lean_client;
mod load;
mod measure;
mod report;
mod run;
mod wire_client;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use testkit::appliance::Binaries;

/// Started by `cargo xtask bench`, which builds the programs.
#[derive(Parser)]
struct Arguments {
    /// Directory with signerd, signer-token, signer-keyless and signerctl, built for release.
    #[arg(long)]
    programs: PathBuf,
    /// Where the results go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Seconds of each measured phase.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Measure full handshakes and nothing else.
    #[arg(long)]
    handshakes: bool,
    /// Measure a constant rate, in requests per second, and nothing else, with the time of each step.
    #[arg(long, conflicts_with = "handshakes")]
    rate: Option<f64>,
    /// Measure saturation with bodies of so many bytes, and nothing else.
    #[arg(long, conflicts_with_all = ["handshakes", "rate"])]
    saturate: Option<usize>,
    /// Measure the token worker alone, on devices of many speeds, and nothing else; or one part of that.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "all", conflicts_with_all = ["handshakes", "rate", "saturate"])]
    custody: Option<custody::Part>,
    /// Measure keyless signing alone, and nothing else.
    #[arg(long, conflicts_with_all = ["handshakes", "rate", "saturate", "custody"])]
    keyless: bool,
    /// Connections that keep the front busy.
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = run::Plan { phase: Duration::from_secs(arguments.seconds), connections: arguments.connections };
    let binaries = Binaries::in_dir(&arguments.programs);
    let json = arguments.json.as_deref();
    let outcome = binaries.and_then(|binaries| {
        if arguments.keyless {
            keyless::run(&binaries, json)
        } else if let Some(part) = arguments.custody {
            custody::run(&binaries, plan.phase, part, json)
        } else if let Some(bytes) = arguments.saturate {
            run::saturated(binaries, plan, bytes)
        } else if let Some(rate) = arguments.rate {
            run::constant_rate(binaries, plan, rate)
        } else if arguments.handshakes {
            run::handshakes(binaries, plan)
        } else {
            run::run(binaries, plan, json)
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
