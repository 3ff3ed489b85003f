//! `signerd`: starts the front and stops it in good order.

#![forbid(unsafe_code)]

mod sockets;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::sockets::Sockets;
use crate::api::{Clock, EventLoops, Stage, openapi};
use crate::audit::{AuditLog, Detail, Record};
use crate::config::{self, Loaded, Viewer};
use crate::pipeline::{Live, Standing};
use crate::telemetry::{self, alert, manager};

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
    let loaded =
        match config::open(&arguments.config).and_then(|loaded| loaded.check_files(Viewer::Front).map(|()| loaded)) {
            Ok(loaded) => loaded,
            Err(errors) => {
                eprintln!("{errors}");
                manager::status(&format!("the configuration is wrong: {}", errors.0[0]));
                return ExitCode::from(EXIT_CONFIG);
            }
        };
    if let Err(error) = telemetry::log::init(&loaded.config.log) {
        eprintln!("signerd: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    match run(loaded, arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut causes = String::new();
            let mut cause = error.source();
            while let Some(because) = cause {
                causes = format!("{causes}: {because}");
                cause = because.source();
            }
            tracing::error!(name: alert::CANNOT_GO_ON, "signerd cannot go on: {error}{causes}");
            manager::status(&format!("it could not go on: {error}{causes}"));
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn Error + Send + Sync>;

fn run(loaded: Loaded, file: PathBuf) -> Result<(), Failure> {
    harden()?;
    let (audit, recovery) = AuditLog::open(&loaded.config.audit)?;
    if let Some(torn) = &recovery.torn {
        tracing::warn!(name: alert::AUDIT_TORN, ?torn, "the audit log had a torn end, which was set aside");
    }

    // Accepting, the local listener and look-ups share this loop; the event loops of the API have their own threads.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(4).enable_all().build()?;
    let standing = Standing::new(audit, &loaded.config, runtime.handle());
    runtime.block_on(serve(loaded, file, standing))
}

async fn serve(loaded: Loaded, file: PathBuf, standing: Standing) -> Result<(), Failure> {
    let threads = match loaded.config.server.threads {
        Some(threads) => threads.get() as usize,
        None => std::thread::available_parallelism()?.get(),
    };
    let sockets = Sockets::open(&loaded.config.server).await?;
    let address = sockets.api.local_addr()?;
    let live = Arc::new(Live::new(file, loaded, standing)?);
    let stage = watch::Sender::new(Stage::Serving);
    let limit = manager::watchdog().unwrap_or(UNWATCHED);
    let (loops, clock) = EventLoops::start(threads, &live, &stage.subscribe(), limit / 8)?;
    let audit = Arc::clone(&live.standing().audit);
    let digest = live.digest();
    let details = [VERSION, ("sha256", Detail::Text(&digest))];
    audit.append(&Record::Event { event: "started", details: &details }).await?;

    let mut signals = Signals::new()?;
    live.now().tend(&live.standing().background);
    let local = tokio::spawn(sockets.local.serve(Arc::clone(&live), stage.subscribe()));
    let asked_to_stop = tokio::select! {
        () = settled(&live) => false,
        () = signals.stop() => true,
    };
    let stage = Arc::new(stage);
    let mut accepting = tokio::spawn({
        let stage = Arc::clone(&stage);
        async move { loops.accept(sockets.api, &stage).await }
    });
    if !asked_to_stop {
        let words = live.now().readiness().in_words();
        tracing::info!(name: alert::SERVING, %address, threads, "signerd serves the Signer API: {words}");
        manager::ready(&words);
        attend(&live, &mut signals, clock, limit).await;
    }

    tracing::info!("signerd stops: what is open is finished, who connects now waits for the next process");
    let longest = live.now().config.server.limits.request_timeout.get() * 2 + Duration::from_secs(10);
    manager::stopping("finishing what is open", longest);
    stage.send_replace(Stage::Draining);
    let mut ticks = interval(limit / 4);
    loop {
        tokio::select! {
            ended = &mut accepting => break ended?,
            // Event loops that have ended do not turn; how long this may take is limited by the time to stop.
            _ = ticks.tick() => manager::alive(),
        }
    }
    live.now().leave_alone();
    local.await?;
    audit.append(&Record::Event { event: "stopped", details: &[VERSION] }).await?;
    Ok(())
}

/// Until the front is asked to stop: reloads, feeds the watchdog, says how it is.
async fn attend(live: &Arc<Live>, signals: &mut Signals, mut clock: Clock, limit: Duration) {
    let mut ticks = interval(limit / 4);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = live.now().readiness().in_words();
    let mut complained = false;
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => return,
                Asked::Reload => {
                    let live = Arc::clone(live);
                    // What comes of it is told by itself.
                    tokio::spawn(async move { _ = live.reload("SIGHUP").await });
                }
            },
            _ = ticks.tick() => {
                if clock.all_turned() {
                    manager::alive();
                    complained = false;
                } else if !complained && clock.hanging().1 > limit / 2 {
                    let (loops, time) = clock.hanging();
                    complained = true;
                    tracing::error!(name: alert::EVENT_LOOP_HANGS, loops, "event loops have not turned for {time:.1?}");
                }
                let words = live.now().readiness().in_words();
                // What a reload said stands until something changes.
                if words != said {
                    manager::status(&words);
                    said = words;
                }
            }
        }
    }
}

/// Waits until everybody can sign who is to, so that the first answer is none that a second later would be another; not
/// for long, because a token or an Authority may be away for longer.
async fn settled(live: &Live) {
    let deadline = Instant::now() + SETTLE;
    manager::status("waiting for tokens and keys");
    while !live.now().readiness().ready && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
}

/// What the process is asked from outside.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// While nothing can be reloaded yet: what was read at the start is as new.
    async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

/// Nobody reads this process's memory: no core dump, no ptrace by the same user, no privileges by exec.
fn harden() -> Result<(), nix::Error> {
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}

const VERSION: (&str, Detail<'static>) = ("version", Detail::Text(env!("CARGO_PKG_VERSION")));
const EXIT_CONFIG: u8 = 5;
/// For tokens and keys at the start; a client waits so long for its handshake, too.
const SETTLE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);
/// Where nobody watches, the front still says when an event loop hangs.
const UNWATCHED: Duration = Duration::from_secs(20);
