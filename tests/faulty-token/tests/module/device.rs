//! What happens to the device, and its limits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use cryptoki::context::{CInitializeArgs, CInitializeFlags};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::SessionState;
use faulty_token::{Condition, ControlError, Event, Fault, Function, IdleEnd, Until, ckr};

use crate::support::{
    Application, PATIENCE, PIN, as_application, gives, is_good, key, login, point, private, sign, sign_with, token_slot,
};

fn reinitialize(application: Application) -> Application {
    let Application { module, control, .. } = application;
    module.finalize().unwrap();
    drop(control);
    Application::plain()
}

#[test]
fn a_pulled_token_is_seen_everywhere_and_after_its_return_sessions_and_login_are_made_anew() {
    as_application!(|application| {
        let (module, control) = (&application.module, &application.control);
        let session = application.logged_in();
        let key = private(&session);
        control.strike(Event::remove_token()).unwrap();
        gives(sign_with(&session, key, b"hello"), ckr::CKR_DEVICE_REMOVED);
        gives(application.open(), ckr::CKR_TOKEN_NOT_PRESENT);
        gives(module.get_token_info(application.slot), ckr::CKR_TOKEN_NOT_PRESENT);
        assert!(module.get_slots_with_token().unwrap().is_empty());
        assert!(module.get_all_slots().unwrap().contains(&application.slot));
        assert!(!module.get_slot_info(application.slot).unwrap().token_present());

        control.strike(Event::return_token()).unwrap();
        assert_eq!(token_slot(module), Some(application.slot));
        gives(sign_with(&session, key, b"hello"), ckr::CKR_SESSION_HANDLE_INVALID);
        let fresh = application.open().unwrap();
        assert_eq!(fresh.get_session_info().unwrap().session_state(), SessionState::RoPublic);
        login(&fresh, PIN).unwrap();
        assert!(is_good(&fresh, b"hello", &sign(&fresh, b"hello").unwrap()));
    });
}

#[test]
fn a_pulled_reader_takes_its_slot_along_and_clear_brings_it_back() {
    as_application!(|application| {
        let (module, control) = (&application.module, &application.control);
        control.strike(Event::RemoveToken { code: ckr::CKR_TOKEN_NOT_PRESENT, with_slot: true }).unwrap();
        assert!(module.get_all_slots().unwrap().is_empty());
        gives(module.get_slot_info(application.slot), ckr::CKR_SLOT_ID_INVALID);
        gives(application.open(), ckr::CKR_SLOT_ID_INVALID);
        control.clear().unwrap();
        assert!(application.signs());
    });
}

#[test]
fn those_who_wait_for_slots_are_told_of_removal_and_return() {
    as_application!(|application| {
        assert_eq!(application.module.get_slot_event().unwrap(), None);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| application.module.wait_for_slot_event().unwrap());
            let waits = |seen: &faulty_token::Counters| seen.of(Function::C_WaitForSlotEvent).in_flight == 1;
            application.control.wait_until(PATIENCE, waits).unwrap();
            application.control.strike(Event::remove_token()).unwrap();
            waiting.join().unwrap();
        });
    });
}

#[test]
fn a_returned_token_may_want_finalize_and_initialize_first() {
    as_application!(|application| {
        let application = Application {
            module: application.module.clone(),
            control: application.control.clone(),
            slot: application.slot,
        };
        application.control.strike(Event::remove_token()).unwrap();
        application.control.strike(Event::ReturnToken { seen: Until::Reinitialize }).unwrap();
        assert!(application.module.get_slots_with_token().unwrap().is_empty());
        assert!(reinitialize(application).signs());
    });
}

#[test]
fn lost_sessions_give_the_chosen_code_and_new_ones_work() {
    as_application!(|application| {
        for code in [ckr::CKR_SESSION_HANDLE_INVALID, ckr::CKR_SESSION_CLOSED] {
            let sessions = [application.logged_in(), application.logged_in()];
            application.control.strike(Event::LoseSessions { code }).unwrap();
            for session in &sessions {
                gives(session.get_session_info(), code);
            }
            drop(sessions);
            assert!(application.signs());
        }
        assert_eq!(application.control.counters().unwrap().misuse, []);
    });
}

#[test]
fn sessions_are_lost_in_the_middle_of_a_named_call() {
    as_application!(|application| {
        let session = application.logged_in();
        application
            .control
            .inject(Fault::on(Function::C_Sign).strikes(Event::lose_sessions()).after(1).once())
            .unwrap();
        sign(&session, b"hello").unwrap();
        gives(sign(&session, b"hello"), ckr::CKR_SESSION_HANDLE_INVALID);
        assert!(application.signs());
    });
}

#[test]
fn a_lost_login_is_made_anew_on_the_same_session() {
    as_application!(|application| {
        let session = application.logged_in();
        let key = private(&session);
        application.control.strike(Event::LoseLogin).unwrap();
        gives(sign_with(&session, key, b"hello"), ckr::CKR_USER_NOT_LOGGED_IN);
        assert_eq!(session.get_session_info().unwrap().session_state(), SessionState::RoPublic);
        login(&session, PIN).unwrap();
        assert!(is_good(&session, b"hello", &sign(&session, b"hello").unwrap()));
        assert_eq!(application.control.counters().unwrap().pin.attempts, 2);
    });
}

