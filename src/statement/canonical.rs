//! The JSON Canonicalization Scheme, RFC 8785.

use super::json::Node;
use super::json::number;
use super::json::string::rewrite;
use super::json::tape::{Tag, Tape, Word};

/// Appends a value in canonical form.
///
/// What is canonical already is copied as it stands, in pieces as long as they come; the parser has noted which parts
/// are. Room is made at once for as many bytes as the value has in its document: only numbers can need more.
pub fn write(node: Node<'_>, out: &mut Vec<u8>) {
    let (document, index) = node.place();
    let mut writer = Writer { tape: document.tape(), input: document.input(), out, from: 0, to: 0 };
    writer.out.reserve(writer.input_length(index) + SHORT);
    writer.value(index);
    writer.flush();
}

struct Writer<'d, 'o> {
    tape: &'d Tape,
    input: &'d [u8],
    out: &'o mut Vec<u8>,
    /// `input[from..to]` is to be written, and not yet.
    from: usize,
    to: usize,
}

impl Writer<'_, '_> {
    /// Writes the value whose word is at `index`; returns the index behind it. Recurses as deep as the parser allows.
    fn value(&mut self, index: usize) -> usize {
        let word = self.tape.words[index];
        if let Some((from, to)) = word.as_it_stands() {
            self.copy(from as usize, to as usize);
            return index + 1;
        }
        let offset = word.wide() as usize;
        let length = word.narrow() as usize;
        match word.tag() {
            Tag::Null | Tag::True | Tag::False | Tag::Number | Tag::String | Tag::StringEscaped => {}
            Tag::StringOther => {
                self.copy(offset - 1, offset);
                self.flush();
                rewrite(&self.input[offset..offset + length], self.out);
                self.copy(offset + length, offset + length + 1);
            }
            Tag::NumberOther => {
                self.flush();
                let mut buffer = ryu_js::Buffer::new();
                let text = number::canonical(&self.input[offset..offset + length], &mut buffer);
                self.out.extend_from_slice(text.expect("the parser accepts no other number").as_bytes());
            }
            Tag::ArrayVerbatim | Tag::ObjectVerbatim => {
                let closing = self.closing(index);
                self.copy(offset, closing.input_end() as usize);
                return closing.wide() as usize;
            }
            Tag::Array => return self.array(index, offset),
            Tag::Object => return self.object(index, offset),
            Tag::ObjectUnsorted => return self.unsorted_object(index, offset, length),
        }
        index + 1
    }

    fn array(&mut self, index: usize, offset: usize) -> usize {
        let closing = self.closing(index);
        let (end, mut next) = (closing.wide() as usize, index + 2);
        self.copy(offset, offset + 1);
        if next < end {
            next = self.value(next);
        }
        while next < end {
            self.punctuation(b',');
            next = self.value(next);
        }
        self.close(closing);
        end
    }

    fn object(&mut self, index: usize, offset: usize) -> usize {
        let closing = self.closing(index);
        let (end, mut next) = (closing.wide() as usize, index + 2);
        self.copy(offset, offset + 1);
        if next < end {
            next = self.member(next);
        }
        while next < end {
            self.punctuation(b',');
            next = self.member(next);
        }
        self.close(closing);
        end
    }

    fn unsorted_object(&mut self, index: usize, offset: usize, order: usize) -> usize {
        let closing = self.closing(index);
        let tape = self.tape;
        let count = tape.orders[order].number();
        let members = &tape.orders[order + 1..=order + count];
        self.copy(offset, offset + 1);
        for (place, member) in members.iter().enumerate() {
            if place > 0 {
                self.punctuation(b',');
            }
            match member.verbatim() {
                Some((from, to)) => self.copy(from, to),
                None => _ = self.member(member.number()),
            }
        }
        self.close(closing);
        closing.wide() as usize
    }

    #[inline(always)]
    fn member(&mut self, key: usize) -> usize {
        let word = self.tape.words[key];
        if word.tag() == Tag::StringOther {
            self.value(key);
        } else {
            self.copy(word.wide() as usize - 1, (word.wide() + word.narrow()) as usize + 1);
        }
        self.punctuation(b':');
        self.value(key + 1)
    }

    #[inline(always)]
    fn close(&mut self, closing: Word) {
        let end = closing.input_end() as usize;
        self.copy(end - 1, end);
    }

    /// Writes a byte of the grammar: the one in the input, where it comes next there too.
    #[inline(always)]
    fn punctuation(&mut self, byte: u8) {
        if self.to > self.from && self.input.get(self.to) == Some(&byte) {
            self.to += 1;
        } else {
            self.flush();
            self.out.push(byte);
        }
    }

    /// Writes `input[from..to]`, together with what comes before and after it where that is one piece.
    #[inline(always)]
    fn copy(&mut self, from: usize, to: usize) {
        if from != self.to {
            self.flush();
            self.from = from;
        }
        self.to = to;
    }

    #[inline(always)]
    fn flush(&mut self) {
        let piece = &self.input[self.from..self.to];
        // Most pieces are short, and copying a fixed number of bytes is cheaper than calling to copy the exact one.
        match self.input[self.from..].first_chunk::<SHORT>() {
            Some(chunk) if piece.len() <= SHORT => {
                let end = self.out.len() + piece.len();
                self.out.extend_from_slice(chunk);
                self.out.truncate(end);
            }
            _ => self.out.extend_from_slice(piece),
        }
        self.from = self.to;
    }

    fn closing(&self, index: usize) -> Word {
        self.tape.words[index + 1]
    }

    fn input_length(&self, index: usize) -> usize {
        let word = self.tape.words[index];
        match word.tag() {
            Tag::Array | Tag::ArrayVerbatim | Tag::Object | Tag::ObjectVerbatim | Tag::ObjectUnsorted => {
                self.closing(index).input_end() as usize - word.wide() as usize
            }
            _ => word.narrow() as usize + 8,
        }
    }
}

const SHORT: usize = 32;

#[cfg(test)]
pub(super) mod tests;
