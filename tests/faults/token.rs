//! The token goes away and comes back, forgets its sessions, or fails as a whole.

use std::time::{Duration, Instant};

use faulty_token::{Condition, Event, Fault, Function, IdleEnd, Until, ckr};

use crate::world::{RECOVERED, RESTARTED, World};

#[test]
fn a_token_that_is_back_signs_again_by_itself() {
    let world = World::start("token");
    let strike = |event| {
        move |world: &World| {
            world.control.strike(event).unwrap();
            Instant::now()
        }
    };
    world.row("every session is lost", RECOVERED, strike(Event::lose_sessions()));
    let closed = Event::LoseSessions { code: ckr::CKR_SESSION_CLOSED };
    world.row("every session is lost, CKR_SESSION_CLOSED", RECOVERED, strike(closed));
    world.row("the login is lost", RECOVERED, strike(Event::LoseLogin));

    for (name, code, with_slot, seen, limit) in [
        ("token pulled and back", ckr::CKR_DEVICE_REMOVED, false, Until::Now, RECOVERED),
        ("token pulled and back, CKR_TOKEN_NOT_PRESENT", ckr::CKR_TOKEN_NOT_PRESENT, false, Until::Now, RECOVERED),
        ("reader unplugged and back", ckr::CKR_DEVICE_REMOVED, true, Until::Now, RECOVERED),
        ("token back, seen after C_Initialize", ckr::CKR_DEVICE_REMOVED, false, Until::Reinitialize, MAY_RESTART),
        ("token back, seen by a new process", ckr::CKR_DEVICE_REMOVED, false, Until::Restart, RESTARTED),
    ] {
        world.row(name, limit, |world| {
            world.control.strike(Event::RemoveToken { code, with_slot }).unwrap();
            std::thread::sleep(AWAY);
            world.control.strike(Event::ReturnToken { seen }).unwrap();
            Instant::now()
        });
    }
    world.finish();
}

#[test]
fn a_device_that_fails_as_a_whole_is_climbed_after_rung_by_rung() {
    let world = World::start("device");
    world.row("device fails for 0.9 s and is mended", RECOVERED, |world| {
        world.control.strike(Event::Fail { code: ckr::CKR_GENERAL_ERROR, until: Until::Now }).unwrap();
        std::thread::sleep(AWAY);
        world.control.strike(Event::Mend).unwrap();
        Instant::now()
    });
    world.row("device fails until C_Finalize and C_Initialize", RECOVERED, |world| {
        world.control.strike(Event::fail(Until::Reinitialize)).unwrap();
        Instant::now()
    });
    world.row("device fails until a new process", RESTARTED, |world| {
        world.control.strike(Event::fail(Until::Restart)).unwrap();
        Instant::now()
    });
    world.row("C_Sign alone fails for 0.9 s", RECOVERED, |world| {
        world.control.inject(Fault::on(Function::C_Sign).returns(ckr::CKR_FUNCTION_FAILED)).unwrap();
        std::thread::sleep(AWAY);
        world.control.clear().unwrap();
        Instant::now()
    });
    world.row("room for two sessions of four", RECOVERED, |world| {
        world.control.impose(Condition::SessionLimit { sessions: 2 }).unwrap();
        world.control.strike(Event::lose_sessions()).unwrap();
        Instant::now()
    });
    world.row("room for all again", RECOVERED, |world| {
        world.control.clear().unwrap();
        let all = Duration::from_secs(5);
        world.control.wait_until(all, |seen| seen.sessions == 4).unwrap();
        Instant::now()
    });
    world.finish();
}

#[test]
fn a_session_that_nobody_uses_is_kept_alive() {
    let world = World::start("idle");
    for (name, then) in
        [("idle beyond the device's limit, sessions lost", IdleEnd::Lose), ("idle, firewall drops", IdleEnd::Hang)]
    {
        let first = world.load.count();
        world.row(name, RECOVERED, |world| {
            world.control.impose(Condition::IdleLimit { idle_ms: 1_500, then }).unwrap();
            world.load.paused(|| std::thread::sleep(Duration::from_secs(4)));
            let now = Instant::now();
            world.control.clear().unwrap();
            now
        });
        let refused = world.load.since(first).iter().filter(|asked| !asked.signed).count();
        assert_eq!(refused, 0, "{name}: callers noticed");
    }
    world.finish();
}

/// Less than it takes the worker to think of its own initialisation.
const AWAY: Duration = Duration::from_millis(900);

/// Two seconds are enough unless the process happens to be restarted just then.
const MAY_RESTART: Duration = RESTARTED;
