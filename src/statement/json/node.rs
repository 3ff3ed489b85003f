//! Reading values off the tape.

use std::borrow::Cow;

use super::tape::{Tag, Word};
use super::{Document, string};

/// One value of a [`Document`].
#[derive(Clone, Copy)]
pub struct Node<'d> {
    document: &'d Document,
    index: usize,
}

/// The type of a value (RFC 8259, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl<'d> Node<'d> {
    pub(super) fn new(document: &'d Document, index: usize) -> Self {
        Self { document, index }
    }

    /// Its type.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.word().tag() {
            Tag::Null => Kind::Null,
            Tag::True | Tag::False => Kind::Boolean,
            Tag::Number | Tag::NumberOther => Kind::Number,
            Tag::String | Tag::StringEscaped | Tag::StringOther => Kind::String,
            Tag::Array | Tag::ArrayVerbatim => Kind::Array,
            Tag::Object | Tag::ObjectVerbatim | Tag::ObjectUnsorted => Kind::Object,
        }
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(self) -> bool {
        self.kind() == Kind::Object
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The string it is; borrowed unless it has escapes.
    #[must_use]
    pub fn as_str(self) -> Option<Cow<'d, str>> {
        match self.word().tag() {
            Tag::String => std::str::from_utf8(self.content()).ok().map(Cow::Borrowed),
            Tag::StringEscaped | Tag::StringOther => {
                let mut text = Vec::with_capacity(self.content().len());
                string::unescape(self.content(), &mut text);
                String::from_utf8(text).ok().map(Cow::Owned)
            }
            _ => None,
        }
    }

    /// Whether it is this string.
    #[must_use]
    pub fn is_str(self, text: &str) -> bool {
        match self.word().tag() {
            Tag::String => self.content() == text.as_bytes(),
            Tag::StringEscaped | Tag::StringOther => self.as_str().is_some_and(|own| own == text),
            _ => false,
        }
    }

    /// The integer it is, when it is written as one and is not negative.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        match self.word().tag() {
            Tag::Number => std::str::from_utf8(self.content()).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The number it is.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        match self.word().tag() {
            Tag::Number | Tag::NumberOther => std::str::from_utf8(self.content()).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The truth value it is.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.word().tag() {
            Tag::True => Some(true),
            Tag::False => Some(false),
            _ => None,
        }
    }

    /// The members of an object in document order; none of anything else.
    #[must_use]
    pub fn members(self) -> Members<'d> {
        Members(if self.is_object() { self.content_nodes() } else { Elements::none(self.document) })
    }

    /// The elements of an array in order; none of anything else.
    #[must_use]
    pub fn elements(self) -> Elements<'d> {
        if self.kind() == Kind::Array { self.content_nodes() } else { Elements::none(self.document) }
    }

    /// The value of an object's member.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Node<'d>> {
        self.members().find_map(|(name, value)| name.is_str(key).then_some(value))
    }

    /// The document and where in its tape this value begins, for writing.
    pub(in crate::statement) fn place(self) -> (&'d Document, usize) {
        (self.document, self.index)
    }

    /// Elements of an array or members of an object, counted one by one; zero of anything else.
    #[must_use]
    pub fn count(self) -> usize {
        self.elements().count() + self.members().count()
    }

    /// Offset in the document: of the bracket, the opening quote, the first byte.
    #[must_use]
    pub fn offset(self) -> usize {
        let quote = usize::from(self.kind() == Kind::String);
        self.word().wide() as usize - quote
    }

    fn word(self) -> Word {
        self.document.tape.words[self.index]
    }

    /// Of a string, what is between its quotes; of a number, its text.
    fn content(self) -> &'d [u8] {
        let word = self.word();
        let start = word.wide() as usize;
        &self.document.input[start..start + word.narrow() as usize]
    }

    fn closing(self) -> Option<Word> {
        match self.kind() {
            Kind::Array | Kind::Object => Some(self.document.tape.words[self.index + 1]),
            _ => None,
        }
    }

    fn content_nodes(self) -> Elements<'d> {
        let end = self.closing().map_or(0, |closing| closing.wide() as usize);
        Elements { document: self.document, next: self.index + 2, end }
    }

    /// The index behind this value.
    fn next(self) -> usize {
        self.closing().map_or(self.index + 1, |closing| closing.wide() as usize)
    }
}

impl std::fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("kind", &self.kind()).field("offset", &self.offset()).finish_non_exhaustive()
    }
}

/// The elements of an array.
#[derive(Clone, Debug)]
pub struct Elements<'d> {
    document: &'d Document,
    next: usize,
    end: usize,
}

impl<'d> Elements<'d> {
    fn none(document: &'d Document) -> Self {
        Self { document, next: 0, end: 0 }
    }
}

impl<'d> Iterator for Elements<'d> {
    type Item = Node<'d>;

    fn next(&mut self) -> Option<Node<'d>> {
        (self.next < self.end).then(|| {
            let node = Node::new(self.document, self.next);
            self.next = node.next();
            node
        })
    }
}

/// The members of an object: keys, which are strings, and values.
#[derive(Clone, Debug)]
pub struct Members<'d>(Elements<'d>);

impl<'d> Iterator for Members<'d> {
    type Item = (Node<'d>, Node<'d>);

    fn next(&mut self) -> Option<(Node<'d>, Node<'d>)> {
        Some((self.0.next()?, self.0.next()?))
    }
}
