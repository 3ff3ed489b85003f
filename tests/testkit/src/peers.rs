//! Programs that are not ours: where they are, and why one is missing.

#![forbid(unsafe_code)]

use std::env;
use std::path::PathBuf;

use crate::{Context, Error, Result, shell};

/// Where peers are kept between runs: `$XDG_CACHE_HOME/stellaops-signer/peers`.
///
/// # Errors
/// When there is neither `XDG_CACHE_HOME` nor `HOME`.
pub fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .context("find a cache directory: set HOME")?;
    Ok(base.join("stellaops-signer/peers"))
}

/// The directory of this repository's own peers, `tests/peers`.
#[must_use]
pub fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).with_file_name("peers")
}

/// cosign, as `cargo xtask test envelopes` builds it.
///
/// # Errors
/// When it is not there.
pub fn cosign() -> Result<PathBuf> {
    built(format!("{COSIGN}/bin/cosign"))
}

/// The Python with securesystemslib.
///
/// # Errors
/// When it is not there.
pub fn python() -> Result<PathBuf> {
    built(format!("{SECURESYSTEMSLIB}/bin/python"))
}

/// The directory with oidc-provider's `node_modules`.
///
/// # Errors
/// When it is not there.
pub fn oidc_provider() -> Result<PathBuf> {
    built(format!("{OIDC_PROVIDER}/node_modules/oidc-provider")).map(|package| {
        // node_modules/oidc-provider, two levels up
        package.ancestors().nth(2).map(PathBuf::from).unwrap_or(package)
    })
}

/// A program of the system.
///
/// # Errors
/// When it is not in `PATH`.
pub fn program(name: &str) -> Result<PathBuf> {
    shell::find_program(name).context(format!("find the program {name}"))
}

/// The directories' names under [`cache`], one per peer and version.
pub const COSIGN: &str = "cosign-v3.1.2";
/// See [`COSIGN`].
pub const SECURESYSTEMSLIB: &str = "securesystemslib-1.4.0";
/// See [`COSIGN`].
pub const OIDC_PROVIDER: &str = "oidc-provider-8.8.1";

fn built(path: String) -> Result<PathBuf> {
    let path = cache()?.join(path);
    if path.exists() {
        return Ok(path);
    }
    Err(Error(format!("{} is missing: `cargo xtask test` sets it up", path.display())))
}
