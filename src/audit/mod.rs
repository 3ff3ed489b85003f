//! What happened, durably, before anyone hears of it.
//!
//! One file of JSON lines, mode 0600, held by one process at a time. [`AuditLog::append`] is answered when its record
//! is on stable storage; a thread of its own writes, many records with one `fdatasync`. Every line carries a `seq`
//! that grows by one, restarts included, so that a line that was taken out leaves a gap.
//!
//! The file always ends with the last line: nothing is preallocated, because a tail of zeros would blind whoever
//! follows the file. What a crash can leave behind, an incomplete last batch that nobody was told about, is moved to
//! a file beside the log when it is opened, and a `recovered` record says so.
//!
//! When a write or a sync fails, the records of that batch are answered with an error and every further one is
//! refused, until the very same bytes and one more record were written and synced after all.

#![forbid(unsafe_code)]

mod batch;
mod file;
mod line;
mod noise;
mod pace;
mod record;
mod recovery;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config;

pub use batch::Append;
pub use record::{
    AuditId, CertificateFacts, Detail, Facts, IdentityFacts, KeyFacts, Kind, MAX_SUBJECTS, Record, Refused,
    ReleaseFacts, StampFacts, StatementFacts,
};
pub use recovery::{Recovery, Torn};

/// The audit log. Closing it, by dropping it, writes what is pending.
#[derive(Debug)]
pub struct AuditLog {
    shared: Arc<writer::Shared>,
    writer: Option<JoinHandle<()>>,
}

impl AuditLog {
    /// Opens or creates the log, recovers what a crash left and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be used, another process holds it, or it is not an audit log of this program.
    pub fn open(config: &config::Audit) -> Result<(Self, Recovery), AuditError> {
        let (file, recovery) = file::LogFile::open(&config.path)?;
        let shared = Arc::new(writer::Shared::new(config, recovery.next_seq));
        let writer = writer::Writer::new(Arc::clone(&shared), file, config.group_commit.get());
        let writer = std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run());
        let writer = writer.map_err(|e| AuditError::Unusable { path: config.path.clone(), source: Arc::new(e) })?;
        Ok((Self { shared, writer: Some(writer) }, recovery))
    }

    /// Enters `record` at once and resolves when it is durable. Dropping the answer does not take the record back.
    ///
    /// # Errors
    /// When the record is not durable: nothing may be released on it. It may still turn up in the log later.
    pub fn append(&self, record: &Record<'_>) -> Append {
        self.shared.append(record)
    }

    /// As [`append`](Self::append), for what strangers can cause at will: beyond the configured number per second the
    /// record is only counted by its reason, and the answer is immediate.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_noise(&self, record: &Record<'_>) -> Append {
        self.shared.append_noise(record)
    }

    /// As [`append_noise`](Self::append_noise), for what nobody waits on: a connection refused before there was a
    /// request to answer.
    pub fn note(&self, record: &Record<'_>) {
        self.shared.append_noise(record).forget();
    }

    /// Why the log refuses records now, if it does: [`AuditError::Failed`] or [`AuditError::Stalled`].
    pub fn trouble(&self) -> Option<AuditError> {
        self.shared.trouble()
    }

    /// Reports to `metrics` from now on.
    pub fn observe(&self, metrics: crate::telemetry::AuditMetrics) {
        self.shared.observe(metrics);
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has failed the log already; there is nobody left to tell.
            let _ = writer.join();
        }
    }
}

/// Why the audit log cannot be opened, or a record is not durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuditError {
    /// The log refuses records until the disk takes them again: answer 503.
    #[error("the audit log is out of order: {0}")]
    Failed(#[source] Arc<Failure>),
    /// The disk has not answered for that long; whether what it was given is durable, nobody knows yet: answer 503.
    #[error("the audit log waits {seconds} s for its disk to finish one sync; it takes no more until that is done")]
    Stalled {
        /// Since the write began.
        seconds: u64,
    },
    /// Records come faster than the disk takes them: answer 503.
    #[error(
        "the audit log has {MAX_PENDING_BYTES} bytes waiting for the disk; it takes no more until they are written"
    )]
    Backlog,
    /// The file or its directory cannot be used as they are.
    #[error("the audit log {} cannot be used: {source}; its directory must exist and belong to this process's user", path.display())]
    Unusable {
        /// The log.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Two processes would write one log.
    #[error("the audit log {} is held by another process; stop that one, or give this one a log of its own", path.display())]
    Held {
        /// The log.
        path: PathBuf,
    },
    /// Others may read or change the log.
    #[error("the audit log {} has mode {mode:04o}; run `chmod 0600` on it (0640 if a group must read it)", path.display())]
    Exposed {
        /// The log.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else, which must not be touched.
    #[error("{} is not an audit log of this program: {why}; move it away, or write another path in [audit]", path.display())]
    NotALog {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl AuditError {
    /// A stable name, for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Failed(_) => "audit_failed",
            Self::Stalled { .. } => "audit_stalled",
            Self::Backlog => "audit_backlog",
            Self::Unusable { .. } | Self::Held { .. } | Self::Exposed { .. } | Self::NotALog { .. } => "audit_unusable",
        }
    }
}

/// The log's disk does not take records.
#[derive(Debug, thiserror::Error)]
#[error("{what} {} has failed since {since:.0}: {source}", path.display())]
pub struct Failure {
    path: PathBuf,
    what: &'static str,
    source: io::Error,
    /// Since when.
    pub since: jiff::Timestamp,
}

#[cfg(test)]
impl Failure {
    fn example() -> Self {
        Self { path: "/x".into(), what: "writing", source: io::Error::other("x"), since: jiff::Timestamp::UNIX_EPOCH }
    }
}

/// Records whose disk has not taken them yet hold at most this much memory.
const MAX_PENDING_BYTES: usize = 4 << 20;
