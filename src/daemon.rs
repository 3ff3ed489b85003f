//! `signerd`: starts the front and stops it in good order.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::{EventLoops, LiveTls, LocalListener, openapi};
use crate::audit::{AuditLog, Detail, Record};
use crate::config::{self, Config, Viewer};
use crate::custody::history::{self, History};
use crate::pipeline::Appliance;
use crate::telemetry;

/// The front of StellaOps Signer: TLS, HTTP, policy and audit. It holds no signing key and no PIN.
#[derive(Parser)]
#[command(name = "signerd", version)]
struct Arguments {
    /// The configuration file; FILE.d/*.toml are read after it.
    #[arg(long, value_name = "FILE", default_value = "/etc/stellaops-signer/signer.toml")]
    config: PathBuf,

    /// Print the OpenAPI 3.1 document of the Signer API and exit.
    #[arg(long)]
    openapi: bool,
}

/// Runs `signerd`. Exit codes: 0 stopped as asked, 1 failed, 2 usage, 5 configuration.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.openapi {
        print!("{}", openapi::document());
        return ExitCode::SUCCESS;
    }
    let config = match config::open(&arguments.config)
        .and_then(|loaded| loaded.check_files(Viewer::Front).map(|()| loaded.config))
    {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if let Err(error) = telemetry::log::init(&config.log) {
        eprintln!("signerd: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut causes = String::new();
            let mut cause = error.source();
            while let Some(because) = cause {
                causes = format!("{causes}: {because}");
                cause = because.source();
            }
            tracing::error!("signerd cannot go on: {error}{causes}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> Result<(), Box<dyn Error + Send + Sync>> {
    harden()?;
    let (audit, recovery) = AuditLog::open(&config.audit)?;
    if let Some(torn) = &recovery.torn {
        tracing::warn!(?torn, "the audit log had a torn end, which was set aside");
    }

    // Accepting, the local listener and look-ups share this loop; the event loops of the API have their own threads.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(4).enable_all().build()?;
    runtime.block_on(serve(config, audit, runtime.handle().clone()))
}

async fn serve(
    config: Config,
    audit: AuditLog,
    background: tokio::runtime::Handle,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let tls = Arc::new(LiveTls::open(&config.server.tls)?);
    let threads = match config.server.threads {
        Some(threads) => threads.get() as usize,
        None => std::thread::available_parallelism()?.get(),
    };
    let bind = |address| async move {
        TcpListener::bind(address).await.map_err(|error| format!("server.listen: {address}: {error}"))
    };
    let listener = bind(config.server.listen).await?;
    let local = LocalListener::bind(&config.server.local_listen)
        .await
        .map_err(|error| format!("server.local_listen: {error}"))?;

    let appliance = Arc::new(Appliance::new(config, audit, &background)?);
    let (stop, stopping) = watch::channel(false);
    let loops = EventLoops::start(threads, &appliance, &tls, &stopping)?;
    appliance.audit.append(&event("started")).await?;

    let local = tokio::spawn(local.serve(Arc::clone(&appliance), stopping.clone()));
    // Ends by itself when every key is written down, else with the runtime.
    tokio::spawn(history::keep(Arc::clone(&appliance.custody), History::of(&appliance.config)));
    let upkeep = tokio::spawn(Arc::clone(&appliance).upkeep(stopping.clone()));
    // Ends with the runtime.
    tokio::spawn({
        let appliance = Arc::clone(&appliance);
        async move { tls.watch(&appliance.metrics).await }
    });
    let accepting = {
        let appliance = Arc::clone(&appliance);
        tokio::spawn(async move { loops.accept(listener, &appliance, stopping).await })
    };
    tracing::info!(address = %appliance.config.server.listen, threads, "signerd serves the Signer API");
    notify(&[sd_notify::NotifyState::Ready]);

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => tracing::warn!("SIGHUP is ignored: this version reads its configuration at the start only"),
        }
    }
    tracing::info!("signerd stops: no new connections, open requests are finished");
    notify(&[sd_notify::NotifyState::Stopping]);
    stop.send_replace(true);
    accepting.await?;
    upkeep.await?;
    local.await?;
    appliance.audit.append(&event("stopped")).await?;
    Ok(())
}

/// Nobody reads this process's memory: no core dump, no ptrace by the same user, no privileges by exec.
fn harden() -> Result<(), nix::Error> {
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}

fn event(name: &'static str) -> Record<'static> {
    Record::Event { event: name, details: &[("version", Detail::Text(env!("CARGO_PKG_VERSION")))] }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be notified");
    }
}

const EXIT_CONFIG: u8 = 5;
