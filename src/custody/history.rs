//! Every public key that this appliance was ever seen with, for as long as the file is kept: what a signature of years
//! ago can be verified with after its key has left the configuration and the token.
//!
//! JSON lines, appended and synced, never rewritten. `signerd` adds a key when it first sees it, `signerctl` before it
//! lets one retire or die.

#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::token::explain;
use super::{Custody, PublicKey};
use crate::config::Config;

/// One key in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// Its name in the configuration, when it was seen.
    pub name: String,
    /// The token that held it; several with commas between them.
    pub token: String,
    /// SSH fingerprint.
    pub keyid: String,
    /// PEM.
    pub public_key: String,
    /// When it was written down.
    pub seen: Timestamp,
}

/// The history file.
#[derive(Clone, Debug)]
pub struct History {
    path: PathBuf,
}

/// Why the history cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file system says no.
    #[error("the key history {path} cannot be used; correct `history` under [custody], or its directory's owner")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no key, and not the last one that a power cut may have torn.
    #[error("line {line} of the key history {path} is damaged; restore the file from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

impl Remembered {
    /// Now.
    #[must_use]
    pub fn now(name: &str, token: &str, key: &PublicKey) -> Self {
        let (keyid, public_key) = (key.keyid(), key.to_pem());
        Self { name: name.to_owned(), token: token.to_owned(), keyid, public_key, seen: Timestamp::now() }
    }

    /// The key, when the line says the truth about it.
    #[must_use]
    pub fn key(&self) -> Option<PublicKey> {
        PublicKey::from_pem(self.public_key.as_bytes()).ok().filter(|key| key.keyid() == self.keyid)
    }
}

impl History {
    /// As configured: `history` of `[custody]`, else `key-history.jsonl` beside the audit log.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let beside = || config.audit.path.with_file_name("key-history.jsonl");
        Self { path: config.custody.history.clone().unwrap_or_else(beside) }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys, oldest first; none when there is no file yet.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn read(&self) -> Result<Vec<Remembered>, HistoryError> {
        match fs::read(&self.path) {
            Ok(bytes) => self.parse(&bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Adds those keys that are not the last ones in it under their names, durably. Returns how many.
    ///
    /// # Errors
    /// [`HistoryError`]; then nothing may rely on the keys being remembered.
    pub fn remember(&self, keys: &[Remembered]) -> Result<usize, HistoryError> {
        let fresh = !self.path.exists();
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.path)
            .map_err(|error| self.io(error))?;
        // Two writers take turns; both are brief.
        let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| self.io(errno.into()))?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes)).map_err(|error| self.io(error))?;
        let known = self.parse(&bytes)?;
        // One that is used again after another is written down again: the last one is what a name stands for.
        let mut last: HashMap<&str, &str> = known.iter().map(|key| (key.name.as_str(), key.keyid.as_str())).collect();
        let new: Vec<&Remembered> =
            keys.iter().filter(|key| last.insert(&key.name, &key.keyid) != Some(key.keyid.as_str())).collect();
        if new.is_empty() {
            return Ok(0);
        }
        // What a power cut tore stays as it is, on a line of its own.
        let mut lines = if bytes.last().is_none_or(|last| *last == b'\n') { Vec::new() } else { vec![b'\n'] };
        for key in &new {
            serde_json::to_writer(&mut lines, key).map_err(|error| self.io(error.into()))?;
            lines.push(b'\n');
        }
        file.write_all(&lines).and_then(|()| file.sync_all()).map_err(|error| self.io(error))?;
        if fresh {
            self.settle(&file).map_err(|error| self.io(error))?;
        }
        Ok(new.len())
    }

    /// A new file belongs to whom its directory belongs to, so that one written by root can be written by `signerd`;
    /// and its name survives a power cut.
    fn settle(&self, file: &File) -> io::Result<()> {
        let directory = File::open(self.path.parent().unwrap_or(Path::new("/")))?;
        let owner = directory.metadata()?;
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
        }
        directory.sync_all()
    }

    fn parse(&self, bytes: &[u8]) -> Result<Vec<Remembered>, HistoryError> {
        let mut keys = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice::<Remembered>(line) {
                Ok(key) if key.key().is_some() => keys.push(key),
                // Torn by a power cut: nobody was told that it was written. It ends in the middle of the object.
                Err(error) if error.is_eof() => {}
                _ => return Err(HistoryError::Damaged { path: self.path.clone(), line: index + 1 }),
            }
        }
        Ok(keys)
    }

    fn io(&self, source: io::Error) -> HistoryError {
        HistoryError::Io { path: self.path.clone(), source }
    }
}

