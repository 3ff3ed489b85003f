//! The worker that runs, as far as it can be asked: its socket, and what the front says of it.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::Patient;
use crate::ctl::client::runtime;
use crate::ctl::local;

pub(super) fn look(patient: &mut Patient<'_>) {
    const CHECK: &str = "worker";
    let socket = patient.token.socket.clone();
    let start = format!("systemctl start signer-token@{0}; its log: journalctl -u signer-token@{0}", patient.name);
    match UnixStream::connect(&socket) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return patient.skipped(CHECK, format!("{}: {error}; run this as root to ask", socket.display()));
        }
        Err(error) => {
            return patient.problem(CHECK, "socket", format!("nobody listens on {}: {error}", socket.display()), start);
        }
    }
    let listener = &patient.loaded.config.server.local_listen;
    let asked = runtime().and_then(|runtime| runtime.block_on(local::read(listener, "/readyz")));
    let answer: Value = match asked {
        Ok(answer) => serde_json::from_slice(&answer.body).unwrap_or_default(),
        Err(error) => return patient.ok(CHECK, format!("it listens; signerd was not asked how it is: {error}")),
    };
    let tokens = answer["tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(token) = tokens.iter().find(|token| token["name"] == patient.name) else {
        return patient.ok(CHECK, "it listens; signerd does not know the token and wants a restart");
    };
    let text = |member: &str| token[member].as_str().unwrap_or_default().to_owned();
    if token["ready"] == true {
        patient.ok(CHECK, "it is ready to sign");
    } else {
        let detail = format!("it is not ready: {} {}", text("state"), text("detail"));
        patient.problem(CHECK, "", detail, start);
    }
}
