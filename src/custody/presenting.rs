//! Presenting a PIN for an operator's command, with the worker's own memory: a PIN that the token has refused is not
//! presented again by anybody, and one that it refuses now is remembered.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::profiles;
use super::token::{Pin, PinState, explain};
use super::user_id;
pub(super) use super::worker::pins::Outcome;
use super::worker::pins::{Mark, PinMemory, PinMemoryError};
use super::worker::settings::state_directory;
use crate::config::Token;

/// What is remembered of a token's PINs; of one that several sections of the configuration name, by each.
#[derive(Default)]
pub(super) struct Memories(Vec<PinMemory>);

/// Why a PIN was not presented.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error(
        "it is not known where the worker of `{0}` remembers refused PINs, so none is presented; write `state_dir` in \
         [tokens.{0}], or start its unit once, which makes /var/lib/stellaops-signer-token/{0}"
    )]
    Nowhere(String),
    #[error("the memory of refused PINs cannot be had, so none is presented; run this as the worker's user or as root")]
    Closed(#[source] PinMemoryError),
    #[error("the PIN was not presented: {}", explain(.0))]
    Refused(PinMemoryError),
}

impl Memories {
    /// The worker's memory of a token of the configuration.
    ///
    /// # Errors
    /// When it cannot be had: then no PIN is presented.
    pub(super) fn of_token(name: &str, token: &Token) -> Result<Self, MemoryError> {
        let mut memories = Self::default();
        memories.add(name, token)?;
        Ok(memories)
    }

    /// One more that the same PINs are presented to.
    ///
    /// # Errors
    /// As there.
    pub(super) fn add(&mut self, name: &str, token: &Token) -> Result<(), MemoryError> {
        let default = Path::new(DEFAULT_DIRECTORY).join(name);
        let can_be = default.is_dir() || nix::unistd::geteuid().is_root();
        let directory = state_directory(name, token).ok().or_else(|| can_be.then_some(default));
        let directory = directory.ok_or_else(|| MemoryError::Nowhere(name.to_owned()))?;
        let profile = token.profile.as_deref().and_then(profiles::find);
        made_for_worker(&directory, &token.worker_user).map_err(|source| {
            let path = directory.clone();
            MemoryError::Closed(PinMemoryError::Io { step: "make", path, source })
        })?;
        self.open(&directory, name, profile.is_none_or(|profile| profile.login.warns.value))
    }

    /// A memory of the caller's own, in a directory that is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) fn open(&mut self, directory: &Path, name: &str, warns: bool) -> Result<(), MemoryError> {
        self.0.push(PinMemory::open(directory, name, warns).map_err(MemoryError::Closed)?);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Presents the PIN by `login`, once, if nothing that is remembered speaks against it. `judge` says what its error
    /// means.
    ///
    /// # Errors
    /// The inner one is the device's.
    pub(super) fn present<T, E>(
        &mut self,
        pin: &Pin,
        serial: &str,
        flags: PinState,
        login: impl FnOnce() -> Result<T, E>,
        judge: impl FnOnce(&E) -> Outcome,
    ) -> Result<Result<T, E>, MemoryError> {
        let mut begun = Vec::new();
        for at in 0..self.0.len() {
            match patiently(|| self.0[at].attempt(pin, serial, flags)) {
                Ok(mark) => begun.push(mark),
                Err(error) => {
                    self.resolve(&begun, Outcome::NotTried);
                    return Err(MemoryError::Refused(error));
                }
            }
        }
        let done = login();
        self.resolve(&begun, done.as_ref().map_or_else(judge, |_| Outcome::Accepted));
        Ok(done)
    }

    fn resolve(&mut self, begun: &[Mark], outcome: Outcome) {
        for (memory, mark) in self.0.iter_mut().zip(begun) {
            if let Err(error) = memory.resolve(mark, outcome) {
                // Counts as an attempt of unclear end from now on, which errs on the safe side.
                eprintln!("signer-token: how the login ended is not written down: {}", explain(&error));
            }
        }
    }

    /// The token was given this PIN just now.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub(super) fn set(&mut self, pin: &Pin, serial: &str) -> Result<(), MemoryError> {
        self.0.iter_mut().try_for_each(|memory| memory.set(pin, serial)).map_err(MemoryError::Refused)
    }
}

/// A worker that logs in just now is done in a moment.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, PinMemoryError>) -> Result<T, PinMemoryError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(PinMemoryError::Busy(_)) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
}

/// Of a user that no token of the configuration belongs to: `stellaops-signer` under `$XDG_STATE_HOME`, else
/// `~/.local/state` (XDG Base Directory Specification).
pub(super) fn own_directory() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("stellaops-signer"))
}

/// A directory that root makes before the worker's first start is the worker's.
fn made_for_worker(directory: &Path, worker: &str) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if directory.exists() {
        return Ok(());
    }
    if let Some(above) = directory.parent() {
        fs::create_dir_all(above)?;
    }
    fs::DirBuilder::new().mode(0o700).create(directory)?;
    match user_id(worker) {
        Some(uid) if nix::unistd::geteuid().is_root() => std::os::unix::fs::chown(directory, Some(uid), None),
        _ => Ok(()),
    }
}

/// Longer than a login takes on any device that is in order.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// What `StateDirectory=stellaops-signer-token/%i` of the worker's unit makes.
const DEFAULT_DIRECTORY: &str = "/var/lib/stellaops-signer-token";
