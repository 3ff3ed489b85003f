#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::config::SigningMode;
use crate::custody::testing::{FakeToken, Place, eventually};
use crate::custody::{Custody, CustodyError, CustodyEvent, CustodySetupError, TenantKey};

const DIGEST: [u8; 32] = [7; 32];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn custody(place: &Place) -> Arc<Custody> {
    Arc::new(Custody::new(&place.config("")).unwrap())
}

fn key(custody: &Custody) -> TenantKey {
    custody.resolve("acme", SigningMode::Kms).unwrap()
}

/// Looks until the token is ready: the pause after a failed connection must pass first.
async fn until_ready(custody: &Arc<Custody>) {
    for _ in 0..1_000 {
        custody.refresh().await;
        if custody.status()[0].ready {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never ready: {:?}", custody.status());
}

/// Signs as soon as it works again; says why it did not at first.
async fn until_signed(custody: &Custody, key: &TenantKey) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    for _ in 0..1_000 {
        match custody.sign(key, &DIGEST, soon()).await {
            Ok(_) => return reasons,
            Err(error) => reasons.push(error.reason()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never signed: {reasons:?}");
}

#[tokio::test]
async fn a_tenant_s_digest_is_signed_by_its_key() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = place.worker(place.plan(), &token);
    let custody = custody(&place);
    until_ready(&custody).await;
    let key = key(&custody);
    let signed = custody.sign(&key, &DIGEST, soon()).await.unwrap();
    assert!(key.verifies(&DIGEST, &signed.signature));
    assert_eq!(&*signed.token, "main");
    assert_eq!(*key.public_key(), token.public_key());
    assert_eq!(custody.key_by_keyid(key.keyid()).unwrap().name(), key.name());
    let listed = custody.keys(Some("acme"));
    assert_eq!(listed[0].public.as_ref().unwrap().0, token.public_key());
    assert!(custody.keys(Some("nobody")).is_empty());
    worker.stop(Duration::from_secs(10));
}

#[tokio::test]
async fn the_front_starts_without_its_worker_and_finds_it_later() {
    let (place, token) = (Place::new(), FakeToken::new());
    let custody = custody(&place);
    assert_eq!(custody.status()[0].state, "not_asked_yet");
    custody.refresh().await;
    assert_eq!(custody.status()[0].state, "worker_unreachable");
    assert_eq!(custody.resolve("acme", SigningMode::Kms).unwrap_err().reason(), "key_not_seen");
    let worker = place.worker(place.plan(), &token);
    let watching = tokio::spawn(Arc::clone(&custody).watch());
    while !custody.status()[0].ready {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    watching.abort();
    custody.sign(&key(&custody), &DIGEST, soon()).await.unwrap();
    worker.stop(Duration::from_secs(10));
}

#[tokio::test]
async fn a_worker_that_dies_mid_flight_costs_those_requests_and_no_others() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = place.worker(place.plan(), &token);
    let custody = custody(&place);
    until_ready(&custody).await;
    let key = key(&custody);
    token.close_gate();
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let (custody, key) = (Arc::clone(&custody), key.clone());
            tokio::spawn(async move { custody.sign(&key, &DIGEST, soon()).await })
        })
        .collect();
    while token.0.signing.load(SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // As a kill would: no answer, the sockets closed.
    std::fs::remove_file(place.socket()).unwrap();
    worker.sever();
    for request in waiting {
        let error = request.await.unwrap().unwrap_err();
        assert_eq!((error.code(), error.reason()), ("signing_unavailable", "worker_lost"), "{error}");
    }
    let error = custody.sign(&key, &DIGEST, soon()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), ("signing_unavailable", "worker_unreachable"));
    token.open_gate();
    let next = place.worker(place.plan(), &token);
    let reasons = until_signed(&custody, &key).await;
    assert!(reasons.iter().all(|reason| ["worker_unreachable", "token_unavailable"].contains(reason)), "{reasons:?}");
    next.stop(Duration::from_secs(10));
}

#[tokio::test]
async fn a_wrong_signature_never_leaves_and_takes_the_key_out_of_service() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = place.worker(place.plan(), &token);
    let custody = custody(&place);
    until_ready(&custody).await;
    let key = key(&custody);
    token.0.corrupt.store(true, SeqCst);
    let error = custody.sign(&key, &DIGEST, soon()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), ("signing_unavailable", "signature_invalid"));
    // The token is well again, but nobody knows what it did.
    token.0.corrupt.store(false, SeqCst);
    let signed_so_far = token.0.signing.load(SeqCst);
    assert!(matches!(custody.sign(&key, &DIGEST, soon()).await, Err(CustodyError::OutOfService { .. })));
    assert_eq!(token.0.signing.load(SeqCst), signed_so_far, "the token is not asked again");
    assert_eq!(custody.resolve("acme", SigningMode::Kms).unwrap_err().reason(), "key_out_of_service");
    custody.refresh().await;
    let status = &custody.status()[0];
    assert!(!status.ready && status.detail.contains("did not verify"), "{}", status.detail);
    assert_eq!(status.bad_signatures, 1);
    worker.stop(Duration::from_secs(10));
}

