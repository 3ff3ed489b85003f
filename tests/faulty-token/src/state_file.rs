//! What a device remembers when the process that spoke to it is gone.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{Ckr, Condition, Fault, Until};

/// The file, or memory in its place where none is named.
///
/// A test uses it to prepare what the next process finds, or to mend a device whose process is not there. A running
/// module reads it when it is loaded and at `C_Initialize`; steer that one through its socket.
#[derive(Debug)]
pub struct StateFile {
    path: Option<PathBuf>,
    memory: Mutex<State>,
}

impl StateFile {
    /// The state in the file at `path`, which need not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), memory: Mutex::default() }
    }

    pub(crate) fn in_memory() -> Self {
        Self { path: None, memory: Mutex::default() }
    }

    /// What the file says now; the initial state where there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is not what this module writes.
    pub fn read(&self) -> io::Result<State> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.path {
            None => Ok(memory.clone()),
            Some(path) => {
                let _lock = lock(path)?;
                load(path)
            }
        }
    }

    /// Changes it, under a lock that other processes honour.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.path else { return Ok(change(&mut memory)) };
        let _lock = lock(path)?;
        let mut state = load(path)?;
        let result = change(&mut state);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec_pretty(&state)?)?;
        fs::rename(&fresh, path)?;
        Ok(result)
    }
}

/// What the device remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// How many processes have loaded the module.
    pub loads: u64,
    /// Its account of PINs.
    pub pin: Pin,
    /// Its properties.
    pub conditions: Vec<Condition>,
    /// Whether the token is away.
    pub removed: Option<Removal>,
    /// Whether it fails.
    pub failing: Option<Failing>,
    /// The faults that outlive a process.
    pub faults: Vec<Fault>,
}

/// The device's account of the user PIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pin {
    /// Wrong ones in a row.
    pub failed: u32,
    /// Attempts that the device judged.
    pub attempts: u64,
    /// Of them, right ones.
    pub accepted: u64,
    /// Of them, wrong ones.
    pub incorrect: u64,
    /// Attempts that it did not judge because the PIN was locked.
    pub while_locked: u64,
    /// Mark of the PIN that it refused last.
    pub refused: Option<u64>,
}

/// A token that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// What sessions give meanwhile.
    pub code: Ckr,
    /// Whether the slots are away too.
    pub with_slot: bool,
    /// Set once it is back, but not seen yet.
    pub seen: Option<Until>,
}

/// A device that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failing {
    /// What every call gives.
    pub code: Ckr,
    /// How long.
    pub until: Until,
}

fn load(path: &Path) -> io::Result<State> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
        Err(error) => Err(error),
    }
}

fn lock(path: &Path) -> io::Result<Flock<File>> {
    // A file of its own, because the state file is replaced.
    let file = File::options().create(true).truncate(false).write(true).open(path.with_extension("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
}
