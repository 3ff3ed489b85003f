//! Methods, paths and headers: each means one thing, and most mean nothing.

#![forbid(unsafe_code)]

use testkit::client::Call;
use testkit::sample;

use crate::case::{Case, Expect};
use crate::wire::{Request, SIGN, exchange};
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let method = |&(method, path): &(&'static str, &'static str)| {
        let expect = Expect::problem(405, "method_not_allowed", "").recorded("wrong_method");
        Case::call(format!("route: {method} {path}"), expect, move |world| by_method(world, method, path))
    };
    let path = |&path: &&'static str| {
        let expect = Expect::problem(404, "not_found", "").recorded("unknown_route");
        Case::wire(format!("route: {path}"), expect, move |world| {
            let request = Request::good(world).line(&format!("POST {path} HTTP/1.1"));
            exchange(world, &request.bytes(), 1)
        })
    };
    let call = |&(name, ref expect, call): &CallRow| Case::call(format!("header: {name}"), expect(), call);
    let wire = |&(name, ref expect, request): &WireRow| {
        let exchange = move |world: &World| exchange(world, &request(world).bytes(), 1);
        Case::wire(format!("header: {name}"), expect(), exchange)
    };
    let mut cases: Vec<Case> = METHODS.iter().map(method).collect();
    cases.extend(PATHS.iter().map(path));
    cases.extend(HEADERS.iter().map(call));
    cases.extend(WIRE_HEADERS.iter().map(wire));
    cases
}

type CallRow = (&'static str, fn() -> Expect, fn(&World) -> Call);
type WireRow = (&'static str, fn() -> Expect, fn(&World) -> Request);

const METHODS: [(&str, &str); 10] = [
    ("GET", SIGN),
    ("PUT", SIGN),
    ("DELETE", SIGN),
    ("OPTIONS", SIGN),
    ("TRACE", SIGN),
    ("post", SIGN),
    ("BREW", SIGN),
    ("POST", "/api/v1/signer/keys"),
    ("PATCH", SIGN),
    ("GET", "/api/v1/signer/verify/dsse"),
];

/// Not one of them is another spelling of a route.
const PATHS: [&str; 18] = [
    "/",
    "/api/v1/signer/sign/dsse/",
    "//api/v1/signer/sign/dsse",
    "/api/v1//signer/sign/dsse",
    "/api/v1/signer/./sign/dsse",
    "/api/v1/signer/keys/../sign/dsse",
    "/../../../../etc/passwd",
    "/api/v1/signer/sign%2Fdsse",
    "/api/v1/signer/%73ign/dsse",
    "/api/v1/signer/sign/dsse%00",
    "/api/v1/signer/sign/dsse;admin=true",
    "/API/v1/signer/sign/dsse",
    "/api/v2/signer/sign/dsse",
    "/livez",
    "/metrics",
    "/readyz",
    "http://localhost/",
    "api",
];

const HEADERS: [CallRow; 10] = [
    ("no Content-Type", content_type, |w| w.sign().header("content-type", "")),
    ("Content-Type text/plain", content_type, |w| w.sign().header("content-type", "text/plain")),
    ("Content-Type of a form", content_type, |w| w.sign().header("content-type", "application/x-www-form-urlencoded")),
    ("Content-Type multipart", content_type, |w| w.sign().header("content-type", "multipart/form-data; boundary=x")),
    ("Content-Type application/jsonp", content_type, |w| w.sign().header("content-type", "application/jsonp")),
    ("Content-Type twice", content_type, |w| {
        w.sign().header("content-type", "application/json").header("content-type", "application/json")
    }),
    ("Content-Encoding gzip", content_encoding, |w| w.sign().header("content-encoding", "gzip")),
    ("Content-Encoding identity", content_encoding, |w| w.sign().header("content-encoding", "identity")),
    ("a charset behind the Content-Type (is right)", right, |w| {
        w.sign().header("content-type", "Application/JSON; charset=utf-8")
    }),
    ("method override, which means nothing (is right)", right, |w| w.sign().header("x-http-method-override", "GET")),
];

const WIRE_HEADERS: [WireRow; 8] = [
    ("no Host", host, |w| Request::good(w).without("Host")),
    ("two Hosts", host, |w| Request::good(w).header("Host: attacker.test")),
    ("a Host that is none", host, |w| Request::good(w).without("Host").header("Host: a b/c")),
    (
        "a certificate by a proxy's header",
        || Expect::unauthenticated("certificate_mismatch"),
        |w| {
            let pki = &w.fixture.pki;
            let token = w.bound_by_certificate().showing(Some(&pki.globex)).token().encode();
            let hex = testkit::base64(&pki.globex.chain()[0]);
            Request::stranger(w)
                .header(format!("Authorization: Bearer {token}"))
                .header(format!("X-Forwarded-Client-Cert: {hex}"))
                .header(format!("Client-Cert: :{hex}:"))
                .header(format!("X-SSL-Client-Cert: {hex}"))
        },
    ),
    ("a tenant by a header, which means nothing (is right)", right, |w| {
        Request::good(w).header("X-Tenant: globex").header("X-Stella-Tenant: globex")
    }),
    (
        "a token in a cookie",
        || Expect::unauthenticated("authorization_missing"),
        |w| {
            let token = w.bound_by_certificate().token().encode();
            Request::stranger(w).header(format!("Cookie: access_token={token}"))
        },
    ),
    (
        "Proxy-Authorization",
        || Expect::unauthenticated("authorization_missing"),
        |w| {
            let token = w.bound_by_certificate().token().encode();
            Request::stranger(w).header(format!("Proxy-Authorization: Bearer {token}"))
        },
    ),
    (
        "Expect: 100-continue from a stranger",
        || Expect::unauthenticated("authorization_missing"),
        |w| Request::stranger(w).header("Expect: 100-continue").body(""),
    ),
];

fn by_method(world: &World, method: &str, path: &str) -> Call {
    let client = world.client();
    if method == "GET" || path != SIGN {
        return Call::authorized(&client, method, path);
    }
    client.sign(&sample::request()).method(method).path(path)
}

fn content_type() -> Expect {
    Expect::problem(400, "invalid_request", "content_type")
}

fn content_encoding() -> Expect {
    Expect::problem(400, "invalid_request", "content_encoding")
}

fn host() -> Expect {
    Expect::problem(400, "invalid_request", "host")
}

fn right() -> Expect {
    Expect::Accepted
}
