//! Taking a token off and back: an operator's decision, which a restart does not forget.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::error::{CustodySetupError, DrainError};
use super::front::Custody;
use crate::config::{Config, KeyState};

/// Names of drained tokens, one a line, in a file that is replaced as a whole.
#[derive(Debug)]
pub(super) struct DrainedTokens {
    path: PathBuf,
    /// Held while a decision is recorded and the file replaced, so that two operators do not lose each other's.
    turn: tokio::sync::Mutex<()>,
}

/// What draining or undraining a token has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// The token.
    pub token: Arc<str>,
    /// Whether it is drained now.
    pub drained: bool,
    /// Whether it was otherwise before.
    pub changed: bool,
    /// Requests still under way in it; they are finished.
    pub in_flight: usize,
    /// Active keys that no token signs with now.
    pub keys_without_token: Vec<Arc<str>>,
}

impl DrainedTokens {
    pub(super) fn of(config: &Config) -> Self {
        let beside_log = || config.audit.path.with_file_name("drained-tokens");
        Self {
            path: config.custody.drained_file.clone().unwrap_or_else(beside_log),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Absent: none is drained.
    fn read(&self) -> io::Result<Vec<String>> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Writes the list beside the one in force. Durable when this returns, and without effect.
    fn prepare(&self, names: &[&str]) -> io::Result<()> {
        let mut file = File::create(self.fresh())?;
        for name in names {
            writeln!(file, "{name}")?;
        }
        file.sync_all()
    }

    /// Puts the prepared list in force, durably.
    fn commit(&self) -> io::Result<()> {
        fs::rename(self.fresh(), &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    fn fresh(&self) -> PathBuf {
        self.path.with_extension("new")
    }
}

impl Custody {
    /// Takes a token off, or back. A drained token gets no request, no test signature included; what is under way in
    /// it is finished. `recorded` is awaited first, and nothing changes before it is done: a decision whose record is
    /// not durable was never in effect. When this returns the decision is on disk, too.
    ///
    /// # Errors
    /// When there is no such token, or the decision cannot be recorded or written down. Nothing has changed then.
    pub async fn set_drained<E: std::error::Error>(
        &self,
        name: &str,
        drained: bool,
        recorded: impl Future<Output = Result<(), E>>,
    ) -> Result<Drained, DrainError> {
        let known = || self.tokens.iter().map(|token| &**token.name()).collect::<Vec<_>>().join(", ");
        let index = self.tokens.iter().position(|token| **token.name() == *name);
        let index = index.ok_or_else(|| DrainError::Unknown { token: name.to_owned(), known: known() })?;
        let turn = self.drained.turn.lock().await;
        let will_be = |at: usize| if at == index { drained } else { self.tokens[at].is_drained() };
        let names: Vec<&str> =
            (0..self.tokens.len()).filter(|at| will_be(*at)).map(|at| &**self.tokens[at].name()).collect();
        let failed = |source| DrainError::NotKept { path: self.drained.path.clone(), source };
        // What can fail comes before the record, so that the log does not tell of what could not be done.
        self.drained.prepare(&names).map_err(failed)?;
        recorded.await.map_err(|error| DrainError::NotRecorded(super::token::explain(&error)))?;
        self.drained.commit().map_err(failed)?;
        let token = &self.tokens[index];
        let changed = token.drained.swap(drained, Relaxed) != drained;
        drop(turn);
        for (_, replica) in self.keys_in(index) {
            // How it is after whatever the operator did to it is not known.
            replica.health.canaries().due_now();
        }
        tracing::warn!(
            token = name,
            drained,
            "an operator has {} the token",
            if drained { "drained" } else { "undrained" }
        );
        token.doubted.notify_one();
        self.tell_states(index);
        let active = self.registry.entries.iter().filter(|entry| entry.state == KeyState::Active);
        let without = active.filter(|entry| entry.replicas.iter().all(|replica| self.rank(replica).is_none()));
        Ok(Drained {
            token: Arc::clone(token.name()),
            drained,
            changed,
            in_flight: token.load.outstanding(),
            keys_without_token: without.map(|entry| Arc::clone(&entry.name)).collect(),
        })
    }

    /// Before the first request: what an operator decided before the restart stands.
    pub(super) fn recall_drained(&self) -> Result<(), CustodySetupError> {
        let failed = |source| CustodySetupError::Drained { path: self.drained.path.clone(), source };
        for name in self.drained.read().map_err(failed)? {
            match self.tokens.iter().find(|token| **token.name() == *name) {
                Some(token) => {
                    token.drained.store(true, Relaxed);
                    tracing::warn!(token = name, "the token is drained since before the restart");
                }
                None => tracing::warn!(token = name, "a drained token is no longer configured"),
            }
        }
        Ok(())
    }
}