#[test]
fn a_device_fails_until_it_is_mended() {
    as_application!(|application| {
        application.control.strike(Event::fail(Until::Now)).unwrap();
        gives(application.open(), ckr::CKR_DEVICE_ERROR);
        application.control.strike(Event::Mend).unwrap();
        assert!(application.signs());
        let code = ckr::CKR_GENERAL_ERROR;
        application.control.strike(Event::Fail { code, until: Until::Now }).unwrap();
        gives(application.open(), code);
        application.control.clear().unwrap();
        assert!(application.signs());
    });
}

#[test]
fn a_device_fails_until_finalize_and_initialize() {
    as_application!(|application| {
        let application = Application {
            module: application.module.clone(),
            control: application.control.clone(),
            slot: application.slot,
        };
        let session = application.logged_in();
        application.control.strike(Event::fail(Until::Reinitialize)).unwrap();
        gives(session.get_session_info(), ckr::CKR_DEVICE_ERROR);
        drop(session);
        gives(application.open(), ckr::CKR_DEVICE_ERROR);
        assert!(reinitialize(application).signs());
    });
}

#[test]
fn initialize_fails_as_any_other_function() {
    as_application!(|application| {
        let (module, control) = (application.module.clone(), application.control.clone());
        application.module.clone().finalize().unwrap();
        control.inject(Fault::on(Function::C_Initialize).returns(ckr::CKR_FUNCTION_FAILED).once()).unwrap();
        let initialize = || module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        gives(initialize(), ckr::CKR_FUNCTION_FAILED);
        initialize().unwrap();
        assert!(application.signs());
    });
}

#[test]
fn no_more_sessions_are_opened_than_the_device_has() {
    as_application!(|application| {
        application.control.impose(Condition::SessionLimit { sessions: 3 }).unwrap();
        let mut sessions: Vec<_> = (0..3).map(|_| application.open().unwrap()).collect();
        gives(application.open(), ckr::CKR_SESSION_COUNT);
        let info = application.module.get_token_info(application.slot).unwrap();
        assert_eq!(format!("{:?} {:?}", info.max_session_count(), info.session_count()), "Max(3) Some(3)");
        sessions.pop();
        sessions.push(application.open().unwrap());
        gives(application.open(), ckr::CKR_SESSION_COUNT);
        application.control.clear().unwrap();
        sessions.push(application.open().unwrap());
        assert_eq!(application.control.counters().unwrap().most_sessions, 4);
    });
}

#[test]
fn an_idle_session_is_lost_or_hangs_and_one_in_use_is_not() {
    as_application!(|application| {
        let control = &application.control;
        let (idle, busy) = (application.open().unwrap(), application.open().unwrap());
        let limit = Duration::from_millis(400);
        control.impose(Condition::IdleLimit { idle_ms: 400, then: IdleEnd::Lose }).unwrap();
        idle.get_session_info().unwrap();
        for _ in 0..12 {
            busy.get_session_info().unwrap();
            thread::sleep(limit / 10);
        }
        gives(idle.get_session_info(), ckr::CKR_SESSION_HANDLE_INVALID);
        busy.get_session_info().unwrap();

        control.impose(Condition::IdleLimit { idle_ms: 400, then: IdleEnd::Hang }).unwrap();
        thread::sleep(limit + limit / 10);
        thread::scope(|scope| {
            let hung = scope.spawn(move || busy.get_session_info().map(drop));
            control.wait_until(PATIENCE, |seen| seen.hanging == 1).unwrap();
            control.clear().unwrap();
            hung.join().unwrap().unwrap();
        });
    });
}

#[test]
fn a_storm_of_events_under_sixteen_callers_lets_no_bad_signature_out_and_leaves_a_device_that_works() {
    as_application!(|application| {
        let control = &application.control;
        let public = {
            let session = application.open().unwrap();
            point(&session, key(&session, ObjectClass::PUBLIC_KEY, "signing"))
        };
        let request = || -> cryptoki::error::Result<bool> {
            let session = application.open()?;
            match login(&session, PIN) {
                Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
                Err(error) => return Err(error),
            }
            let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label("signing".into())];
            let Some(key) = session.find_objects(&wanted)?.first().copied() else { return Ok(false) };
            let signature = sign_with(&session, key, b"storm")?;
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &public).verify(b"storm", &signature).unwrap();
            Ok(true)
        };
        let over = AtomicBool::new(false);
        let caller = || {
            let results = (0_u64..).map(|_| request()).take_while(|_| !over.load(Ordering::Acquire));
            results.filter(|made| matches!(made, Ok(true))).count()
        };
        let storm = || -> Result<(), ControlError> {
            for round in 0..40 {
                let event = [
                    Event::lose_sessions(),
                    Event::LoseLogin,
                    Event::remove_token(),
                    Event::fail(Until::Now),
                    Event::RemoveToken { code: ckr::CKR_TOKEN_NOT_PRESENT, with_slot: true },
                ][round % 5];
                control.strike(event)?;
                control.strike(Event::return_token())?;
                control.strike(Event::Mend)?;
                let before = control.counters()?.signatures;
                control.wait_until(PATIENCE, |seen| seen.signatures > before + 3)?;
            }
            Ok(())
        };
        let made: usize = thread::scope(|scope| {
            let callers: Vec<_> = (0..16).map(|_| scope.spawn(caller)).collect();
            let weathered = storm();
            over.store(true, Ordering::Release);
            let made = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
            weathered.unwrap();
            made
        });
        assert!(made > 100, "{made}");
        assert!(application.signs());
        let pin = control.counters().unwrap().pin;
        assert_eq!((pin.attempts, pin.incorrect), (pin.accepted, 0));
    });
}
