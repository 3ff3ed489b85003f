//! Secrets on their way into systemd's encrypted credentials (systemd-creds(1)).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::place::{Ledger, Owner};
use crate::ctl::error::CtlError;

/// Seals `secret` as the credential `name` into `file`, for a unit to load. A sealed one that is there and opens to the
/// same secret is left. Returns whether it was sealed now.
///
/// # Errors
/// When systemd-creds cannot, or another secret is sealed there already.
pub(crate) fn seal(
    ledger: &mut Ledger,
    name: &str,
    file: &Path,
    secret: &Zeroizing<Vec<u8>>,
    with: &str,
) -> Result<bool, CtlError> {
    if let Some(there) = open(name, file)
        && *there == **secret
    {
        return Ok(false);
    }
    ledger.directory(Path::new(STORE), 0o700, Owner::Root)?;
    let mut command = creds("encrypt", name);
    let sealed = run(command.args([&format!("--with-key={with}"), "-", "-"]), secret)?;
    ledger.file(file, &sealed, 0o600, Owner::Root)
}

/// What is sealed there, when it is there and this machine can open it.
pub(crate) fn open(name: &str, file: &Path) -> Option<Zeroizing<Vec<u8>>> {
    if !file.exists() {
        return None;
    }
    run(creds("decrypt", name).arg(file).arg("-"), &[]).ok().map(Zeroizing::new)
}

/// Where a credential of the front is sealed. The store is every service's, so its name says whose it is.
pub(crate) fn of_front(name: &str) -> PathBuf {
    Path::new(STORE).join(format!("signerd.{name}"))
}

/// A file of mode 0400 that was not there, still open.
pub(crate) fn write_private(file: &Path, secret: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(file)?;
    file.write_all(secret)?;
    Ok(file)
}

fn creds(verb: &str, name: &str) -> Command {
    let mut command = Command::new("systemd-creds");
    command.args([verb, &format!("--name={name}")]);
    command
}

/// Hands `input` over a pipe: never on the command line, never in a file.
fn run(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, CtlError> {
    let failed = |why: String| CtlError::Unexpected(format!("systemd-creds {why}"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot be run: {error}; it comes with systemd 250 and newer")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end before it has read what it does not want.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|error| failed(format!("cannot be waited for: {error}")))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(failed(format!("failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

pub(crate) const STORE: &str = "/etc/credstore.encrypted";
