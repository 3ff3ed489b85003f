//! HTTP/1.1 as bytes: messages that are none, or that two readers could read differently (RFC 9112).

#![forbid(unsafe_code)]

use testkit::{Context as _, Result};

use crate::case::{Case, Expect};
use crate::wire::{Request, Wire, exchange};
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let row = |&(name, ref expect, bytes): &Row| {
        Case::wire(format!("HTTP/1.1: {name}"), expect(), move |world| exchange(world, &bytes(world), 1))
    };
    let after_good = |&(name, ref expect, bytes): &Row| {
        Case::wire(format!("HTTP/1.1: {name}, behind a good request"), expect(), move |world| {
            exchange(world, &[Request::good(world).bytes(), bytes(world)].concat(), 2)
        })
    };
    let mut cases: Vec<Case> = MALFORMED.iter().map(row).collect();
    cases.extend(BODIES.iter().chain(&ODD).map(row));
    cases.extend(PIPELINED.iter().map(after_good));
    cases.push(Case::wire(
        "HTTP/1.1: Content-Length and Transfer-Encoding: read by its chunks, and nothing read behind it (is right)",
        right(),
        two_lengths,
    ));
    cases
}

type Row = (&'static str, fn() -> Expect, fn(&World) -> Vec<u8>);

/// No request comes of it; the client is told a bare status.
const MALFORMED: [Row; 29] = [
    ("HTTP/0.9", bad, |_| b"GET /api/v1/signer/keys\r\n\r\n".to_vec()),
    ("HTTP/2.0 by name", bad, |w| Request::good(w).line("POST /api/v1/signer/sign/dsse HTTP/2.0").bytes()),
    ("HTTP/1.2", bad, |w| Request::good(w).line("POST /api/v1/signer/sign/dsse HTTP/1.2").bytes()),
    ("the preface of HTTP/2", || Expect::Cut(None, HTTP), |_| b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ("garbage", bad, |_| vec![0xff; 64]),
    ("a TLS record within TLS", bad, |_| [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 500]].concat()),
    ("two spaces in the request line", bad, |w| {
        Request::good(w).line("POST  /api/v1/signer/sign/dsse HTTP/1.1").bytes()
    }),
    ("a tab in the request line", bad, |w| Request::good(w).line("POST\t/api/v1/signer/sign/dsse HTTP/1.1").bytes()),
    ("no target", bad, |w| Request::good(w).line("POST HTTP/1.1").bytes()),
    ("a line feed in the target", bad, |w| Request::good(w).line("POST /api\n/v1 HTTP/1.1").bytes()),
    ("a space before a header's colon", bad, |w| Request::good(w).header("X-Poe : x").bytes()),
    ("a header without a name", bad, |w| Request::good(w).header(": x").bytes()),
    ("a header without a colon", bad, |w| Request::good(w).header("X-Poe").bytes()),
    ("a header name beyond ASCII", bad, |w| Request::good(w).header("X-Po\u{eb}: x").bytes()),
    ("a folded header", bad, |w| Request::good(w).header("X-Folded: a\r\n b").bytes()),
    ("a header that begins with a space", bad, |w| Request::good(w).header(" X-Poe: x").bytes()),
    ("a NUL in a header", bad, |w| Request::good(w).header("X-Nul: a\0b").bytes()),
    ("a bare carriage return in a header", bad, |w| Request::good(w).header("X-Cr: a\rX-Poe: b").bytes()),
    ("two different Content-Lengths", bad, |w| Request::good(w).header("Content-Length: 5").bytes()),
    ("a list of Content-Lengths", bad, |w| length(w, "5, 6")),
    ("a negative Content-Length", bad, |w| length(w, "-1")),
    ("a Content-Length with a plus", bad, |w| length(w, "+5")),
    ("a Content-Length in hexadecimal", bad, |w| length(w, "0x10")),
    ("a Content-Length beyond 64 bits", bad, |w| length(w, "99999999999999999999999")),
    ("an empty Content-Length", bad, |w| length(w, "")),
    ("Transfer-Encoding that does not end in chunked", bad, |w| coding(w, "chunked, gzip")),
    ("Transfer-Encoding gzip", bad, |w| coding(w, "gzip")),
    (
        "headers of 64 KiB",
        || Expect::Cut(Some(431), HTTP),
        |w| Request::good(w).header(format!("X-Large: {}", "x".repeat(64 * 1024))).bytes(),
    ),
    (
        "two hundred headers",
        || Expect::Cut(Some(431), HTTP),
        |w| (0..200).fold(Request::good(w), |request, n| request.header(format!("X-{n}: x"))).bytes(),
    ),
];

/// The head is right and the body is not.
const BODIES: [Row; 9] = [
    ("a chunk size that is no number", broken, |w| chunks(w, b"zz\r\n{}\r\n0\r\n\r\n")),
    ("a chunk size beyond 64 bits", broken, |w| chunks(w, b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
    ("a negative chunk size", broken, |w| chunks(w, b"-2\r\n{}\r\n0\r\n\r\n")),
    ("a chunk size with 0x in front", broken, |w| chunks(w, b"0x2\r\n{}\r\n0\r\n\r\n")),
    ("a chunk longer than it says", broken, |w| chunks(w, b"1\r\n{}\r\n0\r\n\r\n")),
    ("a chunk extension of 64 KiB", broken, |w| {
        chunks(w, format!("2;x={}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(64 * 1024)).as_bytes())
    }),
    ("a chunk size that ends in a bare line feed", broken, |w| chunks(w, b"2\n{}\r\n0\r\n\r\n")),
    ("trailers of 64 KiB", broken, |w| {
        chunks(w, format!("2\r\n{{}}\r\n0\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024)).as_bytes())
    }),
    (
        "credentials in the trailers",
        || Expect::unauthenticated("authorization_missing"),
        |w| {
            let token = w.bound_by_certificate().token().encode();
            Request::stranger(w).chunked(&[&format!("Authorization: Bearer {token}")]).bytes()
        },
    ),
];

/// Odd and legal.
const ODD: [Row; 8] = [
    ("HTTP/1.0 (is right)", right, |w| Request::good(w).line("POST /api/v1/signer/sign/dsse HTTP/1.0").bytes()),
    ("lines that end in bare line feeds (is right)", right, |w| {
        let request = Request::good(w);
        let head = String::from_utf8(request.head()).unwrap().replace("\r\n", "\n");
        [head.into_bytes(), request.body].concat()
    }),
    ("an empty line in front (is right)", right, |w| [b"\r\n".to_vec(), Request::good(w).bytes()].concat()),
    ("the target in absolute form (is right)", right, |w| {
        let line = format!("POST https://{}/api/v1/signer/sign/dsse HTTP/1.1", w.host());
        Request::good(w).line(&line).bytes()
    }),
    ("a body in one chunk, with a trailer (is right)", right, |w| Request::good(w).chunked(&["X-Checksum: 0"]).bytes()),
    ("header names in capitals (is right)", right, |w| {
        let mut request = Request::good(w);
        for line in &mut request.headers {
            let (name, value) = line.split_once(':').unwrap();
            *line = format!("{}:{value}", name.to_uppercase());
        }
        request.bytes()
    }),
    ("an upgrade to HTTP/2 in the clear, which is ignored (is right)", right, |w| {
        Request::good(w)
            .header("Connection: Upgrade, HTTP2-Settings")
            .header("Upgrade: h2c")
            .header("HTTP2-Settings: AAMAAABk")
            .bytes()
    }),
    ("Expect: 100-continue (is right)", right, |w| Request::good(w).header("Expect: 100-continue").bytes()),
];

/// What follows a request that is signed.
const PIPELINED: [Row; 4] = [
    ("garbage", bad, |_| b"\0\0\0\0 garbage \r\n\r\n".to_vec()),
    ("more body than announced", bad, |_| b"{\"subject\":[]}\r\n\r\n".to_vec()),
    (
        "a request without a token",
        || Expect::unauthenticated("authorization_missing"),
        |w| Request::stranger(w).bytes(),
    ),
    (
        "a request with another certificate's token",
        || Expect::unauthenticated("certificate_mismatch"),
        |w| {
            let token = w.bound_by_certificate().showing(Some(&w.fixture.pki.globex)).token().encode();
            Request::stranger(w).header(format!("Authorization: Bearer {token}")).bytes()
        },
    ),
];

/// RFC 9112, section 6.1: the chunks count, and the connection is closed, so that nobody's reading of the length can
/// smuggle a second request in.
fn two_lengths(world: &World) -> Result<Wire> {
    let first = Request::good(world).chunked(&[]).header("Content-Length: 5");
    let wire = exchange(world, &[first.bytes(), Request::stranger(world).bytes()].concat(), 2)?;
    let alone = wire.answers().len() == 1 && wire.received.ended();
    alone.then_some(wire).context("see the connection end after the first answer")
}

const HTTP: &[&str] = &["http_malformed"];

fn bad() -> Expect {
    Expect::Cut(Some(400), HTTP)
}

fn broken() -> Expect {
    Expect::problem(400, "invalid_request", "body_broken_off")
}

fn right() -> Expect {
    Expect::Accepted
}

fn length(world: &World, length: &str) -> Vec<u8> {
    Request::good(world).without("Content-Length").header(format!("Content-Length: {length}")).bytes()
}

fn coding(world: &World, coding: &str) -> Vec<u8> {
    Request::good(world)
        .chunked(&[])
        .without("Transfer-Encoding")
        .header(format!("Transfer-Encoding: {coding}"))
        .bytes()
}

fn chunks(world: &World, chunks: &[u8]) -> Vec<u8> {
    Request::good(world).chunked(&[]).body(chunks).bytes()
}
