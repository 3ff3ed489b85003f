//! `signer-token`: from the command line to a worker at work.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::settings::Settings;
use super::watchdog::Watchdog;
use super::{Stopped, Worker, ask, backend, bench, harden, socket};
use crate::custody::admin::{self, AdminArgs};
use crate::custody::conformance;
use crate::custody::token::{explain, inherited_listener, scheduling};
use crate::telemetry::{self, manager};

/// Serves one token (HSM) to signerd over a Unix socket.
///
/// Loads the vendor's PKCS#11 module or connects to the YubiHSM, logs in once with the PIN from `pin_file`, and signs digests for the user that
/// `front_user` names. Ends on SIGTERM when what is in flight is answered. A lost token or session is brought back
/// without help; a call into the module that does not return within `call_timeout` ends the process by SIGKILL, so that
/// the service manager starts the next.
#[derive(Debug, Parser)]
#[command(name = "signer-token", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(flatten)]
    which: Option<Which>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Which {
    /// The configuration file; its drop-ins are FILE.d/*.toml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The token's name: `[tokens.NAME]` in the configuration.
    #[arg(long)]
    name: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(hide = true)]
    Admin(Box<AdminArgs>),
    /// Measures how fast the token signs, without socket and front: a bare loop on as many sessions as configured.
    #[command(hide = true)]
    Bench {
        #[command(flatten)]
        which: Which,
        /// The key to sign with: `[keys.KEY]`. Default: the first one in the token.
        #[arg(long)]
        key: Option<String>,
        /// How long to measure.
        #[arg(long, default_value_t = 3)]
        seconds: u64,
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Checks whether a device does what this worker relies on: one JSON object a line. What
    /// `signerctl token conformance` runs.
    #[command(hide = true)]
    Conformance(conformance::Arguments),
    /// Asks an operator for the PIN: what `signer-token-pin@NAME.service` runs.
    #[command(hide = true)]
    AskPin {
        /// The token's name.
        #[arg(long)]
        name: String,
    },
}

/// The whole program. Exit status: 0 after SIGTERM or SIGINT, 1 when it could not start, 2 for a wrong command line,
/// 3 when a device is not conformant, 70 when only a new process can bring the module back.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match (cli.command, cli.which) {
        (Some(Command::Bench { which, key, seconds, json }), _) => {
            bench(&which, key.as_deref(), seconds, json).map(|()| ExitCode::SUCCESS)
        }
        (Some(Command::Admin(args)), _) => Ok(admin::run(&args)),
        (Some(Command::Conformance(arguments)), _) => conformance(&arguments),
        (Some(Command::AskPin { name }), _) => ask::run(&name).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        (None, Some(which)) => serve(&which),
        (None, None) => Err("give --config FILE and --name NAME; see --help".into()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("signer-token: {}", explain(&*error));
        ExitCode::FAILURE
    })
}

type Failure = Box<dyn std::error::Error>;

fn serve(which: &Which) -> Result<ExitCode, Failure> {
    harden::this_process()?;
    // Before any thread exists, so that every thread leaves the signals to this one, the module's own included.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block()?;
    let settings = Settings::read(&which.config, &which.name)?;
    telemetry::log::init(&settings.log)?;
    let (listener, _lock) = match inherited_listener()? {
        Some(listener) => (listener, None),
        None => {
            let bound = socket::bind(&settings.token.socket)?;
            (bound.listener, Some(bound.lock))
        }
    };
    if let Err(error) = scheduling::as_a_batch() {
        tracing::warn!(%error, "the worker's threads are scheduled as any other's, which costs some signatures a second");
    }
    let watchdog = Watchdog::start(settings.limits)?;
    let token = backend::open(&settings)?;
    let name = &which.name;
    let worker = Worker::start(settings.plan, token, listener)?;
    worker.watched_by(&watchdog);
    let beyond_repair = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&beyond_repair);
    worker.on_beyond_repair(Box::new(move || {
        flag.store(true, Ordering::SeqCst);
        let _ = kill(Pid::this(), Signal::SIGTERM);
    }));
    let signal = loop {
        match signals.wait()? {
            Signal::SIGHUP => tracing::warn!(
                token = name,
                "SIGHUP changes nothing: the worker reads its configuration when it starts; restart it to have a new \
                 one read. A new PIN in `pin_file` is taken without that"
            ),
            signal => break signal,
        }
    };
    tracing::info!(token = name, %signal, "worker stops");
    manager::stopping("finishing what is in flight", PATIENCE + Duration::from_secs(5));
    // When the module is beyond repair, nothing that waits in it will come to a good end.
    let patience = if beyond_repair.load(Ordering::SeqCst) { BEYOND_REPAIR_PATIENCE } else { PATIENCE };
    if worker.stop(patience) == Stopped::CallPending {
        tracing::error!("a call into the module did not return; the process is killed");
        // Leaving properly would run the module's exit handlers under a call that is still in it.
        kill(Pid::this(), Signal::SIGKILL)?;
    }
    Ok(if beyond_repair.load(Ordering::SeqCst) { ExitCode::from(70) } else { ExitCode::SUCCESS })
}

fn bench(which: &Which, key: Option<&str>, seconds: u64, json: bool) -> Result<(), Failure> {
    harden::this_process()?;
    let settings = Settings::read(&which.config, &which.name)?;
    let key = match key {
        Some(name) => settings.keys.get(name).ok_or_else(|| format!("no key `{name}` in token `{}`", which.name))?,
        None => settings.keys.values().next().ok_or_else(|| format!("no key in token `{}`", which.name))?,
    };
    let uri = key.uri.parse()?;
    let token = backend::open(&settings)?;
    let measured = bench::run(settings.plan, token, &uri, Duration::from_secs(seconds.max(1)))?;
    if json {
        println!("{}", serde_json::to_string(&measured)?);
    } else {
        println!("{measured}");
    }
    Ok(())
}

fn conformance(arguments: &conformance::Arguments) -> Result<ExitCode, Failure> {
    harden::this_process()?;
    Ok(if conformance::main(arguments)? { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

/// For what is in flight at SIGTERM; the unit says `TimeoutStopSec=30`.
const PATIENCE: Duration = Duration::from_secs(20);

/// Callers wait for the next process.
const BEYOND_REPAIR_PATIENCE: Duration = Duration::from_secs(1);
