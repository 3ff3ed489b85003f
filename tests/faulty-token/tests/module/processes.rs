//! What outlives a process, and what ends it.

use std::os::unix::process::ExitStatusExt;

use faulty_token::{Condition, Controller, Crash, Event, Fault, Function, MisuseKind, Until, ckr};

use crate::support::{
    Application, PATIENCE, Token, WRONG_PIN, gives, load, login, private, role, sign_with, test_name, token_slot,
};

/// The name of the test in which it stands.
macro_rules! name {
    () => {{
        fn here() {}
        test_name(std::any::type_name_of_val(&here))
    }};
}

#[test]
fn a_crash_in_a_named_call_kills_the_process_by_its_signal() {
    let name = name!();
    if role().is_some() {
        let application = Application::start();
        let session = application.logged_in();
        let key = private(&session);
        loop {
            sign_with(&session, key, b"hello").unwrap();
        }
    }
    for (how, signal) in [(Crash::Segv, 11), (Crash::Abort, 6), (Crash::Kill, 9)] {
        let token = Token::new();
        let mut child = token.command(&name, "signs").spawn().unwrap();
        let control = Controller::connect(token.path("control")).unwrap();
        control.wait_until(PATIENCE, |seen| seen.signatures > 3).unwrap();
        control.inject(Fault::on(Function::C_Sign).crashes(how)).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal), "{how:?}");
    }
}

#[test]
fn a_fault_that_persists_is_found_by_as_many_processes_as_told() {
    let name = name!();
    if role().is_some() {
        Application::start();
        return;
    }
    let token = Token::new();
    assert!(token.act(&name, "starts").success());
    let fault = Fault::on(Function::C_OpenSession).crashes(Crash::Abort).times(2).persistent();
    token.state().update(|state| state.faults.push(fault)).unwrap();
    let deaths: Vec<_> = (0..4).map(|_| token.act(&name, "starts").signal()).collect();
    assert_eq!(deaths, [Some(6), Some(6), None, None]);
    assert_eq!(token.state().read().unwrap().loads, 5);
}

#[test]
fn a_device_that_fails_until_the_restart_is_not_helped_by_initialize() {
    let name = name!();
    match role().as_deref() {
        Some("strikes") => {
            let application = Application::start();
            application.control.strike(Event::fail(Until::Restart)).unwrap();
            gives(application.open(), ckr::CKR_DEVICE_ERROR);
            application.module.finalize().unwrap();
            // Even a library that was closed and loaded again is the same process.
            let (module, _) = load();
            let arguments = cryptoki::context::CInitializeFlags::OS_LOCKING_OK;
            module.initialize(cryptoki::context::CInitializeArgs::new(arguments)).unwrap();
            gives(module.open_ro_session(application.slot), ckr::CKR_DEVICE_ERROR);
        }
        Some(_) => assert!(Application::plain().signs()),
        None => {
            let token = Token::new();
            assert!(token.act(&name, "strikes").success());
            assert!(token.act(&name, "works").success());
        }
    }
}

#[test]
fn a_pulled_token_stays_away_for_the_next_process_and_its_limits_stay() {
    let name = name!();
    match role().as_deref() {
        Some("pulls") => {
            let application = Application::start();
            application.control.strike(Event::remove_token()).unwrap();
            application.control.impose(Condition::SessionLimit { sessions: 1 }).unwrap();
        }
        Some(_) => {
            let (module, control) = load();
            let arguments = cryptoki::context::CInitializeFlags::OS_LOCKING_OK;
            module.initialize(cryptoki::context::CInitializeArgs::new(arguments)).unwrap();
            assert_eq!(token_slot(&module), None);
            control.strike(Event::return_token()).unwrap();
            let slot = token_slot(&module).unwrap();
            let _one = module.open_ro_session(slot).unwrap();
            gives(module.open_ro_session(slot), ckr::CKR_SESSION_COUNT);
        }
        None => {
            let token = Token::new();
            assert!(token.act(&name, "pulls").success());
            assert!(token.act(&name, "returns").success());
            assert_eq!(token.state().read().unwrap().removed, None);
        }
    }
}

#[test]
fn wrong_pins_are_counted_over_processes_until_they_lock() {
    let name = name!();
    if role().is_some() {
        let application = Application::plain();
        let session = application.open().unwrap();
        assert!(login(&session, WRONG_PIN).is_err());
        let seen = application.control.counters().unwrap();
        assert_eq!(seen.misused(MisuseKind::RefusedPinAgain), u64::from((2..=3).contains(&seen.loads)));
        return;
    }
    let token = Token::new();
    for _ in 0..4 {
        assert!(token.act(&name, "logs in wrongly").success());
    }
    let pin = token.state().read().unwrap().pin;
    assert_eq!((pin.failed, pin.attempts, pin.incorrect, pin.while_locked), (3, 3, 3, 1));
}

#[test]
fn a_second_process_leaves_the_first_ones_socket_alone_and_the_next_takes_a_dead_ones() {
    let name = name!();
    if role().is_some() {
        let application = Application::plain();
        println!("started");
        application.control.inject(Fault::on(Function::C_OpenSession).hangs()).unwrap();
        let _ = application.open();
        return;
    }
    let token = Token::new();
    let start = || token.command(&name, "hangs").spawn().unwrap();
    let mut first = start();
    let control = Controller::connect(token.path("control")).unwrap();
    control.wait_until(PATIENCE, |seen| seen.hanging == 1).unwrap();
    let pid = control.counters().unwrap().pid;
    assert_eq!(pid, first.id());
    let mut second = start();
    while token.state().read().unwrap().loads < 2 {
        std::thread::yield_now();
    }
    assert_eq!(control.counters().unwrap().pid, pid);
    second.kill().unwrap();
    second.wait().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    let mut third = start();
    control.wait_until(PATIENCE, |seen| seen.hanging == 1).unwrap();
    assert_eq!(control.counters().unwrap().pid, third.id());
    third.kill().unwrap();
    third.wait().unwrap();
}
