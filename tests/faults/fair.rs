//! One tenant's burst is its own affair.

use std::time::{Duration, Instant};

use faulty_token::Condition;
use testkit::sample;

use crate::world::{SESSIONS, World};

#[test]
fn a_tenant_whose_callers_fill_the_queue_does_not_hold_up_another() {
    let world = World::start("two tenants");
    let lanes = u32::try_from(SESSIONS).unwrap();
    let slow = Condition::Lanes { lanes, latency_us: 20_000, jitter_us: 0, memo: false };
    world.control.impose(slow).unwrap();
    let (client, point) = {
        let fixture = world.fixture();
        (fixture.globex(), fixture.keys.globex.point.clone())
    };
    let first = world.load.count();
    let mut small: Vec<Duration> = (0..40)
        .map(|_| {
            let began = Instant::now();
            let answer = client.sign(&sample::request()).send().expect(200);
            answer.envelope().verify(&point).unwrap();
            began.elapsed()
        })
        .collect();
    let meanwhile = world.load.since(first);
    let mut large: Vec<Duration> =
        meanwhile.iter().filter(|asked| asked.signed).map(|asked| asked.ended - asked.began).collect();
    world.control.clear().unwrap();
    let (small, large) = (median(&mut small), median(&mut large));
    eprintln!("  64 callers of one tenant wait {large:?} each, the one caller of another {small:?}");
    // In one queue for all, both would wait as long.
    assert!(small * 2 < large, "{small:?} against {large:?}");
    world.finish();
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
