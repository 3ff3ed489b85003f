//! A simulated YubiHSM 2 on a port, for development. It protects nothing.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use yubihsm_sim::{Settings, Simulator};

/// A simulated YubiHSM 2 behind Yubico's HTTP connector protocol. For development: it protects nothing.
///
/// Fresh from the factory: authentication key 1 with the password `password`. `POST /control` steers it, as in
/// `{"do":"unplug"}`.
#[derive(Parser)]
struct Arguments {
    /// Where the connector listens.
    #[arg(long, default_value = "127.0.0.1:12345")]
    listen: SocketAddr,
    /// Serial number of the device.
    #[arg(long, default_value_t = 7_550_140)]
    serial: u32,
    /// How long each signature takes, in milliseconds; a real device takes about 100.
    #[arg(long, default_value_t = 0)]
    sign_latency: u64,
    /// A session that is idle for this many seconds is dropped.
    #[arg(long, default_value_t = 30)]
    session_expiry: u64,
    /// Write the certificates that vouch for the device, PEM, to this file.
    #[arg(long)]
    attestation_roots: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = Settings {
        serial: arguments.serial,
        sign_latency: Duration::from_millis(arguments.sign_latency),
        session_expiry: Duration::from_secs(arguments.session_expiry),
        ..Settings::default()
    };
    let simulator = match Simulator::start_on(arguments.listen, settings) {
        Ok(simulator) => simulator,
        Err(error) => {
            eprintln!("yubihsm-sim: cannot listen on {}: {error}", arguments.listen);
            return ExitCode::FAILURE;
        }
    };
    if let Some(file) = &arguments.attestation_roots
        && let Err(error) = std::fs::write(file, simulator.with(yubihsm_sim::Device::attestation_roots))
    {
        eprintln!("yubihsm-sim: cannot write {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    println!("{}", simulator.url());
    loop {
        std::thread::park();
    }
}
