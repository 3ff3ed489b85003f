//! The folder of the worker's socket.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::Patient;
use super::access::User;

pub(super) fn look(patient: &mut Patient<'_>, front: Option<&User>, worker: Option<&User>) {
    const CHECK: &str = "socket folder";
    let socket = patient.token.socket.clone();
    let Some(folder) = socket.parent() else { return };
    let shown = folder.display();
    let metadata = match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return patient.problem(CHECK, "socket", format!("{shown} is no folder"), "write a path inside one"),
        Err(error) => {
            let remedy = format!("create it: install -d -m 0755 {shown} (systemd-tmpfiles --create does so for /run)");
            return patient.problem(CHECK, "socket", format!("{shown}: {error}"), remedy);
        }
    };
    let mode = metadata.mode();
    if mode & 0o002 != 0 {
        let detail =
            format!("anyone can write to {shown} (mode {:04o}) and put a socket of theirs there", mode & 0o7777);
        return patient.problem(CHECK, "socket", detail, format!("chmod o-w {shown}"));
    }
    for user in [front, worker].into_iter().flatten() {
        if let Some(directory) = user.stopped_at(&socket) {
            let detail = format!("user `{}` cannot reach {}: {}", user.name, socket.display(), directory.display());
            return patient.problem(CHECK, "socket", detail, format!("chmod o+x {}", directory.display()));
        }
    }
    patient.ok(CHECK, format!("{shown}, mode {:04o}", mode & 0o7777));
}
