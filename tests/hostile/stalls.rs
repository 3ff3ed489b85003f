//! Clients that are slow on purpose. All rows run side by side, each against a time limit of two seconds.

#![forbid(unsafe_code)]

use std::time::Duration;

use testkit::Result;
use testkit::raw::{Raw, Received};

use crate::case::{Case, Expect};
use crate::frames::{CONTINUATION, HEADERS, NO_FLAGS, PING, PREFACE, block, frame, hello};
use crate::wire::{self, PATIENCE, Request, Wire};
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let row = |&(name, ref expect, exchange): &Row| Case::wire(format!("stall: {name}"), expect(), exchange).slow();
    ROWS.iter().map(row).collect()
}

type Row = (&'static str, fn() -> Expect, fn(&World) -> Result<Wire>);

const ROWS: [Row; 14] = [
    ("TCP and no TLS", handshake, |w| {
        let mut raw = Raw::plain(w.fixture.appliance.addr())?;
        wait(&mut raw)
    }),
    ("the half of a ClientHello", handshake, |w| {
        let mut raw = Raw::plain(w.fixture.appliance.addr())?;
        raw.send([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])?;
        wait(&mut raw)
    }),
    ("a ClientHello byte by byte", handshake, |w| {
        let mut raw = Raw::plain(w.fixture.appliance.addr())?;
        raw.trickle([&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 200]].concat(), PAUSE);
        wait(&mut raw)
    }),
    ("no request", closed, |w| wait(&mut wire::http1(w)?)),
    ("the half of a request line", slow_head, |w| {
        let mut raw = wire::http1(w)?;
        raw.send("POST /api/v1/sig")?;
        wait(&mut raw)
    }),
    ("headers that never end", slow_head, |w| {
        let mut raw = wire::http1(w)?;
        raw.send("POST /api/v1/signer/sign/dsse HTTP/1.1\r\nHost: localhost\r\nX-")?;
        wait(&mut raw)
    }),
    ("headers byte by byte", slow_head, |w| {
        let mut raw = wire::http1(w)?;
        raw.trickle(Request::good(w).head(), PAUSE);
        wait(&mut raw)
    }),
    ("a second request's headers that never end", slow_second_head, half_of_a_second_head),
    ("HTTP/2 and no settings", closed, |w| {
        let mut raw = wire::http2(w)?;
        raw.send([PREFACE, &frame(PING, NO_FLAGS, 0, &[0; 8])].concat())?;
        wait(&mut raw)
    }),
    ("HTTP/2 without a preface", || Expect::Dropped, |w| wait(&mut wire::http2(w)?)),
    ("HTTP/2 headers that never end", closed, |w| {
        let mut raw = wire::http2(w)?;
        let begin = block(&[(":method", "POST"), (":scheme", "https")]);
        raw.send([hello(), frame(HEADERS, NO_FLAGS, 1, &begin)].concat())?;
        // Now and then a little more, so that the connection is never silent.
        trickle_frames(&mut raw, &frame(CONTINUATION, NO_FLAGS, 1, &block(&[("x-more", "x")])));
        wait(&mut raw)
    }),
    ("a body that does not come", slow_body, |w| {
        let mut raw = wire::http1(w)?;
        raw.send(Request::good(w).head())?;
        wire::finish(&mut raw, 1)
    }),
    ("a body byte by byte", slow_body, |w| {
        let mut raw = wire::http1(w)?;
        let request = Request::good(w);
        raw.send(request.head())?;
        raw.trickle(&request.body[..60], PAUSE);
        wire::finish(&mut raw, 1)
    }),
    ("a body that breaks off", broken_body, |w| {
        let mut raw = wire::http1(w)?;
        let request = Request::good(w);
        raw.send([request.head(), request.body[..100].to_vec()].concat())?;
        raw.finish_sending()?;
        wire::finish(&mut raw, 1)
    }),
];

/// Sixty bytes take three seconds.
const PAUSE: Duration = Duration::from_millis(50);

fn handshake() -> Expect {
    Expect::Cut(None, &["handshake_timeout"])
}

fn slow_head() -> Expect {
    Expect::Cut(None, &["headers_too_slow"])
}

fn slow_second_head() -> Expect {
    Expect::Cut(Some(401), &["headers_too_slow"])
}

/// It was idle: nobody's business.
fn closed() -> Expect {
    Expect::Closed
}

fn broken_body() -> Expect {
    Expect::problem(400, "invalid_request", "body_broken_off")
}

fn slow_body() -> Expect {
    Expect::problem(400, "invalid_request", "body_too_slow")
}

/// Reads until the appliance loses its patience.
fn wait(raw: &mut Raw) -> Result<Wire> {
    Ok(Wire { from: raw.local_addr()?, received: raw.receive(PATIENCE) })
}

/// The same frame every half second, for six.
fn trickle_frames(raw: &mut Raw, frame: &[u8]) {
    for _ in 0..12 {
        if raw.send(frame).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn half_of_a_second_head(world: &World) -> Result<Wire> {
    let mut raw = wire::http1(world)?;
    raw.send(Request::stranger(world).bytes())?;
    let first = wire::finish(&mut raw, 1)?;
    raw.send("POST /api")?;
    let rest = wait(&mut raw)?;
    let bytes = [first.received.bytes, rest.received.bytes].concat();
    Ok(Wire { received: Received { bytes, end: rest.received.end }, ..first })
}
