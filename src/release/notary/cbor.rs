//! CBOR (RFC 8949), read strictly and without copies, as far as COSE needs it.
//!
//! One encoding for each value, as `crate::sigstore` has it of DER: heads in their shortest form, definite lengths, no
//! floating point, no label twice in a map (section 5.6). notation writes nothing else, and go-cose takes neither
//! indefinite lengths nor duplicates. A crate for CBOR would build a tree of whatever a registry sends; this reads what
//! is asked for, in order, and skips what is not asked for to a bounded depth.

/// Where CBOR is left to be read.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// A label of a COSE header parameter (RFC 9052, section 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label<'a> {
    Number(i64),
    Text(&'a str),
}

/// What is not the CBOR that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotCbor(pub(super) &'static str);

/// A head: the major type, the argument.
type Head = (u8, u64);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn number(&mut self) -> Result<i64, NotCbor> {
        let wrong = NotCbor("a number is not where one belongs");
        match self.head()? {
            (UNSIGNED, value) => i64::try_from(value).map_err(|_| wrong),
            (NEGATIVE, value) => i64::try_from(value).map(|value| -1 - value).map_err(|_| wrong),
            _ => Err(wrong),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], NotCbor> {
        match self.head()? {
            (BYTES, length) => self.take(length),
            _ => Err(NotCbor("a byte string is not where one belongs")),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, NotCbor> {
        match self.head()? {
            (TEXT, length) => std::str::from_utf8(self.take(length)?).map_err(|_| NotCbor("a text is not UTF-8")),
            _ => Err(NotCbor("a text is not where one belongs")),
        }
    }

    pub(super) fn label(&mut self) -> Result<Label<'a>, NotCbor> {
        match self.rest.first().map(|first| first >> 5) {
            Some(TEXT) => self.text().map(Label::Text),
            _ => self.number().map(Label::Number).map_err(|_| NotCbor("a label is neither number nor text")),
        }
    }

    /// The number of elements that follow.
    pub(super) fn array(&mut self, most: usize) -> Result<usize, NotCbor> {
        match self.head()? {
            (ARRAY, count) => self.many(count, most),
            _ => Err(NotCbor("an array is not where one belongs")),
        }
    }

    /// The number of pairs that follow.
    pub(super) fn map(&mut self, most: usize) -> Result<usize, NotCbor> {
        match self.head()? {
            (MAP, count) => self.many(count, most),
            _ => Err(NotCbor("a map is not where one belongs")),
        }
    }

    /// A tag with this number; what it is about follows.
    pub(super) fn tag(&mut self, number: u64) -> Result<(), NotCbor> {
        if self.head()? == (TAG, number) { Ok(()) } else { Err(NotCbor("a tag is not the one that belongs there")) }
    }

    /// Leaves out the next value, whatever it is.
    pub(super) fn skip(&mut self) -> Result<(), NotCbor> {
        self.skip_within(MAX_DEPTH)
    }

    fn skip_within(&mut self, depth: u8) -> Result<(), NotCbor> {
        let depth = depth.checked_sub(1).ok_or(NotCbor("it is nested too deeply"))?;
        let (major, argument) = self.head()?;
        let values = match major {
            BYTES => return self.take(argument).map(drop),
            TEXT => {
                return std::str::from_utf8(self.take(argument)?).map(drop).map_err(|_| NotCbor("a text is not UTF-8"));
            }
            ARRAY => self.many(argument, MAX_SKIPPED)?,
            // What is in a map that nobody looks at may have any key.
            MAP => 2 * self.many(argument, MAX_SKIPPED)?,
            TAG => 1,
            _ => 0,
        };
        (0..values).try_for_each(|_| self.skip_within(depth))
    }

    pub(super) fn end(&self) -> Result<(), NotCbor> {
        if self.rest.is_empty() { Ok(()) } else { Err(NotCbor("something stands behind its end")) }
    }

    fn head(&mut self) -> Result<Head, NotCbor> {
        const CUT: NotCbor = NotCbor("it is cut short");
        let (&first, rest) = self.rest.split_first().ok_or(CUT)?;
        let (major, info) = (first >> 5, first & 0x1f);
        let (argument, rest) = match info {
            0..24 => (u64::from(info), rest),
            24..28 => {
                let width = 1_usize << (info - 24);
                let (octets, rest) = rest.split_at_checked(width).ok_or(CUT)?;
                let argument = octets.iter().fold(0_u64, |value, octet| value << 8 | u64::from(*octet));
                // The least that needs so many octets; of `simple` what fits in one is no longer one (section 3.3).
                let least = [24, 0x100, 0x1_0000, 0x1_0000_0000][usize::from(info - 24)];
                if major == SIMPLE || argument < least {
                    return Err(NotCbor("a number or length is not in its shortest form"));
                }
                (argument, rest)
            }
            31 => return Err(NotCbor("a length is left open")),
            _ => return Err(NotCbor("a head has no meaning")),
        };
        // false, true, null, undefined: there are no others without octets of their own.
        if major == SIMPLE && !(20..24).contains(&argument) {
            return Err(NotCbor("a simple value has no meaning"));
        }
        self.rest = rest;
        Ok((major, argument))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], NotCbor> {
        let length = usize::try_from(length).ok();
        let (taken, rest) =
            length.and_then(|length| self.rest.split_at_checked(length)).ok_or(NotCbor("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A count that can be true: every element has an octet at least.
    fn many(&self, count: u64, most: usize) -> Result<usize, NotCbor> {
        let count = usize::try_from(count).ok().filter(|count| *count <= self.rest.len());
        let count = count.ok_or(NotCbor("it is cut short"))?;
        if count <= most { Ok(count) } else { Err(NotCbor("it has too many elements")) }
    }
}

/// Writes a head in its shortest form.
fn write_head(out: &mut Vec<u8>, major: u8, argument: usize) {
    let octets = (argument as u64).to_be_bytes();
    match argument {
        0..24 => out.push(major << 5 | argument as u8),
        24..0x100 => out.extend([major << 5 | 24, argument as u8]),
        0x100..0x1_0000 => {
            out.push(major << 5 | 25);
            out.extend_from_slice(&octets[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major << 5 | 26);
            out.extend_from_slice(&octets[4..]);
        }
        _ => {
            out.push(major << 5 | 27);
            out.extend_from_slice(&octets);
        }
    }
}

/// `Sig_structure` of a `COSE_Sign1` without further data (RFC 9052, section 4.4): what is signed.
pub(super) fn sig_structure(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    const CONTEXT: &str = "Signature1";
    let mut out = Vec::with_capacity(protected.len() + payload.len() + 32);
    write_head(&mut out, ARRAY, 4);
    write_head(&mut out, TEXT, CONTEXT.len());
    out.extend_from_slice(CONTEXT.as_bytes());
    for bytes in [protected, &[], payload] {
        write_head(&mut out, BYTES, bytes.len());
        out.extend_from_slice(bytes);
    }
    out
}

/// Major types (RFC 8949, section 3.1).
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

/// Values within each other that are skipped.
const MAX_DEPTH: u8 = 8;

/// Elements of one array or map that is skipped.
const MAX_SKIPPED: usize = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_encoding_is_read_and_no_other() {
        for (bytes, number) in [
            (&[0x00][..], 0),
            (&[0x17], 23),
            (&[0x18, 24], 24),
            (&[0x19, 1, 0], 256),
            (&[0x1a, 0, 1, 0, 0], 65_536),
            (&[0x1b, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
            (&[0x26], -7),
            (&[0x38, 37], -38),
            (&[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], i64::MIN),
        ] {
            let mut reader = Reader::new(bytes);
            assert_eq!((reader.number(), reader.end()), (Ok(number), Ok(())));
        }
        for wrong in [
            &[][..],
            &[0x18],
            &[0x18, 23],
            &[0x19, 0, 255],
            &[0x1a, 0, 0, 255, 255],
            &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255],
            &[0x1b, 255, 255, 255, 255, 255, 255, 255, 255],
            &[0x1c],
            &[0x1f],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x41, 0],
        ] {
            assert!(Reader::new(wrong).number().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_skipped_is_bounded_and_read_strictly_all_the_same() {
        let skipped = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            reader.skip().and_then(|()| reader.end())
        };
        assert_eq!(skipped(&[0xa1, 0x01, 0x82, 0x41, 0x00, 0xf6]), Ok(()));
        let nested = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
        assert_eq!(skipped(&nested(7)), Ok(()));
        assert_eq!(skipped(&nested(8)), Err(NotCbor("it is nested too deeply")));
        assert_eq!(skipped(&nested(500_000)), Err(NotCbor("it is nested too deeply")));
        // Indefinite lengths, of each kind that has them.
        for open in [0x5f, 0x7f, 0x9f, 0xbf] {
            assert_eq!(skipped(&[open, 0xff]), Err(NotCbor("a length is left open")));
        }
        // Lengths that no input has: nothing is allocated for them.
        for major in [0x5b, 0x7b, 0x9b, 0xbb] {
            let huge = [&[major][..], &[0x7f; 8]].concat();
            assert_eq!(skipped(&huge), Err(NotCbor("it is cut short")));
        }
        let many = [&[0x99, 0x04, 0x01][..], &[0; 1025]].concat();
        assert_eq!(skipped(&many), Err(NotCbor("it has too many elements")));
        // A simple value in two octets, one without meaning, a half-precision number, a break.
        for simple in [&[0xf8, 0x20][..], &[0xe0], &[0xf9, 0, 0], &[0xff]] {
            assert!(skipped(simple).is_err(), "{simple:?}");
        }
        assert_eq!(skipped(&[0x61, 0xff]), Err(NotCbor("a text is not UTF-8")));
    }

    #[test]
    fn what_is_signed_is_written_as_rfc_9052_has_it() {
        let written = sig_structure(&[0xa0], &[7; 300]);
        let head = b"\x84\x6aSignature1\x41\xa0\x40\x59\x01\x2c";
        assert_eq!(written, [&head[..], &[7; 300]].concat());
    }
}
