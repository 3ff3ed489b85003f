//! Strict JSON: what it says can only be read one way, and nothing of it is lost when it is written canonically.
//!
//! A body is read once into a tape: eight bytes for a scalar or a key, sixteen for an array or object, all of them
//! offsets into the body, which is kept. No string is copied. The rules are RFC 8259 with these on top, each of
//! which removes a way for two readers to see two documents:
//!
//! - UTF-8 without a byte order mark, nothing but whitespace after the value;
//! - no key twice in an object, compared after unescaping;
//! - no lone surrogate escapes;
//! - numbers that RFC 8785 can write without loss;
//! - bounded depth and number of values ([`JsonLimits`]).
//!
//! RFC 8785, section 3.2.2.3 writes every number as ECMAScript prints the IEEE 754 double nearest to it. A number is
//! accepted when that changes its spelling at most, never its value:
//!
//! 1. A number written without fraction and exponent lies within ±(2^53−1).
//! 2. Any other number denotes exactly the decimal number that its canonical text denotes, and that text, where it is
//!    an integer without exponent, keeps rule 1.
//!
//! So `1.0`, `1e2`, `4.50`, `0.1` and `1E30` pass (as `1`, `100`, `4.5`, `0.1`, `1e+30`). `0.1000000000000000055`,
//! `333333333.33333329`, `1e400`, `1e-400`, `9007199254740993` and `9007199254740993.0` do not. Minus zero passes and
//! is written `0`, its equal. What is written is always accepted when read again, and written the same.

mod error;
mod fields;
mod node;
pub(in crate::statement) mod number;
mod order;
mod parse;
pub(in crate::statement) mod string;
pub(in crate::statement) mod tape;

use bytes::Bytes;

pub use error::{JsonError, Problem};
pub use fields::{Field, FieldError, Fields};
pub use node::{Elements, Kind, Members, Node};

use tape::Tape;

/// One JSON text and the index of it. Costs the text, and at most [`JsonLimits::max_values`] times 24 bytes while it is
/// read; for a bill of material about as much as the text.
pub struct Document {
    input: Bytes,
    tape: Tape,
}

/// Bounds on what is read.
#[derive(Clone, Copy, Debug)]
pub struct JsonLimits {
    /// Arrays and objects within each other; the outermost counts as one. At most 512, whatever is asked for.
    pub max_depth: u16,
    /// Keys and values together, arrays and objects twice; at most 2^27. A dense array of small numbers takes eight
    /// bytes of index for two of input, and this bounds it.
    pub max_values: u32,
}

impl Document {
    /// Reads one JSON text.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn parse(input: Bytes, limits: &JsonLimits) -> Result<Self, JsonError> {
        match parse::parse(&input, limits) {
            Ok(tape) => Ok(Self { input, tape }),
            Err(found) => Err(found.locate(&input)),
        }
    }

    /// The outermost value.
    #[must_use]
    pub fn root(&self) -> Node<'_> {
        Node::new(self, 0)
    }

    /// Bytes held, input and index together.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.input.len() + self.tape.memory()
    }

    pub(in crate::statement) fn input(&self) -> &[u8] {
        &self.input
    }

    pub(in crate::statement) fn tape(&self) -> &Tape {
        &self.tape
    }
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What callers send for signing is theirs; it stays out of logs.
        f.debug_struct("Document").field("bytes", &self.input.len()).finish_non_exhaustive()
    }
}

impl Default for JsonLimits {
    fn default() -> Self {
        Self { max_depth: 128, max_values: 4 << 20 }
    }
}

/// Deepest nesting that any limit allows: readers of the tape recurse.
const MAX_DEPTH: u16 = 512;

/// Most words of a tape; what [`Word`](tape::Word) counts in 28 bits stays below it.
const MAX_VALUES: u32 = 1 << 27;

/// Longest input in bytes: lengths are kept in 28 bits.
const MAX_INPUT: usize = (1 << 28) - 1;

#[cfg(test)]
mod tests;
