//! The PIN locks as a real device's does.

use faulty_token::{Condition, Fault, Function, MisuseKind, ckr};

use crate::support::{Application, PIN, WRONG_PIN, as_application, gives, login};

fn flags(application: &Application) -> (bool, bool, bool) {
    let info = application.module.get_token_info(application.slot).unwrap();
    (info.user_pin_count_low(), info.user_pin_final_try(), info.user_pin_locked())
}

#[test]
fn three_wrong_pins_lock_it_the_flags_say_so_and_the_right_one_no_longer_helps() {
    as_application!(|application| {
        let session = application.open().unwrap();
        assert_eq!(flags(application), (false, false, false));
        gives(login(&session, "111111"), ckr::CKR_PIN_INCORRECT);
        assert_eq!(flags(application), (true, false, false));
        gives(login(&session, "222222"), ckr::CKR_PIN_INCORRECT);
        assert_eq!(flags(application), (true, true, false));
        gives(login(&session, "333333"), ckr::CKR_PIN_INCORRECT);
        assert_eq!(flags(application), (true, false, true));
        gives(login(&session, PIN), ckr::CKR_PIN_LOCKED);
        let seen = application.control.counters().unwrap();
        let pin = seen.pin;
        assert_eq!((pin.attempts, pin.accepted, pin.incorrect, pin.while_locked), (3, 0, 3, 1));
        assert_eq!(seen.misused(MisuseKind::LoginWhileLocked), 1);

        application.control.clear().unwrap();
        gives(login(&session, PIN), ckr::CKR_PIN_LOCKED);
        application.control.unblock_pin().unwrap();
        assert_eq!(flags(application), (false, false, false));
        login(&session, PIN).unwrap();
    });
}

#[test]
fn a_right_pin_forgives_the_wrong_ones_and_a_repeated_one_is_witnessed() {
    as_application!(|application| {
        let session = application.open().unwrap();
        gives(login(&session, WRONG_PIN), ckr::CKR_PIN_INCORRECT);
        gives(login(&session, WRONG_PIN), ckr::CKR_PIN_INCORRECT);
        login(&session, PIN).unwrap();
        session.logout().unwrap();
        assert_eq!(flags(application), (false, false, false));
        let seen = application.control.counters().unwrap();
        assert_eq!((seen.pin.attempts, seen.pin.accepted, seen.pin.failed), (3, 1, 0));
        assert_eq!(seen.misused(MisuseKind::RefusedPinAgain), 1);
    });
}

#[test]
fn the_number_of_attempts_is_the_devices_own() {
    as_application!(|application| {
        let session = application.open().unwrap();
        application.control.impose(Condition::PinAttempts { limit: Some(1) }).unwrap();
        assert_eq!(flags(application), (false, true, false));
        gives(login(&session, WRONG_PIN), ckr::CKR_PIN_INCORRECT);
        gives(login(&session, PIN), ckr::CKR_PIN_LOCKED);
        application.control.impose(Condition::PinAttempts { limit: None }).unwrap();
        login(&session, PIN).unwrap();
    });
}

#[test]
fn a_login_that_fails_for_another_reason_costs_no_attempt() {
    as_application!(|application| {
        let session = application.open().unwrap();
        application.control.inject(Fault::on(Function::C_Login).returns(ckr::CKR_DEVICE_ERROR).once()).unwrap();
        gives(login(&session, WRONG_PIN), ckr::CKR_DEVICE_ERROR);
        assert_eq!(application.control.counters().unwrap().pin.attempts, 0);
        login(&session, PIN).unwrap();
        gives(login(&session, WRONG_PIN), ckr::CKR_USER_ALREADY_LOGGED_IN);
        assert_eq!(application.control.counters().unwrap().pin.attempts, 1);
    });
}
