//! The device's own speed.

use std::thread;
use std::time::{Duration, Instant};

use faulty_token::{Condition, Event, Function, ckr};

use crate::support::{Application, PATIENCE, as_application, gives, is_good, private, sign_with};

/// How long `threads` threads take for `each` signatures apiece, every one of which is good.
fn timed(application: &Application, threads: usize, each: usize) -> Duration {
    let sessions: Vec<_> = (0..threads).map(|_| application.logged_in()).collect();
    let key = private(&sessions[0]);
    let before = Instant::now();
    thread::scope(|scope| {
        for session in sessions {
            scope.spawn(move || {
                let last = (0..each).map(|_| sign_with(&session, key, b"hello").unwrap()).last().unwrap();
                assert!(is_good(&session, b"hello", &last));
            });
        }
    });
    before.elapsed()
}

fn lanes(lanes: u32, latency: Duration, memo: bool) -> Condition {
    Condition::Lanes { lanes, latency_us: u64::try_from(latency.as_micros()).unwrap(), jitter_us: 0, memo }
}

#[test]
fn a_device_with_one_lane_makes_one_signature_at_a_time() {
    as_application!(|application| {
        let latency = Duration::from_millis(40);
        application.control.impose(lanes(1, latency, false)).unwrap();
        let taken = timed(application, 4, 3);
        // The device is late by nothing when it has a queue; only the first one waits for a caller.
        assert!(taken >= latency * 12, "{taken:?}");
        assert_eq!(application.control.counters().unwrap().of(Function::C_Sign).most_in_flight, 4);
        application.control.clear().unwrap();
        assert!(timed(application, 1, 3) < latency * 3);
    });
}

#[test]
fn a_device_with_eight_lanes_makes_eight_at_a_time() {
    as_application!(|application| {
        let latency = Duration::from_millis(50);
        application.control.impose(lanes(8, latency, false)).unwrap();
        let taken = timed(application, 16, 2);
        assert!(taken >= latency * 4, "{taken:?}");
        assert!(taken < latency * 8, "{taken:?}: two at a time would be faster");
    });
}

#[test]
fn a_device_faster_than_the_real_module_remembers_its_signatures() {
    as_application!(|application| {
        application.control.impose(lanes(32, Duration::from_millis(1), true)).unwrap();
        timed(application, 8, 25);
        let seen = application.control.counters().unwrap();
        assert_eq!(seen.signatures, 200);
        assert!(seen.remembered >= 190, "{} remembered", seen.remembered);
        assert_eq!(seen.misuse, []);
        application.control.clear().unwrap();
        timed(application, 2, 5);
        let after = application.control.counters().unwrap();
        assert_eq!((after.signatures, after.remembered), (210, seen.remembered));
    });
}

#[test]
fn a_remembered_signature_does_not_outlive_its_login() {
    as_application!(|application| {
        application.control.impose(lanes(1, Duration::ZERO, true)).unwrap();
        let session = application.logged_in();
        let key = private(&session);
        for _ in 0..3 {
            sign_with(&session, key, b"hello").unwrap();
        }
        application.control.strike(Event::LoseLogin).unwrap();
        gives(sign_with(&session, key, b"hello"), ckr::CKR_USER_NOT_LOGGED_IN);
        assert_eq!(application.control.counters().unwrap().remembered, 2);
    });
}

#[test]
fn a_token_that_is_pulled_while_it_signs_gives_no_signature() {
    as_application!(|application| {
        application.control.impose(lanes(1, Duration::from_millis(500), false)).unwrap();
        let session = application.logged_in();
        let key = private(&session);
        thread::scope(|scope| {
            let signing = scope.spawn(move || sign_with(&session, key, b"hello"));
            let signs = |seen: &faulty_token::Counters| seen.of(Function::C_Sign).in_flight == 1;
            application.control.wait_until(PATIENCE, signs).unwrap();
            application.control.strike(Event::remove_token()).unwrap();
            gives(signing.join().unwrap(), ckr::CKR_DEVICE_REMOVED);
        });
        assert_eq!(application.control.counters().unwrap().signatures, 0);
    });
}
