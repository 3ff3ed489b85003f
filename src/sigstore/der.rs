//! DER (X.690, section 10), read strictly and without copies.
//!
//! One encoding for each value: definite lengths in their shortest form, tags of one byte. What is read keeps its raw
//! bytes, because these are what signatures and hashes cover.

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::clock::UnixTime;

/// Where DER is left to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    /// Identifier octet.
    pub(crate) tag: u8,
    /// Contents octets.
    pub(crate) value: &'a [u8],
    /// Identifier, length and contents.
    pub(crate) raw: &'a [u8],
}

/// Bytes that are not the DER that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotDer;

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next element.
    pub(crate) fn any(&mut self) -> Result<Element<'a>, NotDer> {
        let [tag, first, ..] = *self.rest else { return Err(NotDer) };
        // Tag numbers above 30 take more bytes; nothing that is read here has one.
        if tag & 0x1f == 0x1f {
            return Err(NotDer);
        }
        let (head, length) = match first {
            0..0x80 => (2, usize::from(first)),
            // The indefinite form (0x80) has no octets, so its length cannot be minimal.
            0x80..0x85 => {
                let octets = self.rest.get(2..2 + usize::from(first & 0x7f)).ok_or(NotDer)?;
                let length = octets.iter().fold(0_usize, |length, octet| length << 8 | usize::from(*octet));
                let minimal = octets.first().is_some_and(|octet| *octet != 0) && length >= 0x80;
                (2 + octets.len(), if minimal { length } else { return Err(NotDer) })
            }
            _ => return Err(NotDer),
        };
        let end = head.checked_add(length).ok_or(NotDer)?;
        let (raw, rest) = self.rest.split_at_checked(end).ok_or(NotDer)?;
        self.rest = rest;
        Ok(Element { tag, value: &raw[head..], raw })
    }

    /// The next element, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, NotDer> {
        self.any().and_then(|element| if element.tag == tag { Ok(element) } else { Err(NotDer) })
    }

    /// A reader of the contents of the next element, which must have this tag.
    pub(crate) fn enter(&mut self, tag: u8) -> Result<Reader<'a>, NotDer> {
        self.expect(tag).map(|element| Reader::new(element.value))
    }

    /// The next element, if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, NotDer> {
        if self.rest.first() == Some(&tag) { self.any().map(Some) } else { Ok(None) }
    }

    /// The contents of an INTEGER in its shortest form, two's complement.
    pub(crate) fn integer(&mut self) -> Result<&'a [u8], NotDer> {
        let value = self.expect(INTEGER)?.value;
        match value {
            [] | [0, 0..0x80, ..] | [0xff, 0x80..=0xff, ..] => Err(NotDer),
            value => Ok(value),
        }
    }

    /// An INTEGER between 0 and 255.
    pub(crate) fn small(&mut self) -> Result<u8, NotDer> {
        match *self.integer()? {
            [value @ 0..0x80] | [0, value] => Ok(value),
            _ => Err(NotDer),
        }
    }

    /// The contents of an OBJECT IDENTIFIER.
    pub(crate) fn oid(&mut self) -> Result<&'a [u8], NotDer> {
        self.expect(OID).map(|element| element.value)
    }

    /// A BOOLEAN with `DEFAULT FALSE`: absent is false, and a false that is written out is no DER.
    pub(crate) fn default_false(&mut self) -> Result<bool, NotDer> {
        match self.optional(BOOLEAN)?.map(|element| element.value) {
            None => Ok(false),
            Some([0xff]) => Ok(true),
            Some(_) => Err(NotDer),
        }
    }

    /// The bytes of a BIT STRING of whole octets.
    pub(crate) fn octets_of_bits(&mut self) -> Result<&'a [u8], NotDer> {
        match self.expect(BIT_STRING)?.value {
            [0, octets @ ..] => Ok(octets),
            _ => Err(NotDer),
        }
    }

    /// `UTCTime` or `GeneralizedTime` as certificates have them (RFC 5280, section 4.1.2.5).
    pub(crate) fn time(&mut self) -> Result<UnixTime, NotDer> {
        let element = self.any()?;
        let text = std::str::from_utf8(element.value).map_err(|_| NotDer)?;
        match (element.tag, text.len()) {
            (UTC_TIME, 13) => {
                let century = if text < "50" { "20" } else { "19" };
                moment(&format!("{century}{text}"))
            }
            (GENERALIZED_TIME, 15) => moment(text),
            _ => Err(NotDer),
        }
    }

    /// Nothing is left.
    pub(crate) fn end(&self) -> Result<(), NotDer> {
        if self.rest.is_empty() { Ok(()) } else { Err(NotDer) }
    }

    /// The tag of the next element.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// The whole of `bytes` as one element with this tag.
pub(crate) fn whole(bytes: &[u8], tag: u8) -> Result<Element<'_>, NotDer> {
    let mut reader = Reader::new(bytes);
    let element = reader.expect(tag)?;
    reader.end().map(|()| element)
}

/// `YYYYMMDDHHMMSSZ`. A leap second is not representable and no moment here.
pub(crate) fn moment(text: &str) -> Result<UnixTime, NotDer> {
    let digits =
        text.strip_suffix('Z').filter(|digits| digits.len() == 14 && digits.bytes().all(|b| b.is_ascii_digit()));
    let digits = digits.ok_or(NotDer)?;
    let number = |range: std::ops::Range<usize>| digits[range].parse::<i8>().map_err(|_| NotDer);
    let year = digits[..4].parse::<i16>().map_err(|_| NotDer)?;
    let (month, day, hour) = (number(4..6)?, number(6..8)?, number(8..10)?);
    let (minute, second) = (number(10..12)?, number(12..14)?);
    let civil = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| NotDer)?;
    Offset::UTC.to_timestamp(civil).map(|moment| UnixTime(moment.as_second())).map_err(|_| NotDer)
}

/// Wraps contents in a tag and a length.
pub(crate) fn wrap(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let length: usize = contents.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let octets = length.to_be_bytes();
        let zeros = octets.iter().take_while(|octet| **octet == 0).count();
        out.push(0x80 | (octets.len() - zeros) as u8);
        out.extend_from_slice(&octets[zeros..]);
    }
    for part in contents {
        out.extend_from_slice(part);
    }
    out
}

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;

/// `[n]` of constructed contents: explicit tagging, or implicit tagging of a SEQUENCE or SET.
pub(crate) const fn context(n: u8) -> u8 {
    0xa0 | n
}

/// `[n]` of primitive contents: implicit tagging of a string.
pub(crate) const fn context_primitive(n: u8) -> u8 {
    0x80 | n
}
