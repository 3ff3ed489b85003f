//! HTTP/2 that breaks the protocol, or keeps it and floods (RFC 9113, sections 5.4 and 10.5).

#![forbid(unsafe_code)]

use testkit::Result;

use crate::case::{Case, Expect};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, NO_FLAGS, PING, PRIORITY, PUSH_PROMISE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, frames, hello,
};
use crate::wire::{self, PATIENCE, SIGN, Wire};
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let row = |&(name, ref expect, bytes): &Row| {
        Case::wire(format!("HTTP/2: {name}"), expect(), move |world| exchange(world, &bytes(world)))
    };
    let mut cases: Vec<Case> = CONNECTION.iter().chain(&FLOODS).map(row).collect();
    cases.extend(STREAM.iter().map(row));
    cases
}

type Row = (&'static str, fn() -> Expect, fn(&World) -> Vec<u8>);

/// The whole connection is in error.
const CONNECTION: [Row; 20] = [
    ("HTTP/1.1 where HTTP/2 was agreed", no_preface, |_| {
        b"GET /api/v1/signer/keys HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()
    }),
    ("a preface with a letter changed", no_preface, |_| {
        b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()
    }),
    ("settings of seven bytes", any_error, |_| after_hello(&frame(SETTINGS, NO_FLAGS, 0, &[0; 7]))),
    ("settings on a stream", protocol, |_| after_hello(&frame(SETTINGS, NO_FLAGS, 1, &[]))),
    ("an initial window beyond 2^31", any_error, |_| {
        after_hello(&frame(SETTINGS, NO_FLAGS, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]))
    }),
    ("a frame longer than 16 KiB", any_error, |_| after_hello(&frame(PING, NO_FLAGS, 0, &[0; 20_000]))),
    ("a ping of seven bytes", any_error, |_| after_hello(&frame(PING, NO_FLAGS, 0, &[0; 7]))),
    ("headers on stream 0", protocol, |w| after_hello(&frame(HEADERS, END_HEADERS | END_STREAM, 0, &request(w)))),
    ("headers on an even stream", protocol, |w| after_hello(&frame(HEADERS, END_HEADERS | END_STREAM, 2, &request(w)))),
    ("data on a stream that was never opened", any_error, |_| after_hello(&frame(DATA, END_STREAM, 1, b"{}"))),
    ("a continuation of nothing", protocol, |_| after_hello(&frame(CONTINUATION, END_HEADERS, 1, &[]))),
    ("another frame between headers and continuation", protocol, |w| {
        after_hello(&[frame(HEADERS, NO_FLAGS, 1, &request(w)), frame(PING, NO_FLAGS, 0, &[0; 8])].concat())
    }),
    ("a push promise from a client", protocol, |w| after_hello(&frame(PUSH_PROMISE, END_HEADERS, 1, &request(w)))),
    ("header compression that is garbage", any_error, |_| {
        after_hello(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 40]))
    }),
    ("an index beyond the header table", any_error, |_| {
        after_hello(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xfe]))
    }),
    ("a window that grows beyond 2^31", any_error, |_| {
        after_hello(&frame(WINDOW_UPDATE, NO_FLAGS, 0, &0x7fff_ffff_u32.to_be_bytes()))
    }),
    ("a header name in capitals", protocol, |_| headers(&[("X-Poe", "x")])),
    ("a pseudo-header that nobody knows", protocol, |_| headers(&[(":tenant", "acme")])),
    ("a line feed in a header", protocol, |_| headers(&[("x-feed", "a\r\nx-poe: b")])),
    ("a window that grows by nothing", protocol, |w| {
        let open = frame(HEADERS, END_HEADERS, 1, &request(w));
        after_hello(&[open, frame(WINDOW_UPDATE, NO_FLAGS, 1, &[0; 4])].concat())
    }),
];

