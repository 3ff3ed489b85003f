//! An entry of the device's log and the chain it stands in.

#![forbid(unsafe_code)]

use aws_lc_rs::digest::{SHA256, digest};

/// One command that the device carried out or refused, or a start of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Counts from 1 since the last factory reset, modulo 65,536.
    pub(super) number: u16,
    pub(super) command: u8,
    pub(super) length: u16,
    /// The authentication key of the session.
    pub(super) session_key: u16,
    pub(super) target_key: u16,
    pub(super) second_key: u16,
    /// The command with its top bit set when it was carried out.
    pub(super) result: u8,
    /// Milliseconds since the device started.
    pub(super) tick: u32,
    /// First half of SHA-256 over this entry and the digest before it.
    pub(super) digest: [u8; 16],
    raw: [u8; 16],
}

/// The answer to GET LOG ENTRIES.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    /// Starts of the device that found no room.
    pub(super) unlogged_boots: u16,
    /// Authentications that found no room.
    pub(super) unlogged_authentications: u16,
    pub(super) entries: Vec<Entry>,
}

impl Entries {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (&[b, o, a, u, count], rest) = body.split_first_chunk()?;
        let (entries, []) = rest.as_chunks::<32>() else { return None };
        (entries.len() == usize::from(count)).then(|| Self {
            unlogged_boots: u16::from_be_bytes([b, o]),
            unlogged_authentications: u16::from_be_bytes([a, u]),
            entries: entries.iter().map(Entry::read).collect(),
        })
    }
}

impl Entry {
    pub(super) fn read(bytes: &[u8; 32]) -> Self {
        let (raw, digest) = bytes.split_at(16);
        let half = |part: &[u8]| {
            let mut half = [0; 16];
            half.copy_from_slice(part);
            half
        };
        let (raw, digest) = (half(raw), half(digest));
        let [n, o, command, l, e, s, k, t, a, c, d, result, w, x, y, z] = raw;
        let pair = |high, low| u16::from_be_bytes([high, low]);
        Self {
            number: pair(n, o),
            command,
            length: pair(l, e),
            session_key: pair(s, k),
            target_key: pair(t, a),
            second_key: pair(c, d),
            result,
            tick: u32::from_be_bytes([w, x, y, z]),
            digest,
            raw,
        }
    }

    /// Is this the entry right after the one with that number and digest?
    pub(super) fn follows(&self, number: u16, before: &[u8; 16]) -> bool {
        let chained = digest(&SHA256, &[self.raw, *before].concat());
        self.number == number.wrapping_add(1) && chained.as_ref()[..16] == self.digest
    }

    /// Was the command carried out?
    pub(super) fn done(&self) -> bool {
        self.result == self.command | 0x80
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(fields: &str, digest: &str) -> Entry {
        let bytes: Vec<u8> =
            (0..32).map(|i| u8::from_str_radix(&format!("{fields}{digest}")[i * 2..i * 2 + 2], 16).unwrap()).collect();
        Entry::read(&bytes.try_into().unwrap())
    }

    /// Two entries that Yubico's manual shows for GET LOG ENTRIES: 46 and 47.
    #[test]
    fn the_chain_of_a_real_device_is_followed() {
        let first = entry("002e4b00ea0001cf94997ecb00051f6d", "415f51f1f035a1b713e730e4464e4033");
        let second = entry("002f4c004d0001aff7ffffcc00055de2", "5496a60d478c2b9c801d8d32ca66b554");
        assert_eq!((second.number, second.command, second.target_key, second.tick), (47, 0x4c, 0xaff7, 351_714));
        assert!(second.done());
        assert!(second.follows(first.number, &first.digest));
        assert!(!second.follows(first.number - 1, &first.digest), "another number");
        assert!(!second.follows(first.number, &second.digest), "another digest");
    }

    #[test]
    fn an_answer_of_a_wrong_length_is_none() {
        assert_eq!(Entries::read(&[0, 0, 0, 0, 0]), Some(Entries::default()));
        for wrong in [&[0, 0, 0, 0][..], &[0, 0, 0, 0, 1], &[0; 38], &[0, 0, 0, 0, 2, 0]] {
            assert_eq!(Entries::read(wrong), None, "{wrong:?}");
        }
    }
}
