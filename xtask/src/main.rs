//! What a person types: `cargo xtask` lists it.

#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod demo;
#[cfg(test)]
mod documents;
mod host;
mod package;
mod peers;
mod report;
mod sbom;
mod suites;
mod test;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use xtask::ui;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Watch this project's SBOM being signed inside a token, and verified by openssl.
    Demo(demo::Arguments),
    /// Run the test suites, all or one, with the peers they need.
    Test(test::Arguments),
    /// Measure what a signature costs: rate, latency, CPU, memory.
    Bench(bench::Arguments),
    /// Build the peers that the tests need and that are not packages of the system.
    Peers,
    /// Build the packages, `.deb` and `.rpm`: the same bytes from the same tree, anywhere.
    Package(package::Arguments),
    /// Write this project's SBOM (CycloneDX 1.6 JSON).
    Sbom(sbom::Arguments),
}

/// What went wrong, for the person at the terminal.
type Outcome<T = ()> = Result<T, String>;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        None => return list(),
        Some(Command::Demo(arguments)) => demo::run(&arguments),
        Some(Command::Test(arguments)) => test::run(&arguments),
        Some(Command::Bench(arguments)) => bench::run(&arguments),
        Some(Command::Peers) => peers::provide_all(),
        Some(Command::Package(arguments)) => package::run(&arguments),
        Some(Command::Sbom(arguments)) => sbom::run(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("{} {problem}", ui::red("error:"));
            ExitCode::FAILURE
        }
    }
}

fn list() -> ExitCode {
    println!("{}\n", ui::bold("cargo xtask COMMAND"));
    for command in Cli::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        println!("  {:<8} {about}", command.get_name());
    }
    println!("\n`cargo xtask COMMAND --help` says more.");
    ExitCode::SUCCESS
}
