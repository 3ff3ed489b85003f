//! What a crash can leave at the end of the log, and what is done about it.
//!
//! Every record that anyone was told about was synced, so only the last, unsynced batch can be damaged: cut off, with
//! a hole in it where a page did not reach the disk, or followed by zeros. From its first byte that is not a whole
//! line of ours it is moved to a file beside the log, so that nothing is lost and everything in the log reads.

use std::path::PathBuf;

use serde::de::IgnoredAny;

/// What opening the log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The `seq` that the next record gets.
    pub next_seq: u64,
    /// The damaged end that was moved away, if there was one.
    pub torn: Option<Torn>,
}

/// A damaged end of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Its length, zeros at the end not counted.
    pub bytes: u64,
    /// Where it is kept.
    pub kept_in: PathBuf,
}

/// What is in the last part of a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The last whole line ends here.
    pub(super) whole: usize,
    /// What is damaged ends here; zeros alone follow.
    pub(super) damaged: usize,
    /// Of the last whole line; 0 when there is none.
    pub(super) last_seq: u64,
}

/// Reads `tail`, the last [`WINDOW`] bytes of a log or, when `complete`, all of it.
///
/// # Errors
/// When this is no log of ours, in words.
pub(super) fn scan(tail: &[u8], complete: bool) -> Result<Found, &'static str> {
    let damaged = tail.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let text = &tail[..damaged];
    let mut whole = if complete {
        if !could_begin_a_line(text) {
            return Err("it begins with something else");
        }
        0
    } else {
        memchr::memchr(b'\n', text).ok_or("its end has no lines")? + 1
    };
    let first = whole;
    let mut last_seq = 0;
    for end in memchr::memchr_iter(b'\n', text) {
        if end < first {
            continue;
        }
        match seq_of(&text[whole..end]) {
            Some(seq) => last_seq = seq,
            None => break,
        }
        whole = end + 1;
    }
    if whole == first && !complete {
        return Err("its end has no line that can be read");
    }
    Ok(Found { whole, damaged, last_seq })
}

/// The `seq` of a line, if it is one of ours: one JSON object that begins with it.
fn seq_of(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix(PREFIX)?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    text[PREFIX.len()..][..digits].parse().ok()
}

fn could_begin_a_line(text: &[u8]) -> bool {
    let compared = text.len().min(PREFIX.len());
    text[..compared] == PREFIX[..compared] && text.get(PREFIX.len()).is_none_or(u8::is_ascii_digit)
}

pub(super) const PREFIX: &[u8] = b"{\"seq\":";
/// More than the largest batch that can be unsynced, the one that failed and the one that waited behind it included.
pub(super) const WINDOW: u64 = 4 * super::MAX_PENDING_BYTES as u64;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(lines: u64) -> Vec<u8> {
        (1..=lines)
            .flat_map(|seq| format!("{{\"seq\":{seq},\"kind\":\"event\",\"é\":[{{}},\"}}\"]}}\n").into_bytes())
            .collect()
    }

    #[test]
    fn each_way_a_log_can_end_is_told_apart() {
        let three = log(3);
        let with = |tail: &[u8]| [&three, tail].concat();
        let zeros = [0; 4096];
        for (case, bytes, torn, last_seq) in [
            ("empty", vec![], 0, 0),
            ("zeros only", zeros.to_vec(), 0, 0),
            ("whole", three.clone(), 0, 3),
            ("whole and zeros", with(&zeros), 0, 3),
            ("cut in a line", with(b"{\"seq\":4,\"ki"), 12, 3),
            ("cut in a line, then zeros", with(&[b"{\"seq\":4,\"ki".as_slice(), &zeros].concat()), 12, 3),
            ("whole but for its line feed", with(b"{\"seq\":4}"), 9, 3),
            (
                "a hole in the last batch",
                with(&[b"{\"seq\":4}\n".as_slice(), &zeros, b"5}\n{\"seq\":6}\n"].concat()),
                4096 + 13,
                4,
            ),
            ("an empty line", with(b"\n"), 1, 3),
            ("no object", with(b"null\n"), 5, 3),
            ("no seq", with(b"{\"kind\":4}\n"), 11, 3),
            ("not JSON", with(b"{\"seq\":4,}\n"), 11, 3),
            ("two values", with(b"{\"seq\":4}{}\n"), 12, 3),
            ("not UTF-8", with(b"{\"seq\":4,\"a\":\"\xff\"}\n"), 18, 3),
            ("the very first line cut", b"{\"se".to_vec(), 4, 0),
        ] {
            let found = scan(&bytes, true).unwrap();
            assert_eq!((found.damaged - found.whole, found.last_seq), (torn, last_seq), "{case}");
        }
    }

    #[test]
    fn a_file_that_is_no_log_is_left_alone() {
        for (case, bytes, complete) in [
            ("text", b"root:x:0:0:root:/root:/bin/bash\n".as_slice(), true),
            ("other JSON lines", b"{\"level\":\"info\"}\n", true),
            ("nearly", b"{\"seq\":\"1\"}\n", true),
            ("a long line", b"aaaaaaaa", false),
            ("a long text", b"aaaa\nbbbb\ncccc\n", false),
            ("zeros", &[0; 100], false),
        ] {
            assert!(scan(bytes, complete).is_err(), "{case}");
        }
    }

    #[test]
    fn a_window_into_a_long_log_begins_after_its_first_line_feed() {
        let bytes = log(9);
        let found = scan(&bytes[10..], false).unwrap();
        assert_eq!(found, Found { whole: bytes.len() - 10, damaged: bytes.len() - 10, last_seq: 9 });
    }

    #[test]
    fn cut_at_every_byte_all_whole_lines_before_the_cut_are_kept() {
        let bytes = log(12);
        for cut in 0..=bytes.len() {
            let found = scan(&bytes[..cut], true).unwrap();
            let lines = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(found.last_seq, lines as u64, "cut at {cut}");
            assert_eq!(found.whole, bytes[..cut].iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1));
            assert_eq!(found.damaged, cut);
        }
    }

    proptest! {
        #[test]
        fn whatever_follows_the_synced_lines_they_are_kept(synced in 0u64..5, rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let kept = log(synced);
            let mut bytes = kept.clone();
            bytes.extend(&rest);
            match scan(&bytes, true) {
                Ok(found) => {
                    prop_assert!(found.whole >= kept.len());
                    prop_assert!(found.last_seq >= synced);
                    prop_assert!(found.whole <= found.damaged || bytes[found.damaged..].iter().all(|&b| b == 0));
                }
                Err(_) => prop_assert_eq!(synced, 0),
            }
        }
    }
}
