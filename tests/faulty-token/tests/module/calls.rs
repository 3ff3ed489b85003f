//! Faults of single calls.

use std::thread;
use std::time::{Duration, Instant};

use faulty_token::{Fault, Function, ckr};

use crate::support::{PATIENCE, as_application, functions, gives, is_good, private, sign, sign_with};

#[test]
fn every_return_value_is_given_by_its_name_and_then_the_call_works_again() {
    as_application!(|application| {
        let list = functions();
        // SAFETY: the structure outlives the call.
        let get_info = || unsafe { list.C_GetInfo.unwrap()(&mut cryptoki_sys::CK_INFO::default()) };
        for (name, code) in ckr::ALL {
            application.control.inject(Fault::on(Function::C_GetInfo).returns(*code).once()).unwrap();
            assert_eq!(get_info(), code.0, "{name}");
            assert_eq!(get_info(), 0, "after {name}");
        }
        let seen = application.control.counters().unwrap().of(Function::C_GetInfo);
        assert_eq!((seen.calls, seen.injected), (2 * ckr::ALL.len() as u64, ckr::ALL.len() as u64));
    });
}

#[test]
fn a_fault_falls_on_the_function_it_names_as_often_as_told() {
    as_application!(|application| {
        let session = application.logged_in();
        let key = private(&session);
        let fault = Fault::on(Function::C_SignInit).returns(ckr::CKR_DEVICE_MEMORY).after(1).times(2);
        application.control.inject(fault).unwrap();
        let good = || sign_with(&session, key, b"hello");
        assert!(is_good(&session, b"hello", &good().unwrap()));
        gives(good(), ckr::CKR_DEVICE_MEMORY);
        gives(good(), ckr::CKR_DEVICE_MEMORY);
        assert!(is_good(&session, b"hello", &good().unwrap()));
    });
}

#[test]
fn a_signature_that_fails_ends_its_operation_as_the_standard_says() {
    as_application!(|application| {
        let session = application.logged_in();
        let forever = Fault::on(Function::C_Sign).returns(ckr::CKR_FUNCTION_FAILED);
        application.control.inject(forever).unwrap();
        for _ in 0..3 {
            gives(sign(&session, b"hello"), ckr::CKR_FUNCTION_FAILED);
        }
        application.control.clear().unwrap();
        assert!(is_good(&session, b"hello", &sign(&session, b"hello").unwrap()));
        let seen = application.control.counters().unwrap();
        assert_eq!(seen.of(Function::C_Sign).injected, 3);
        assert_eq!((seen.signatures, seen.misuse), (1, vec![]));
    });
}

#[test]
fn a_fault_is_lifted_by_its_number() {
    as_application!(|application| {
        let any = application.control.inject(Fault::on_any().returns(ckr::CKR_GENERAL_ERROR)).unwrap();
        gives(application.open(), ckr::CKR_GENERAL_ERROR);
        application.control.lift(any).unwrap();
        assert!(application.signs());
    });
}

#[test]
fn a_fault_by_chance_falls_on_some_calls() {
    as_application!(|application| {
        let session = application.logged_in();
        let fault = Fault::on(Function::C_SignInit).returns(ckr::CKR_FUNCTION_FAILED).with_chance(0.5, 11);
        application.control.inject(fault).unwrap();
        let key = private(&session);
        let failed = (0..200).filter(|_| sign_with(&session, key, b"hello").is_err()).count();
        assert!((60..140).contains(&failed), "{failed} of 200");
        application.control.clear().unwrap();
        assert!((0..50).all(|_| sign_with(&session, key, b"hello").is_ok()));
    });
}

#[test]
fn a_call_hangs_until_it_is_released_and_the_others_do_not() {
    as_application!(|application| {
        application.control.inject(Fault::on(Function::C_Sign).hangs().once()).unwrap();
        thread::scope(|scope| {
            let hung = scope.spawn(|| application.signs());
            application.control.wait_until(PATIENCE, |seen| seen.hanging == 1).unwrap();
            assert!(application.signs());
            assert!(!hung.is_finished());
            application.control.release().unwrap();
            assert!(hung.join().unwrap());
        });
        application.control.inject(Fault::on(Function::C_OpenSession).hangs()).unwrap();
        thread::scope(|scope| {
            let hung = scope.spawn(|| application.signs());
            application.control.wait_until(PATIENCE, |seen| seen.hanging == 1).unwrap();
            application.control.clear().unwrap();
            assert!(hung.join().unwrap());
        });
        assert_eq!(application.control.counters().unwrap().misuse, []);
    });
}

#[test]
fn latency_is_added_fixed_or_drawn_from_a_range() {
    as_application!(|application| {
        let session = application.open().unwrap();
        let timed = || {
            let before = Instant::now();
            session.get_session_info().unwrap();
            before.elapsed()
        };
        let slow = Duration::from_millis(60);
        application.control.inject(Fault::on(Function::C_GetSessionInfo).delayed(slow).times(1)).unwrap();
        assert!(timed() >= slow);
        let range = Fault::on(Function::C_GetSessionInfo).delayed_between(slow / 3, slow);
        application.control.inject(range).unwrap();
        let drawn: Vec<_> = (0..5).map(|_| timed()).collect();
        assert!(drawn.iter().all(|delay| *delay >= slow / 3), "{drawn:?}");
        assert!(drawn.iter().any(|delay| delay.as_millis() != drawn[0].as_millis()), "{drawn:?}");
        application.control.clear().unwrap();
        assert!((0..10).any(|_| timed() < slow / 3), "the delay is not gone");
    });
}

#[test]
fn a_login_is_slow_while_signatures_are_not() {
    as_application!(|application| {
        let slow = Duration::from_millis(150);
        application.control.inject(Fault::on(Function::C_Login).delayed(slow)).unwrap();
        let before = Instant::now();
        let session = application.logged_in();
        assert!(before.elapsed() >= slow);
        sign(&session, b"hello").unwrap();
        assert_eq!(application.control.counters().unwrap().of(Function::C_Sign).injected, 0);
    });
}
