//! Strings: finding their end eight bytes at a time, and what their escapes stand for.

use super::error::Problem;
use super::order;
use super::parse::Seen;

/// A scanned string: its content ends at `end`, where the closing quote is.
pub(super) struct Scanned {
    pub(super) end: usize,
    pub(super) escapes: Escapes,
}

/// The escapes of a string.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    None,
    /// All of them as RFC 8785, section 3.2.2.2 writes them.
    Canonical,
    Other,
}

/// A scanned key, and the number that it sorts by (see [`order::prefix`]) unless it has escapes.
pub(super) struct ScannedKey {
    pub(super) end: usize,
    pub(super) escapes: Escapes,
    pub(super) prefix: u64,
}

/// Scans the string whose content begins at `start`. `seen` collects what was passed over, so that the caller knows
/// afterwards whether all of it was ASCII.
#[inline(always)]
pub(super) fn scan(input: &[u8], start: usize, seen: &mut Seen) -> Result<Scanned, (Problem, usize)> {
    let end = find_special(input, start, seen);
    if input.get(end) == Some(&b'"') {
        return Ok(Scanned { end, escapes: Escapes::None });
    }
    scan_escaped(input, end, seen)
}

/// Like [`scan`], for a key.
#[inline(always)]
pub(super) fn scan_key(input: &[u8], start: usize, seen: &mut Seen) -> Result<ScannedKey, (Problem, usize)> {
    let Some(chunk) = input.get(start..).and_then(<[u8]>::first_chunk) else {
        let Scanned { end, escapes } = scan(input, start, seen)?;
        return Ok(ScannedKey { end, escapes, prefix: order::prefix(&input[start..end]) });
    };
    let word = u64::from_le_bytes(*chunk);
    seen.add(word);
    let special = special(word);
    let (end, kept) = if special == 0 {
        (find_special(input, start + 8, seen), word)
    } else {
        // The bytes below the first special one.
        (start + (special.trailing_zeros() / 8) as usize, word & (special ^ (special - 1)) >> 8)
    };
    if input.get(end) == Some(&b'"') {
        return Ok(ScannedKey { end, escapes: Escapes::None, prefix: order::ranked_prefix(kept.to_le_bytes()) });
    }
    let Scanned { end, escapes } = scan_escaped(input, end, seen)?;
    Ok(ScannedKey { end, escapes, prefix: 0 })
}

#[cold]
#[inline(never)]
fn scan_escaped(input: &[u8], start: usize, seen: &mut Seen) -> Result<Scanned, (Problem, usize)> {
    let mut at = start;
    let mut escapes = Escapes::None;
    loop {
        match input.get(at) {
            Some(b'"') => return Ok(Scanned { end: at, escapes }),
            Some(b'\\') => {
                let escape = Escape::read(input, at)?;
                if escapes == Escapes::None {
                    escapes = Escapes::Canonical;
                }
                if !escape.is_canonical(&input[at..at + escape.length]) {
                    escapes = Escapes::Other;
                }
                at += escape.length;
            }
            Some(_) => return Err((Problem::ControlCharacter, at)),
            None => return Err((Problem::Truncated, input.len())),
        }
        // Text with many line breaks has escapes close together; a look at one byte is cheaper than a word.
        if !matches!(input.get(at), Some(b'\\' | b'"')) {
            at = find_special(input, at, seen);
        }
    }
}

/// The first quote, backslash or control character at or after `at`, or the end of the input.
#[inline(always)]
fn find_special(input: &[u8], at: usize, seen: &mut Seen) -> usize {
    let mut rest = input.get(at..).unwrap_or_default();
    let mut words = 0;
    while let Some((chunk, behind)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*chunk);
        seen.add(word);
        let special = special(word);
        if special != 0 {
            return input.len() - rest.len() + (special.trailing_zeros() / 8) as usize;
        }
        rest = behind;
        words += 1;
        if words == LONG {
            rest = skip_plain_blocks(rest, seen);
        }
    }
    find_special_in_tail(input, input.len() - rest.len(), seen)
}

