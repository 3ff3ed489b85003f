//! The PIN of a run, and what is remembered of it: one that a token refused in an earlier run, or that its worker found
//! refused, is not presented again.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use crate::config::Config;
use crate::custody::presenting::{Memories, MemoryError, Outcome, own_directory};
use crate::custody::token::{Pin, TokenError, TokenFacts, TokenSession};

/// A PIN and its memory.
pub struct KnownPin {
    pin: Pin,
    memories: Memories,
}

/// Why nobody is logged in.
pub(super) enum NotLoggedIn {
    /// The PIN was not presented.
    NotTried(MemoryError),
    /// It was.
    Refused(TokenError),
}

impl KnownPin {
    /// A PIN of which nothing is remembered, before this run or after it.
    #[must_use]
    pub fn unknown(pin: Pin) -> Self {
        Self { pin, memories: Memories::default() }
    }

    /// With the memories of the workers whose tokens are in this module; where the configuration knows none, with one of
    /// the caller's own.
    ///
    /// # Errors
    /// When a memory cannot be had: then no PIN is presented.
    pub(super) fn of(pin: Pin, module: &Path, config: Option<&Config>) -> Result<Self, Box<dyn std::error::Error>> {
        let same = |other: &Path| match (fs::canonicalize(module), fs::canonicalize(other)) {
            (Ok(module), Ok(other)) => module == other,
            _ => false,
        };
        let mut memories = Memories::default();
        for (name, token) in config.iter().flat_map(|config| &config.tokens) {
            if token.module.as_deref().is_some_and(same) {
                memories.add(name, token)?;
            }
        }
        if memories.is_empty() {
            let directory = own_directory()
                .ok_or("there is no place to remember a refused PIN in; set XDG_STATE_HOME or HOME to one")?;
            fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
            memories.open(&directory, "conformance", true)?;
        }
        Ok(Self { pin, memories })
    }

    /// Presents it once, if nothing speaks against it.
    pub(super) fn present(&mut self, session: &dyn TokenSession, facts: &TokenFacts) -> Result<(), NotLoggedIn> {
        let serial = if facts.serial.is_empty() { &facts.label } else { &facts.serial };
        let judge = |error: &TokenError| match error {
            TokenError::PinRefused(_) => Outcome::Refused,
            TokenError::LoginUnclear(_) => Outcome::Unclear,
            _ => Outcome::NotTried,
        };
        let presented = self.memories.present(&self.pin, serial, facts.pin, || session.login(&self.pin), judge);
        presented.map_err(NotLoggedIn::NotTried)?.map_err(NotLoggedIn::Refused)
    }
}
