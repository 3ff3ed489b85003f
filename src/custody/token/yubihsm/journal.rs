//! `yubihsm-log.jsonl`: the device's log as we took it from the device, one JSON object a line, append only.
//!
//! The device chains its entries but does not sign them, and forgets them once they are taken. So every line here
//! carries the SHA-256 of the line before it, and lines are durable before the device may forget.

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::hex::sha256;

/// The file, and where its chain and the device's stand.
pub(super) struct Journal {
    file: File,
    // Of the same open file, for as long as the journal lives.
    _lock: Flock<File>,
    /// Of what is durable.
    length: u64,
    /// Digest of the last durable line, and of the last line added.
    previous: [String; 2],
    head: Option<Head>,
    unwritten: Vec<u8>,
}

/// The last entry that was taken from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) device: u32,
    pub(super) number: u16,
    pub(super) digest: [u8; 16],
}

/// What a line says.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(super) enum Line<'a> {
    /// An entry of the device's log.
    Entry {
        device: u32,
        number: u16,
        command: &'a str,
        length: u16,
        session_key: &'a str,
        target_key: &'a str,
        second_key: &'a str,
        result: &'a str,
        tick: u32,
        digest: &'a str,
        /// The signature that this worker asked for and that this entry is about.
        #[serde(skip_serializing_if = "Option::is_none")]
        asked: Option<&'a Asked>,
    },
    /// A signature that the device made for this worker and did not log: its `command-audit` option is off.
    Unlogged {
        device: u32,
        #[serde(flatten)]
        asked: &'a Asked,
    },
    /// The entries do not follow from those taken before.
    Broken { device: u32, expected_after: u16, found: u16 },
    /// What the device counted and had no room to log.
    Overflow { device: u32, boots: u16, authentications: u16 },
    /// The log was full, so it had to be taken before the device said which one it is; it was `found`, and the entries
    /// that were taken just before this line are its own.
    OtherDevice { device: u32, found: u32 },
}

/// A signature that this worker asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    /// Counts from 1 since this worker started.
    pub(super) sequence: u64,
    /// RFC 3339.
    pub(super) at: String,
    /// The key's object id.
    pub(super) key: String,
    /// What was signed: `paeSha256` of the audit record.
    pub(super) pae_sha256: String,
}

#[derive(Serialize)]
struct Framed<'a> {
    at: String,
    #[serde(flatten)]
    line: &'a Line<'a>,
    previous: &'a str,
}

/// What is read back of a line.
#[derive(Deserialize)]
struct Known {
    kind: String,
    device: Option<u32>,
    number: Option<u16>,
    digest: Option<String>,
}

impl Journal {
    /// Opens or makes the file, which is this journal's alone from then on. A line that was being written when the power
    /// went is cut off.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] while another process, or another journal of this one, has it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        // Before anything is cut off: what looks torn may be another worker's line in the making.
        let lock =
            Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                nix::errno::Errno::EWOULDBLOCK => io::ErrorKind::ResourceBusy.into(),
                errno => io::Error::from(errno),
            })?;
        let size = file.metadata()?.len();
        // The file grows for years; what is needed of it is at its end.
        let start = size.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let length = start + u64::try_from(whole).unwrap_or(0);
        if length < size {
            file.set_len(length)?;
        }
        let mut lines = bytes[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).rev().peekable();
        let previous = lines.peek().map_or_else(|| "0".repeat(64), |line| sha256(line));
        let head = lines.find_map(|line| serde_json::from_slice::<Known>(line).ok()?.head());
        Ok(Self { file, _lock: lock, length, previous: [previous.clone(), previous], head, unwritten: Vec::new() })
    }

    /// The last entry taken, and from which device.
    pub(super) fn head(&self) -> Option<Head> {
        self.head
    }

    /// Puts a line beside those to be written.
    pub(super) fn add(&mut self, line: &Line<'_>) -> io::Result<()> {
        let framed = Framed { at: jiff::Timestamp::now().to_string(), line, previous: &self.previous[1] };
        let text = serde_json::to_vec(&framed)?;
        self.previous[1] = sha256(&text);
        self.unwritten.extend_from_slice(&text);
        self.unwritten.push(b'\n');
        Ok(())
    }

    /// Makes durable what was added; `head` is the last entry among it.
    pub(super) fn sync(&mut self, head: Option<Head>) -> io::Result<()> {
        if !self.unwritten.is_empty() {
            self.file.write_all(&self.unwritten)?;
            self.file.sync_data()?;
            self.length += u64::try_from(self.unwritten.len()).unwrap_or(0);
            self.unwritten.clear();
            self.previous[0] = self.previous[1].clone();
        }
        self.head = head.or(self.head);
        Ok(())
    }

    /// Takes back what was added and is not durable, of which a part may be in the file.
    pub(super) fn roll_back(&mut self) {
        self.unwritten.clear();
        self.previous[1] = self.previous[0].clone();
        if let Err(error) = self.file.set_len(self.length) {
            tracing::error!(%error, "a part of a line stays in yubihsm-log.jsonl");
        }
    }
}

#[cfg(test)]
impl Journal {
    pub(super) fn replace_file(&mut self, file: File) {
        self.file = file;
    }
}

impl Known {
    fn head(&self) -> Option<Head> {
        let digest = self.digest.as_deref().filter(|_| self.kind == "entry")?;
        let mut bytes = [0; 16];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digest.get(at * 2..at * 2 + 2)?, 16).ok()?;
        }
        Some(Head { device: self.device?, number: self.number?, digest: bytes })
    }
}

/// Holds the lines of several takings of the log.
const TAIL: u64 = 256 * 1024;
