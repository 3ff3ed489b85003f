//! What is wrong with a JSON text, and where.

use std::fmt;

/// The first thing that is wrong with a JSON text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column} (byte {offset}), in {path}: {problem}")]
pub struct JsonError {
    /// What is wrong.
    pub problem: Problem,
    /// Bytes before it.
    pub offset: usize,
    /// Its line, from 1.
    pub line: usize,
    /// Its byte within the line, from 1.
    pub column: usize,
    /// The value it is in, as `$.predicate.components[3]`; long keys and deep paths are cut.
    pub path: String,
}

/// A way in which a text is not the JSON that is accepted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No value at all.
    #[error("the document is empty; it must hold one JSON value")]
    Empty,
    /// The text stops inside a value.
    #[error("the document ends too early")]
    Truncated,
    /// Something follows the value.
    #[error("something follows the JSON value; nothing but whitespace may")]
    Trailing,
    /// U+FEFF in front.
    #[error("the document begins with a byte order mark; send UTF-8 without one")]
    ByteOrderMark,
    /// Not UTF-8.
    #[error("not valid UTF-8")]
    Encoding,
    /// Another byte than a value can begin with.
    #[error("expected a value")]
    ExpectedValue,
    /// No quote where a key must begin.
    #[error("expected a key in double quotes")]
    ExpectedKey,
    /// No `:` after a key.
    #[error("expected `:` after the key")]
    ExpectedColon,
    /// Neither `,` nor the closing bracket.
    #[error("expected `,` or the closing bracket")]
    ExpectedComma,
    /// A comma with nothing behind it.
    #[error("a comma before the closing bracket; remove it")]
    TrailingComma,
    /// A byte below 0x20 in a string.
    #[error("a control character in a string; it must be escaped")]
    ControlCharacter,
    /// A backslash and something that RFC 8259 does not list.
    #[error("unknown escape; after a backslash comes one of \" \\ / b f n r t, or u and four hex digits")]
    Escape,
    /// Half of a surrogate pair.
    #[error("a \\u escape that is half of a surrogate pair; it stands for no character")]
    LoneSurrogate,
    /// Not a number as RFC 8259 has it.
    #[error("malformed number; leading zeros, a leading `+`, and a `.` without digits on both sides are not JSON")]
    Number,
    /// Beyond ±(2^53−1).
    #[error("an integer beyond 9007199254740991 either way, which RFC 8785 would round; send it as a string")]
    IntegerRange,
    /// More digits than a double keeps, or none of them.
    #[error("a number that a double does not keep, so that RFC 8785 would change it; round it, or send it as a string")]
    NumberLoss,
    /// A key that the object has already.
    #[error("this key is in the object twice")]
    DuplicateKey,
    /// Nested deeper than the limit.
    #[error("nested deeper than {0} arrays and objects")]
    Depth(u16),
    /// More keys and values than the limit.
    #[error("more than {0} keys and values")]
    Values(u32),
    /// More bytes than can be indexed.
    #[error("longer than {0} bytes")]
    Length(usize),
}

impl Problem {
    /// Whether it is about what an object or array goes on with, rather than about one of its values.
    pub(super) fn is_between_members(self) -> bool {
        matches!(self, Self::ExpectedKey | Self::ExpectedComma | Self::TrailingComma)
    }
}

/// A problem and its offset, as the parser finds it.
pub(super) struct Found {
    pub(super) problem: Problem,
    pub(super) offset: usize,
    pub(super) path: String,
}

impl Found {
    pub(super) fn locate(self, input: &[u8]) -> JsonError {
        let before = &input[..self.offset.min(input.len())];
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
        JsonError {
            problem: self.problem,
            offset: self.offset,
            line: memchr::memchr_iter(b'\n', before).count() + 1,
            column: self.offset - line_start + 1,
            path: self.path,
        }
    }
}

/// Builds `$.a["b c"][3]`, bounded in length whatever the keys are.
pub(super) struct Path(String);

impl Path {
    pub(super) fn root() -> Self {
        Self("$".to_owned())
    }

    pub(super) fn from(path: &str) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn key(&mut self, key: &str) {
        let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let shown: String = key.chars().take(MAX_KEY).collect();
        let cut = if shown.len() < key.len() { "…" } else { "" };
        if plain {
            self.push(format_args!(".{shown}{cut}"));
        } else {
            self.push(format_args!("[{shown:?}{cut}]"));
        }
    }

    pub(super) fn index(&mut self, index: usize) {
        self.push(format_args!("[{index}]"));
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    fn push(&mut self, step: fmt::Arguments<'_>) {
        use fmt::Write as _;
        if self.0.len() < MAX_PATH {
            write!(self.0, "{step}").expect("a String takes every write");
            if self.0.len() >= MAX_PATH {
                self.0.push('…');
            }
        }
    }
}

const MAX_KEY: usize = 40;
const MAX_PATH: usize = 200;
