//! What a look-up may cost: requests, bytes, time, round trips; and that it is made once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::registry::{BUNDLE, Body, INDEX, MANIFEST, Reply, descriptor, index, referrers_path};
use testkit::runtime;

use crate::stage::{Stage, check, named, releases, stray};

#[test]
fn a_cold_verdict_takes_three_round_trips() {
    let stage = Stage::new();
    let others = (0..5).map(|number| stray(&stage, BUNDLE, number));
    let list: Vec<_> = others.chain([stage.attach(&stage.good())]).collect();
    stage.registry.referrers(&stage.image, &list);
    stage.registry.delay(Duration::from_millis(80));
    stage.check().unwrap();
    assert!(
        stage.registry.round_trips() <= 3,
        "{} round trips: {:?}",
        stage.registry.round_trips(),
        stage.registry.exchanges()
    );
    // What the registry itself says is something else costs no request.
    let stage = Stage::new();
    let mut list: Vec<_> = (0..50).map(|number| named("application/spdx+json", number)).collect();
    list.push(stage.attach(&stage.good()));
    stage.registry.referrers(&stage.image, &list);
    stage.check().unwrap();
    assert_eq!(stage.registry.exchanges().len(), 4, "list, cosign's tag, manifest, blob");
}

#[test]
fn a_thousand_requests_for_one_cold_image_cost_the_registry_one_look_up() {
    let stage = Stage::new();
    stage.attach_all(&[stage.good()]);
    stage.registry.delay(Duration::from_millis(50));
    let releases = releases(&stage.config());
    runtime().block_on(async {
        let mut all = Vec::new();
        for number in 0..1000 {
            let (releases, image) = (releases.clone(), stage.image.clone());
            let tenant: Arc<str> = format!("tenant-{}", number % 10).into();
            all.push(tokio::spawn(async move { releases.check(&image, &tenant).await }));
        }
        for one in all {
            assert_eq!(one.await.unwrap().unwrap().signed_by(), "release team");
        }
    });
    assert_eq!(stage.registry.count("/referrers/"), 1);
    assert_eq!(stage.registry.exchanges().len(), 4);
    // And what is at hand costs it nothing.
    check(&releases, &stage.image).unwrap();
    assert_eq!(stage.registry.exchanges().len(), 4);
}

#[test]
fn a_caller_who_goes_away_takes_nobodys_verdict_along() {
    let stage = Stage::new();
    stage.attach_all(&[stage.good()]);
    stage.registry.delay(Duration::from_millis(50));
    let releases = releases(&stage.config());
    let (first, image) = (releases.clone(), stage.image.clone());
    runtime().block_on(async move {
        let impatient = tokio::time::timeout(Duration::from_millis(20), first.check(&image, &"acme".into())).await;
        assert!(impatient.is_err(), "it was to be too slow");
    });
    check(&releases, &stage.image).unwrap();
    assert_eq!(stage.registry.count("/referrers/"), 1);
}

#[test]
fn an_outage_is_not_asked_about_by_every_request() {
    let stage = Stage::new();
    stage.registry.answer(&referrers_path(&stage.image), Reply::status(503));
    let releases = releases(&stage.config());
    for _ in 0..20 {
        assert_eq!(check(&releases, &stage.image).unwrap_err().code(), "dependency_unavailable");
    }
    assert!(stage.registry.count("/referrers/") <= 2, "{}", stage.registry.count("/referrers/"));
}

#[test]
fn pages_without_end_are_not_read_to_the_end() {
    let stage = Stage::new();
    let (base, page) = (referrers_path(&stage.image), Arc::new(AtomicUsize::new(0)));
    let path = base.clone();
    stage.registry.answer_by(move |target, _| {
        target.starts_with(&path).then(|| {
            let next = page.fetch_add(1, Ordering::Relaxed) + 1;
            let list = index(&[named("application/vnd.example", next)]);
            Reply::ok(INDEX, list.as_bytes()).header("link", &format!("<{path}?page={next}>; rel=\"next\""))
        })
    });
    assert_eq!(stage.refusal(), "release_too_many_referrers");
    assert_eq!(stage.registry.count("/referrers/"), 16);
    let _ = base;
}

#[test]
fn a_good_signature_on_the_second_page_is_found() {
    let stage = Stage::new();
    let path = referrers_path(&stage.image);
    let first = index(&[named("application/vnd.example", 1)]);
    let link = format!("<{path}?page=2>; rel=\"next\"");
    stage.registry.answer(&path, Reply::ok(INDEX, first.as_bytes()).header("link", &link));
    let second = index(&[stage.attach(&stage.good())]);
    stage.registry.answer(&format!("{path}?page=2"), Reply::ok(INDEX, second.as_bytes()));
    stage.check().unwrap();
}

#[test]
fn of_ten_thousand_referrers_a_bounded_number_is_looked_at() {
    let stage = Stage::new();
    let list: Vec<_> = (0..10_000).map(|number| named(BUNDLE, number)).collect();
    stage.registry.referrers(&stage.image, &list);
    let began = Instant::now();
    assert_eq!(stage.refusal(), "release_too_many_referrers");
    assert!(stage.registry.exchanges().len() <= 2 + 256, "{}", stage.registry.exchanges().len());
    assert!(began.elapsed() < Duration::from_secs(10));
    // A release signature that is marked as one is looked at first.
    let mut list = list;
    let good = stage.attach(&stage.good());
    list.push(good.annotated("dev.sigstore.bundle.predicateType", crate::stage::SIGN));
    stage.registry.referrers(&stage.image, &list);
    stage.check().unwrap();
}

