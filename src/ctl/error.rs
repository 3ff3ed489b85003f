//! What can go wrong in a command, and the exit code that says so.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output::plain;
use super::problem::Refusal;
use super::verify::Fault;
use crate::config::{ConfigError, ConfigErrors};
use crate::custody::admin::Failure;
use crate::release::ReleaseError;

/// Exit codes; part of the interface, so they keep their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for was done, or holds.
    Success = 0,
    /// An envelope does not verify, the appliance is not ready, the operator did not confirm, a doctor found a problem,
    /// or an answer is not what was asked for.
    Failed = 1,
    /// The command line is wrong or incomplete.
    Usage = 2,
    /// The appliance or the Authority refused (4xx, or a TLS alert about the client certificate), or the token did.
    Refused = 3,
    /// The appliance or the Authority cannot be reached or asks to come back later (5xx, 429, network, TLS).
    Unavailable = 4,
    /// The appliance's configuration or the client profile is invalid.
    Config = 5,
    /// A local file cannot be read or written, or does not hold what it should.
    File = 6,
}

/// Why a command did not do what was asked; each variant is something else for the caller to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    /// The command line, the environment and the profile together do not say enough, or contradict each other.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused a file.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// `read`, `write`, `create`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file was read and is not what it should be.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The client profile is invalid.
    #[error("{0}")]
    Profile(String),
    /// The appliance's configuration is invalid.
    #[error("{0}")]
    Config(ConfigErrors),
    /// A peer answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The peer's TLS refused this client's certificate.
    #[error("{url} does not accept the client certificate: {cause}")]
    CertificateRefused {
        /// Whom.
        url: String,
        /// What TLS said.
        cause: String,
    },
    /// No answer.
    #[error("no answer from {url}: {cause}")]
    Unreachable {
        /// Whom.
        url: String,
        /// What the network or TLS said, innermost cause included.
        cause: String,
        /// What would help.
        remedy: &'static str,
    },
    /// An answer that a working peer would not give.
    #[error("{0}")]
    Unexpected(String),
    /// An envelope that does not verify.
    #[error("{}: {fault}", path.display())]
    NotVerified {
        /// The file.
        path: PathBuf,
        /// The first check that failed.
        fault: Fault,
    },
    /// The token, its module or the program that loads it did not do what was asked.
    #[error("{}", plain(&.0.message))]
    Token(Failure),
    /// The operator did not confirm, or could not be asked.
    #[error("{0}")]
    Declined(String),
    /// A change of the keys that the rules of their life do not allow.
    #[error("{0}")]
    KeyLife(String),
    /// An image that is no trusted release, or of which nobody can say now.
    #[error("{0}")]
    Release(ReleaseError),
    /// `init` came to a step that it could not do.
    #[error("cannot {step}: {source}{}{}", listed("taken back", .undone), listed("left as it is now", .stays))]
    Init {
        /// The step, as in "seal the PIN".
        step: &'static str,
        /// Why.
        source: Box<CtlError>,
        /// What it had written before and has removed again.
        undone: Vec<String>,
        /// What is not as it was before.
        stays: Vec<String>,
    },
    /// Standard output was refused.
    #[error("cannot write to standard output: {0}")]
    Stdout(io::Error),
}

impl CtlError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::File { doing: "read", path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::File { doing: "write", path: path.to_owned(), source }
    }

    pub(crate) fn content(path: &Path, problem: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), problem: problem.into() }
    }

    /// The exit code of the process.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::File { .. } | Self::Content { .. } | Self::Stdout(_) => Exit::File,
            Self::Profile(_) | Self::Config(_) => Exit::Config,
            Self::Refused(refusal) if refusal.is_temporary() => Exit::Unavailable,
            Self::Refused(_) | Self::CertificateRefused { .. } => Exit::Refused,
            Self::Unreachable { .. } => Exit::Unavailable,
            Self::Unexpected(_) | Self::NotVerified { .. } | Self::Declined(_) | Self::KeyLife(_) => Exit::Failed,
            Self::Release(error) if error.retry_after().is_some() => Exit::Unavailable,
            Self::Release(_) => Exit::Failed,
            Self::Token(failure) => token_exit(&failure.code),
            Self::Init { source, .. } => source.exit(),
        }
    }

    /// A stable word for scripts.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::File { .. } | Self::Stdout(_) => "file",
            Self::Content { .. } => "file_content",
            Self::Profile(_) => "profile_invalid",
            Self::Config(_) => "config_invalid",
            Self::Refused(refusal) => refusal.code(),
            Self::CertificateRefused { .. } => "certificate_refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Unexpected(_) => "unexpected_answer",
            Self::NotVerified { fault, .. } => fault.code(),
            Self::Token(failure) => &failure.code,
            Self::Release(error) => error.reason(),
            Self::Declined(_) => "declined",
            Self::KeyLife(_) => "key_life",
            Self::Init { source, .. } => source.code(),
        }
    }

    /// What to do about it, where that is known and the message does not say it already.
    pub(crate) fn remedy(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.remedy(),
            Self::CertificateRefused { .. } => Some(
                "check --cert and --key: the certificate must chain to the appliance's client CA and not be revoked",
            ),
            Self::Unreachable { remedy, .. } => Some(remedy),
            Self::NotVerified { fault, .. } => fault.remedy(),
            Self::Token(failure) => failure.remedy.as_deref(),
            Self::Init { source, .. } => source.remedy(),
            _ => None,
        }
    }

    /// The error as `--json` prints it.
    pub(crate) fn to_json(&self) -> Value {
        let mut error = json!({ "code": self.code(), "message": self.to_string(), "exit": self.exit() as u8 });
        if let Some(remedy) = self.remedy() {
            error["remedy"] = remedy.into();
        }
        match self {
            Self::Refused(refusal) => refusal.describe(&mut error),
            Self::Config(ConfigErrors(problems)) => error["problems"] = problems.iter().map(located).collect(),
            _ => {}
        }
        if let Self::Init { step, undone, stays, .. } = self {
            error["step"] = (*step).into();
            error["undone"] = undone.clone().into();
            error["stays"] = stays.clone().into();
        }
        match self {
            Self::NotVerified { .. } => json!({ "verified": false, "error": error }),
            _ => json!({ "error": error }),
        }
    }
}

/// What `signer-token admin` says, as an exit code.
fn token_exit(code: &str) -> Exit {
    match code {
        "config" => Exit::Config,
        "input" | "label" | "pin_form" | "no_slot" => Exit::Usage,
        "pin" | "module_load" | "module_initialise" => Exit::File,
        "key_not_found" | "several_keys" | "several_tokens" | "key_unsuitable" | "protocol" => Exit::Failed,
        "token_absent" | "device_failed" | "module_died" | "module_hung" | "process" | "partly_destroyed" => {
            Exit::Unavailable
        }
        // The token would not: a PIN, an owner, a key that it cannot make.
        _ => Exit::Refused,
    }
}

/// A line for each, or nothing.
fn listed(what: &str, things: &[String]) -> String {
    if things.is_empty() { String::new() } else { format!("\n{what}:\n  {}", things.join("\n  ")) }
}

fn located(problem: &ConfigError) -> Value {
    json!({
        "file": problem.origin.file.display().to_string(),
        "line": problem.origin.line,
        "column": problem.origin.column,
        "key": problem.key,
        "message": problem.message,
    })
}
