//! `signerd` and `signer-token` as child processes, with their configuration, logs, metrics and audit log.

#![forbid(unsafe_code)]

mod activation;
mod binaries;
mod metrics;
mod process;
mod settings;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Answer;
use crate::raw::{Raw, parse_answers};
use crate::{Context, Error, Result, shell};

pub use binaries::Binaries;
pub use metrics::Metrics;
pub use process::Process;
pub use settings::Settings;

/// A running appliance; its processes are killed when it is dropped.
pub struct Appliance {
    /// What is written to `signer.toml`; a change takes effect at the next [`restart`](Self::restart).
    pub settings: Settings,
    /// Where everything of it is.
    pub dir: PathBuf,
    binaries: Binaries,
    front: Option<Process>,
    workers: BTreeMap<String, Process>,
    environment: Vec<(String, String)>,
    /// Listening sockets that are passed to the processes.
    sockets: Option<activation::Sockets>,
    /// Environment variables of the front, as systemd would set them.
    pub front_environment: Vec<(String, String)>,
}

impl Appliance {
    /// Starts a worker for each token of the settings, then the front, and waits until it is ready.
    ///
    /// The ports in the settings are replaced by free ones. `environment` is for the workers, as in `SOFTHSM2_CONF`.
    ///
    /// # Errors
    /// When a process ends at once or is not ready in time; the message holds the end of its log.
    pub fn start(binaries: Binaries, dir: &Path, settings: Settings, environment: &[(String, String)]) -> Result<Self> {
        Self::prepare(binaries, dir, settings, environment)?.started()
    }

    /// What [`prepare`](Self::prepare) made, started as [`start`](Self::start) does.
    ///
    /// # Errors
    /// As [`Appliance::start`].
    pub fn started(mut self) -> Result<Self> {
        // Between finding a free port and listening on it somebody else may take it.
        for _ in 0..PORT_ATTEMPTS {
            match self.start_all() {
                Err(error) if error.0.contains("in use") => self.settings.choose_ports(free_port()?, free_port()?),
                outcome => return outcome.map(|()| self),
            }
        }
        Err(Error::new("cannot find a port that stays free"))
    }

