//! The module takes the worker's process with it, or does not come back from a call.

use std::time::{Duration, Instant};

use faulty_token::{Crash, Event, Fault, Function};

use crate::world::{RESTARTED, World};

#[test]
fn a_worker_that_dies_or_hangs_is_replaced_by_one_that_signs() {
    let world = World::start("process");
    let in_use = |fault: Fault, event: Option<Event>| {
        move |world: &World| {
            let pid = world.control.counters().unwrap().pid;
            world.control.inject(fault).unwrap();
            let began = Instant::now();
            if let Some(event) = event {
                world.control.strike(event).unwrap();
            }
            world.wait_for_another(pid);
            began
        }
    };
    let lose_sessions = Some(Event::lose_sessions());
    for (name, function, how, event) in [
        ("SIGSEGV in C_Sign", Function::C_Sign, Crash::Segv, None),
        ("SIGABRT in C_Sign", Function::C_Sign, Crash::Abort, None),
        ("SIGKILL in C_SignInit", Function::C_SignInit, Crash::Kill, None),
        ("SIGSEGV in C_OpenSession", Function::C_OpenSession, Crash::Segv, lose_sessions),
        ("SIGSEGV in C_Login", Function::C_Login, Crash::Segv, lose_sessions),
    ] {
        world.row(name, RESTARTED, in_use(Fault::on(function).crashes(how).once(), event));
    }
    for (name, function, event) in [
        ("C_Sign does not return", Function::C_Sign, None),
        ("C_OpenSession does not return", Function::C_OpenSession, lose_sessions),
        ("C_Login does not return", Function::C_Login, lose_sessions),
        ("C_FindObjects does not return", Function::C_FindObjects, lose_sessions),
        ("C_CloseSession does not return", Function::C_CloseSession, lose_sessions),
    ] {
        world.row(name, RESTARTED, in_use(Fault::on(function).hangs().once(), event));
    }

    // A process that has not come to work yet; the fault waits for it in the device.
    for (name, fault) in [
        ("SIGSEGV in C_Initialize", Fault::on(Function::C_Initialize).crashes(Crash::Segv)),
        ("C_Initialize does not return", Fault::on(Function::C_Initialize).hangs()),
    ] {
        world.row(name, RESTARTED, |world| {
            let restarts = world.restarts();
            world.control.inject(fault.once().persistent()).unwrap();
            world.kill_worker();
            let began = Instant::now();
            while world.restarts() < restarts + 2 {
                assert!(began.elapsed() < Duration::from_secs(20), "{name}\n{}", world.log());
                std::thread::sleep(Duration::from_millis(5));
            }
            began
        });
    }
    world.row("SIGKILL from outside", RESTARTED, |world| {
        world.kill_worker();
        Instant::now()
    });
    world.finish();
}
