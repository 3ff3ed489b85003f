//! From text to tape, in one pass and without recursion.

mod path;

use std::cmp::Ordering;

use super::error::{Found, Problem};
use super::order::{self, Key, Shapes, Text};
use super::string::{self, Escapes};
use super::tape::{Member, Tag, Tape, Word};
use super::{JsonLimits, MAX_DEPTH, MAX_INPUT, MAX_VALUES, number};

/// Reads one JSON text and everything that must be known to write it canonically.
pub(super) fn parse(input: &[u8], limits: &JsonLimits) -> Result<Tape, Found> {
    if input.len() > MAX_INPUT {
        return Err(Found { problem: Problem::Length(MAX_INPUT), offset: 0, path: "$".to_owned() });
    }
    let mut parser = Parser::new(input, limits);
    let wrong = parser.document().err();
    // A text that is not UTF-8 is that first of all: what else seems wrong with it may come of that.
    if (wrong.is_some() || !parser.seen.is_ascii())
        && let Err(encoding) = std::str::from_utf8(input)
        && wrong.is_none_or(|wrong| encoding.valid_up_to() <= wrong.1)
    {
        return Err(Found { problem: Problem::Encoding, offset: encoding.valid_up_to(), path: parser.path(false) });
    }
    match wrong {
        Some((problem, offset)) => Err(Found { path: parser.path(problem.is_between_members()), problem, offset }),
        None => Ok(parser.tape),
    }
}

/// The methods take and return offsets instead of keeping one here, so that it stays in a register.
struct Parser<'i> {
    input: &'i [u8],
    tape: Tape,
    /// What the current value is in.
    around: Around,
    /// The arrays and objects whose closing bracket has not come yet, outermost first.
    open: Vec<Open>,
    /// The keys so far of every object that is open.
    keys: Vec<Key>,
    shapes: Shapes,
    /// Text of keys with escapes, unescaped once.
    unescaped: Vec<u8>,
    /// How often the text has differed from canonical form so far.
    differences: u32,
    seen: Seen,
    max_depth: u16,
    max_words: usize,
}

/// What the next value is in.
#[derive(Clone, Copy)]
struct Around {
    kind: Kind,
    /// Of an object: its keys are in order so far.
    sorted: bool,
    /// Of an object: where its keys begin in [`Parser::keys`].
    keys: u32,
}

/// An array or object whose closing bracket has not come yet.
#[derive(Clone, Copy)]
struct Open {
    /// Its first word.
    index: u32,
    /// [`Parser::differences`] before it.
    differences: u32,
    /// What it is in.
    around: Around,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Document,
    Array,
    Object,
}

/// All bytes of strings, or-ed together in whatever lanes they came.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen(u64);

type Step<T> = Result<T, (Problem, usize)>;

impl<'i> Parser<'i> {
    fn new(input: &'i [u8], limits: &JsonLimits) -> Self {
        // A word for every eight bytes is enough for bills of material in compact form; long texts grow theirs, because
        // one long string needs a single word.
        let words = Vec::with_capacity((input.len() / 8).min(1 << 18) + 16);
        Self {
            input,
            tape: Tape { words, orders: Vec::new() },
            around: Around { kind: Kind::Document, sorted: true, keys: 0 },
            open: Vec::with_capacity(16),
            keys: Vec::with_capacity(64),
            shapes: Shapes::default(),
            unescaped: Vec::new(),
            differences: 0,
            seen: Seen::default(),
            max_depth: limits.max_depth.min(MAX_DEPTH),
            max_words: limits.max_values.min(MAX_VALUES) as usize,
        }
    }

