//! Programs run to their end, and files only their owner may read.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Context, Error, Result};

/// Writes a file of mode 0600, replacing what was there.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let _ = std::fs::remove_file(path);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .context(format!("write {}", path.display()))
}

/// Replaces a file in one step, so that a reader sees the old content or the new.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).context(format!("write {}", beside.display()))?;
    std::fs::rename(&beside, path).context(format!("replace {}", path.display()))
}

/// Runs a program and returns what it printed on standard output.
///
/// # Errors
/// When it cannot be started or fails; the message holds what it printed on standard error.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().context(format!("run {name}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = [String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout)].concat();
    Err(Error(format!("{name} failed ({}): {}", output.status, said.trim())))
}

/// Where a program is, looked for in `PATH`.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(std::env::var_os("PATH").as_deref().unwrap_or(OsStr::new("/usr/bin:/bin")))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// The last `lines` lines of a log file, for error messages.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
