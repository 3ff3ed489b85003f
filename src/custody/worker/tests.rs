#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::fake_front::{FakeFront, ready, sign, started};
use super::*;
use crate::custody::KeyAttributes;
use crate::custody::testing::{FakeToken, Place, eventually};
use crate::custody::token::{PinState, Remedy};
use crate::custody::wire::{FailureCode, Hello, KeyHandle, Reply, Request, encode_request};
use crate::dsse;

#[test]
fn a_digest_is_signed_and_counted() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = ready(&place, &token);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    assert_eq!(key.public_key, token.public_key());
    let Reply::Signed(signature) = front.ask(&sign(key.handle, 5_000)) else { panic!("a signature") };
    let signature = dsse::Signature::from_raw(&signature).unwrap();
    dsse::verify_digest(&key.public_key.verifier().unwrap(), &[5; 32], &signature).unwrap();
    let Reply::Status(report) = front.ask(&Request::Status) else { panic!("a report") };
    assert_eq!((report.state, report.label.as_str(), report.connections), (WorkerState::Ready, "fake", 1));
    assert_eq!((report.counters.sign_requests, report.counters.signatures), (1, 1));
    assert_eq!((report.counters.logins, report.counters.sessions_opened), (1, 2), "one login for all sessions");
    assert_eq!(front.ask(&Request::Ping), Reply::Pong);
    assert_eq!(worker.stop(Duration::from_secs(10)), Stopped::Clean);
}

#[test]
fn only_the_front_s_user_may_connect() {
    let (place, token) = (Place::new(), FakeToken::new());
    let mut plan = place.plan();
    plan.front_uid += 1;
    let worker = started(&place, &token, plan);
    let mut stranger = FakeFront::raw(&place);
    assert_eq!(stranger.next(), None, "closed before a byte is exchanged");
    assert_eq!(worker.status().counters.refused_peers, 1);
    worker.stop(Duration::from_secs(10));
}

#[test]
fn whatever_breaks_the_protocol_ends_that_connection_and_no_other() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = ready(&place, &token);
    let mut good = FakeFront::connect(&place);
    let before_hello: [(&str, Vec<u8>); 5] = [
        ("no hello", encoded(&Request::Ping)),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a long first frame", vec![0, 0, 1, 1]),
        ("an empty frame", vec![0; 4]),
        ("another magic", {
            let mut hello = encoded(&Request::Hello(Hello::new("x")));
            hello[13] ^= 1;
            hello
        }),
    ];
    for (name, bytes) in before_hello {
        let mut front = FakeFront::raw(&place);
        front.stream.write_all(&bytes).unwrap();
        assert_eq!(front.next(), None, "{name}");
    }
    let after_hello: [(&str, Vec<u8>); 4] = [
        ("a second hello", encoded(&Request::Hello(Hello::new("x")))),
        ("an unknown kind", [&[0, 0, 0, 9, 0x55][..], &[0; 8]].concat()),
        ("a reply", [&[0, 0, 0, 9, 0x85][..], &[0; 8]].concat()),
        ("a frame that is too long", vec![0xff; 4]),
    ];
    for (name, bytes) in after_hello {
        let mut front = FakeFront::connect(&place);
        front.stream.write_all(&bytes).unwrap();
        assert_eq!(front.next(), None, "{name}");
    }
    assert_eq!(good.ask(&Request::Ping), Reply::Pong);
    worker.stop(Duration::from_secs(10));
}

#[test]
fn a_front_of_another_version_hears_ours_and_is_closed() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = ready(&place, &token);
    let mut front = FakeFront::raw(&place);
    front.send(0, &Request::Hello(Hello { version: 9, name: "signerd".into() }));
    assert_eq!(front.next(), Some((0, Reply::Hello(Hello::new("main")))));
    assert_eq!(front.next(), None);
    worker.stop(Duration::from_secs(10));
}

#[test]
fn a_refused_pin_is_presented_once_however_many_sessions_want_it() {
    let (place, token) = (Place::new(), FakeToken::new());
    place.write_pin("wrong");
    let mut plan = place.plan();
    plan.sessions = 8;
    let worker = place.worker(plan, &token);
    assert_eq!(worker.settled(), Some(WorkerState::PinRefused));
    // Long enough for every session to have tried again several times.
    eventually("sessions were tried again", || token.0.sessions_made.load(SeqCst) > 24);
    assert_eq!(token.0.login_attempts.load(SeqCst), 1);
    let mut front = FakeFront::connect(&place);
    assert_eq!(front.failure(&sign(KeyHandle(0), 5_000)), FailureCode::PinRefused);
    worker.stop(Duration::from_secs(10));
}

