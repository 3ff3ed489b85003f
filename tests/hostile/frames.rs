//! HTTP/2 frames, written and read by hand (RFC 9113), with HPACK's plainest form (RFC 7541, section 6.2.2).

#![forbid(unsafe_code)]

/// What a client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const NO_FLAGS: u8 = 0;

/// A frame as it was read.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: &'a [u8],
}

/// Writes a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames of a test are short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Preface and empty settings.
pub(crate) fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, NO_FLAGS, 0, &[])].concat()
}

/// A header block of literal fields, never indexed.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0x10);
        string(&mut out, name);
        string(&mut out, value);
    }
    out
}

/// The complete frames that these bytes begin with.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some(payload) = rest.get(..length) else { break };
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.push(Frame { kind: head[3], flags: head[4], stream, payload });
        bytes = &rest[length..];
    }
    frames
}

/// The error code of the first RST_STREAM.
pub(crate) fn reset_code(bytes: &[u8]) -> Option<u32> {
    frames(bytes).iter().find(|frame| frame.kind == RST_STREAM).and_then(|frame| code(frame.payload))
}

/// The error code of the last GOAWAY that has one.
pub(crate) fn goaway_code(bytes: &[u8]) -> Option<u32> {
    let frames = frames(bytes);
    let mut codes =
        frames.iter().filter(|frame| frame.kind == GOAWAY).filter_map(|frame| code(frame.payload.get(4..)?));
    codes.next_back()
}

fn code(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|code| u32::from_be_bytes(*code))
}

/// A string without Huffman coding (RFC 7541, section 5.2).
fn string(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        out.push(u8::try_from(length).expect("below 127"));
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(u8::try_from(length % 128).expect("below 128") | 128);
            length /= 128;
        }
        out.push(u8::try_from(length).expect("below 128"));
    }
    out.extend(text.bytes());
}

#[test]
fn what_is_written_can_be_read() {
    let bytes = [frame(PING, NO_FLAGS, 0, &[7; 8]), frame(RST_STREAM, NO_FLAGS, 3, &8_u32.to_be_bytes())].concat();
    let read = frames(&bytes);
    assert_eq!((read.len(), read[0].kind, read[1].stream, read[1].flags), (2, PING, 3, NO_FLAGS));
    assert_eq!(reset_code(&bytes), Some(8));
    assert_eq!(goaway_code(&frame(GOAWAY, NO_FLAGS, 0, &[0, 0, 0, 1, 0, 0, 0, 11])), Some(11));
    let mut long = Vec::new();
    string(&mut long, &"x".repeat(1337 + 127));
    assert_eq!(long[..3], [127, 0b1011_1001, 0b0000_1010], "RFC 7541, section 5.1: 1337 is 10111001 00001010");
}