#[tokio::test]
async fn what_is_no_signature_at_all_takes_the_key_out_of_service_like_a_wrong_one() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = place.worker(place.plan(), &token);
    let custody = custody(&place);
    until_ready(&custody).await;
    let key = key(&custody);
    token.0.odd.store(true, SeqCst);
    let signed_so_far = token.0.signing.load(SeqCst);
    let error = custody.sign(&key, &DIGEST, soon()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), ("signing_unavailable", "signature_invalid"));
    assert_eq!(token.0.signing.load(SeqCst), signed_so_far + 1, "it signed: it is not asked again");
    token.0.odd.store(false, SeqCst);
    assert!(matches!(custody.sign(&key, &DIGEST, soon()).await, Err(CustodyError::OutOfService { .. })));
    assert_eq!(custody.status()[0].bad_signatures, 1);
    worker.stop(Duration::from_secs(10));
}

#[tokio::test]
async fn a_worker_that_comes_back_with_another_key_does_not_sign_until_the_pinned_one_is_back() {
    let (place, token, other) = (Place::new(), FakeToken::new(), FakeToken::new());
    let worker = place.worker(place.plan(), &token);
    let custody = custody(&place);
    until_ready(&custody).await;
    let key = key(&custody);
    worker.stop(Duration::from_secs(10));
    let impostor = place.worker(place.plan(), &other);
    eventually("the impostor is up", || impostor.status().sessions_open == 2);
    loop {
        let error = custody.sign(&key, &DIGEST, soon()).await.unwrap_err();
        if error.reason() == "key_out_of_service" {
            break;
        }
        assert_eq!(error.reason(), "worker_unreachable", "while the pause after a failed connection lasts");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(other.0.signing.load(SeqCst), 0);
    impostor.stop(Duration::from_secs(10));
    let worker = place.worker(place.plan(), &token);
    until_ready(&custody).await;
    custody.sign(&key, &DIGEST, soon()).await.unwrap();
    worker.stop(Duration::from_secs(10));
}

#[tokio::test]
async fn a_socket_of_another_user_is_not_spoken_to() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = place.worker(place.plan(), &token);
    let mut config = place.config("");
    config.tokens.get_mut("main").unwrap().worker_user = "4242".into();
    let custody = Arc::new(Custody::new(&config).unwrap());
    custody.refresh().await;
    let status = &custody.status()[0];
    assert_eq!(status.state, "worker_unreachable");
    assert!(status.detail.contains("4242"), "{}", status.detail);
    assert_eq!(worker.status().counters.sign_requests, 0);
    worker.stop(Duration::from_secs(10));
}

#[tokio::test]
async fn the_caller_s_deadline_holds_while_the_token_hangs() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = place.worker(place.plan(), &token);
    let custody = custody(&place);
    until_ready(&custody).await;
    token.close_gate();
    let error = custody.sign(&key(&custody), &DIGEST, Instant::now() + Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), ("signing_unavailable", "worker_timeout"));
    token.open_gate();
    worker.stop(Duration::from_secs(10));
}