/// Legal piece by piece.
const FLOODS: [Row; 3] = [
    ("two thousand streams opened and reset at once", calm, |w| {
        let open = |stream| frame(HEADERS, END_HEADERS, stream, &stranger(w));
        let reset = |stream| frame(RST_STREAM, NO_FLAGS, stream, &8_u32.to_be_bytes());
        let pairs = (0..2000).flat_map(|n| [open(2 * n + 1), reset(2 * n + 1)].concat());
        after_hello(&pairs.collect::<Vec<u8>>())
    }),
    ("a header block of ten thousand continuations", any_error, |w| {
        let mut bytes = frame(HEADERS, NO_FLAGS, 1, &stranger(w));
        (0..10_000)
            .for_each(|_| bytes.extend(frame(CONTINUATION, NO_FLAGS, 1, &block(&[("x-more", &"x".repeat(64))]))));
        after_hello(&bytes)
    }),
    ("a header block that is empty for ever", any_error, |w| {
        let mut bytes = frame(HEADERS, NO_FLAGS, 1, &stranger(w));
        (0..10_000).for_each(|_| bytes.extend(frame(CONTINUATION, NO_FLAGS, 1, &[])));
        after_hello(&bytes)
    }),
];

/// One stream is in error.
const STREAM: [Row; 8] = [
    ("a connection header", malformed, |_| headers(&[("connection", "close")])),
    ("a transfer coding", malformed, |_| headers(&[("transfer-encoding", "chunked")])),
    ("te other than trailers", malformed, |_| headers(&[("te", "gzip")])),
    ("a pseudo-header behind the others", malformed, |_| headers(&[("x-first", "x"), (":path", "/")])),
    ("no :path", malformed, |w| {
        let block = block(&[(":method", "POST"), (":scheme", "https"), (":authority", &w.host())]);
        after_hello(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
    }),
    ("two :methods", malformed, |_| {
        let block = block(&[(":method", "POST"), (":method", "GET"), (":scheme", "https"), (":path", SIGN)]);
        after_hello(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
    }),
    ("a stream that depends on itself", malformed, |_| after_hello(&frame(PRIORITY, NO_FLAGS, 1, &[0, 0, 0, 1, 16]))),
    (
        "more streams at once than are offered",
        || Expect::Reset(&[REFUSED_STREAM]),
        |w| {
            let open = |n: u32| frame(HEADERS, END_HEADERS, 2 * n + 1, &request(w));
            after_hello(&(0..200).flat_map(open).collect::<Vec<u8>>())
        },
    ),
];

/// Sends the bytes and reads until the connection ends or a stream is reset.
fn exchange(world: &World, bytes: &[u8]) -> Result<Wire> {
    let mut raw = wire::http2(world)?;
    let from = raw.local_addr()?;
    // A flood may be cut off while it is still being sent.
    let _ = raw.send(bytes);
    let received = raw.receive_until(PATIENCE, |bytes| {
        let frames = frames(bytes);
        frames.iter().any(|frame| frame.kind == RST_STREAM) && !frames.iter().any(|frame| frame.kind == GOAWAY)
    });
    Ok(Wire { from, received })
}

fn after_hello(bytes: &[u8]) -> Vec<u8> {
    [&hello(), bytes].concat()
}

/// A signing request's head but for these headers.
fn headers(more: &[(&str, &str)]) -> Vec<u8> {
    let fields =
        [&[(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", SIGN)], more].concat();
    after_hello(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)))
}

/// The head of a request that would be let in; its body does not come.
fn request(world: &World) -> Vec<u8> {
    let token = format!("Bearer {}", world.bound_by_certificate().token().encode());
    block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", &world.host()),
        (":path", SIGN),
        ("content-type", "application/json"),
        ("authorization", &token),
    ])
}

/// The head of a request that would not.
fn stranger(world: &World) -> Vec<u8> {
    block(&[(":method", "POST"), (":scheme", "https"), (":authority", &world.host()), (":path", SIGN)])
}

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
const HTTP: &[&str] = &["http_malformed"];

fn protocol() -> Expect {
    Expect::GoAway(&[PROTOCOL_ERROR], HTTP)
}

/// Nobody who speaks HTTP/2 is there to be told.
fn no_preface() -> Expect {
    Expect::Cut(None, HTTP)
}

/// The specification leaves some choice of code.
fn any_error() -> Expect {
    Expect::GoAway(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], HTTP)
}

fn calm() -> Expect {
    Expect::GoAway(&[ENHANCE_YOUR_CALM], HTTP)
}

fn malformed() -> Expect {
    Expect::Reset(&[PROTOCOL_ERROR])
}
