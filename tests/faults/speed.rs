//! A slow token is not a broken one.

use std::time::{Duration, Instant};

use faulty_token::{Event, Fault, Function};

use crate::world::{RECOVERED, World};

#[test]
fn a_slow_token_signs_what_it_can_and_the_rest_is_refused_in_time() {
    let world = World::start("slow");
    let first = world.load.count();
    world.row("50 ms more for each signature", RECOVERED, |world| slower(world, 50));
    let refused = world.load.since(first).iter().filter(|asked| !asked.signed).count();
    assert_eq!(refused, 0, "64 callers wait less than their deadline");
    let first = world.load.count();
    world.row("500 ms more: 8 signatures a second for 64 callers", RECOVERED, |world| slower(world, 500));
    let asked = world.load.since(first);
    let longest = asked.iter().map(|asked| asked.ended - asked.began).max().unwrap();
    assert!(longest < SIGN_TIMEOUT + Duration::from_millis(700), "somebody waited {longest:?}");
    assert!(asked.iter().any(|asked| !asked.signed), "it was no overload");
    world.row("a login that takes 1 s", RECOVERED, |world| {
        let login = Fault::on(Function::C_Login).delayed(Duration::from_secs(1)).once();
        world.control.inject(login).unwrap();
        world.control.strike(Event::LoseLogin).unwrap();
        Instant::now()
    });
    world.finish();
}

fn slower(world: &World, millis: u64) -> Instant {
    let fault = world.control.inject(Fault::on(Function::C_Sign).delayed(Duration::from_millis(millis))).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    world.control.lift(fault).unwrap();
    Instant::now()
}

/// As configured.
const SIGN_TIMEOUT: Duration = Duration::from_secs(3);
