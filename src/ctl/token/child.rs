//! `signer-token admin` as a child process: the only way from here to a vendor's module.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::cli::Reach;
use crate::ctl::conformance::signer_token;
use crate::ctl::error::CtlError;
use crate::custody::admin::{Failure, Message, Step};

/// A command of `signer-token admin`, about to be run.
pub(crate) struct Admin {
    command: Command,
    program: PathBuf,
}

/// How the child ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It did its work.
    Done(Value),
    /// It says why not.
    Failed(Failure),
    /// It ended in the middle: the module took it down.
    Died {
        /// In what.
        step: Option<Step>,
        /// How.
        how: String,
    },
    /// The module did not return; the child was killed.
    Hung {
        /// From what.
        step: Option<Step>,
        /// How long was waited.
        patience: Duration,
    },
}

impl Admin {
    /// For a token of the configuration.
    pub(crate) fn configured(reach: &Reach, name: &str) -> Result<Self, CtlError> {
        let mut admin = Self::new(reach)?;
        admin.command.arg("--config").arg(&reach.config).args(["--name", name]);
        if let Some(id) = reach.auth_key {
            admin.command.args(["--auth-key", &id.to_string()]);
        }
        if let Some(file) = &reach.pin_file {
            admin.command.arg("--pin-file").arg(file);
        }
        Ok(admin)
    }

    /// For a module by its path.
    pub(crate) fn module(reach: &Reach, module: &Path) -> Result<Self, CtlError> {
        let mut admin = Self::new(reach)?;
        admin.command.arg("--module").arg(module);
        if let Some(file) = &reach.pin_file {
            admin.command.arg("--pin-file").arg(file);
        }
        Ok(admin)
    }

    fn new(reach: &Reach) -> Result<Self, CtlError> {
        let program = match &reach.signer_token {
            Some(program) => program.clone(),
            None => signer_token(),
        };
        let mut command = Command::new(&program);
        command.arg("admin").stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Self { command, program })
    }

    /// To be started by another program, which is given `arguments` and then this command.
    pub(crate) fn inside(self, program: &str, arguments: &[String]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).arg(self.command.get_program()).args(self.command.get_args());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Self { command, program: program.into() }
    }

    /// Adds arguments; none of them is ever a secret.
    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Has it run by another command around it, such as one that changes the user.
    pub(crate) fn wrapped(mut self, wrap: impl FnOnce(&Command) -> Command) -> Self {
        self.command = wrap(&self.command);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped());
        self
    }

    /// Adds to its environment.
    pub(crate) fn envs(mut self, variables: &[(String, String)]) -> Self {
        self.command.envs(variables.iter().map(|(name, value)| (name, value)));
        self
    }

    /// Runs it and takes its answer.
    pub(crate) fn run<T: DeserializeOwned>(self) -> Result<T, CtlError> {
        match self.end(None)? {
            Ended::Done(result) => Failure::result(result).map_err(CtlError::Token),
            Ended::Failed(failure) => Err(CtlError::Token(failure)),
            Ended::Died { step: None, how } => {
                let message =
                    format!("signer-token ended ({how}) before it began; is it of the same version as signerctl?");
                Err(CtlError::Token(Failure::new("protocol", message)))
            }
            Ended::Died { step, how } => {
                let message = format!("the PKCS#11 module ended signer-token ({how}) {}", during(step));
                Err(CtlError::Token(Failure::new("module_died", message)))
            }
            Ended::Hung { step, patience } => {
                let message = format!("the PKCS#11 module did not return in {patience:?} {}", during(step));
                Err(CtlError::Token(Failure::new("module_hung", message)))
            }
        }
    }

    /// Runs it. With `patience`, it is killed when after its first message none comes for so long; before that it may
    /// be asking a person.
    pub(crate) fn end(mut self, patience: Option<Duration>) -> Result<Ended, CtlError> {
        let mut child = self.command.spawn().map_err(|error| {
            CtlError::content(&self.program, format!("cannot be started: {error}; name it with --signer-token"))
        })?;
        let (send, messages) = mpsc::channel();
        let reader = child.stdout.take().map(|stdout| {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout.take(MAX_OUTPUT)).split(b'\n').map_while(Result::ok) {
                    let message = std::str::from_utf8(&line).ok().and_then(Message::read);
                    if message.is_some_and(|message| send.send(message).is_err()) {
                        return;
                    }
                }
            })
        });
        let (mut step, mut last) = (None, None);
        let hung = loop {
            let next = match (patience, step) {
                (Some(patience), Some(_)) => messages.recv_timeout(patience),
                _ => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(Message::Step { step: next }) => step = Some(next),
                Ok(message) => last = Some(message),
                Err(RecvTimeoutError::Disconnected) => break false,
                // What it had to say is said; only the module's way out hangs.
                Err(RecvTimeoutError::Timeout) => break last.is_none(),
            }
        };
        let failed = |error| CtlError::read(&self.program, error);
        if hung {
            child.kill().map_err(failed)?;
        }
        let status = child.wait().map_err(failed)?;
        if let Some(reader) = reader {
            // Ends with the pipe; what it panics with is nothing that we sent.
            let _ = reader.join();
        }
        Ok(match (last, patience) {
            (Some(Message::Done { result }), _) => Ended::Done(result),
            (Some(Message::Failed { failure }), _) => Ended::Failed(failure),
            (_, Some(patience)) if hung => Ended::Hung { step, patience },
            _ => Ended::Died { step, how: how(status) },
        })
    }
}

/// Where it happened, in words.
pub(crate) fn during(step: Option<Step>) -> &'static str {
    match step {
        None => "before it was loaded",
        Some(Step::Load) => "while it was loaded and initialised",
        Some(Step::Look) => "while slots and tokens were looked at",
        Some(Step::Login) => "during the login",
        Some(Step::Work) => "while objects were looked at or used",
        Some(Step::Initialise) => "while the token was initialised; look at it before you go on",
    }
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => nix::sys::signal::Signal::try_from(signal)
            .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned()),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "no exit code".to_owned(),
    }
}

/// 10,000 objects fit; a module that prints without end does not.
const MAX_OUTPUT: u64 = 16 * 1024 * 1024;