#[test]
fn no_login_is_tried_when_the_token_s_flags_forbid_it() {
    for state in [PinState::Locked, PinState::FinalTry, PinState::NotInitialized, PinState::MustChange] {
        let (place, token) = (Place::new(), FakeToken::new());
        *token.0.pin_state.lock().unwrap() = state;
        let worker = place.worker(place.plan(), &token);
        assert_eq!(worker.settled(), Some(WorkerState::PinRefused), "{state:?}");
        assert_eq!(token.0.login_attempts.load(SeqCst), 0, "{state:?}");
        // The operator puts it right; no PIN was refused, so no restart is needed.
        *token.0.pin_state.lock().unwrap() = PinState::Good;
        eventually("logged in", || worker.status().state == WorkerState::Ready);
        worker.stop(Duration::from_secs(10));
    }
}

#[test]
fn logins_that_may_have_been_counted_are_not_repeated_for_ever() {
    let (place, token) = (Place::new(), FakeToken::new());
    token.0.unclear.store(true, SeqCst);
    let worker = place.worker(place.plan(), &token);
    assert_eq!(worker.settled(), Some(WorkerState::PinRefused));
    assert_eq!(token.0.login_attempts.load(SeqCst), 2);
    worker.stop(Duration::from_secs(10));
}

#[test]
fn what_waited_too_long_is_not_signed() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = ready(&place, &token);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    assert_eq!(front.failure(&sign(key.handle, 0)), FailureCode::DeadlineExceeded);
    assert_eq!(token.0.signing.load(SeqCst), 0);
    assert_eq!(worker.status().counters.expired, 1);
    worker.stop(Duration::from_secs(10));
}

#[test]
fn a_full_queue_answers_at_once() {
    let (place, token) = (Place::new(), FakeToken::new());
    let mut plan = place.plan();
    (plan.sessions, plan.max_queue) = (1, 2);
    let worker = started(&place, &token, plan);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.close_gate();
    front.send(100, &sign(key.handle, 60_000));
    eventually("the first is being signed", || token.0.signing.load(SeqCst) == 1);
    for id in 101..=103 {
        front.send(id, &sign(key.handle, 60_000));
    }
    let (id, reply) = front.next().unwrap();
    assert!(matches!(&reply, Reply::Failed(f) if f.code == FailureCode::QueueFull), "{reply:?}");
    assert_eq!(id, 103);
    token.open_gate();
    let mut signed: Vec<_> = (0..3).map(|_| front.next().unwrap().0).collect();
    signed.sort_unstable();
    assert_eq!(signed, [100, 101, 102]);
    worker.stop(Duration::from_secs(10));
}

#[test]
fn a_session_with_a_fatal_code_is_closed_and_its_request_tried_once_more() {
    let (place, token) = (Place::new(), FakeToken::new());
    let mut plan = place.plan();
    plan.sessions = 1;
    let worker = started(&place, &token, plan);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.0.failures.lock().unwrap().push_back(Remedy::NewSession);
    assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)));
    token.0.failures.lock().unwrap().extend([Remedy::NewSession, Remedy::NewLogin]);
    assert_eq!(front.failure(&sign(key.handle, 5_000)), FailureCode::TokenUnavailable);
    eventually("the fourth session is open", || worker.status().counters.sessions_opened == 4);
    eventually("counted", || worker.status().sessions_open == 1);
    assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)));
    assert_eq!(worker.status().counters.sessions_lost, 3);
    worker.stop(Duration::from_secs(10));
}

#[test]
fn a_code_about_the_request_keeps_the_session() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = ready(&place, &token);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.0.failures.lock().unwrap().push_back(Remedy::None);
    assert_eq!(front.failure(&sign(key.handle, 5_000)), FailureCode::DeviceError);
    assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)));
    assert_eq!(worker.status().counters.sessions_lost, 0);
    worker.stop(Duration::from_secs(10));
}

#[test]
fn a_token_that_is_pulled_out_and_put_back_needs_no_restart() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = ready(&place, &token);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.0.absent.store(true, SeqCst);
    token.0.failures.lock().unwrap().extend([Remedy::NewLogin; 2]);
    assert_eq!(front.failure(&sign(key.handle, 5_000)), FailureCode::TokenUnavailable);
    eventually("both sessions are gone", || worker.status().state == WorkerState::TokenUnavailable);
    assert_eq!(front.failure(&sign(key.handle, 5_000)), FailureCode::TokenUnavailable);
    token.0.absent.store(false, SeqCst);
    eventually("back", || worker.status().state == WorkerState::Ready);
    assert!(matches!(front.ask(&sign(key.handle, 5_000)), Reply::Signed(_)));
    assert_eq!(token.0.login_attempts.load(SeqCst), 2, "the same good PIN, once more");
    worker.stop(Duration::from_secs(10));
}

