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

/// What this run has written that a unit which runs already does not know of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changed {
    pub(crate) anything: bool,
    /// Where the front's sockets listen.
    pub(crate) listeners: bool,
}

/// Enables and starts everything for one token; what ran before runs by the new files then.
///
/// # Errors
/// When systemd says no.
pub(crate) fn start(token: &str, changed: Changed) -> Result<(), CtlError> {
    for order in orders(token, changed) {
        let order: Vec<&str> = order.iter().map(String::as_str).collect();
        systemctl(&order).map_err(|error| CtlError::Unexpected(format!("{error}\n{}", journal(token))))?;
    }
    Ok(())
}

/// What starts everything and has it start at each boot, for whoever does it later. The target alone would start nothing:
/// what it is to pull in must be enabled.
pub(crate) fn by_hand(token: &str) -> String {
    let (socket, worker) = (socket(token), worker(token));
    format!("systemctl daemon-reload && systemctl enable --now {}", all(&socket, &worker).join(" "))
}

/// Sockets first: nobody is refused while the services start.
fn all<'a>(socket: &'a str, worker: &'a str) -> [&'a str; 6] {
    [socket, "signerd.socket", "signerd-local.socket", "stellaops-signer.target", worker, "signerd.service"]
}

fn socket(token: &str) -> String {
    format!("signer-token@{token}.socket")
}

fn worker(token: &str) -> String {
    format!("signer-token@{token}.service")
}

/// What systemctl is told, in its order.
fn orders(token: &str, changed: Changed) -> Vec<Vec<String>> {
    let (socket, worker) = (socket(token), worker(token));
    let units = all(&socket, &worker);
    let mut orders = vec![vec!["daemon-reload"]];
    if changed.listeners {
        // A socket cannot be opened anew while its service has it.
        orders.push(vec!["stop", "signerd.socket", "signerd-local.socket", "signerd.service"]);
    }
    if changed.anything {
        // Nothing happens to what does not run. The front first: a new one waits for a new worker.
        orders.extend(["signerd.service", &worker].map(|unit| vec!["try-restart", unit]));
    }
    orders.push([&["enable", "--quiet"][..], &units].concat());
    orders.push([&["start"][..], &units].concat());
    orders.into_iter().map(|order| order.into_iter().map(str::to_owned).collect()).collect()
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
    let output = Command::new("journalctl")
        .args(["--no-pager", "--quiet", "--lines=20", "--output=short", "--unit=signerd.service", "--unit"])
        .arg(worker(token))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(anything: bool, listeners: bool) -> Vec<String> {
        orders("main", Changed { anything, listeners }).iter().map(|order| order.join(" ")).collect()
    }

    #[test]
    fn what_runs_is_restarted_before_it_is_waited_for_when_something_was_written() {
        let nothing = told(false, false);
        assert!(!nothing.iter().any(|order| order.contains("restart") || order.contains("stop")), "{nothing:?}");
        assert!(nothing.last().is_some_and(|order| order.starts_with("start signer-token@main.socket ")));

        let files = told(true, false);
        let restarts: Vec<&str> = files.iter().map(String::as_str).filter(|order| order.contains("restart")).collect();
        assert_eq!(restarts, ["try-restart signerd.service", "try-restart signer-token@main.service"]);
        assert_eq!(files[0], "daemon-reload");
        assert!(files.last().is_some_and(|order| order.starts_with("start ")));

        let by_hand = by_hand("main");
        for unit in all("signer-token@main.socket", "signer-token@main.service") {
            assert!(by_hand.contains(unit), "{by_hand}");
        }

        let listeners = told(true, true);
        assert_eq!(listeners[1], "stop signerd.socket signerd-local.socket signerd.service");
    }
}
