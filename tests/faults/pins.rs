//! A PIN that is wrong, and a token that is locked: no attempt is wasted, whatever is restarted how often.

use std::time::{Duration, Instant};

use faulty_token::Function;
use testkit::shell;

use crate::world::{LONG, RESTARTED, SESSIONS, World};

#[test]
fn a_wrong_pin_costs_one_attempt_however_often_the_worker_is_started() {
    let world = World::start("PIN");
    let pin_file = world.fixture().token.pin_file().to_owned();
    let right = std::fs::read(&pin_file).unwrap();
    world.load.paused(|| {
        shell::write_private(&pin_file, b"a wrong one\n").unwrap();
        for _ in 0..4 {
            world.kill_worker();
            until_state(&world, "pin_refused");
        }
        let seen = world.control.counters().unwrap();
        assert_eq!((seen.pin.incorrect, seen.pin.while_locked), (1, 0), "five sessions of workers, one attempt");
        world.well_used("a wrong PIN", &seen);
    });
    let first = world.load.count();
    let began = Instant::now();
    while world.load.since(first).len() < 200 {
        assert!(began.elapsed() < LONG, "callers are not answered\n{}", world.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    shell::write_private(&pin_file, &right).unwrap();
    let corrected = Instant::now();
    while world.load.since(first).iter().all(|asked| !asked.signed) {
        assert!(corrected.elapsed() < RESTARTED, "the corrected PIN is not tried\n{}", world.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    world.print("PIN file wrong, then corrected", first, crate::table::Recovered::After(corrected.elapsed()));
    let seen = world.control.counters().unwrap();
    assert_eq!((seen.pin.incorrect, seen.pin.failed), (1, 0), "and the right one takes the count away");
    world.finish();
}

#[test]
fn a_token_that_somebody_else_locked_is_not_tried_at_all() {
    let world = World::start("locked PIN");
    world.row("locked by somebody else, then unblocked", RESTARTED, |world| {
        world.device.update(|device| device.pin.failed = 3).unwrap();
        world.kill_worker();
        until_state(world, "pin_refused");
        let before = world.control.counters().unwrap();
        let opened = before.of(Function::C_OpenSession).calls;
        let twice_each = opened + 2 * u64::try_from(SESSIONS).unwrap();
        let after =
            world.control.wait_until(LONG, |seen| seen.of(Function::C_OpenSession).calls >= twice_each).unwrap();
        assert_eq!(after.pin.attempts, before.pin.attempts, "nothing is presented to a locked token");
        world.control.unblock_pin().unwrap();
        Instant::now()
    });
    world.finish();
}

/// Waits until the front says so of the token.
fn until_state(world: &World, state: &str) {
    let began = Instant::now();
    loop {
        let status = world.fixture().appliance.token_status("main");
        if status.as_ref().is_ok_and(|status| status["state"] == state) {
            return;
        }
        assert!(began.elapsed() < LONG, "{status:?}\n{}", world.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}
