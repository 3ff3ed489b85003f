//! The index of a JSON text, in document order.

/// Words of 64 bits: a tag of 4, a [`narrow`](Word::narrow) field of 28, a [`wide`](Word::wide) field of 32.
///
/// | tag | narrow | wide |
/// |---|---|---|
/// | string, number | bytes between the quotes, or of the number | offset of the first of them |
/// | literal | bytes of it | offset |
/// | array, sorted object | | offset of the bracket |
/// | unsorted object | where its order begins in [`Tape::orders`] | offset of the bracket |
///
/// An array or object has a second word: the offset behind its closing bracket (upper half) and the index of the
/// word that follows its content (lower half). A member is its key, a string, and then its value.
#[derive(Default)]
pub(in crate::statement) struct Tape {
    pub(in crate::statement) words: Vec<Word>,
    /// For each unsorted object: the number of members, then these in canonical order.
    pub(in crate::statement) orders: Vec<Member>,
}

impl Tape {
    pub(in crate::statement) fn memory(&self) -> usize {
        self.words.capacity() * size_of::<Word>() + self.orders.capacity() * size_of::<Member>()
    }
}

/// One entry.
#[derive(Clone, Copy)]
pub(in crate::statement) struct Word(u64);

impl Word {
    #[inline(always)]
    pub(in crate::statement) fn new(tag: Tag, narrow: u32, wide: u32) -> Self {
        debug_assert!(narrow < 1 << 28);
        Self((tag as u64) << 60 | u64::from(narrow) << 32 | u64::from(wide))
    }

    /// The second word of an array or object.
    #[inline(always)]
    pub(in crate::statement) fn closing(input_end: u32, next: u32) -> Self {
        Self(u64::from(input_end) << 32 | u64::from(next))
    }

    #[inline(always)]
    pub(in crate::statement) fn tag(self) -> Tag {
        TAGS[(self.0 >> 60) as usize]
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // masked
    pub(in crate::statement) fn narrow(self) -> u32 {
        (self.0 >> 32) as u32 & 0x0fff_ffff
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // the low half is meant
    pub(in crate::statement) fn wide(self) -> u32 {
        self.0 as u32
    }

    /// Of a scalar that is canonical as it stands: its offsets in the input, quotes included.
    #[inline(always)]
    pub(in crate::statement) fn as_it_stands(self) -> Option<(u32, u32)> {
        let tag = self.0 >> 60;
        let quote = u32::from(tag >= Tag::String as u64);
        (tag <= Tag::StringEscaped as u64).then(|| (self.wide() - quote, self.wide() + self.narrow() + quote))
    }

    /// Of a closing word: the offset behind the bracket.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // the high half is meant
    pub(in crate::statement) fn input_end(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A member of an unsorted object: the part of the input that it is, when that is canonical as it stands, or else the
/// index of its key.
#[derive(Clone, Copy)]
pub(in crate::statement) struct Member(u64);

impl Member {
    /// What stands before the members.
    pub(in crate::statement) fn count(members: u32) -> Self {
        Self(u64::from(members))
    }

    /// The member whose key is at `index`; its value must be complete.
    #[inline(always)]
    pub(in crate::statement) fn new(index: u32, words: &[Word], input: &[u8]) -> Self {
        let at = index as usize;
        let (key, value) = (words[at], words[at + 1]);
        let (start, end) = match value.as_it_stands() {
            Some(place) => place,
            None if matches!(value.tag(), Tag::ArrayVerbatim | Tag::ObjectVerbatim) => {
                (value.wide(), words[at + 2].input_end())
            }
            None => return Self(u64::from(index)),
        };
        // Behind the key's quote and the colon.
        let follows = start == key.wide() + key.narrow() + 2;
        if follows && key.tag() != Tag::StringOther {
            debug_assert_eq!(input[start as usize - 1], b':');
            Self(Self::VERBATIM | u64::from(key.wide() - 1) << 32 | u64::from(end))
        } else {
            Self(u64::from(index))
        }
    }

    /// Offsets of the part of the input that it is.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // masked, and the low half is meant
    pub(in crate::statement) fn verbatim(self) -> Option<(usize, usize)> {
        let start = (self.0 & !Self::VERBATIM) >> 32;
        (self.0 & Self::VERBATIM != 0).then_some((start as usize, self.0 as u32 as usize))
    }

    /// The index of its key, or the number of members.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // the low half is meant
    pub(in crate::statement) fn number(self) -> usize {
        self.0 as u32 as usize
    }

    const VERBATIM: u64 = 1 << 63;
}

/// What a word stands for, and how its text relates to the canonical one. The order matters to
/// [`Word::as_it_stands`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in crate::statement) enum Tag {
    Null,
    True,
    False,
    /// A number whose text is canonical.
    Number,
    /// A string without escapes.
    String,
    /// A string whose escapes are the canonical ones.
    StringEscaped,
    /// A string that is to be written another way.
    StringOther,
    /// A number that is to be written another way.
    NumberOther,
    Array,
    /// An array that is canonical from bracket to bracket.
    ArrayVerbatim,
    /// An object whose members come in canonical order.
    Object,
    /// An object that is canonical from bracket to bracket.
    ObjectVerbatim,
    /// An object whose members do not come in canonical order.
    ObjectUnsorted,
}

const TAGS: [Tag; 16] = [
    Tag::Null,
    Tag::True,
    Tag::False,
    Tag::Number,
    Tag::String,
    Tag::StringEscaped,
    Tag::StringOther,
    Tag::NumberOther,
    Tag::Array,
    Tag::ArrayVerbatim,
    Tag::Object,
    Tag::ObjectVerbatim,
    Tag::ObjectUnsorted,
    // Never written.
    Tag::Null,
    Tag::Null,
    Tag::Null,
];
