//! The ladder on a token in memory; what real modules do is in `tests/faults`.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::fake_front::{FakeFront, sign, started};
use super::{Stopped, Worker};
use crate::custody::KeyAttributes;
use crate::custody::testing::{FakeToken, GOOD, Place, eventually};
use crate::custody::token::Remedy;
use crate::custody::wire::{FailureCode, Reply, Request};

fn stop(worker: Worker) {
    assert_eq!(worker.stop(Duration::from_secs(10)), Stopped::Clean);
}

#[test]
fn a_module_that_was_finalised_behind_our_back_is_initialised_once_with_no_session_open() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = started(&place, &token, place.plan());
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.0.failures.lock().unwrap().extend([Remedy::Reinitialize; 2]);
    for _ in 0..3 {
        front.ask(&sign(key.handle, 5_000));
    }
    eventually("every session is open again", || worker.status().sessions_open == 2);
    assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)));
    assert!(token.0.reinitialized.load(SeqCst) >= 1);
    assert_eq!(worker.status().counters.reinitialized, u64::from(token.0.reinitialized.load(SeqCst)));
    stop(worker);
}

#[test]
fn what_a_new_session_does_not_mend_is_climbed_after_up_to_a_new_process() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = started(&place, &token, place.plan());
    let (told, hears) = mpsc::channel();
    worker.on_beyond_repair(Box::new(move || told.send(Instant::now()).unwrap_or_default()));
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    let began = Instant::now();
    token.0.absent.store(true, SeqCst);
    token.0.failures.lock().unwrap().extend([Remedy::NewLogin; 2]);
    assert_eq!(front.failure(&sign(key.handle, 5_000)), FailureCode::TokenUnavailable);
    let gave_up = hears.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(gave_up - began >= Duration::from_secs(3), "not before the other rungs were tried");
    assert_eq!(token.0.reinitialized.load(SeqCst), 2);
    stop(worker);
}

#[test]
fn a_device_that_says_at_once_that_somebody_and_nobody_is_logged_in_is_logged_out_first() {
    let (place, token) = (Place::new(), FakeToken::new());
    let mut plan = place.plan();
    plan.sessions = 1;
    let worker = started(&place, &token, plan);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.0.claims_login.store(true, SeqCst);
    token.0.failures.lock().unwrap().push_back(Remedy::NewLogin);
    assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)), "tried again after the login");
    assert_eq!((token.0.logouts.load(SeqCst), token.0.login_attempts.load(SeqCst)), (1, 2));
    stop(worker);
}

#[test]
fn a_login_that_an_idle_device_forgot_is_renewed_before_anybody_asks() {
    let (place, token) = (Place::new(), FakeToken::new());
    let mut plan = place.plan();
    plan.keep_alive = Some(Duration::from_millis(10));
    let worker = started(&place, &token, plan);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.0.logged_in.store(false, SeqCst);
    eventually("it is logged in again", || token.0.login_attempts.load(SeqCst) == 2);
    eventually("every session is open again", || worker.status().sessions_open == 2);
    assert!(worker.status().counters.kept_alive > 0);
    assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)));
    stop(worker);
}

#[test]
fn a_request_whose_deadline_passes_is_answered_while_every_session_is_busy() {
    let (place, token) = (Place::new(), FakeToken::new());
    let mut plan = place.plan();
    plan.sessions = 1;
    let worker = started(&place, &token, plan);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.close_gate();
    front.send(1, &sign(key.handle, 60_000));
    eventually("it is being signed", || token.0.signing.load(SeqCst) == 1);
    front.send(2, &sign(key.handle, 50));
    let Some((2, Reply::Failed(failure))) = front.next() else { panic!("the second is answered first") };
    assert_eq!(failure.code, FailureCode::DeadlineExceeded);
    token.open_gate();
    assert!(matches!(front.next(), Some((1, Reply::Signed(_)))));
    stop(worker);
}