#[test]
fn every_event_loop_has_its_own_connection() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = place.worker(place.plan(), &token);
    eventually("up", || worker.status().sessions_open == 2);
    let custody = custody(&place);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let background = runtime();
    background.block_on(until_ready(&custody));
    let key = key(&custody);
    let loops: Vec<_> = (0..3)
        .map(|_| {
            let (custody, key) = (Arc::clone(&custody), key.clone());
            std::thread::spawn(move || {
                let runtime = runtime();
                for _ in 0..20 {
                    runtime.block_on(custody.sign(&key, &DIGEST, soon())).unwrap();
                }
                runtime
            })
        })
        .collect();
    let loops: Vec<_> = loops.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(worker.status().connections, 4);
    drop(loops);
    eventually("connections end with their event loops", || worker.status().connections == 1);
    worker.stop(Duration::from_secs(10));
}

#[tokio::test]
async fn futures_may_be_sent_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let place = Place::new();
    let custody = custody(&place);
    let watch = Arc::clone(&custody).watch();
    is_send(&watch);
    let (_, public_key) = crate::custody::testing::key_pair();
    custody.registry.entries[0].pin(public_key).unwrap();
    let key = key(&custody);
    is_send(&custody.sign(&key, &DIGEST, soon()));
}

#[tokio::test]
async fn a_key_that_was_exchanged_while_the_front_was_down_is_refused_until_the_config_states_it() {
    let (place, token) = (Place::new(), FakeToken::new());
    let worker = place.worker(place.plan(), &token);
    let (history, stated) = (place.path("history.jsonl"), place.path("a.pub"));
    let start = |key: &str| {
        let config = place.config(&format!("{key}[custody]\nhistory = \"{}\"\n", history.display()));
        Custody::new(&config).map(Arc::new)
    };
    let first = start("").unwrap();
    until_ready(&first).await;
    let config = place.config(&format!("[custody]\nhistory = \"{}\"\n", history.display()));
    crate::custody::history::keep(Arc::clone(&first), crate::custody::history::History::of(&config)).await;
    let again = start("").unwrap();
    until_ready(&again).await;

    let exchanged = token.replace_key("k");
    let third = start("").unwrap();
    let mut events = third.events().unwrap();
    eventually_refreshed(&third, |custody| custody.keys(None)[0].out_of_service.is_some()).await;
    let error = third.resolve("acme", SigningMode::Kms).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&exchanged.keyid()) && text.contains("public_key"), "{text}");
    assert!(third.verification_keys().is_empty(), "nothing is pinned");
    assert!(third.keys(None)[0].custody[0].attributes.is_none(), "its attributes are no evidence for ours");
    let told = std::iter::from_fn(|| events.try_recv().ok());
    let alarm =
        |event: &CustodyEvent| matches!(event, CustodyEvent::KeyState { detail, .. } if detail.contains("history"));
    assert!(told.collect::<Vec<_>>().iter().any(alarm), "the auditor hears of it");

    std::fs::write(&stated, exchanged.to_pem()).unwrap();
    let fourth = start(&format!("public_key = \"{}\"\n", stated.display())).unwrap();
    until_ready(&fourth).await;
    fourth.sign(&key(&fourth), &DIGEST, soon()).await.unwrap();

    std::fs::write(&history, "not a history\n").unwrap();
    let error = start("").unwrap_err();
    assert!(matches!(error, CustodySetupError::History(_)), "{error}");
    start(&format!("public_key = \"{}\"\n", stated.display())).unwrap();
    worker.stop(Duration::from_secs(10));
}

async fn eventually_refreshed(custody: &Arc<Custody>, is_so: impl Fn(&Custody) -> bool) {
    for _ in 0..1_000 {
        custody.refresh().await;
        if is_so(custody) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {:?}", custody.status());
}
