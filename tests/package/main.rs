//! The packages, as they are handed to an operator: what is in them, with which owner and mode; what their scripts do;
//! what the distributions' own checkers say; and that a second build elsewhere gives the same bytes.
//!
//! `cargo xtask test package` builds them, from this tree.

#![allow(clippy::unwrap_used)]

mod built;
mod monitoring;
mod policies;
mod reproducible;

use std::borrow::BorrowMut;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder that a variable of `cargo xtask test` names.
fn named(variable: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| panic!("{variable} is not set: cargo xtask test package"), PathBuf::from)
}

/// The one file in `folder` whose name ends in `end`.
#[track_caller]
fn only(folder: &Path, end: &str) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let found: Vec<PathBuf> = files.filter(|file| file.to_string_lossy().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "one file *{end} in {}: {found:?}", folder.display());
    found[0].clone()
}

/// Where this package's sources are.
fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// A program, in English.
fn program<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).env("LC_ALL", "C.UTF-8");
    command
}

/// What a program wrote; it must succeed.
#[track_caller]
fn output(mut command: impl BorrowMut<Command>) -> String {
    let command = command.borrow_mut();
    let Output { status, stdout, stderr } = command.output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout
}

/// Whether `text` is what `pattern` says, where each `*` stands for anything but a `/`.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let folder_ends = rest.find('/').unwrap_or(rest.len());
            (0..=folder_ends).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(after, &rest[at..]))
        }),
    }
}
