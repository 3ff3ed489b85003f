//! Where the programs under test are.

#![forbid(unsafe_code)]

use std::env;
use std::path::{Path, PathBuf};

use crate::{Context, Error, Result};

/// A directory with `signerd`, `signer-token` and `signerctl`.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// In this directory.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        match PROGRAMS.iter().find(|name| !dir.join(name).is_file()) {
            None => Ok(Self { dir }),
            Some(missing) => Err(Error(format!("{missing} is not in {}: cargo build --bins", dir.display()))),
        }
    }

    /// In `SIGNER_TEST_BINARIES`, else beside the running test's own directory, where cargo puts them.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn locate() -> Result<Self> {
        if let Some(dir) = env::var_os("SIGNER_TEST_BINARIES") {
            return Self::in_dir(dir);
        }
        let test = env::current_exe().context("find the running program")?;
        let dir = test.ancestors().skip(1).find(|dir| dir.join(PROGRAMS[0]).is_file()).unwrap_or(Path::new("."));
        Self::in_dir(dir)
    }

    /// The front.
    #[must_use]
    pub fn signerd(&self) -> PathBuf {
        self.dir.join("signerd")
    }

    /// The token worker.
    #[must_use]
    pub fn signer_token(&self) -> PathBuf {
        self.dir.join("signer-token")
    }

    /// The sealed helper, where it was built.
    #[must_use]
    pub fn signer_keyless(&self) -> PathBuf {
        self.dir.join("signer-keyless")
    }

    /// The command-line client.
    #[must_use]
    pub fn signerctl(&self) -> PathBuf {
        self.dir.join("signerctl")
    }
}

const PROGRAMS: [&str; 3] = ["signerd", "signer-token", "signerctl"];
