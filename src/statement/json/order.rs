//! The order of keys: by UTF-16 code units (RFC 8785, section 3.2.3), told from UTF-8 without converting it.
//!
//! Byte by byte, UTF-8 sorts as code points do. UTF-16 differs in one thing: a surrogate pair (U+10000 and up, UTF-8
//! F0 to F4) begins with D800 to DBFF and so comes before U+E000 to U+FFFF (UTF-8 EE and EF). Only first bytes of a
//! sequence have such values, so it is enough to move EE and EF behind F4 where two keys first differ.

use std::cmp::Ordering;

/// A key of the object that is being read. Packed, so that it travels in registers.
#[derive(Clone, Copy)]
pub(super) struct Key {
    /// The first eight bytes, so that most comparisons touch nothing else.
    prefix: u64,
    text: Text,
    /// Its word on the tape.
    pub(super) index: u32,
}

/// Where a key's text is: in the input, or unescaped in the parser's own memory.
#[derive(Clone, Copy)]
pub(super) struct Text(u64);

impl Text {
    #[inline(always)]
    pub(super) fn new(start: u32, length: u32, escaped: bool) -> Self {
        Self(u64::from(start) << 32 | u64::from(escaped) << 31 | u64::from(length))
    }

    #[inline(always)]
    fn start(self) -> usize {
        (self.0 >> 32) as usize
    }

    #[inline(always)]
    fn length(self) -> usize {
        (self.0 & 0x7fff_ffff) as usize
    }

    #[inline(always)]
    fn memory<'t>(self, input: &'t [u8], unescaped: &'t [u8]) -> &'t [u8] {
        if self.0 >> 31 & 1 == 1 { unescaped } else { input }
    }
}

impl Key {
    #[inline(always)]
    pub(super) fn new(prefix: u64, text: Text, index: u32) -> Self {
        Self { prefix, text, index }
    }

    #[inline(always)]
    pub(super) fn compare(&self, other: &Self, input: &[u8], unescaped: &[u8]) -> Ordering {
        match self.prefix.cmp(&other.prefix) {
            Ordering::Equal => compare(self.text(input, unescaped), other.text(input, unescaped)),
            different => different,
        }
    }

    pub(super) fn text<'t>(&self, input: &'t [u8], unescaped: &'t [u8]) -> &'t [u8] {
        &self.text.memory(input, unescaped)[self.text.start()..self.text.start() + self.text.length()]
    }
}

/// Compares two UTF-8 strings by their UTF-16 code units.
pub(super) fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let blocks = left.chunks_exact(BLOCK).zip(right.chunks_exact(BLOCK));
    let same = blocks.take_while(|(left, right)| left == right).count() * BLOCK;
    let (left, right) = (&left[same..], &right[same..]);
    match left.iter().zip(right).position(|(left, right)| left != right) {
        Some(at) => rank(left[at]).cmp(&rank(right[at])),
        None => left.len().cmp(&right.len()),
    }
}

/// Orders of keys that were found before: the objects of a document have few shapes, and knowing one again is
/// cheaper than sorting.
#[derive(Default)]
pub(super) struct Shapes {
    shapes: Vec<Shape>,
    /// For each hash, one more than the place in `shapes`.
    slots: [u8; SLOTS],
}

/// Keys in the order they came, and the order they sort in. Their first eight bytes all differ, so these say all.
struct Shape {
    length: usize,
    prefixes: [u64; FEW],
    order: [u8; FEW],
}

impl Shapes {
    /// The canonical order of these keys, as places in the slice; `None` when there are too many, or when their first
    /// eight bytes do not decide.
    pub(super) fn order(&mut self, keys: &[Key]) -> Option<&[u8]> {
        if keys.len() > FEW {
            return None;
        }
        let hash =
            keys.first()?.prefix ^ keys[keys.len() / 2].prefix.rotate_left(21) ^ keys.last()?.prefix.rotate_left(42);
        let slot = &mut self.slots[(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as usize % SLOTS];
        let known = usize::from(*slot).checked_sub(1);
        let place = match known {
            Some(place) if self.shapes[place].is(keys) => place,
            Some(place) => {
                self.shapes[place] = Shape::of(keys)?;
                place
            }
            None => {
                self.shapes.push(Shape::of(keys)?);
                *slot = u8::try_from(self.shapes.len()).ok()?;
                self.shapes.len() - 1
            }
        };
        Some(&self.shapes[place].order[..keys.len()])
    }
}

impl Shape {
    #[cold]
    fn of(keys: &[Key]) -> Option<Self> {
        let mut order = [0; FEW];
        for (place, number) in order[..keys.len()].iter_mut().zip(0..) {
            *place = number;
        }
        let sorted = &mut order[..keys.len()];
        sorted.sort_unstable_by_key(|place| keys[usize::from(*place)].prefix);
        let prefix = |place: u8| keys[usize::from(place)].prefix;
        if sorted.windows(2).any(|pair| prefix(pair[0]) == prefix(pair[1])) {
            return None;
        }
        let mut prefixes = [0; FEW];
        for (prefix, key) in prefixes.iter_mut().zip(keys) {
            *prefix = key.prefix;
        }
        Some(Self { length: keys.len(), prefixes, order })
    }

    fn is(&self, keys: &[Key]) -> bool {
        self.length == keys.len() && self.prefixes.iter().zip(keys).all(|(prefix, key)| *prefix == key.prefix)
    }
}

/// The first eight bytes as a number that sorts as the key does: missing ones are zero, EE to F4 are ranked.
pub(super) fn prefix(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = text.len().min(8);
    bytes[..length].copy_from_slice(&text[..length]);
    ranked_prefix(bytes)
}

/// [`prefix`] of eight bytes.
#[inline(always)]
pub(super) fn ranked_prefix(bytes: [u8; 8]) -> u64 {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let prefix = u64::from_be_bytes(bytes);
    if prefix & HIGH == 0 { prefix } else { u64::from_be_bytes(bytes.map(rank)) }
}

#[inline(always)]
fn rank(byte: u8) -> u8 {
    match byte {
        0xee | 0xef => byte + 0x10,
        0xf0..=0xf4 => byte - 2,
        other => other,
    }
}

/// Most keys of a shape.
const FEW: usize = 24;

const SLOTS: usize = 32;

/// Bytes compared at once.
const BLOCK: usize = 32;