    /// Writes the configuration and starts nothing.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn prepare(
        binaries: Binaries,
        dir: &Path,
        mut settings: Settings,
        environment: &[(String, String)],
    ) -> Result<Self> {
        settings.choose_ports(free_port()?, free_port()?);
        let (front, workers) = (None, BTreeMap::new());
        let environment = environment.to_vec();
        let (dir, front_environment) = (dir.to_owned(), Vec::new());
        let appliance = Self { settings, dir, binaries, front, workers, environment, front_environment, sockets: None };
        appliance.write_config()?;
        Ok(appliance)
    }

    /// Listens for the processes, before they are started, and passes them the sockets: as systemd does, so that who
    /// connects while one of them is not there waits for it.
    ///
    /// # Errors
    /// When one cannot be listened on.
    pub fn hold_sockets(&mut self) -> Result<()> {
        self.sockets = Some(activation::Sockets::bind(&self.settings)?);
        Ok(())
    }

    /// Starts what is not running and waits until the front is ready.
    ///
    /// # Errors
    /// As [`Appliance::start`].
    pub fn start_all(&mut self) -> Result<()> {
        self.write_config()?;
        for token in self.settings.tokens() {
            self.start_worker(&token)?;
        }
        self.start_front()?;
        self.wait_until_ready()
    }

    /// Starts the front if it is not running, without waiting.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_front(&mut self) -> Result<()> {
        if self.front.as_mut().is_none_or(|front| !front.is_running()) {
            let mut command = Command::new(self.binaries.signerd());
            command.arg("--config").arg(self.config_file());
            command.envs(self.front_environment.iter().map(|(name, value)| (name, value)));
            self.front = Some(match &self.sockets {
                None => Process::start("signerd", command, &self.dir)?,
                Some(sockets) => {
                    let command = activation::with_socket(&command, "api");
                    Process::start_with("signerd", command, sockets.api()?.into(), &self.dir)?
                }
            });
        }
        Ok(())
    }

    /// Starts the worker of a token if it is not running, without waiting.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_worker(&mut self, token: &str) -> Result<()> {
        if self.workers.get_mut(token).is_none_or(|worker| !worker.is_running()) {
            let mut command = Command::new(self.binaries.signer_token());
            command.arg("--config").arg(self.config_file()).args(["--name", token]);
            command.envs(self.environment.iter().map(|(name, value)| (name, value)));
            let name = format!("signer-token-{token}");
            let worker = match &self.sockets {
                None => Process::start(&name, command, &self.dir)?,
                Some(sockets) => {
                    let command = activation::with_socket(&command, "connection");
                    Process::start_with(&name, command, sockets.worker(token)?.into(), &self.dir)?
                }
            };
            self.workers.insert(token.to_owned(), worker);
        }
        Ok(())
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// When a process ends or the time is up; the message holds the ends of the logs.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        self.wait_until("ready", |appliance| appliance.local("/readyz").is_ok_and(|answer| answer.status == 200))
    }

    /// Waits until something about the running appliance holds, as in "no longer ready".
    ///
    /// # Errors
    /// When the front ends or the time is up; the message holds the ends of the logs.
    pub fn wait_until(&mut self, state: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let ended = self.processes().find_map(|process| (!process.is_running()).then(|| process.name.clone()));
            if let Some(name) = ended {
                return Err(Error(format!("{name} ended before the appliance was {state}\n{}", self.log_tails())));
            }
            if Instant::now() > deadline {
                return Err(Error(format!("the appliance was not {state} in {PATIENCE:?}\n{}", self.log_tails())));
            }
            std::thread::sleep(POLL_PAUSE);
        }
        Ok(())
    }

    /// The front's process.
    ///
    /// # Panics
    /// When it was never started.
    pub fn front(&mut self) -> &mut Process {
        self.front.as_mut().expect("the front was started")
    }

    /// A worker's process.
    ///
    /// # Panics
    /// When it was never started.
    pub fn worker(&mut self, token: &str) -> &mut Process {
        self.workers.get_mut(token).expect("the worker was started")
    }

    /// Stops everything in good order and starts it again with the settings as they are now.
    ///
    /// # Errors
    /// As [`Appliance::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_all()
    }

    /// Stops the front in good order and starts it again with the settings as they are now.
    ///
    /// # Errors
    /// As [`Appliance::start`].
    pub fn restart_front(&mut self) -> Result<()> {
        if let Some(front) = &mut self.front {
            front.terminate()?;
        }
        self.write_config()?;
        self.start_front()?;
        self.wait_until_ready()
    }

    /// Stops everything in good order: the front first.
    ///
    /// # Errors
    /// When a process does not end when asked to.
    pub fn stop(&mut self) -> Result<()> {
        self.processes().try_for_each(Process::terminate)
    }

    /// `GET` on the local listener.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn local(&self, path: &str) -> Result<Answer> {
        self.ask_locally("GET", path)
    }

    /// A request without a body on the local listener, by TCP or by its Unix socket.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask_locally(&self, method: &str, path: &str) -> Result<Answer> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let listen = self.settings.get("server.local_listen").and_then(toml::Value::as_str).unwrap_or_default();
        if let Some(socket) = listen.strip_prefix("unix:") {
            let mut stream = UnixStream::connect(socket).context(format!("connect to {socket}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(request.as_bytes())?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes)?;
            return parse_answers(&bytes).pop().context(format!("find an answer on {socket}"));
        }
        let mut raw = Raw::plain(self.local_addr())?;
        raw.send(request)?;
        raw.receive_answer(Duration::from_secs(5))
    }

    /// The metrics as they are now.
    ///
    /// # Errors
    /// When the local listener does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::read(&self.local("/metrics")?.text()))
    }

    /// The state of a key in a token, as `/readyz` says it: `live`, `degraded`, `out_of_service` or `drained`.
    ///
    /// # Errors
    /// When the local listener does not answer or does not know the pair.
    pub fn key_state(&self, key: &str, token: &str) -> Result<String> {
        let readiness = self.local("/readyz")?.json();
        let mut pairs = readiness["custody"].as_array().into_iter().flatten();
        let pair = pairs.find(|pair| pair["key"] == key && pair["token"] == token);
        let state = pair.and_then(|pair| pair["state"].as_str());
        state.map(str::to_owned).context(format!("find {key} in {token} in {readiness}"))
    }

    /// What `/readyz` says of a token.
    ///
    /// # Errors
    /// When the local listener does not answer or does not know the token.
    pub fn token_status(&self, token: &str) -> Result<Value> {
        let readiness = self.local("/readyz")?.json();
        let mut tokens = readiness["tokens"].as_array().into_iter().flatten();
        tokens.find(|status| status["name"] == token).cloned().context(format!("find {token} in {readiness}"))
    }

    /// Where the audit log is.
    #[must_use]
    pub fn audit_path(&self) -> PathBuf {
        self.settings.audit_path()
    }

    /// All complete records of the audit log, oldest first.
    ///
    /// # Errors
    /// When the log cannot be read or a line is no JSON.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let path = self.settings.audit_path();
        let bytes = std::fs::read(&path).context(format!("read {}", path.display()))?;
        // The log's file may be preallocated with zeros, and its last line may be in the making.
        let written = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes[..written].split(|&byte| byte == b'\n').filter(|line| line.iter().any(|&byte| byte != 0));
        lines.map(|line| serde_json::from_slice(line).context("read a line of the audit log")).collect()
    }

    /// The audit records with this `auditId`.
    ///
    /// # Errors
    /// As [`Appliance::audit`].
    pub fn audit_of(&self, audit_id: &str) -> Result<Vec<Value>> {
        Ok(self.audit()?.into_iter().filter(|record| record["auditId"] == audit_id).collect())
    }

    /// Where the Signer API listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.settings.address("server.listen")
    }

    /// Where `/livez`, `/readyz` and `/metrics` are.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.settings.address("server.local_listen")
    }

    /// `https://localhost:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.addr().port())
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("signer.toml")
    }

    /// The programs it runs.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Writes `signer.toml` from the settings.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self) -> Result<()> {
        shell::replace(&self.config_file(), self.settings.to_toml().as_bytes())
    }

    /// Everything its processes have logged.
    #[must_use]
    pub fn logs(&self) -> String {
        let logs = self.front.iter().chain(self.workers.values()).map(|process| &process.log);
        logs.map(|log| String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()).collect()
    }

    fn log_tails(&self) -> String {
        let processes = self.front.iter().chain(self.workers.values());
        processes.map(|process| format!("--- {}\n{}\n", process.name, shell::tail(&process.log, 20))).collect()
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.front.iter_mut().chain(self.workers.values_mut())
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
const POLL_PAUSE: Duration = Duration::from_millis(10);
const PORT_ATTEMPTS: usize = 3;

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("find a free port")?.local_addr()?.port())
}