#[test]
fn when_a_call_hangs_everything_that_waits_and_the_call_itself_is_answered_once() {
    let (place, token) = (Place::new(), FakeToken::new());
    let mut plan = place.plan();
    plan.sessions = 1;
    let worker = started(&place, &token, plan);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.close_gate();
    for id in 1..=3 {
        front.send(id, &sign(key.handle, 60_000));
    }
    eventually("one is being signed, two wait", || {
        token.0.signing.load(SeqCst) == 1 && worker.status().queue_depth == 2
    });
    let shared = Arc::clone(&worker.shared);
    shared.answer_all("C_Sign did not return within 10000 ms");
    drop(shared);
    for _ in 0..3 {
        let Some((id, Reply::Failed(failure))) = front.next() else { panic!("a failure") };
        let expected = if id == 1 { FailureCode::Unclear } else { FailureCode::TokenUnavailable };
        assert_eq!(failure.code, expected, "the device may sign the first, and no other");
    }
    token.open_gate();
    assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)), "no late answer comes in between");
    stop(worker);
}

#[test]
fn a_key_is_judged_anew_in_each_session() {
    let (place, token) = (Place::new(), FakeToken::new());
    let mut plan = place.plan();
    plan.sessions = 1;
    let worker = started(&place, &token, plan);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    *token.0.attributes.lock().unwrap() = KeyAttributes { extractable: true, ..GOOD };
    token.0.failures.lock().unwrap().push_back(Remedy::NewSession);
    assert_eq!(front.failure(&sign(key.handle, 5_000)), FailureCode::KeyUnsuitable);
    stop(worker);
}

#[test]
fn while_a_lost_session_is_opened_anew_what_comes_waits_whatever_became_of_the_other() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = started(&place, &token, place.plan());
    eventually("both sessions are open", || worker.status().sessions_open == 2);
    let mut front = FakeFront::connect(&place);
    // One of them has done some work then, and is opened anew at once; the other waits before it tries again.
    let key = front.open();
    *token.0.slow_sessions.lock().unwrap() = Duration::from_millis(30);
    token.0.failures.lock().unwrap().extend([Remedy::NewSession; 2]);
    front.failure(&sign(key.handle, 5_000));
    assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)));
    stop(worker);
}

#[test]
fn a_key_that_costs_each_session_that_opens_it_is_opened_less_and_less_and_disturbs_nobody() {
    let (place, token) = (Place::new(), FakeToken::new());
    token.replace_key("broken");
    for remedy in [Remedy::NewSession, Remedy::Reinitialize, Remedy::NewProcess] {
        let worker = started(&place, &token, place.plan());
        let (told, hears) = mpsc::channel();
        worker.on_beyond_repair(Box::new(move || told.send(()).unwrap_or_default()));
        let mut front = FakeFront::connect(&place);
        let key = front.open();
        assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)));
        token.0.unopenable.lock().unwrap().insert("broken".to_owned(), remedy);
        let (sessions, reinitialized) = (token.0.sessions_made.load(SeqCst), token.0.reinitialized.load(SeqCst));
        let open = Request::OpenKey { uri: "pkcs11:object=broken".into() };
        let began = Instant::now();
        let mut asked = 0;
        while began.elapsed() < Duration::from_millis(2_500) {
            asked += 1;
            assert!(matches!(front.ask(&open), Reply::Failed(_)));
            assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)), "its neighbour goes on");
        }
        // Two at first, then after 250 ms, 500 ms, 1 s.
        let lost = token.0.sessions_made.load(SeqCst) - sessions;
        assert!(lost <= 6, "{remedy:?}: {lost} sessions were lost for {asked} requests");
        assert_eq!(token.0.reinitialized.load(SeqCst), reinitialized, "{remedy:?}: the module stays as it is");
        assert!(hears.try_recv().is_err(), "{remedy:?}: the process stays");
        token.0.unopenable.lock().unwrap().clear();
        eventually("it opens once it is mended", || matches!(front.ask(&open), Reply::KeyOpened(_)));
        stop(worker);
    }
}
