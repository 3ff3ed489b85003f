//! What cannot be decided now is refused: an Authority that is gone, a memory that is full, a place that is taken.
//! The rows run in this order, on an appliance of their own.

#![forbid(unsafe_code)]

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use testkit::https::Mode;
use testkit::raw::Raw;
use testkit::{Context as _, Result, sample};

use crate::case::{Case, Expect, Sent};
use crate::wire::{self, PATIENCE, Wire};
use crate::world::{MAX_CONNECTIONS, REMEMBERED_PROOFS, World};

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let unavailable = |reason, recorded| Expect::problem(503, "dependency_unavailable", reason).recorded(recorded);
    let row = |name: &str, expect, attempt: fn(&World) -> Result<Sent>| Case {
        name: name.to_owned(),
        attempt: Box::new(attempt),
        expect,
        slow: false,
    };
    vec![
        row(
            "outage: the Licensing Service cannot be reached",
            unavailable("licensing_unavailable", "licensing_unreachable"),
            without_licensing,
        ),
        row(
            "outage: the Authority's keys are too old to be believed",
            unavailable("authority_keys_unavailable", "authority_keys_unavailable"),
            without_the_authority,
        ),
        Case::wire(
            "outage: one connection more than there may be",
            Expect::Cut(None, &["too_many_connections"]),
            crowd,
        ),
        Case::wire(
            "outage: one client that takes the connections of all",
            Expect::Cut(None, &["too_many_connections_of_one"]),
            crowd_of_one,
        ),
        row(
            "outage: one body more than all may hold together",
            Expect::problem(503, "overloaded", "bodies_in_flight"),
            with_bodies_in_flight,
        ),
        row(
            "outage: one proof more than can be remembered",
            Expect::problem(503, "overloaded", "replay_memory_full"),
            with_a_full_memory,
        ),
    ]
}

fn without_licensing(world: &World) -> Result<Sent> {
    let licensing = &world.fixture.licensing;
    let client = world.bound_by_certificate();
    let opaque = licensing.register(&client.poe());
    licensing.mode().set(Mode::Down);
    let answer = client.sign(&sample::request()).poe_text("opaque", opaque).try_send();
    licensing.mode().set(Mode::Up);
    answer.map(Sent::Answer)
}

/// Until the keys' time is up tokens are still judged by them; after it nobody is let in, and when the Authority is
/// back all is well.
fn without_the_authority(world: &World) -> Result<Sent> {
    let authority = &world.fixture.authority;
    let client = world.bound_by_certificate();
    authority.mode().set(Mode::Status(500));
    let refused = until(&client, |status| status != 200);
    authority.mode().set(Mode::Up);
    let refused = refused?;
    until(&client, |status| status == 200)?;
    Ok(Sent::Answer(refused))
}

fn until(client: &testkit::client::Client, reached: fn(u16) -> bool) -> Result<testkit::client::Answer> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = client.keys().try_send()?;
        if reached(answer.status) {
            return Ok(answer);
        }
        (Instant::now() < deadline).then_some(()).context(format!("see it change: {answer}"))?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn crowd(world: &World) -> Result<Wire> {
    let addr = world.fixture.appliance.addr();
    let mut crowd = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        crowd.push(wire::tcp(world)?);
    }
    let mut late = Raw::plain(addr)?;
    let from = late.local_addr()?;
    let received = late.receive(PATIENCE);
    Ok(Wire { from, received })
}

/// Each connection is known by its answer, until one gets none.
fn crowd_of_one(world: &World) -> Result<Wire> {
    let mut crowd = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut connection = wire::http1(world)?;
        // One that is cut may be gone before this is sent.
        let _ = connection.send(b"GET /api/v1/signer/keys HTTP/1.1\r\nHost: signer\r\n\r\n");
        let seen = wire::finish(&mut connection, 1)?;
        if seen.answers().is_empty() {
            return Ok(seen);
        }
        crowd.push(connection);
    }
    Err(testkit::Error::new("one client holds all connections"))
}

/// One body holds most of what all may, and goes on coming; the next is refused. When the first has gone, what it held is
/// there again.
fn with_bodies_in_flight(world: &World) -> Result<Sent> {
    let mut first = wire::http1(world)?;
    let request = wire::Request::good(world).without("Content-Length").header("Content-Length: 1572864");
    first.send([request.head(), vec![b' '; HELD]].concat())?;
    until_held(world, |bytes| bytes >= HELD as f64)?;
    let (go_on, over) = mpsc::channel::<()>();
    let kept = std::thread::spawn(move || {
        // A body of which nothing comes for two seconds is given up.
        while over.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
            if first.send(" ").is_err() {
                break;
            }
        }
    });
    let answer = world.bound_by_certificate().sign(&sample::request_of(300_000)).try_send();
    drop(go_on);
    kept.join().map_err(|_| testkit::Error::new("the first body was not sent"))?;
    until_held(world, |bytes| bytes == 0.0)?;
    answer.map(Sent::Answer)
}

fn until_held(world: &World, reached: impl Fn(f64) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = world.fixture.appliance.metrics()?.sum("signer_body_bytes_held", &[]);
        if reached(held) {
            return Ok(());
        }
        (Instant::now() < deadline).then_some(()).context(format!("see another number than {held} bytes held"))?;
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// No proof that may still be used again is forgotten to make room.
fn with_a_full_memory(world: &World) -> Result<Sent> {
    let client = world.client();
    for _ in 0..=REMEMBERED_PROOFS {
        let answer = client.keys().try_send()?;
        if answer.status != 200 {
            return Ok(Sent::Answer(answer));
        }
    }
    Err(testkit::Error::new("more proofs were accepted than can be remembered"))
}

/// Of 1.5 MiB for all bodies.
const HELD: usize = 1280 * 1024;
