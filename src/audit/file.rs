//! The log's file: locked, appended to, synced.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::record::{Detail, Record};
use super::recovery::{self, PREFIX, Recovery, Torn};
use super::{AuditError, Failure, line};

/// The open log. Every byte before `end` is synced.
#[derive(Debug)]
pub(super) struct LogFile {
    file: Flock<File>,
    path: PathBuf,
    end: u64,
    seen: Option<Instant>,
}

impl LogFile {
    /// Opens or creates the log, and recovers what a crash left. What this returns with is synced.
    pub(super) fn open(path: &Path) -> Result<(Self, Recovery), AuditError> {
        let unusable = |source: io::Error| AuditError::Unusable { path: path.to_owned(), source: Arc::new(source) };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(path).map_err(unusable)?;
        let metadata = file.metadata().map_err(unusable)?;
        if !metadata.is_file() {
            return Err(AuditError::NotALog { path: path.to_owned(), why: "it is not a regular file" });
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o137 != 0 {
            return Err(AuditError::Exposed { path: path.to_owned(), mode });
        }
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::Error::EWOULDBLOCK => AuditError::Held { path: path.to_owned() },
            errno => unusable(errno.into()),
        })?;
        // The name itself must survive a power cut, if this is the first time.
        sync_directory(path).map_err(unusable)?;

        // Under the lock: nobody else is writing now.
        let length = file.metadata().map_err(unusable)?.len();
        let start = length.saturating_sub(recovery::WINDOW);
        let mut tail = vec![0; usize::try_from(length - start).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut tail, start).map_err(unusable)?;
        let found =
            recovery::scan(&tail, start == 0).map_err(|why| AuditError::NotALog { path: path.to_owned(), why })?;
        let mut log = Self { file, path: path.to_owned(), end: start + found.whole as u64, seen: None };
        let mut recovery = Recovery { next_seq: found.last_seq + 1, torn: None };
        let damaged = &tail[found.whole.min(found.damaged)..found.damaged];
        if !damaged.is_empty() {
            recovery.torn = Some(keep(path, damaged).map_err(unusable)?);
        }
        if log.end < length {
            log.file.set_len(log.end).map_err(unusable)?;
        }
        // Whole lines that a killed process had written but not synced are from here on taken for durable.
        log.file.sync_all().map_err(unusable)?;
        if let Some(torn) = &recovery.torn {
            let kept_in = torn.kept_in.to_string_lossy();
            let details = [("bytes", Detail::Number(torn.bytes)), ("keptIn", Detail::Text(&kept_in))];
            let mut lines = Vec::new();
            push(&mut lines, recovery.next_seq, &Record::Event { event: "recovered", details: &details });
            log.commit(&lines).map_err(|failure| AuditError::Failed(Arc::new(failure)))?;
            recovery.next_seq += 1;
        }
        Ok((log, recovery))
    }

    /// Makes `lines` durable, or nothing of them counts: a further call begins at the same place.
    pub(super) fn commit(&mut self, lines: &[u8]) -> Result<(), Failure> {
        self.still_there().map_err(|source| self.failure("keeping", source))?;
        self.file.write_all_at(lines, self.end).map_err(|source| self.failure("writing", source))?;
        self.file.sync_data().map_err(|source| self.failure("syncing", source))?;
        self.end += lines.len() as u64;
        Ok(())
    }

    pub(super) fn failure(&self, what: &'static str, source: io::Error) -> Failure {
        Failure { path: self.path.clone(), what, source, since: jiff::Timestamp::now() }
    }

    /// A log that was deleted, renamed or truncated while in use loses records, at once or when whoever did it is done
    /// with it. Looked at now and then.
    fn still_there(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.seen.is_some_and(|seen| now.duration_since(seen) < LOOK_EVERY) {
            return Ok(());
        }
        let held = self.file.metadata()?;
        let lost = |what: &str| {
            let remedy = "restart to begin a new one, and rotate the log only while the appliance is stopped";
            Err(io::Error::new(ErrorKind::NotFound, format!("the file was {what} while in use; {remedy}")))
        };
        if held.nlink() == 0 {
            return lost("deleted");
        }
        if held.len() < self.end {
            return lost("truncated");
        }
        if std::fs::metadata(&self.path).is_ok_and(|named| (named.dev(), named.ino()) != (held.dev(), held.ino())) {
            return lost("replaced by another");
        }
        if !self.path.exists() {
            return lost("renamed");
        }
        self.seen = Some(now);
        Ok(())
    }
}

/// Appends one whole line.
pub(super) fn push(lines: &mut Vec<u8>, seq: u64, record: &Record<'_>) {
    let mut body = Vec::with_capacity(256);
    record.write(&mut body);
    push_body(lines, seq, &body);
}

pub(super) fn push_body(lines: &mut Vec<u8>, seq: u64, body: &[u8]) {
    lines.reserve(PREFIX.len() + 20 + body.len() + 2);
    lines.extend_from_slice(PREFIX);
    line::push_number(lines, seq);
    lines.extend_from_slice(body);
    lines.extend_from_slice(b"}\n");
}

/// Writes the damaged end to a file of its own beside the log, durably.
fn keep(path: &Path, damaged: &[u8]) -> io::Result<Torn> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    for attempt in 1..1000 {
        let mut name = OsString::from(path);
        name.push(if attempt == 1 { format!(".torn-{stamp}") } else { format!(".torn-{stamp}-{attempt}") });
        let kept_in = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&kept_in) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(mut file) => {
                file.write_all(damaged)?;
                file.sync_all()?;
                sync_directory(path)?;
                return Ok(Torn { bytes: damaged.len() as u64, kept_in });
            }
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, "a thousand damaged ends of this second are kept already"))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_deleted_while_in_use_takes_no_more_records() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let (mut log, _) = LogFile::open(&path).unwrap();
        log.commit(b"{\"seq\":1}\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        log.seen = None;
        let failure = log.commit(b"{\"seq\":2}\n").unwrap_err();
        assert!(failure.to_string().contains("the file was deleted while in use"), "{failure}");
    }

    #[test]
    fn a_commit_that_failed_is_written_again_from_the_same_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let (mut log, _) = LogFile::open(&path).unwrap();
        log.commit(b"{\"seq\":1}\n").unwrap();
        // As a full disk leaves it: a part of the batch is in the file.
        log.file.write_all_at(b"{\"seq", log.end).unwrap();
        log.commit(b"{\"seq\":2}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"seq\":1}\n{\"seq\":2}\n");
    }
}
