//! One key in several tokens: spreading, failover, draining, test signatures, the gate on a timer.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::testing::{FakeToken, GOOD, Place};
use super::token::Remedy;
use super::{Custody, CustodyEvent, DrainError, Drained, KeyAttributes, KeyHealth, TenantKey};
use crate::config::SigningMode;

const DIGEST: [u8; 32] = [9; 32];

/// Two workers on two tokens with the same key, and a front that watches them.
struct Pair {
    place: Place,
    main: FakeToken,
    standby: FakeToken,
    custody: Arc<Custody>,
    workers: Vec<(&'static str, super::worker::Worker)>,
    watching: tokio::task::JoinHandle<()>,
}

impl Pair {
    async fn new(extra: &str) -> Self {
        let main = FakeToken::new();
        let standby = main.twin();
        let pair = Self::of(main, standby, extra);
        pair.until("both tokens are live", |c| [0, 1].iter().all(|at| state(c, *at) == KeyHealth::Live)).await;
        pair
    }

    fn of(main: FakeToken, standby: FakeToken, extra: &str) -> Self {
        let place = Place::new();
        let workers = vec![("main", place.worker(place.plan(), &main)), ("standby", place.standby(&standby))];
        let custody = Arc::new(Custody::new(&place.config_of_two(extra)).unwrap());
        let watching = tokio::spawn(Arc::clone(&custody).watch());
        Self { place, main, standby, custody, workers, watching }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Custody) -> bool) {
        let began = Instant::now();
        while !is_so(&self.custody) {
            assert!(began.elapsed() < Duration::from_secs(20), "never: {what}: {:?}", self.custody.keys(None));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// As long as it takes to test the other token ten times: time enough for what must not happen in this one.
    async fn while_standby_is_tested(&self) {
        let before = self.standby.0.signing.load(SeqCst);
        self.until("ten tests", |_| self.standby.0.signing.load(SeqCst) >= before + 10).await;
    }

    fn key(&self) -> TenantKey {
        self.custody.resolve("acme", SigningMode::Kms).unwrap()
    }

    /// As a kill would: no answer, the sockets closed, nobody listens.
    fn kill_main(&mut self) {
        std::fs::remove_file(self.place.socket()).unwrap();
        let at = self.workers.iter().position(|(name, _)| *name == "main").unwrap();
        self.workers.remove(at).1.sever();
    }

    fn stop(self) {
        self.watching.abort();
        self.main.open_gate();
        self.standby.open_gate();
        for (_, worker) in self.workers {
            worker.stop(Duration::from_secs(10));
        }
    }
}

/// How the key is in its first or second token.
fn state(custody: &Custody, at: usize) -> KeyHealth {
    custody.keys(None)[0].custody[at].state
}

fn detail(custody: &Custody, at: usize) -> String {
    custody.keys(None)[0].details[at].clone()
}

async fn drain(custody: &Custody, token: &str, drained: bool) -> Result<Drained, DrainError> {
    custody.set_drained(token, drained, async { Ok::<(), std::io::Error>(()) }).await
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[tokio::test]
async fn signatures_are_spread_over_the_tokens_that_hold_the_key() {
    let pair = Pair::new("").await;
    for token in [&pair.main, &pair.standby] {
        *token.0.delay.lock().unwrap() = Duration::from_millis(2);
    }
    let (key, mut asked) = (pair.key(), JoinSet::new());
    for _ in 0..40 {
        let (custody, key) = (Arc::clone(&pair.custody), key.clone());
        asked.spawn(async move {
            let mut by = Vec::new();
            for _ in 0..5 {
                by.push(custody.sign(&key, &DIGEST, soon()).await.unwrap().token);
            }
            by
        });
    }
    let by: Vec<Arc<str>> = asked.join_all().await.into_iter().flatten().collect();
    for token in ["main", "standby"] {
        let share = by.iter().filter(|signed_by| ***signed_by == *token).count();
        assert!(share > 40, "{token} made {share} of 200");
    }
    pair.stop();
}

#[tokio::test]
async fn a_token_that_dies_under_load_costs_what_was_under_way_in_it_and_nothing_more() {
    let mut pair = Pair::new("").await;
    for token in [&pair.main, &pair.standby] {
        *token.0.delay.lock().unwrap() = Duration::from_millis(2);
    }
    let (key, mut callers) = (pair.key(), JoinSet::new());
    for _ in 0..16 {
        let (custody, key) = (Arc::clone(&pair.custody), key.clone());
        callers.spawn(async move {
            let mut failed = Vec::new();
            for _ in 0..100 {
                if let Err(error) = custody.sign(&key, &DIGEST, soon()).await {
                    failed.push(error.reason());
                }
            }
            failed
        });
    }
    while pair.main.0.signing.load(SeqCst) < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pair.kill_main();
    let failed: Vec<&str> = callers.join_all().await.into_iter().flatten().collect();
    assert!(failed.len() <= 16, "each caller loses one request at most: {failed:?}");
    assert!(failed.iter().all(|reason| *reason == "worker_lost"), "only what was under way: {failed:?}");
    assert_eq!(&*pair.custody.sign(&key, &DIGEST, soon()).await.unwrap().token, "standby");
    assert!(pair.custody.can_sign("acme"), "one token is enough");
    pair.stop();
}

#[tokio::test]
async fn a_token_that_refuses_is_stood_in_for_by_the_other() {
    let pair = Pair::new("").await;
    let key = pair.key();
    *pair.standby.0.delay.lock().unwrap() = Duration::from_millis(50);
    pair.main.0.failures.lock().unwrap().extend([Remedy::None; 1000]);
    for _ in 0..10 {
        let signed = pair.custody.sign(&key, &DIGEST, soon()).await.unwrap();
        assert_eq!(&*signed.token, "standby");
    }
    assert!(pair.custody.status()[1].taken_over > 0);
    pair.stop();
}

#[tokio::test]
async fn another_key_under_the_uri_of_a_replica_never_signs_and_the_others_go_on() {
    let (main, other) = (FakeToken::new(), FakeToken::new());
    let pair = Pair::of(main, other, "");
    pair.until("one of them is refused", |c| [0, 1].iter().any(|at| detail(c, *at).contains("pinned is"))).await;
    pair.until("the other is live", |c| [0, 1].iter().any(|at| state(c, *at) == KeyHealth::Live)).await;
    let (right, wrong) = if state(&pair.custody, 0) == KeyHealth::Live { (0, 1) } else { (1, 0) };
    let (key, names) = (pair.key(), ["main", "standby"]);
    for _ in 0..50 {
        assert_eq!(&*pair.custody.sign(&key, &DIGEST, soon()).await.unwrap().token, names[right]);
    }
    let tokens = [&pair.main, &pair.standby];
    assert_eq!(tokens[wrong].0.signing.load(SeqCst), 0, "it is not asked, not even for a test");
    assert_eq!(state(&pair.custody, wrong), KeyHealth::OutOfService);
    pair.stop();
}

#[tokio::test]
async fn a_drained_token_gets_no_request_until_it_is_taken_back_and_a_restart_does_not_forget() {
    let pair = Pair::new("").await;
    let key = pair.key();
    let done = drain(&pair.custody, "main", true).await.unwrap();
    assert!(done.drained && done.changed && done.keys_without_token.is_empty(), "{done:?}");
    assert!(!drain(&pair.custody, "main", true).await.unwrap().changed);
    // A test signature may have been under way.
    pair.until("main is idle", |c| c.status()[0].outstanding == 0).await;
    let before = pair.main.0.signing.load(SeqCst);
    for _ in 0..50 {
        assert_eq!(&*pair.custody.sign(&key, &DIGEST, soon()).await.unwrap().token, "standby");
    }
    pair.while_standby_is_tested().await;
    assert_eq!(pair.main.0.signing.load(SeqCst), before, "no test signatures either");
    assert_eq!((state(&pair.custody, 0), pair.custody.status()[0].state), (KeyHealth::Drained, "drained"));

    let restarted = Custody::new(&pair.place.config_of_two("")).unwrap();
    assert_eq!(restarted.status()[0].state, "drained");

    let done = drain(&pair.custody, "standby", true).await.unwrap();
    assert_eq!(done.keys_without_token, ["a".into()]);
    let error = pair.custody.sign(&key, &DIGEST, soon()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), ("signing_unavailable", "key_out_of_service"), "{error}");
    drain(&pair.custody, "main", false).await.unwrap();
    pair.until("main is live again", |c| state(c, 0) == KeyHealth::Live).await;
    assert_eq!(&*pair.custody.sign(&key, &DIGEST, soon()).await.unwrap().token, "main");
    assert!(drain(&pair.custody, "nobody", true).await.is_err());
    pair.stop();
}

#[tokio::test]
async fn draining_has_no_effect_before_its_record_is_durable_and_none_without_one() {
    let pair = Pair::new("").await;
    let drained = |custody: &Custody| custody.status()[0].state == "drained";
    let (reach, reached) = tokio::sync::oneshot::channel();
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let recording = async {
        reach.send(()).unwrap();
        finished.await.unwrap();
        Ok::<(), std::io::Error>(())
    };
    let draining = pair.custody.set_drained("main", true, recording);
    let looking = async {
        reached.await.unwrap();
        assert!(!drained(&pair.custody), "its record is not durable yet");
        assert!(!drained(&Custody::new(&pair.place.config_of_two("")).unwrap()), "a restart would not know of it");
        finish.send(()).unwrap();
    };
    let (done, ()) = tokio::join!(draining, looking);
    assert!(done.unwrap().changed && drained(&pair.custody));

    let full = async { Err::<(), _>(std::io::Error::other("the log is full")) };
    let error = pair.custody.set_drained("main", false, full).await.unwrap_err();
    assert!(matches!(&error, DrainError::NotRecorded(why) if why.contains("full")), "{error}");
    assert!(drained(&pair.custody) && drained(&Custody::new(&pair.place.config_of_two("")).unwrap()));
    pair.stop();
}

#[tokio::test]
async fn a_key_whose_test_signatures_fail_leaves_service_and_comes_back() {
    let pair = Pair::new("").await;
    let mut events = pair.custody.events().unwrap();
    pair.main.0.failures.lock().unwrap().extend([Remedy::None; 100_000]);
    pair.until("main is out", |c| state(c, 0) == KeyHealth::OutOfService).await;
    assert!(detail(&pair.custody, 0).contains("C_Sign"), "{}", detail(&pair.custody, 0));
    let asked = pair.main.0.failures.lock().unwrap().len();
    let key = pair.key();
    let signed = pair.custody.sign(&key, &DIGEST, soon()).await.unwrap();
    assert_eq!(&*signed.token, "standby");
    assert!(asked - pair.main.0.failures.lock().unwrap().len() <= 1, "at most a test signature");
    pair.main.0.failures.lock().unwrap().clear();
    pair.until("main is live again", |c| state(c, 0) == KeyHealth::Live).await;
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let CustodyEvent::KeyState { token, state, .. } = event
            && *token == *"main"
        {
            told.push(state);
        }
    }
    assert_eq!(told, [KeyHealth::Live, KeyHealth::OutOfService, KeyHealth::Live]);
    pair.stop();
}

#[tokio::test]
async fn a_test_signature_that_does_not_verify_takes_the_key_out_for_good() {
    let pair = Pair::new("").await;
    pair.main.0.corrupt.store(true, SeqCst);
    pair.until("main is out", |c| detail(c, 0).contains("did not verify")).await;
    pair.main.0.corrupt.store(false, SeqCst);
    pair.while_standby_is_tested().await;
    assert_eq!(state(&pair.custody, 0), KeyHealth::OutOfService);
    assert_eq!(pair.custody.status()[0].bad_signatures, 1);
    assert_eq!(&*pair.custody.sign(&pair.key(), &DIGEST, soon()).await.unwrap().token, "standby");
    pair.stop();
}

#[tokio::test]
async fn a_slow_token_is_degraded_and_does_not_slow_the_other() {
    let pair = Pair::new("").await;
    *pair.main.0.delay.lock().unwrap() = Duration::from_millis(300);
    pair.until("main is degraded", |c| state(c, 0) == KeyHealth::Degraded).await;
    assert!(detail(&pair.custody, 0).contains("test signature took"), "{}", detail(&pair.custody, 0));
    let (key, began) = (pair.key(), Instant::now());
    for _ in 0..50 {
        assert_eq!(&*pair.custody.sign(&key, &DIGEST, soon()).await.unwrap().token, "standby");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?} for what takes main 15 s", began.elapsed());
    *pair.main.0.delay.lock().unwrap() = Duration::ZERO;
    pair.until("main is live again", |c| state(c, 0) == KeyHealth::Live).await;
    pair.stop();
}

#[tokio::test]
async fn a_token_that_hangs_holds_up_only_what_was_given_to_it() {
    let pair = Pair::new("").await;
    pair.main.close_gate();
    let (key, mut asked) = (pair.key(), JoinSet::new());
    for _ in 0..64 {
        let (custody, key) = (Arc::clone(&pair.custody), key.clone());
        asked.spawn(async move {
            let mut signed = 0;
            for _ in 0..5 {
                let deadline = Instant::now() + Duration::from_millis(500);
                signed += u32::from(custody.sign(&key, &DIGEST, deadline).await.is_ok());
            }
            signed
        });
    }
    let signed: u32 = asked.join_all().await.into_iter().sum();
    // What was given to main before it was seen to hang is lost; a second one rarely is.
    assert!(signed >= 230, "{signed} of 320 were signed");
    pair.stop();
}

#[tokio::test]
async fn attributes_that_change_are_noticed_on_the_timer_and_named() {
    let pair = Pair::new("").await;
    *pair.main.0.attributes.lock().unwrap() = KeyAttributes { local: false, unwrap: true, ..GOOD };
    pair.custody.tokens[0].doubted.notify_one();
    pair.until("main is out", |c| state(c, 0) == KeyHealth::OutOfService).await;
    let why = detail(&pair.custody, 0);
    assert!(why.contains("CKA_LOCAL") && why.contains("CKA_UNWRAP") && !why.contains("CKA_PRIVATE"), "{why}");
    assert_eq!(&*pair.custody.sign(&pair.key(), &DIGEST, soon()).await.unwrap().token, "standby");
    *pair.main.0.attributes.lock().unwrap() = GOOD;
    pair.until("main is live again", |c| state(c, 0) == KeyHealth::Live).await;
    pair.stop();
}

#[tokio::test]
async fn who_is_refused_because_of_the_queue_is_told_how_long_the_queue_takes() {
    let (place, token) = (Place::new(), FakeToken::new());
    *token.0.delay.lock().unwrap() = Duration::from_millis(100);
    let worker = place.worker(super::worker::Plan { sessions: 1, max_queue: 30, ..place.plan() }, &token);
    let custody = Arc::new(Custody::new(&place.config("")).unwrap());
    let watching = tokio::spawn(Arc::clone(&custody).watch());
    while !custody.can_sign("acme") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (key, mut asked) = (custody.resolve("acme", SigningMode::Kms).unwrap(), JoinSet::new());
    for _ in 0..60 {
        let (custody, key) = (Arc::clone(&custody), key.clone());
        asked.spawn(async move { custody.sign(&key, &DIGEST, soon()).await });
    }
    let refused: Vec<_> = asked.join_all().await.into_iter().filter_map(Result::err).collect();
    let queue_full: Vec<_> = refused.iter().filter(|error| error.reason() == "queue_full").collect();
    assert!(!queue_full.is_empty(), "{refused:?}");
    for error in queue_full {
        let wait = error.retry_after();
        assert_eq!(error.code(), "overloaded");
        assert!((Duration::from_secs(2)..Duration::from_secs(12)).contains(&wait), "30 to 60 times 100 ms: {wait:?}");
    }
    watching.abort();
    worker.stop(Duration::from_secs(20));
}
