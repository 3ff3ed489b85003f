//! `signerctl` as its users meet it: the real program, driven by its command line. No appliance runs here; where an
//! answer is needed, a small TLS server of the test gives it.

#![allow(clippy::unwrap_used)]

mod devices;
mod exchange;
mod init;
mod keyless;
mod manual;
mod peer;
mod request;
mod signing;
mod status;
mod verify;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What one run of the program said.
#[derive(Debug)]
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON on standard output: {error}\n{self:?}"))
    }

    /// The run ended with `code` and said each of `words` to a person, on standard error alone.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in:\n{}", self.stderr);
        }
    }

    #[track_caller]
    fn succeeds(&self, words: &[&str]) {
        assert_eq!(self.code, 0, "{self:?}");
        for word in words {
            assert!(self.stdout.contains(word), "`{word}` is not in:\n{}", self.stdout);
        }
    }
}

/// Runs `signerctl` in `directory`, which is also its home, without any setting from outside.
fn signerctl(directory: &Path, arguments: &[&str]) -> Run {
    signerctl_with(directory, arguments, &[])
}

fn signerctl_with(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_signerctl"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Run {
        code: status.code().expect("signerctl was killed by a signal"),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}