/// Passes blocks that hold no quote, backslash or control character: what makes long strings cheap, because the
/// compiler has the whole block looked at in a few vector instructions.
#[inline(never)]
fn skip_plain_blocks<'i>(mut rest: &'i [u8], seen: &mut Seen) -> &'i [u8] {
    while let Some((block, behind)) = rest.split_first_chunk::<64>() {
        let plain = block.iter().fold(true, |plain, byte| plain & (*byte >= 0x20) & (*byte != b'"') & (*byte != b'\\'));
        if !plain {
            break;
        }
        seen.add(u64::from(block.iter().fold(0, |all, byte| all | byte)));
        rest = behind;
    }
    rest
}

#[cold]
fn find_special_in_tail(input: &[u8], mut at: usize, seen: &mut Seen) -> usize {
    while let Some(byte) = input.get(at) {
        seen.add(u64::from(*byte));
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            break;
        }
        at += 1;
    }
    at
}

/// The high bit of each byte that is a quote, a backslash or below 0x20. Exact up to and including the first one:
/// a borrow can only come out of a byte that is a hit itself.
#[inline(always)]
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Flipping this bit puts the quote, 0x22, at 0x20, and leaves what is below 0x20 there.
    let control_or_quote = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    (control_or_quote | backslash) & !word & (ONES * 0x80)
}

/// One escape sequence (RFC 8259, section 7); a surrogate pair is one.
struct Escape {
    character: char,
    length: usize,
}

impl Escape {
    fn read(input: &[u8], at: usize) -> Result<Self, (Problem, usize)> {
        let character = match input.get(at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return Self::read_unicode(input, at),
            Some(_) => return Err((Problem::Escape, at)),
            None => return Err((Problem::Truncated, input.len())),
        };
        Ok(Self { character, length: 2 })
    }

    fn read_unicode(input: &[u8], at: usize) -> Result<Self, (Problem, usize)> {
        let first = hex4(input, at + 2).ok_or((Problem::Escape, at))?;
        if let Some(character) = char::from_u32(first) {
            return Ok(Self { character, length: 6 });
        }
        let lone = (Problem::LoneSurrogate, at);
        if first >= 0xdc00 || input.get(at + 6..at + 8) != Some(b"\\u") {
            return Err(lone);
        }
        let second = hex4(input, at + 8).ok_or((Problem::Escape, at + 6))?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(lone);
        }
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(code).map(|character| Self { character, length: 12 }).ok_or(lone)
    }

    fn is_canonical(&self, text: &[u8]) -> bool {
        match self.character {
            '"' | '\\' | '\u{8}' | '\u{c}' | '\n' | '\r' | '\t' => self.length == 2,
            '\0'..'\u{20}' => text[2..].iter().all(|byte| !byte.is_ascii_uppercase()),
            _ => false,
        }
    }
}

/// Appends what the content of a scanned string stands for, in UTF-8.
pub(super) fn unescape(content: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\\', &content[at..]) {
        out.extend_from_slice(&content[at..at + next]);
        at += next;
        // The scan has been over it; were it wrong all the same, the rest is copied as it stands.
        let Ok(escape) = Escape::read(content, at) else { break };
        out.extend_from_slice(escape.character.encode_utf8(&mut [0; 4]).as_bytes());
        at += escape.length;
    }
    out.extend_from_slice(&content[at..]);
}

/// Appends the content of a scanned string with its escapes as RFC 8785, section 3.2.2.2 writes them.
pub(in crate::statement) fn rewrite(content: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\\', &content[at..]) {
        out.extend_from_slice(&content[at..at + next]);
        at += next;
        let Ok(escape) = Escape::read(content, at) else { break };
        write_escaped(escape.character, out);
        at += escape.length;
    }
    out.extend_from_slice(&content[at..]);
}

/// Appends one character as RFC 8785, section 3.2.2.2 writes it inside a string.
pub(in crate::statement) fn write_escaped(character: char, out: &mut Vec<u8>) {
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\0'..'\u{20}' => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let code = character as usize;
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[code >> 4], HEX[code & 15]]);
            return;
        }
        _ => {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn hex4(input: &[u8], at: usize) -> Option<u32> {
    let digits: &[u8; 4] = input.get(at..)?.first_chunk()?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// Words after which a string counts as long.
const LONG: u32 = 8;