#[test]
fn keys_that_must_not_sign_are_not_opened() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = ready(&place, &token);
    let mut front = FakeFront::connect(&place);
    let open = |uri: &str| Request::OpenKey { uri: uri.into() };
    assert_eq!(front.failure(&open("pkcs11:object=none")), FailureCode::UnknownKey);
    assert_eq!(front.failure(&open("nonsense")), FailureCode::BadRequest);
    assert_eq!(front.failure(&sign(KeyHandle(77), 5_000)), FailureCode::UnknownKey);
    *token.0.attributes.lock().unwrap() = KeyAttributes { extractable: true, ..crate::custody::testing::GOOD };
    assert_eq!(front.failure(&open("pkcs11:object=k")), FailureCode::KeyUnsuitable);
    assert_eq!(worker.status().counters.sessions_lost, 0, "none of this is the session's fault");
    worker.stop(Duration::from_secs(10));
}

#[test]
fn a_handle_does_not_sign_with_another_key_after_the_session_was_lost() {
    let (place, token) = (Place::new(), FakeToken::new());
    let mut plan = place.plan();
    plan.sessions = 1;
    let worker = started(&place, &token, plan);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.replace_key("k");
    token.0.failures.lock().unwrap().push_back(Remedy::NewSession);
    assert_eq!(front.failure(&sign(key.handle, 5_000)), FailureCode::UnknownKey);
    let other = front.open();
    assert_ne!(other.handle, key.handle);
    assert!(matches!(front.ask(&sign(other.handle, 5_000)), Reply::Signed(_)));
    worker.stop(Duration::from_secs(10));
}

#[test]
fn a_front_that_does_not_read_holds_up_nobody_else() {
    let (place, token) = (Place::new(), FakeToken::new());
    let mut plan = place.plan();
    (plan.sessions, plan.max_queue) = (1, 100_000);
    let worker = started(&place, &token, plan);
    let mut deaf = FakeFront::connect(&place);
    // Answers to these fill the socket's buffer; the worker must then give the connection up.
    let mut flood = Vec::new();
    for id in 0..2_000 {
        encode_request(id, &Request::Status, &mut flood);
    }
    deaf.stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let flooding = std::thread::spawn(move || {
        let _ = deaf.stream.write_all(&flood);
        deaf
    });
    let mut good = FakeFront::connect(&place);
    let key = good.open();
    assert!(matches!(good.ask(&sign(key.handle, 5_000)), Reply::Signed(_)));
    eventually("the deaf one is dropped", || worker.status().connections == 1);
    drop(flooding.join());
    worker.stop(Duration::from_secs(10));
}

#[test]
fn stopping_answers_what_is_in_flight() {
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
    let opener = std::thread::spawn({
        let token = token.clone();
        let shared = Arc::clone(&worker.shared);
        move || {
            eventually("stopping", || shared.state.stopping());
            token.open_gate();
        }
    });
    assert_eq!(worker.stop(Duration::from_secs(10)), Stopped::Clean);
    opener.join().unwrap();
    let mut signed = 0;
    while let Some((id, reply)) = front.next() {
        match reply {
            Reply::Signed(_) => signed += 1,
            Reply::Goodbye => assert_eq!(id, 0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(signed, 3);
    assert!(UnixStream::connect(place.socket()).is_err(), "nobody listens any more");
}

#[test]
fn who_asks_a_worker_that_stops_hears_that_nothing_was_signed_and_may_take_its_time_to_close() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = started(&place, &token, place.plan());
    let (mut front, mut idle) = (FakeFront::connect(&place), FakeFront::connect(&place));
    let key = front.open();
    let stopping = std::thread::spawn(move || worker.stop(Duration::from_secs(10)));
    assert_eq!(front.next(), Some((0, Reply::Goodbye)));
    // On its way while the worker said so.
    front.send(7, &sign(key.handle, 60_000));
    match front.next() {
        Some((7, Reply::Failed(failure))) => assert_eq!(failure.code, FailureCode::Stopping),
        other => panic!("{other:?}"),
    }
    assert!(!stopping.is_finished(), "the fronts are waited for");
    assert_eq!(idle.next(), Some((0, Reply::Goodbye)));
    drop((front, idle));
    assert_eq!(stopping.join().unwrap(), Stopped::Clean);
}

#[test]
fn a_call_that_never_returns_does_not_keep_the_worker() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = ready(&place, &token);
    let mut front = FakeFront::connect(&place);
    let key = front.open();
    token.close_gate();
    front.send(1, &sign(key.handle, 60_000));
    eventually("it is being signed", || token.0.signing.load(SeqCst) == 1);
    assert_eq!(worker.stop(Duration::from_millis(50)), Stopped::CallPending);
    token.open_gate();
}

fn encoded(request: &Request) -> Vec<u8> {
    let mut out = Vec::new();
    encode_request(1, request, &mut out);
    out
}
