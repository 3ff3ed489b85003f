//! Too large, too many, too fast: each meets the limit that is meant for it.

#![forbid(unsafe_code)]

use serde_json::json;
use testkit::client::Call;
use testkit::jwt::Jwt;
use testkit::{Context as _, Error, Result, random_id, sample};

use crate::case::{Case, Expect, Sent};
use crate::wire::{self, Request, Wire};
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let too_large = || Expect::problem(413, "artifact_too_large", "body_too_large");
    let plan_large = || Expect::problem(413, "artifact_too_large", "plan_artifact_bytes");
    vec![
        Case::wire("size: 32 MiB and a byte, by Content-Length", too_large(), |world| {
            let request = Request::good(world).without("Content-Length").header("Content-Length: 33554433");
            wire::exchange(world, &request.head(), 1)
        }),
        Case::wire("size: a petabyte, by Content-Length", too_large(), |world| {
            let request = Request::good(world).without("Content-Length").header("Content-Length: 1125899906842624");
            wire::exchange(world, &request.head(), 1)
        }),
        Case::wire("size: 32 MiB and a byte, in chunks", too_large(), in_chunks),
        Case::wire(
            "size: 32 MiB and a byte, from a stranger",
            Expect::unauthenticated("authorization_missing"),
            |world| {
                let request = Request::stranger(world).without("Content-Length").header("Content-Length: 33554433");
                wire::exchange(world, &request.head(), 1)
            },
        ),
        Case::call("size: 70 KB under a plan of 64 KiB", plan_large(), |world| {
            world.client().sign(&sample::request_of(70_000)).poe(free)
        }),
        Case::call("size: 70 KB under limits of the PoE's own", plan_large(), |world| {
            let limits = json!({"max_artifact_bytes": 65_536});
            world.client().sign(&sample::request_of(70_000)).poe(|poe| licence(poe).claim("limits", limits))
        }),
        Case::call("rate: a second request within the second that one takes", throttled("plan_rate"), |world| {
            let (license, limits) = (random_id(), json!({"qps": 1, "burst": 1}));
            let call = || {
                let (license, limits) = (&*license, limits.clone());
                world.sign().poe(move |poe| poe.claim("license_id", license).claim("limits", limits))
            };
            world.expect_signed(call());
            call()
        }),
        Case {
            name: "concurrency: a second request while the first is being signed".to_owned(),
            attempt: Box::new(while_one_is_signed),
            expect: throttled("plan_concurrency"),
            slow: false,
        },
        Case::call("size: 200,000 small members", Expect::Accepted, |world| members(world, 200_000)),
        Case::call("size: an array of 4,200,000 zeros", Expect::invalid("more than"), |world| {
            world.sign().body_text(|text| {
                text.replacen(r#""predicate":{"#, &format!(r#""predicate":{{"a":[0{}],"#, ",0".repeat(4_200_000)), 1)
            })
        }),
    ]
}

fn throttled(reason: &'static str) -> Expect {
    Expect::problem(429, "plan_throttled", reason)
}

/// Under the plan `free`: two at once, 64 KiB, one at a time.
fn free(poe: Jwt) -> Jwt {
    licence(poe).claim("plan", "free")
}

/// A licence of its own, so that rows do not meet in one account.
fn licence(poe: Jwt) -> Jwt {
    poe.claim("license_id", format!("lic-hostile-{}", random_id()))
}

fn members(world: &World, count: usize) -> Call {
    world.sign().body_text(|text| {
        let members: String = (0..count).map(|n| format!(r#""{n}":0,"#)).collect();
        text.replacen(r#""predicate":{"#, &format!(r#""predicate":{{{members}"#), 1)
    })
}

/// One byte too many, which nobody announced.
fn in_chunks(world: &World) -> Result<Wire> {
    let mut raw = wire::http1(world)?;
    raw.send(Request::good(world).chunked(&[]).head())?;
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    for _ in 0..32 {
        raw.send(&chunk).context("send a megabyte that is not too much yet")?;
    }
    raw.send("1\r\n \r\n0\r\n\r\n")?;
    wire::finish(&mut raw, 1)
}

/// With the token's worker asleep, the first request waits where it holds its place.
fn while_one_is_signed(world: &World) -> Result<Sent> {
    let license = format!("lic-hostile-{}", random_id());
    let limits = json!({"qps": 100, "burst": 100, "concurrency": 1});
    let call = || world.sign().poe(|poe| poe.claim("license_id", &*license).claim("limits", limits.clone()));
    world.signal_worker("STOP")?;
    let answer = std::thread::scope(|scope| {
        let first = scope.spawn(|| world.expect_signed(call()));
        let waiting = world.wait_for_record(|record| record["license"] == *license && record["kind"] == "intent");
        let second = waiting.and_then(|()| call().try_send());
        world.signal_worker("CONT")?;
        first.join().map_err(|_| Error::new("the first request was not signed"))?;
        second
    });
    answer.map(Sent::Answer)
}
