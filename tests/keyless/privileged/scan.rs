//! A search of a process's whole writable memory.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};

/// Calls `look` with each piece of a process's writable memory.
pub(super) fn memory_of(process: u32, mut look: impl FnMut(&[u8])) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = File::open(format!("/proc/{process}/mem")).expect("root may read another's memory");
    let mut total = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        // The stack's guard and pages that were never touched cannot be read or hold nothing; what can be, is.
        let mut piece = vec![0; usize::try_from(end - start).unwrap()];
        let mut read = 0;
        while read < piece.len() {
            match memory.read_at(&mut piece[read..], start + read as u64) {
                Ok(more @ 1..) => read += more,
                _ => break,
            }
        }
        total += read as u64;
        look(&piece[..read]);
    }
    total
}

/// How often each of these is in a process's memory.
pub(super) fn count(process: u32, needles: &[&[u8]]) -> Vec<usize> {
    let mut counts = vec![0; needles.len()];
    memory_of(process, |piece| {
        for (needle, count) in needles.iter().zip(&mut counts) {
            *count += memchr::memmem::find_iter(piece, needle).count();
        }
    });
    counts
}

/// The public points (65 bytes) whose private scalar is in a process's memory: as 32 bytes, most or least significant
/// first, at any multiple of eight, as heap blocks and limbs lie.
pub(super) fn private_keys(process: u32, points: &HashSet<Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut found, mut tried) = (Vec::new(), HashSet::new());
    memory_of(process, |piece| {
        for window in piece.windows(32).step_by(8).filter(|window| could_be_random(window)) {
            let mut scalar: [u8; 32] = window.try_into().unwrap();
            if !tried.insert(scalar) {
                continue;
            }
            for _ in 0..2 {
                if let Some(point) = point_of(&scalar).filter(|point| points.contains(point)) {
                    found.push(point);
                }
                scalar.reverse();
            }
        }
    });
    println!("{} scalars tried", tried.len());
    found
}

/// The public point of a scalar; none when it is none.
pub(super) fn point_of(scalar: &[u8; 32]) -> Option<Vec<u8>> {
    let key = PrivateKey::from_private_key(&ECDH_P256, scalar).ok()?;
    Some(key.compute_public_key().ok()?.as_ref().to_vec())
}

/// Of 32 random bytes, all but one in a million have 23 different values, and four with and four without the top bit.
/// Text, pointers and counters have not.
fn could_be_random(window: &[u8]) -> bool {
    let mut seen = [0_u64; 4];
    window.iter().for_each(|&byte| seen[usize::from(byte >> 6)] |= 1 << (byte & 63));
    let different: u32 = seen.iter().map(|bits| bits.count_ones()).sum();
    let high = window.iter().filter(|&&byte| byte >= 0x80).count();
    different >= 23 && (4..=28).contains(&high)
}
