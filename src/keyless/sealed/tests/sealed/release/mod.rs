//! The release binary under a privileged observer. Needs root, ptrace, and `SIGNER_KEYLESS`: `cargo xtask test sealed`.

mod attempts;
mod escape;
mod figures;
mod memory;
mod observer;
mod secrets;

use std::path::PathBuf;

/// The release build.
fn program() -> PathBuf {
    std::env::var_os("SIGNER_KEYLESS").map(PathBuf::from).expect("SIGNER_KEYLESS names a release build")
}
