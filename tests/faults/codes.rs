//! Every return code of PKCS#11 by name.

use std::time::{Duration, Instant};

use faulty_token::{Ckr, Fault, Function, ckr};

use crate::world::{LONG, RECOVERED, RESTARTED, World};

#[test]
fn whatever_code_signing_returns_it_signs_again_by_itself() {
    let world = World::start("code of C_SignInit and C_Sign");
    for (name, code) in ckr::ALL {
        let limit = if NEW_PROCESS.contains(code) { RESTARTED } else { RECOVERED };
        world.row_until(name, limit, SHORTLY, |world| returns(world, *code));
    }
    let vendors = Ckr(ckr::CKR_VENDOR_DEFINED.0 | 0x42);
    world.row_until("a vendor's own code", RECOVERED, SHORTLY, |world| returns(world, vendors));
    world.row_until("a number that is no code", RECOVERED, SHORTLY, |world| returns(world, Ckr(0x7777)));
    world.finish();
}

#[test]
fn whatever_code_opening_a_session_returns_it_signs_again_by_itself() {
    let world = World::start("code of C_OpenSession");
    for (name, code) in ckr::ALL.iter().filter(|(_, code)| *code != ckr::CKR_OK) {
        let limit = if NEW_PROCESS.contains(code) { RESTARTED } else { RECOVERED };
        world.row_until(name, limit, SHORTLY, |world| {
            let open = Fault::on(Function::C_OpenSession).returns(*code).times(FAULTS);
            world.control.inject(open).unwrap();
            world.control.strike(faulty_token::Event::lose_sessions()).unwrap();
            spent(world, &[Function::C_OpenSession], FAULTS)
        });
    }
    world.finish();
}

fn returns(world: &World, code: Ckr) -> Instant {
    world.control.reset_counters().unwrap();
    // CKR_OK of a C_Sign that did nothing is a signature that is none: its key waits for an operator. That of a
    // C_SignInit that did nothing is found out by C_Sign alone.
    let functions: &[Function] =
        if code == ckr::CKR_OK { &[Function::C_SignInit] } else { &[Function::C_Sign, Function::C_SignInit] };
    for function in functions {
        world.control.inject(Fault::on(*function).returns(code).times(FAULTS)).unwrap();
    }
    spent(world, functions, FAULTS * functions.len() as u64)
}

/// Waits until the faults have fallen, or the process is gone and they with it.
fn spent(world: &World, functions: &[Function], times: u64) -> Instant {
    let (began, restarts) = (Instant::now(), world.restarts());
    loop {
        let gone = world.restarts() > restarts;
        let fallen = world.control.counters().map(|seen| functions.iter().map(|f| seen.of(*f).injected).sum::<u64>());
        if gone || fallen.is_ok_and(|fallen| fallen >= times) {
            return Instant::now();
        }
        assert!(began.elapsed() < LONG, "the fault did not fall\n{}", world.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// With these the module is beyond what can be mended within the process.
const NEW_PROCESS: [Ckr; 3] =
    [ckr::CKR_CANT_LOCK, ckr::CKR_NEED_TO_CREATE_THREADS, ckr::CKR_CRYPTOKI_ALREADY_INITIALIZED];

/// More than one request can be spared by being tried twice.
const FAULTS: u64 = 3;

const SHORTLY: Duration = Duration::from_millis(80);
