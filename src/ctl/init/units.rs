//! The units, started and waited for.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::Config;
use crate::ctl::client::runtime;
use crate::ctl::error::CtlError;
use crate::ctl::local;
use crate::ctl::output::plain;

/// Enables and starts everything for one token.
///
/// # Errors
/// When systemd says no.
pub(crate) fn start(token: &str) -> Result<(), CtlError> {
    systemctl(&["daemon-reload"])?;
    let socket = format!("signer-token@{token}.socket");
    let worker = format!("signer-token@{token}.service");
    // Sockets first: nobody is refused while the services start.
    let units =
        [&socket, "signerd.socket", "signerd-local.socket", "stellaops-signer.target", &worker, "signerd.service"];
    systemctl(&[&["enable", "--quiet"][..], &units].concat())?;
    systemctl(&[&["start"][..], &units].concat())
        .map_err(|error| CtlError::Unexpected(format!("{error}\n{}", journal(token))))
}

/// Waits until signerd calls itself ready and the key has made its test signature, which signerd has verified.
///
/// # Errors
/// When it does not within `patience`; with what signerd and the journal say.
pub(crate) fn wait(config: &Config, token: &str, key: &str, patience: Duration) -> Result<(), CtlError> {
    let deadline = Instant::now() + patience;
    let listener = &config.server.local_listen;
    loop {
        let asked = runtime()?.block_on(local::read(listener, "/readyz"));
        let (status, answer) = match &asked {
            Ok(answer) => (Some(answer.status), serde_json::from_slice(&answer.body).unwrap_or_default()),
            Err(_) => (None, Value::Null),
        };
        let pairs = answer["custody"].as_array().map_or(&[][..], Vec::as_slice);
        let signed = pairs.iter().any(|pair| pair["key"] == key && pair["token"] == token && pair["state"] == "live");
        if signed && status.is_some_and(|status| status.is_success()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let said = match asked {
                Ok(_) => plain(&answer.to_string()),
                Err(error) => error.to_string(),
            };
            return Err(CtlError::Unreachable {
                url: "the appliance".to_owned(),
                cause: format!("it is not ready after {patience:?}: {said}\n{}", journal(token)),
                remedy: "everything is in place and started; mend what is named, and run init again or look at \
                         `signerctl status`",
            });
        }
        thread::sleep(PAUSE);
    }
}

/// Whether systemd runs this machine: not so in a chroot, where an image is made.
pub(crate) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The last words of front and worker.
fn journal(token: &str) -> String {
    let worker = format!("signer-token@{token}.service");
    let output = Command::new("journalctl")
        .args(["--no-pager", "--quiet", "--lines=20", "--output=short", "--unit=signerd.service", "--unit", &worker])
        .stdin(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().map(|line| format!("  {}\n", plain(line))).collect()
}

fn systemctl(arguments: &[&str]) -> Result<(), CtlError> {
    let failed = |why: String| CtlError::Unexpected(format!("systemctl {} {why}", arguments.join(" ")));
    let output = Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if output.status.success() { Ok(()) } else { Err(failed(format!("failed: {}", one_line(&output.stderr)))) }
}

fn one_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    plain(&said.split_whitespace().collect::<Vec<_>>().join(" "))
}

const PAUSE: Duration = Duration::from_millis(200);