    fn document(&mut self) -> Step<()> {
        if self.input.starts_with(b"\xef\xbb\xbf") {
            return Err((Problem::ByteOrderMark, 0));
        }
        let (mut at, mut byte) = self.next(0);
        if at == self.input.len() {
            return Err((Problem::Empty, at));
        }
        'item: loop {
            if self.around.kind == Kind::Object {
                (at, byte) = self.key(at, byte)?;
            }
            match byte {
                b'"' => at = self.string(at)?,
                b'{' => {
                    (at, byte) = self.open(Kind::Object, at)?;
                    if byte != b'}' {
                        continue 'item;
                    }
                    at = self.close_object(at)?;
                }
                b'[' => {
                    (at, byte) = self.open(Kind::Array, at)?;
                    if byte != b']' {
                        continue 'item;
                    }
                    at = self.close_array(at);
                }
                b'-' | b'0'..=b'9' => at = self.number(at)?,
                _ => at = self.literal(at, byte)?,
            }
            loop {
                (at, byte) = self.next(at);
                match (byte, self.around.kind) {
                    (b',', Kind::Object | Kind::Array) => {
                        let comma = at;
                        (at, byte) = self.next(at + 1);
                        if matches!(byte, b'}' | b']') {
                            return Err((Problem::TrailingComma, comma));
                        }
                        self.check_values(at)?;
                        continue 'item;
                    }
                    (b'}', Kind::Object) => at = self.close_object(at)?,
                    (b']', Kind::Array) => at = self.close_array(at),
                    (_, Kind::Document) if at == self.input.len() => return Ok(()),
                    (_, Kind::Document) => return Err((Problem::Trailing, at)),
                    _ => return Err(self.unexpected(Problem::ExpectedComma, at)),
                }
            }
        }
    }

    /// Passes a key and its colon, to the first byte of the value.
    #[inline(always)]
    fn key(&mut self, at: usize, byte: u8) -> Step<(usize, u8)> {
        if byte != b'"' {
            return Err(self.unexpected(Problem::ExpectedKey, at));
        }
        let start = at + 1;
        let string::ScannedKey { end, escapes, prefix } = string::scan_key(self.input, start, &mut self.seen)?;
        let index = narrow(self.tape.words.len());
        self.push_string(start, end, escapes);
        let (prefix, text) = match escapes {
            Escapes::None => (prefix, Text::new(narrow(start), narrow(end - start), false)),
            _ => self.unescape_key(start, end),
        };
        let key = Key::new(prefix, text, index);
        if self.around.sorted
            && let Some(before) = self.keys[self.around.keys as usize..].last()
        {
            match before.compare(&key, self.input, &self.unescaped) {
                Ordering::Less => {}
                Ordering::Equal => {
                    self.keys.push(key);
                    return Err((Problem::DuplicateKey, at));
                }
                Ordering::Greater => self.around.sorted = false,
            }
        }
        self.keys.push(key);
        let mut colon = end + 1;
        if self.peek(colon) != b':' {
            let (later, byte) = self.next(colon);
            if byte != b':' {
                return Err(self.unexpected(Problem::ExpectedColon, later));
            }
            colon = later;
        }
        Ok(self.next(colon + 1))
    }

    #[cold]
    fn unescape_key(&mut self, start: usize, end: usize) -> (u64, Text) {
        let from = self.unescaped.len();
        string::unescape(&self.input[start..end], &mut self.unescaped);
        let text = Text::new(narrow(from), narrow(self.unescaped.len() - from), true);
        (order::prefix(&self.unescaped[from..]), text)
    }

    #[inline(always)]
    fn string(&mut self, at: usize) -> Step<usize> {
        let scanned = string::scan(self.input, at + 1, &mut self.seen)?;
        self.push_string(at + 1, scanned.end, scanned.escapes);
        Ok(scanned.end + 1)
    }

    #[inline(always)]
    fn push_string(&mut self, start: usize, end: usize, escapes: Escapes) {
        let tag = match escapes {
            Escapes::None => Tag::String,
            Escapes::Canonical => Tag::StringEscaped,
            Escapes::Other => {
                self.differences += 1;
                Tag::StringOther
            }
        };
        self.push(tag, end - start, start);
    }

    fn number(&mut self, at: usize) -> Step<usize> {
        let scanned = number::scan(self.input, at)?;
        let tag = if scanned.canonical { Tag::Number } else { Tag::NumberOther };
        self.differences += u32::from(!scanned.canonical);
        self.push(tag, scanned.end - at, at);
        Ok(scanned.end)
    }

    fn literal(&mut self, at: usize, byte: u8) -> Step<usize> {
        let (text, tag): (&[u8], _) = match byte {
            b't' => (b"true", Tag::True),
            b'f' => (b"false", Tag::False),
            b'n' => (b"null", Tag::Null),
            _ => return Err(self.unexpected(Problem::ExpectedValue, at)),
        };
        let rest = &self.input[at..];
        if rest.starts_with(text) {
            self.push(tag, text.len(), at);
            Ok(at + text.len())
        } else if text.starts_with(rest) {
            Err((Problem::Truncated, self.input.len()))
        } else {
            Err((Problem::ExpectedValue, at))
        }
    }

    /// Goes into an array or object, to the first byte of its content.
    #[inline(always)]
    fn open(&mut self, kind: Kind, at: usize) -> Step<(usize, u8)> {
        if self.open.len() >= usize::from(self.max_depth) {
            return Err((Problem::Depth(self.max_depth), at));
        }
        self.check_values(at)?;
        let index = narrow(self.tape.words.len());
        self.open.push(Open { index, differences: self.differences, around: self.around });
        self.around = Around { kind, sorted: true, keys: narrow(self.keys.len()) };
        // Both are written when it closes.
        self.push(Tag::Null, 0, at);
        self.push(Tag::Null, 0, at);
        Ok(self.next(at + 1))
    }

    #[inline(always)]
    fn close_array(&mut self, at: usize) -> usize {
        let open = self.open.pop().expect("an array is open");
        let verbatim = self.differences == open.differences;
        self.close(open, if verbatim { Tag::ArrayVerbatim } else { Tag::Array }, 0, at)
    }

    #[inline(always)]
    fn close_object(&mut self, at: usize) -> Step<usize> {
        let keys = self.around.keys as usize;
        let (sorted, order) = if self.around.sorted { (true, 0) } else { (false, self.sort(keys)?) };
        let open = self.open.pop().expect("an object is open");
        let tag = if !sorted {
            self.differences += 1;
            Tag::ObjectUnsorted
        } else if self.differences == open.differences {
            Tag::ObjectVerbatim
        } else {
            Tag::Object
        };
        self.keys.truncate(keys);
        Ok(self.close(open, tag, order, at))
    }

    /// Notes the canonical order of the members whose keys are at `from` and after; returns where.
    fn sort(&mut self, from: usize) -> Step<u32> {
        let Self { input, tape, unescaped, keys, shapes, .. } = self;
        let members = &mut keys[from..];
        let place = narrow(tape.orders.len());
        tape.orders.push(Member::count(narrow(members.len())));
        if let Some(order) = shapes.order(members) {
            for next in order {
                tape.orders.push(Member::new(members[usize::from(*next)].index, &tape.words, input));
            }
            return Ok(place);
        }
        members.sort_unstable_by(|left, right| left.compare(right, input, unescaped));
        let same = |pair: &&[Key]| pair[0].compare(&pair[1], input, unescaped) == Ordering::Equal;
        if let Some(&[one, other]) = members.windows(2).find(same) {
            let later = if one.index > other.index { one } else { other };
            keys.push(later);
            return Err((Problem::DuplicateKey, tape.words[later.index as usize].wide() as usize - 1));
        }
        for key in members {
            tape.orders.push(Member::new(key.index, &tape.words, input));
        }
        Ok(place)
    }

    #[inline(always)]
    fn close(&mut self, open: Open, tag: Tag, order: u32, at: usize) -> usize {
        let next = narrow(self.tape.words.len());
        if let [first, second, ..] = &mut self.tape.words[open.index as usize..] {
            *first = Word::new(tag, order, first.wide());
            *second = Word::closing(narrow(at + 1), next);
        }
        self.around = open.around;
        at + 1
    }

    #[inline(always)]
    fn push(&mut self, tag: Tag, length: usize, offset: usize) {
        self.tape.words.push(Word::new(tag, narrow(length), narrow(offset)));
    }

    #[inline(always)]
    fn check_values(&self, at: usize) -> Step<()> {
        if self.tape.words.len() > self.max_words {
            return Err((Problem::Values(narrow(self.max_words)), at));
        }
        Ok(())
    }

    /// The byte at `at`; NUL, which JSON has no use for, at the end.
    #[inline(always)]
    fn peek(&self, at: usize) -> u8 {
        self.input.get(at).copied().unwrap_or(0)
    }

    /// Where the next token begins, and its first byte.
    #[inline(always)]
    fn next(&mut self, at: usize) -> (usize, u8) {
        let byte = self.peek(at);
        if byte > b' ' {
            return (at, byte);
        }
        let at = self.skip_whitespace(at);
        (at, self.peek(at))
    }

    /// Line breaks and indentation: a run of spaces is passed eight at a time.
    fn skip_whitespace(&mut self, mut at: usize) -> usize {
        let start = at;
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.input.get(at) {
            at += 1;
            while let Some(chunk) = self.input.get(at..).and_then(<[u8]>::first_chunk) {
                let others = u64::from_le_bytes(*chunk) ^ 0x2020_2020_2020_2020;
                at += (others.trailing_zeros() / 8) as usize;
                if others != 0 {
                    break;
                }
            }
        }
        self.differences += u32::from(at > start);
        at
    }

    #[cold]
    fn unexpected(&self, problem: Problem, at: usize) -> (Problem, usize) {
        (if at < self.input.len() { problem } else { Problem::Truncated }, at)
    }
}

impl Seen {
    #[inline(always)]
    pub(super) fn add(&mut self, bytes: u64) {
        self.0 |= bytes;
    }

    fn is_ascii(self) -> bool {
        self.0 & 0x8080_8080_8080_8080 == 0
    }
}

/// Offsets, lengths and indices fit: the input is shorter than [`MAX_INPUT`] and no byte makes more than one of each.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)]
fn narrow(number: usize) -> u32 {
    debug_assert!(number <= u32::MAX as usize);
    number as u32
}