/// Writes down every key of the front as it becomes known; done when all are.
pub async fn keep(custody: Arc<Custody>, history: History) {
    let mut written: HashSet<Arc<str>> = HashSet::new();
    loop {
        let (known, all) = (custody.verification_keys(), custody.key_count());
        let new: Vec<Remembered> = known
            .iter()
            .filter(|key| !written.contains(key.name()))
            .map(|key| Remembered::now(key.name(), key.tokens(), key.public_key()))
            .collect();
        if !new.is_empty() {
            let (history, names) =
                (history.clone(), new.iter().map(|key| key.name.as_str().into()).collect::<Vec<_>>());
            match tokio::task::spawn_blocking(move || history.remember(&new)).await {
                Ok(Ok(_)) => written.extend(names),
                Ok(Err(error)) => tracing::error!("the public keys cannot be written down: {}", explain(&error)),
                Err(error) => tracing::error!(%error, "the public keys were not written down"),
            }
        }
        if written.len() == all {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A public key does not change within the life of the process, so that it need not be written down at once.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::custody::testing::key_pair;

    fn history() -> (tempfile::TempDir, History) {
        let dir = tempfile::tempdir().unwrap();
        let history = History { path: dir.path().join("keys.jsonl") };
        (dir, history)
    }

    #[test]
    fn a_key_is_remembered_until_another_follows_and_nothing_is_ever_taken_out() {
        let (_dir, history) = history();
        assert_eq!(history.read().unwrap(), []);
        let (first, second) = (Remembered::now("a", "t", &key_pair().1), Remembered::now("a", "t", &key_pair().1));
        assert_eq!(history.remember(std::slice::from_ref(&first)).unwrap(), 1);
        assert_eq!(history.remember(&[first.clone(), second.clone()]).unwrap(), 1);
        assert_eq!(history.remember(std::slice::from_ref(&second)).unwrap(), 0);
        assert_eq!(history.read().unwrap(), [first.clone(), second.clone()]);
        assert_eq!(history.remember(std::slice::from_ref(&first)).unwrap(), 1, "it is used again");
        assert_eq!(history.remember(std::slice::from_ref(&first)).unwrap(), 0);
        assert_eq!(history.read().unwrap(), [first.clone(), second, first]);
    }

    #[test]
    fn a_line_that_a_power_cut_tore_is_passed_over_and_a_changed_one_is_not() {
        let (_dir, history) = history();
        let (first, second) = (Remembered::now("a", "t", &key_pair().1), Remembered::now("b", "t", &key_pair().1));
        history.remember(std::slice::from_ref(&first)).unwrap();
        let whole = fs::read(&history.path).unwrap();
        for torn in [1, whole.len() / 2, whole.len() - 2] {
            fs::write(&history.path, [&whole[..], &whole[..torn]].concat()).unwrap();
            assert_eq!(history.read().unwrap(), std::slice::from_ref(&first));
            history.remember(std::slice::from_ref(&second)).unwrap();
            assert_eq!(history.read().unwrap(), [first.clone(), second.clone()], "torn at {torn}");
        }
        let other = String::from_utf8(whole).unwrap().replace(&first.keyid, &second.keyid);
        fs::write(&history.path, other).unwrap();
        assert!(matches!(history.read(), Err(HistoryError::Damaged { line: 1, .. })));
    }
}
