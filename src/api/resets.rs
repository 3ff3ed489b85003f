//! Streams that the HTTP/2 library resets by itself (RFC 9113, section 5.4.2): a malformed request that never becomes a
//! request here, or one stream more than is offered. The library tells nobody, so the frames that it sends are read.

/// Reads what is sent on one HTTP/2 connection, frame head by frame head.
#[derive(Debug, Default)]
pub(super) struct Resets {
    /// Of the frame that is being read: its head, and the first bytes of a RST_STREAM's payload.
    read: [u8; HEAD + CODE],
    have: usize,
    /// Bytes of payload until the next frame.
    skip: usize,
}

/// One stream that was reset because of what the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reset {
    pub(super) stream: u32,
    /// RFC 9113, section 7.
    pub(super) code: u32,
}

impl Resets {
    /// Takes the next `bytes` of the connection, in pieces of any size, and gives `found` each reset in them that says
    /// that the client is at fault.
    pub(super) fn sent(&mut self, mut bytes: &[u8], mut found: impl FnMut(Reset)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = if self.have >= HEAD { HEAD + CODE } else { HEAD };
            let taken = (wanted - self.have).min(bytes.len());
            if self.skip > 0 || taken == 0 {
                return;
            }
            self.read[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < wanted {
                return;
            }
            let [a, b, c, kind, _, stream @ .., e, f, g, h] = self.read;
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if kind == RST_STREAM && length == CODE {
                if self.have == HEAD {
                    continue;
                }
                let code = u32::from_be_bytes([e, f, g, h]);
                if THEIR_FAULT.contains(&code) {
                    found(Reset { stream: u32::from_be_bytes(stream), code });
                }
            } else {
                self.skip = length;
            }
            self.have = 0;
        }
    }
}

impl Reset {
    /// The code as the specification calls it.
    pub(super) fn name(self) -> &'static str {
        match self.code {
            1 => "PROTOCOL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            9 => "COMPRESSION_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            _ => "an error",
        }
    }
}

/// Codes that answer something the client did. The others end a stream whose request has its record already: the body was
/// not wanted any more (0), or the request was given up (2, 8).
const THEIR_FAULT: [u32; 7] = [1, 3, 5, 6, 7, 9, 11];

const RST_STREAM: u8 = 3;
const HEAD: usize = 9;
const CODE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
    }

    #[test]
    fn resets_are_found_among_other_frames_however_the_bytes_are_cut() {
        let bytes = [
            frame(4, 0, &[]),
            frame(RST_STREAM, 1, &1_u32.to_be_bytes()),
            // What looks like a reset inside of another frame's payload is none.
            frame(0, 3, &frame(RST_STREAM, 9, &1_u32.to_be_bytes())),
            frame(RST_STREAM, 3, &0_u32.to_be_bytes()),
            frame(RST_STREAM, 5, &8_u32.to_be_bytes()),
            frame(0, 7, &[3; 70_000]),
            frame(RST_STREAM, 0x0100_0007, &7_u32.to_be_bytes()),
            frame(6, 0, &[0; 8]),
        ]
        .concat();
        for size in [1, 2, 3, 8, 9, 10, 13, 14, 1000, bytes.len()] {
            let (mut resets, mut found) = (Resets::default(), Vec::new());
            for piece in bytes.chunks(size) {
                resets.sent(piece, |reset| found.push(reset));
            }
            let expected = [Reset { stream: 1, code: 1 }, Reset { stream: 0x0100_0007, code: 7 }];
            assert_eq!(found, expected, "in pieces of {size}");
        }
        assert_eq!(Reset { stream: 1, code: 7 }.name(), "REFUSED_STREAM");
    }
}
