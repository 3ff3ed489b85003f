//! The PIN's file. Its content is looked at for being one, and neither printed nor tried.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use super::Patient;
use super::access::User;
use crate::custody::token::{Pin, PinFileError};

pub(super) fn look(patient: &mut Patient<'_>, worker: Option<&User>) {
    const CHECK: &str = "PIN file";
    let file = patient.token.pin_file.clone();
    let shown = file.display();
    let credential = file.starts_with("/run/credentials");
    let metadata = match fs::metadata(&file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound && credential => {
            return patient.skipped(CHECK, format!("{shown} exists only while the worker's unit runs"));
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return patient.skipped(CHECK, format!("{shown}: {error}; run this as root or as the worker's user"));
        }
        Err(error) => {
            let remedy =
                "write the PIN into a file of mode 0400 that belongs to the worker's user, or correct the path";
            return patient.problem(CHECK, "pin_file", format!("{shown}: {error}"), remedy);
        }
    };
    if !metadata.is_file() {
        return patient.problem(CHECK, "pin_file", format!("{shown} is no file"), "write the path of one");
    }
    let mode = metadata.mode() & 0o777;
    let read = Pin::read(&file);
    // The worker's own judgement, before who owns it: a file that is open can be read by everyone.
    if matches!(read, Err(PinFileError::Exposed { .. })) {
        let detail = format!("{shown} is open to others (mode {mode:04o})");
        return patient.problem(CHECK, "pin_file", detail, format!("chmod 0400 {shown}"));
    }
    if let Some(worker) = worker.filter(|worker| !credential && !worker.may(&metadata, 4)) {
        let detail = format!("user `{}` may not read {shown}, which belongs to user {}", worker.name, metadata.uid());
        return patient.problem(CHECK, "pin_file", detail, format!("chown {} {shown}", worker.name));
    }
    match read {
        Ok(_) => patient.ok(CHECK, format!("{shown}, mode {mode:04o}")),
        Err(PinFileError::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            patient.ok(CHECK, format!("{shown}, mode {mode:04o}; not read"));
        }
        Err(error) => {
            patient.problem(CHECK, "pin_file", error.to_string(), "write the PIN into it, in one line");
        }
    }
}
