//! Fields to bytes and back.

use super::WireError;

/// Writes fields; the capacity is the caller's, so that a secret is not left behind by a buffer that grew.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// A field of at most `bound` bytes, which is below 64 KiB.
    pub(super) fn field(&mut self, bytes: &[u8], bound: usize, name: &'static str) -> Result<(), WireError> {
        let length = u16::try_from(bytes.len()).ok().filter(|length| usize::from(*length) <= bound);
        self.u16(length.ok_or(WireError::Value(name))?);
        self.raw(bytes);
        Ok(())
    }

    /// A list of at most `most` fields, each not empty and of at most `bound` bytes.
    pub(super) fn list<'b>(
        &mut self,
        fields: impl ExactSizeIterator<Item = &'b [u8]>,
        most: usize,
        bound: usize,
        name: &'static str,
    ) -> Result<(), WireError> {
        let count = u16::try_from(fields.len()).ok().filter(|count| (1..=most).contains(&usize::from(*count)));
        self.u16(count.ok_or(WireError::Value(name))?);
        for field in fields {
            if field.is_empty() {
                return Err(WireError::Value(name));
            }
            self.field(field, bound, name)?;
        }
        Ok(())
    }
}

/// Reads fields; every length is checked before anything is taken.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Value(name)),
        }
    }

    pub(super) fn field(&mut self, bound: usize, name: &'static str) -> Result<&'a [u8], WireError> {
        let length = usize::from(self.u16()?);
        if length > bound {
            return Err(WireError::Value(name));
        }
        let (head, tail) = self.0.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    /// A text of visible ASCII: names and paths go into an HTTP request head.
    pub(super) fn visible(&mut self, bound: usize, name: &'static str) -> Result<&'a str, WireError> {
        let field = self.field(bound, name)?;
        super::codec::visible(std::str::from_utf8(field).map_err(|_| WireError::Value(name))?, name)
    }

    pub(super) fn list(&mut self, most: usize, bound: usize, name: &'static str) -> Result<Vec<&'a [u8]>, WireError> {
        let count = usize::from(self.u16()?);
        if !(1..=most).contains(&count) {
            return Err(WireError::Value(name));
        }
        let one =
            |_| self.field(bound, name).and_then(|f| if f.is_empty() { Err(WireError::Value(name)) } else { Ok(f) });
        (0..count).map(one).collect()
    }

    pub(super) fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }
}
