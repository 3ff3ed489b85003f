//! Takes the device's log before it is full, checks its chain, and joins it to what this worker asked for.
//!
//! Signatures go through [`Ledger::sign`] one at a time, as the device makes them, so the order of our requests is the
//! order of the device's entries. An entry is joined to the digest that was signed, which the front's audit log has
//! as `paeSha256` beside its audit id.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::auth_session::AuthSession;
use super::entry::{Entries, Entry};
use super::fault::Fault;
use super::frame::{Command, DeviceError};
use super::journal::{Asked, Head, Journal, Line};
use crate::hex::hex;

/// The log of one device.
pub(super) struct Ledger {
    auth_key: u16,
    inner: Mutex<Inner>,
}

struct Inner {
    journal: Journal,
    /// Asked for since the log was taken last, oldest first.
    pending: VecDeque<Pending>,
    sequence: u64,
    /// The log was taken at least once by this process: what is in it now happened since.
    caught_up: bool,
    told_unlogged: bool,
    /// The log cannot be taken, so nothing is remembered for it.
    off: bool,
}

#[derive(Clone)]
struct Pending {
    key: u16,
    /// `None`: the answer was lost, so nobody knows whether the device signed.
    signed: Option<bool>,
    asked: Asked,
}

/// Why the log was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum DrainError {
    #[error("the device's log cannot be read")]
    Device(#[source] Fault),
    #[error("yubihsm-log.jsonl cannot be written; the device keeps its entries")]
    Journal(#[source] io::Error),
}

impl Ledger {
    pub(super) fn new(journal: Journal, auth_key: u16) -> Self {
        let pending = VecDeque::new();
        let inner = Inner { journal, pending, sequence: 0, caught_up: false, told_unlogged: false, off: false };
        Self { auth_key, inner: Mutex::new(inner) }
    }

    /// Has `session` sign, and remembers what. `Ok` carries the device's answer.
    pub(super) fn sign(
        &self,
        session: &mut AuthSession,
        key: u16,
        digest: &[u8; 32],
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, Fault> {
        let mut inner = self.lock();
        let answer = session.command(Command::SignEcdsa, &[&key.to_be_bytes(), digest]);
        let signed = match &answer {
            Ok(_) => Some(true),
            Err(Fault::Unreachable { .. } | Fault::Forged | Fault::Malformed(_)) => None,
            Err(_) => return answer,
        };
        if inner.off {
            return answer;
        }
        inner.sequence += 1;
        let asked = Asked {
            sequence: inner.sequence,
            at: jiff::Timestamp::now().to_string(),
            key: id(key),
            pae_sha256: hex(digest),
        };
        inner.pending.push_back(Pending { key, signed, asked });
        if inner.pending.len() > MOST_PENDING {
            inner.pending.pop_front();
        }
        answer
    }

    /// The log is not taken any more.
    pub(super) fn turn_off(&self) {
        let mut inner = self.lock();
        inner.off = true;
        inner.pending.clear();
    }

    /// How many signatures wait to be joined.
    pub(super) fn waiting(&self) -> usize {
        self.lock().pending.len()
    }

    /// Takes every entry that the device has, makes it durable here, then lets the device forget it.
    ///
    /// A session that could not be identified for want of room in the log is identified now.
    pub(super) fn drain(&self, session: &mut AuthSession, device: u32) -> Result<(), DrainError> {
        let mut inner = self.lock();
        let body = session.command(Command::GetLogEntries, &[]).map_err(DrainError::Device)?;
        let taken =
            Entries::read(&body).ok_or(DrainError::Device(Fault::Malformed("log entries of a wrong length")))?;
        let pending = inner.pending.clone();
        let last = inner.record(&taken, device, self.auth_key).map_err(|error| {
            // As if it had not been tried: the device still has its entries.
            inner.journal.roll_back();
            inner.pending = pending;
            DrainError::Journal(error)
        })?;
        if let Some(last) = last {
            session.command(Command::SetLogIndex, &[&last.to_be_bytes()]).map_err(DrainError::Device)?;
        }
        let identified = session.identify();
        if let Err(Fault::OtherDevice { found, .. }) = identified {
            tracing::error!(
                "what was taken from the log is not of YubiHSM {device}: when it had room again, the device said that \
                 it is {found}"
            );
            let written =
                inner.journal.add(&Line::OtherDevice { device, found }).and_then(|()| inner.journal.sync(None));
            written.map_err(DrainError::Journal)?;
        }
        identified.map_err(DrainError::Device)
    }

    /// Writes elsewhere from now on.
    #[cfg(test)]
    pub(super) fn break_journal(&self, file: &std::path::Path) {
        let file = std::fs::OpenOptions::new().append(true).open(file).expect("a file to write to");
        self.lock().journal.replace_file(file);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What a panic would leave behind is a line less in the log, which the device still has.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Returns the number of the last entry that the device has.
    fn record(&mut self, taken: &Entries, device: u32, auth_key: u16) -> io::Result<Option<u16>> {
        let head = self.journal.head().filter(|head| head.device == device);
        // A device that could not forget them shows entries again.
        let seen = |entry: &Entry| head.is_some_and(|h| (entry.number, entry.digest) == (h.number, h.digest));
        let fresh = taken.entries.iter().position(seen).map_or(0, |at| at + 1);
        let fresh = &taken.entries[fresh..];
        if taken.unlogged_boots != 0 || taken.unlogged_authentications != 0 {
            let (boots, authentications) = (taken.unlogged_boots, taken.unlogged_authentications);
            self.journal.add(&Line::Overflow { device, boots, authentications })?;
        }
        let mut before = head.map(|head| (head.number, head.digest));
        let joined = self.join(fresh, auth_key);
        for (entry, asked) in fresh.iter().zip(&joined) {
            if let Some((number, digest)) = before
                && !entry.follows(number, &digest)
            {
                tracing::error!(
                    "the device's log does not follow from what was taken before: entry {} after {number}; entries \
                     were lost, or the device was reset",
                    entry.number
                );
                self.journal.add(&Line::Broken { device, expected_after: number, found: entry.number })?;
            }
            before = Some((entry.number, entry.digest));
            if asked.is_none() && self.caught_up && is_signature(entry, auth_key) {
                tracing::error!(
                    "entry {} of the device's log is a signature by our authentication key that this worker did not \
                     ask for; does another program use the key {auth_key:#06x}?",
                    entry.number
                );
            }
            self.journal.add(&Line::Entry {
                device,
                number: entry.number,
                command: &format!("{:#04x}", entry.command),
                length: entry.length,
                session_key: &id(entry.session_key),
                target_key: &id(entry.target_key),
                second_key: &id(entry.second_key),
                result: &format!("{:#04x}", entry.result),
                tick: entry.tick,
                digest: &hex(&entry.digest),
                asked: asked.as_ref(),
            })?;
        }
        self.write_unlogged(device)?;
        let last = fresh.last().map(|entry| Head { device, number: entry.number, digest: entry.digest });
        self.journal.sync(last)?;
        self.caught_up = true;
        // Of all that was taken, not only of what is new: if the device was told once and did not hear it, a full log has
        // nothing new ever after.
        Ok(taken.entries.last().map(|entry| entry.number))
    }

    /// For each entry the signature that it is about, found from the end: no signature is under way while the log is
    /// taken, so the last entry is about the last request. What finds an entry is no longer pending.
    fn join(&mut self, entries: &[Entry], auth_key: u16) -> Vec<Option<Asked>> {
        let mut joined = vec![None; entries.len()];
        let mut open: Vec<Pending> = self.pending.drain(..).collect();
        for (at, entry) in entries.iter().enumerate().rev().filter(|(_, entry)| is_signature(entry, auth_key)) {
            let left = entries[..=at].iter().filter(|e| is_signature(e, auth_key) && e.target_key == entry.target_key);
            let certain = open.iter().filter(|p| p.key == entry.target_key && p.signed == Some(true)).count();
            // More entries than certain signatures: those whose answer was lost were made after all.
            let unclear_too = left.count() > certain;
            let matching = |p: &Pending| p.key == entry.target_key && (p.signed == Some(true) || unclear_too);
            joined[at] = open.iter().rposition(matching).map(|index| open.remove(index).asked);
        }
        self.pending = open.into_iter().filter(|pending| pending.signed == Some(true)).collect();
        joined
    }

    /// The signatures that the device made and has no entry of.
    fn write_unlogged(&mut self, device: u32) -> io::Result<()> {
        if !self.pending.is_empty() && !self.told_unlogged {
            self.told_unlogged = true;
            tracing::warn!(
                "the device does not log signatures; turn it on: yubihsm-shell -a put-option --opt-name command-audit \
                 --opt-value 5601"
            );
        }
        for pending in self.pending.drain(..) {
            self.journal.add(&Line::Unlogged { device, asked: &pending.asked })?;
        }
        Ok(())
    }
}

impl DrainError {
    /// Was the authentication key replaced?
    pub(super) fn is_wrong_password(&self) -> bool {
        matches!(self, Self::Device(Fault::WrongPassword))
    }

    /// May this authentication key never read the log?
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Device(Fault::Device(DeviceError::InsufficientPermissions)))
    }
}

fn is_signature(entry: &Entry, auth_key: u16) -> bool {
    entry.command == Command::SignEcdsa as u8 && entry.done() && entry.session_key == auth_key
}

/// While the log cannot be taken: far more than a device holds, little enough to keep.
const MOST_PENDING: usize = 4096;

pub(super) fn id(object: u16) -> String {
    format!("{object:#06x}")
}
