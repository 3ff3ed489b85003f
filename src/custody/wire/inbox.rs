//! The receiving buffer: bytes in, whole frames out, never more memory than the longest frame allowed.

use super::{MAX_FRAME, WireError};

/// Collects bytes until they are frames. The same on both sides, whatever reads the socket.
#[derive(Debug)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    limit: usize,
}

impl Inbox {
    /// A buffer that accepts frames of at most 256 bytes until [`Self::lift_limit`]: a peer is not trusted with more
    /// memory before its hello.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: vec![0; INITIAL], start: 0, end: 0, limit: HELLO_LIMIT }
    }

    /// From now on frames may have [`MAX_FRAME`] bytes.
    pub fn lift_limit(&mut self) {
        self.limit = MAX_FRAME;
    }

    /// Where the next bytes of the stream go; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                // One incomplete frame fills the buffer; `next_frame` has checked its length against the limit.
                let larger = (self.buffer.len() * 2).min(PREFIX + MAX_FRAME);
                self.buffer.resize(larger.max(self.end + 1), 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// Says how many bytes were put into [`Self::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// The next whole frame without its length, if there is one. Call until `None` before reading more.
    ///
    /// # Errors
    /// [`WireError::TooLong`] as soon as a length beyond the limit is seen.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, WireError> {
        let waiting = &self.buffer[self.start..self.end];
        let Some(prefix) = waiting.first_chunk::<PREFIX>() else { return Ok(None) };
        let announced = u32::from_be_bytes(*prefix);
        let length = match usize::try_from(announced) {
            Ok(length) if length <= self.limit => length,
            _ => return Err(WireError::TooLong { length: announced, limit: self.limit }),
        };
        if waiting.len() < PREFIX + length {
            return Ok(None);
        }
        let body = self.start + PREFIX;
        self.start = body + length;
        Ok(Some(&self.buffer[body..body + length]))
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

const PREFIX: usize = 4;
const HELLO_LIMIT: usize = 256;

/// Three hundred sign requests at once; larger frames are rare and grow it.
const INITIAL: usize = 16 * 1024;
