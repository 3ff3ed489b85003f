//! What the application did wrong is witnessed.

use std::thread;

use cryptoki::context::{CInitializeArgs, CInitializeFlags};
use cryptoki::mechanism::Mechanism;
use faulty_token::{Counters, Event, Fault, Function, MisuseKind, ckr};

use crate::support::{Application, PATIENCE, as_application, functions, gives, load, private, sign, sign_with};

fn kinds(seen: &Counters) -> Vec<(MisuseKind, Function)> {
    seen.misuse.iter().map(|misuse| (misuse.kind, misuse.function)).collect()
}

#[test]
fn a_good_application_is_not_accused() {
    as_application!(|application| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5).for_each(|_| assert!(application.signs())));
            }
        });
        let seen = application.control.counters().unwrap();
        assert_eq!((&seen.misuse, seen.signatures, seen.sessions), (&vec![], 20, 0));
        assert_eq!(seen.of(Function::C_Sign).calls, 20);
        assert_eq!(seen.of(Function::C_Sign).length_queries, 20);
    });
}

#[test]
fn calls_outside_of_the_modules_life_are_witnessed() {
    as_application!(|application| {
        gives(
            application.module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)),
            ckr::CKR_CRYPTOKI_ALREADY_INITIALIZED,
        );
        let session = application.open().unwrap();
        application.module.clone().finalize().unwrap();
        gives(session.get_session_info(), ckr::CKR_CRYPTOKI_NOT_INITIALIZED);
        std::mem::forget(session);
        assert_eq!(
            kinds(&application.control.counters().unwrap()),
            [
                (MisuseKind::InitializedTwice, Function::C_Initialize),
                (MisuseKind::AfterFinalize, Function::C_GetSessionInfo),
            ]
        );
    });
}

#[test]
fn a_session_used_after_its_loss_is_witnessed_and_one_that_is_closed_is_not() {
    as_application!(|application| {
        let (good, bad) = (application.logged_in(), application.logged_in());
        application.control.strike(Event::lose_sessions()).unwrap();
        gives(good.get_session_info(), ckr::CKR_SESSION_HANDLE_INVALID);
        drop(good);
        assert_eq!(kinds(&application.control.counters().unwrap()), []);
        gives(bad.get_session_info(), ckr::CKR_SESSION_HANDLE_INVALID);
        gives(bad.get_session_info(), ckr::CKR_SESSION_HANDLE_INVALID);
        let expected = [(MisuseKind::ReusedAfterLoss, Function::C_GetSessionInfo)];
        assert_eq!(kinds(&application.control.counters().unwrap()), expected);
    });
}

#[test]
fn a_session_used_after_close_all_is_witnessed() {
    as_application!(|application| {
        let session = application.open().unwrap();
        // SAFETY: takes no pointer.
        assert_eq!(unsafe { functions().C_CloseAllSessions.unwrap()(application.slot.id()) }, 0);
        gives(session.get_session_info(), ckr::CKR_SESSION_HANDLE_INVALID);
        gives(session.close(), ckr::CKR_SESSION_HANDLE_INVALID);
        assert_eq!(
            kinds(&application.control.counters().unwrap()),
            [
                (MisuseKind::UsedAfterClose, Function::C_GetSessionInfo),
                (MisuseKind::ClosedTwice, Function::C_CloseSession),
            ]
        );
    });
}

#[test]
fn operations_out_of_order_are_witnessed() {
    as_application!(|application| {
        let session = application.logged_in();
        let key = private(&session);
        session.sign_init(&Mechanism::Ecdsa, key).unwrap();
        gives(sign_with(&session, key, b"hello"), ckr::CKR_OPERATION_ACTIVE);
        assert_eq!(
            kinds(&application.control.counters().unwrap()),
            [(MisuseKind::OperationActive, Function::C_SignInit)]
        );
    });
}

#[test]
fn finalize_during_a_call_is_witnessed() {
    as_application!(|application| {
        let session = application.logged_in();
        application.control.inject(Fault::on(Function::C_Sign).hangs()).unwrap();
        thread::scope(|scope| {
            let hung = scope.spawn(move || {
                gives(sign(&session, b"hello"), ckr::CKR_CRYPTOKI_NOT_INITIALIZED);
                std::mem::forget(session);
            });
            application.control.wait_until(PATIENCE, |seen| seen.hanging == 1).unwrap();
            application.module.clone().finalize().unwrap();
            application.control.release().unwrap();
            hung.join().unwrap();
        });
        let seen = application.control.counters().unwrap();
        assert_eq!(seen.misused(MisuseKind::FinalizeDuringCall), 1);
    });
}

#[test]
fn threads_that_were_not_announced_are_witnessed() {
    as_application!(|application| {
        application.module.clone().finalize().unwrap();
        let (module, control) = load();
        module.initialize(CInitializeArgs::new(CInitializeFlags::empty())).unwrap();
        let application = Application { module, control, slot: application.slot };
        application.control.inject(Fault::on(Function::C_OpenSession).hangs().once()).unwrap();
        thread::scope(|scope| {
            let hung = scope.spawn(|| application.signs());
            application.control.wait_until(PATIENCE, |seen| seen.hanging == 1).unwrap();
            application.signs();
            application.control.release().unwrap();
            hung.join().unwrap();
        });
        assert!(application.control.counters().unwrap().misused(MisuseKind::ThreadsWithoutLocking) > 0);
    });
}