#[test]
fn a_list_longer_than_any_is_a_bound_and_no_malformed_list() {
    let stage = Stage::new();
    let list: Vec<_> = (0..20_001).map(|number| named("a/b", number)).collect();
    stage.registry.referrers(&stage.image, &list);
    assert_eq!(stage.refusal(), "release_too_many_referrers");
    let mut list = list;
    list.insert(0, stage.attach(&stage.good()));
    stage.registry.referrers(&stage.image, &list);
    stage.check().unwrap();
}

#[test]
fn of_pages_without_end_a_bounded_number_of_entries_is_remembered() {
    let stage = Stage::new();
    let (path, page) = (referrers_path(&stage.image), Arc::new(AtomicUsize::new(0)));
    stage.registry.answer_by(move |target, _| {
        target.starts_with(&path).then(|| {
            let next = page.fetch_add(1, Ordering::Relaxed) + 1;
            let list: Vec<_> = (0..12_000).map(|number| named("a/b", next * 100_000 + number)).collect();
            Reply::ok(INDEX, index(&list).as_bytes()).header("link", &format!("<{path}?page={next}>; rel=\"next\""))
        })
    });
    assert_eq!(stage.refusal(), "release_too_many_referrers");
    assert_eq!(stage.registry.count("/referrers/"), 2, "twenty thousand are on the first two pages");
}

#[test]
fn bytes_are_counted_by_what_is_asked_for_and_not_by_what_turns_out_well() {
    let stage = Stage::new();
    let list: Vec<_> = (0..200).map(|number| named(BUNDLE, number).with("size", 1 << 20)).collect();
    stage.registry.referrers(&stage.image, &list);
    assert_eq!(stage.refusal(), "release_too_many_referrers");
    assert_eq!(stage.registry.count("/manifests/sha256:"), 64, "64 MiB");
    // What is too large to be asked for costs nothing.
    let stage = Stage::new();
    let mut list: Vec<_> = (0..200).map(|number| named(BUNDLE, number).with("size", (1 << 20) + 1)).collect();
    list.push(stage.attach(&stage.good()));
    stage.registry.referrers(&stage.image, &list);
    stage.check().unwrap();
}

#[test]
fn what_goes_with_a_refusal_is_not_read() {
    let stage = Stage::new();
    let refusal = Reply::status(503).body(Body::Endless);
    stage.registry.answer(&referrers_path(&stage.image), refusal);
    let error = stage.check().unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_status"));
}

#[test]
fn what_is_too_large_is_not_read() {
    // A manifest whose descriptor says so is not even asked for.
    let stage = Stage::new();
    let large = named(BUNDLE, 1).with("size", 1_u64 << 40);
    stage.registry.referrers(&stage.image, &[large]);
    assert_eq!(stage.refusal(), "release_content_too_large");
    assert_eq!(stage.registry.exchanges().len(), 2);
    // One that goes on and on is read up to the size that its descriptor states.
    let stage = Stage::new();
    let endless = named(BUNDLE, 2);
    let place = format!("/v2/{}/manifests/{}", testkit::registry::REPOSITORY, endless.digest());
    stage.registry.answer(&place, Reply::ok(MANIFEST, b"").body(Body::Endless));
    stage.registry.referrers(&stage.image, &[endless]);
    let began = Instant::now();
    assert_eq!(stage.refusal(), "release_content_size");
    assert!(began.elapsed() < Duration::from_secs(5));
    // So is a list, and then nobody knows what would have been on it.
    let stage = Stage::new();
    stage.registry.answer(&referrers_path(&stage.image), Reply::ok(INDEX, b"").body(Body::Endless));
    let error = stage.check().unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_content_too_large"));
    // And a blob of a megabyte and a byte.
    let stage = Stage::new();
    let layer = descriptor(BUNDLE, &vec![b' '; (1 << 20) + 1]);
    let text = testkit::registry::manifest(BUNDLE, Some(&stage.image), &[layer]).to_string();
    let manifest = stage.registry.manifest(text.as_bytes());
    stage.registry.referrers(&stage.image, &[manifest]);
    assert_eq!(stage.refusal(), "release_content_too_large");
}

#[test]
fn a_slow_registry_costs_its_time_and_no_more() {
    let stage = Stage::new();
    let drip = Reply::ok(INDEX, b"").body(Body::Drip(vec![b' '; 100_000], Duration::from_millis(20)));
    stage.registry.answer(&referrers_path(&stage.image), drip);
    let mut config = stage.config();
    config.timeout = "1s".parse().unwrap();
    let began = Instant::now();
    let error = check(&releases(&config), &stage.image).unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_timeout"));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_verdict_is_looked_up_again_before_it_runs_out_and_never_used_after() {
    let stage = Stage::new();
    stage.attach_all(&[stage.good()]);
    let mut config = stage.config();
    config.trusted_ttl = "2s".parse().unwrap();
    let releases = releases(&config);
    check(&releases, &stage.image).unwrap();
    let began = Instant::now();
    // Asked all the time, it is looked up beside and no request waits for it.
    while stage.registry.count("/referrers/") < 2 {
        check(&releases, &stage.image).unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "it ran out before it was looked up again");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The signature is withdrawn, and the registry goes down: the last verdict ends with its time.
    stage.registry.answer_by(|_, _| Some(Reply::status(503)));
    let down = Instant::now();
    while check(&releases, &stage.image).is_ok() {
        assert!(down.elapsed() < Duration::from_secs(3), "a stale verdict was used");
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = check(&releases, &stage.image).unwrap_err();
    assert_eq!((error.code(), error.reason()), ("dependency_unavailable", "release_registry_status"));
}
