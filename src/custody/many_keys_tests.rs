//! A token with many keys: each has its turn, and an outage does not end for them one by one.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::testing::{FakeToken, Place};
use super::token::Remedy;
use super::worker::{Plan, Worker};
use super::{Custody, CustodyEvent, KeyHealth};

struct Many {
    token: FakeToken,
    worker: Worker,
    custody: Arc<Custody>,
    watching: tokio::task::JoinHandle<()>,
    _place: Place,
}

impl Many {
    /// `count` keys `k-000` and so on, besides the one that is in every configuration.
    fn new(count: usize, sessions: u32, custody: &str, prepare: impl FnOnce(&FakeToken)) -> Self {
        let (place, token) = (Place::new(), FakeToken::new());
        let mut config = format!("[custody]\n{custody}\n");
        for number in 0..count {
            let label = format!("k-{number:03}");
            token.replace_key(&label);
            config +=
                &format!("[keys.{label}]\ntoken = \"main\"\nuri = \"pkcs11:object={label}\"\nstate = \"active\"\n");
        }
        prepare(&token);
        let worker = place.worker(Plan { sessions, ..place.plan() }, &token);
        let custody = Arc::new(Custody::new(&place.config(&config)).unwrap());
        let watching = tokio::spawn(Arc::clone(&custody).watch());
        Self { token, worker, custody, watching, _place: place }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Custody) -> bool) -> Duration {
        let began = Instant::now();
        while !is_so(&self.custody) {
            assert!(began.elapsed() < Duration::from_secs(60), "never: {what}: {:?}", self.custody.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    fn stop(self) {
        self.watching.abort();
        self.worker.stop(Duration::from_secs(10));
    }
}

/// Those of the keys that are so.
fn count(custody: &Custody, is_so: impl Fn(KeyHealth) -> bool) -> usize {
    custody.figures().iter().filter(|figures| is_so(figures.state)).count()
}

fn signs(state: KeyHealth) -> bool {
    state <= KeyHealth::Degraded
}

#[tokio::test]
async fn the_last_of_hundreds_of_keys_is_opened_although_the_first_ones_do_not_open() {
    let many = Many::new(300, 2, "canary_interval = \"1h\"", |token| {
        // Longer than one key may take; and there are more of them than make a round end.
        let slow = (0..8).map(|number| (format!("k-{number:03}"), Duration::from_millis(500)));
        token.0.slow_to_open.lock().unwrap().extend(slow);
    });
    let opened = |custody: &Custody| {
        let keys = custody.keys(None);
        keys.iter().filter(|key| key.custody[0].attributes.is_some()).count()
    };
    many.until("all others are open", |custody| opened(custody) == 301 - 8).await;
    many.token.0.slow_to_open.lock().unwrap().clear();
    many.until("those are, too", |custody| opened(custody) == 301).await;
    let detail = &many.custody.status()[0].detail;
    assert!(detail.len() < 2_000, "not every key is named: {} bytes", detail.len());
    many.stop();
}

#[tokio::test]
async fn keys_of_a_slow_token_that_failed_as_a_whole_are_back_within_seconds_of_it() {
    let many = Many::new(20, 1, "canary_interval = \"1s\"", |token| {
        *token.0.delay.lock().unwrap() = Duration::from_millis(100);
    });
    many.until("every key is live", |custody| count(custody, |state| state == KeyHealth::Live) == 21).await;
    let mut events = many.custody.events().unwrap();
    *many.token.0.failing.lock().unwrap() = Some(Remedy::None);
    many.until("every key is out", |custody| count(custody, signs) == 0).await;
    let asked = many.token.0.signing.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let asked = many.token.0.signing.load(SeqCst) - asked;
    assert!((1..=6).contains(&asked), "about one test a second for all keys together, not {asked} in three");
    *many.token.0.failing.lock().unwrap() = None;
    let took = many.until("every key is in service", |custody| count(custody, signs) == 21).await;
    // One by one, with the pause after each test, it were more than a minute. A second more for a busy machine.
    assert!(took < Duration::from_secs(3), "{took:?}");
    many.until("every key has shown it", |custody| count(custody, |state| state == KeyHealth::Live) == 21).await;
    let mut told = 0;
    while let Ok(event) = events.try_recv() {
        told += usize::from(matches!(event, CustodyEvent::KeyState { .. }));
    }
    assert!(told <= 4 * 21, "{told} records");
    many.stop();
}

#[tokio::test]
async fn one_key_that_fails_is_tested_ever_less_and_takes_nobody_with_it() {
    let many = Many::new(5, 1, "canary_interval = \"50ms\"", |_| ());
    many.until("every key is live", |custody| count(custody, |state| state == KeyHealth::Live) == 6).await;
    many.token.0.unopenable.lock().unwrap().insert("k-003".to_owned(), Remedy::NewSession);
    // A new session looks its keys up anew, and does not get this one.
    many.token.0.failures.lock().unwrap().push_back(Remedy::NewSession);
    let state = |custody: &Custody, name: &str| {
        let figures = custody.figures();
        figures.iter().find(|figures| *figures.key == *name).map(|figures| figures.state).unwrap()
    };
    many.until("it is out", |custody| state(custody, "k-003") == KeyHealth::OutOfService).await;
    many.until("the others are live", |custody| count(custody, |state| state == KeyHealth::Live) == 5).await;
    assert_eq!(many.token.0.reinitialized.load(SeqCst), 0, "its neighbours keep their module");
    many.token.0.unopenable.lock().unwrap().clear();
    many.until("it is back", |custody| state(custody, "k-003") == KeyHealth::Live).await;
    many.stop();
}
