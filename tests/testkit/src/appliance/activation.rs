//! Listening sockets that outlive the processes that serve them, as systemd's do.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use super::Settings;
use crate::{Context, Result};

/// The sockets of an appliance: of its front, and of a worker each.
pub(super) struct Sockets {
    api: TcpListener,
    workers: BTreeMap<String, UnixListener>,
}

impl Sockets {
    /// Listens where the settings say.
    pub(super) fn bind(settings: &Settings) -> Result<Self> {
        let api = TcpListener::bind(settings.address("server.listen")).context("listen for the front")?;
        let mut workers = BTreeMap::new();
        for token in settings.tokens() {
            let name = format!("tokens.{token}.socket");
            let path = settings.get(&name).and_then(toml::Value::as_str).context(format!("find {name}"))?;
            let listener = UnixListener::bind(path).context(format!("listen on {path}"))?;
            std::fs::set_permissions(Path::new(path), std::fs::Permissions::from_mode(0o660))?;
            workers.insert(token, listener);
        }
        Ok(Self { api, workers })
    }

    pub(super) fn api(&self) -> Result<OwnedFd> {
        Ok(self.api.as_fd().try_clone_to_owned()?)
    }

    pub(super) fn worker(&self, token: &str) -> Result<OwnedFd> {
        let listener = self.workers.get(token).context(format!("find the socket of {token}"))?;
        Ok(listener.as_fd().try_clone_to_owned()?)
    }
}

/// The command as systemd would start it: what is on its standard input becomes the socket called `name`
/// (sd_listen_fds(3)).
pub(super) fn with_socket(command: &Command, name: &str) -> Command {
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(command.get_program()).args(command.get_args()).env("LISTEN_FDNAMES", name);
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}
