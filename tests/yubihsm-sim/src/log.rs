//! The log of the device: 62 entries, each chained to the one before.

use aws_lc_rs::digest::{SHA256, digest};

/// Entries that were not taken yet, and the end of the chain.
pub(crate) struct Log {
    entries: Vec<[u8; 32]>,
    number: u16,
    digest: [u8; 16],
    /// What found no room: starts and authentications.
    pub(crate) unlogged: [u16; 2],
}

impl Log {
    /// As after a factory reset: the entry that begins the chain.
    pub(crate) fn new(begin: [u8; 16]) -> Self {
        let mut log = Self { entries: Vec::new(), number: 0, digest: begin, unlogged: [0; 2] };
        log.push(0xff, 0xffff, [0xffff; 3], 0xff, u32::MAX);
        log
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= CAPACITY
    }

    pub(crate) fn used(&self) -> u8 {
        u8::try_from(self.entries.len()).unwrap_or(u8::MAX)
    }

    /// `keys`: of the session, target, second. The oldest entry goes when there is no room.
    pub(crate) fn push(&mut self, command: u8, length: u16, keys: [u16; 3], result: u8, tick: u32) {
        self.number = self.number.wrapping_add(1);
        let mut entry = self.number.to_be_bytes().to_vec();
        entry.push(command);
        entry.extend_from_slice(&length.to_be_bytes());
        keys.iter().for_each(|key| entry.extend_from_slice(&key.to_be_bytes()));
        entry.push(result);
        entry.extend_from_slice(&tick.to_be_bytes());
        let chained = digest(&SHA256, &[&entry[..], &self.digest[..]].concat());
        self.digest.copy_from_slice(&chained.as_ref()[..16]);
        entry.extend_from_slice(&self.digest);
        if self.is_full() {
            self.entries.remove(0);
        }
        let mut whole = [0; 32];
        whole.copy_from_slice(&entry);
        self.entries.push(whole);
    }

    /// The answer to GET LOG ENTRIES.
    pub(crate) fn read(&self) -> Vec<u8> {
        let mut answer = self.unlogged[0].to_be_bytes().to_vec();
        answer.extend_from_slice(&self.unlogged[1].to_be_bytes());
        answer.push(self.used());
        self.entries.iter().for_each(|entry| answer.extend_from_slice(entry));
        answer
    }

    /// SET LOG INDEX: forgets everything up to this entry.
    pub(crate) fn forget(&mut self, number: u16) {
        let taken = self.entries.iter().position(|entry| entry[..2] == number.to_be_bytes());
        self.entries.drain(..taken.map_or(0, |at| at + 1));
        self.unlogged = [0; 2];
    }

    /// Spoils the digest of the last entry, as a man in the middle might.
    pub(crate) fn tamper(&mut self) {
        if let Some(last) = self.entries.last_mut() {
            last[31] ^= 1;
        }
    }
}

pub(crate) const CAPACITY: usize = 62;
