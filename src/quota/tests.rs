#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::clock::UnixTime;

const LIMITS: Limits = Limits { qps: 100, burst: 100, concurrency: 10, max_artifact_bytes: 1000 };

fn entitlement(license: &str, limits: Limits) -> Entitlement {
    Entitlement {
        license_id: license.into(),
        customer_id: "customer".into(),
        plan: "pro".into(),
        limits,
        expires_at: UnixTime(i64::MAX),
    }
}

fn tenant(name: &str) -> Arc<str> {
    name.into()
}

#[test]
fn a_permit_may_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Permit>();
    crosses::<Quotas>();
}

#[test]
fn the_burst_comes_at_once_and_then_the_rate_holds() {
    let (quotas, start) = (Quotas::new(), Instant::now());
    let limits = Limits { qps: 2, burst: 3, ..LIMITS };
    let (acme, e) = (tenant("acme"), entitlement("l1", limits));
    for _ in 0..3 {
        quotas.admit(&acme, &e, 1, start).unwrap();
    }
    let refused = quotas.admit(&acme, &e, 1, start).unwrap_err();
    assert_eq!((refused.kind, refused.code()), (Kind::Throttled, "plan_throttled"));
    assert_eq!(refused.retry_after, Duration::from_millis(500));
    let just_before = start + Duration::from_nanos(499_999_999);
    assert_eq!(quotas.admit(&acme, &e, 1, just_before).unwrap_err().retry_after, Duration::from_nanos(1));
    quotas.admit(&acme, &e, 1, start + Duration::from_millis(500)).unwrap();
    assert!(quotas.admit(&acme, &e, 1, start + Duration::from_millis(500)).is_err());
}

#[test]
fn each_tenant_and_each_licence_has_its_own_account() {
    let (quotas, now) = (Quotas::new(), Instant::now());
    let one = Limits { qps: 1, burst: 1, ..LIMITS };
    for (name, license) in [("acme", "l1"), ("acme", "l2"), ("globex", "l1")] {
        quotas.admit(&tenant(name), &entitlement(license, one), 1, now).unwrap();
    }
    for (name, license) in [("acme", "l1"), ("acme", "l2"), ("globex", "l1")] {
        assert!(quotas.admit(&tenant(name), &entitlement(license, one), 1, now).is_err());
    }
}

#[test]
fn an_artifact_may_be_as_large_as_the_plan_says_and_no_larger() {
    let (quotas, now, acme, e) = (Quotas::new(), Instant::now(), tenant("acme"), entitlement("l1", LIMITS));
    quotas.admit(&acme, &e, 1000, now).unwrap();
    let refused = quotas.admit(&acme, &e, 1001, now).unwrap_err();
    assert_eq!((refused.kind, refused.code()), (Kind::TooLarge, "artifact_too_large"));
    assert_eq!(refused.retry_after, Duration::ZERO);
    assert_eq!(quotas.admit(&acme, &e, 1000, now).unwrap().remaining(), 98, "a refused request costs nothing");
}

#[test]
fn a_slot_is_held_until_its_permit_is_dropped() {
    let (quotas, now, acme) = (Quotas::new(), Instant::now(), tenant("acme"));
    let e = entitlement("l1", Limits { concurrency: 2, ..LIMITS });
    let first = quotas.admit(&acme, &e, 1, now).unwrap();
    let second = quotas.admit(&acme, &e, 1, now).unwrap();
    let refused = quotas.admit(&acme, &e, 1, now).unwrap_err();
    assert_eq!((refused.kind, refused.code()), (Kind::Concurrency, "plan_throttled"));
    assert_eq!(refused.retry_after, Duration::from_secs(1));
    drop(first);
    let third = quotas.admit(&acme, &e, 1, now).unwrap();
    assert_eq!(third.remaining(), 97, "the refused request was not charged");
    assert!(quotas.admit(&acme, &e, 1, now).is_err());
    drop((second, third));
}

#[test]
fn no_more_slots_are_held_than_allowed_when_many_threads_ask() {
    let quotas = Quotas::new();
    let held = AtomicU32::new(0);
    let e = entitlement("l1", Limits { qps: u32::MAX, burst: u32::MAX, concurrency: 3, ..LIMITS });
    let now = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    if let Ok(permit) = quotas.admit(&tenant("acme"), &e, 1, now) {
                        assert!(held.fetch_add(1, Ordering::SeqCst) < 3);
                        std::hint::black_box(&permit);
                        held.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let permits: Vec<_> = (0..3).map(|_| quotas.admit(&tenant("acme"), &e, 1, now).unwrap()).collect();
    assert_eq!(permits.len(), 3, "every slot came back");
}

#[test]
fn changed_limits_hold_from_the_next_request_on() {
    let (quotas, start, acme) = (Quotas::new(), Instant::now(), tenant("acme"));
    let ask = |limits, at| quotas.admit(&acme, &entitlement("l1", limits), 1, at);
    let small = Limits { qps: 1, burst: 1, concurrency: 1, ..LIMITS };
    let _held = ask(small, start).unwrap();
    assert_eq!(ask(small, start).unwrap_err().kind, Kind::Throttled);
    let large = Limits { qps: 10, burst: 10, concurrency: 2, ..LIMITS };
    let second = ask(large, start).unwrap();
    assert_eq!(second.remaining(), 8, "what was used before still counts");
    assert_eq!(ask(large, start).unwrap_err().kind, Kind::Concurrency);
    drop(second);
    let refused = ask(small, start).unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), (Kind::Throttled, Duration::from_secs(2)), "two used, one per s");
    assert_eq!(ask(small, start + Duration::from_secs(2)).unwrap_err().kind, Kind::Concurrency);
}

#[test]
fn limits_of_zero_admit_nothing_for_long_and_never_panic() {
    let (quotas, now, acme) = (Quotas::new(), Instant::now(), tenant("acme"));
    for limits in [
        Limits { burst: 0, ..LIMITS },
        Limits { concurrency: 0, ..LIMITS },
        Limits { max_artifact_bytes: 0, ..LIMITS },
        Limits { qps: 0, burst: 0, ..LIMITS },
    ] {
        assert!(quotas.admit(&acme, &entitlement("l1", limits), 1, now).is_err(), "{limits:?}");
    }
    let extreme = Limits { qps: u32::MAX, burst: u32::MAX, concurrency: u32::MAX, max_artifact_bytes: u64::MAX };
    let permit = quotas.admit(&acme, &entitlement("l2", extreme), u64::MAX, now).unwrap();
    assert_eq!(permit.rate_limit().value(), r#""default";r=4294967294;t=1"#);
}

#[test]
fn the_headers_are_right_to_the_second() {
    let (start, acme) = (Instant::now(), tenant("acme"));
    // (qps, burst, requests before, policy, limit)
    let cases = [
        (100, 100, 2, r#""default";q=100;w=1"#, r#""default";r=97;t=1"#),
        (1, 5, 4, r#""default";q=5;w=5"#, r#""default";r=0;t=1"#),
        (100, 250, 0, r#""default";q=250;w=3"#, r#""default";r=249;t=1"#),
        (100, 10, 4, r#""default";q=100;w=1"#, r#""default";r=5;t=1"#),
    ];
    for (qps, burst, before, policy, limit) in cases {
        let quotas = Quotas::new();
        let e = entitlement("l1", Limits { qps, burst, ..LIMITS });
        for _ in 0..before {
            quotas.admit(&acme, &e, 1, start).unwrap();
        }
        let permit = quotas.admit(&acme, &e, 1, start).unwrap();
        assert_eq!(permit.rate_limit().policy_value(), policy);
        assert_eq!(permit.rate_limit().value(), limit);
    }
}

#[test]
fn a_client_that_waits_as_told_is_admitted_and_one_second_less_is_too_early() {
    let (quotas, start, acme) = (Quotas::new(), Instant::now(), tenant("acme"));
    let fast = entitlement("l1", Limits { qps: 10, burst: 10, concurrency: 100, ..LIMITS });
    let slow = entitlement("l1", Limits { qps: 1, burst: 1, concurrency: 100, ..LIMITS });
    for _ in 0..10 {
        quotas.admit(&acme, &fast, 1, start).unwrap();
    }
    let asked = start + Duration::from_nanos(1);
    let refused = quotas.admit(&acme, &slow, 1, asked).unwrap_err();
    let seconds: u64 = retry_after(refused.retry_after).to_str().unwrap().parse().unwrap();
    assert_eq!(seconds, 10, "9.99… s, rounded up");
    assert_eq!(refused.rate_limit.unwrap().value(), r#""default";r=0;t=10"#, "no earlier than Retry-After");
    assert!(quotas.admit(&acme, &slow, 1, asked + Duration::from_secs(seconds - 1)).is_err());
    quotas.admit(&acme, &slow, 1, asked + Duration::from_secs(seconds)).unwrap();
}

#[test]
fn retry_after_rounds_up_to_whole_seconds() {
    for (wait, header) in [(0, "1"), (1, "1"), (999_999_999, "1"), (1_000_000_000, "1"), (1_000_000_001, "2")] {
        assert_eq!(retry_after(Duration::from_nanos(wait)), header);
    }
}

#[test]
fn idle_accounts_make_room_and_debts_do_not() {
    let (quotas, start) = (Quotas::sized(1, 4), Instant::now());
    let slow = |license: &str| entitlement(license, Limits { qps: 1, burst: 10, ..LIMITS });
    let acme = tenant("acme");
    let held = quotas.admit(&acme, &slow("held"), 1, start).unwrap();
    for _ in 0..3 {
        quotas.admit(&acme, &slow("indebted"), 1, start).unwrap();
    }
    quotas.admit(&acme, &slow("idle-1"), 1, start).unwrap();
    quotas.admit(&acme, &slow("idle-2"), 1, start).unwrap();

    let refused = quotas.admit(&acme, &slow("new"), 1, start).unwrap_err();
    assert_eq!((refused.kind, refused.code()), (Kind::Overloaded, "overloaded"));
    quotas.admit(&acme, &slow("idle-1"), 1, start).unwrap();

    let later = start + Duration::from_secs(2);
    quotas.admit(&acme, &slow("new-1"), 1, later).unwrap();
    quotas.admit(&acme, &slow("new-2"), 1, later).unwrap();
    assert_eq!(quotas.shards[0].lock().unwrap().accounts.len(), 4);
    assert_eq!(quotas.admit(&acme, &slow("new-3"), 1, later).unwrap_err().kind, Kind::Overloaded);
    let indebted = quotas.admit(&acme, &slow("indebted"), 1, later).unwrap();
    assert_eq!(indebted.remaining(), 8, "one of three was still owed");

    let much_later = start + Duration::from_secs(3600);
    let one_slot = Limits { concurrency: 1, ..LIMITS };
    quotas.admit(&acme, &slow("new-3"), 1, much_later).unwrap();
    let refused = quotas.admit(&acme, &entitlement("held", one_slot), 1, much_later).unwrap_err();
    assert_eq!(refused.kind, Kind::Concurrency, "a held slot keeps its account");
    drop(held);
    quotas.admit(&acme, &entitlement("held", one_slot), 1, much_later).unwrap();
}

#[test]
fn memory_follows_the_accounts_in_use() {
    let (quotas, start) = (Quotas::sized(1, 4096), Instant::now());
    for n in 0..100_000_u32 {
        let at = start + Duration::from_millis(u64::from(n));
        let e = entitlement(&format!("l{n}"), Limits { qps: 1, burst: 1, ..LIMITS });
        quotas.admit(&tenant("acme"), &e, 1, at).unwrap();
    }
    // A thousand accounts are in debt at any time.
    assert!(quotas.shards[0].lock().unwrap().accounts.len() <= 2 * 1001);
}

/// GCRA by the book, in rational time: a unit is 1/qps of a nanosecond.
struct Textbook {
    theoretical_arrival: u128,
    qps: u128,
    burst: u128,
}

impl Textbook {
    fn admits(&mut self, nanos: u64) -> bool {
        const INCREMENT: u128 = 1_000_000_000;
        let now = u128::from(nanos) * self.qps;
        if self.theoretical_arrival > now + (self.burst - 1) * INCREMENT {
            return false;
        }
        self.theoretical_arrival = self.theoretical_arrival.max(now) + INCREMENT;
        true
    }
}

fn the_only_meter(quotas: &Quotas) -> Meter {
    let meter_in = |shard: &Mutex<Shard>| shard.lock().unwrap().accounts.values().next().map(|a| a.meter.clone());
    quotas.shards.iter().find_map(meter_in).unwrap()
}

proptest! {
    #[test]
    fn it_decides_as_the_textbook_does(
        qps in prop_oneof![1..20_u32, 1..100_000_u32],
        burst in prop_oneof![1..5_u32, 1..1000_u32],
        // Pauses around the emission interval, where decisions tip.
        pauses in prop::collection::vec((0..400_u64, 0..3_u64), 1..300),
    ) {
        let mut textbook = Textbook { theoretical_arrival: 0, qps: qps.into(), burst: burst.into() };
        let (quotas, start, acme) = (Quotas::new(), Instant::now(), tenant("acme"));
        let e = entitlement("l1", Limits { qps, burst, concurrency: u32::MAX, ..LIMITS });
        let interval = 1_000_000_000 / u64::from(qps);
        let mut nanos = 0;
        for (percent, jitter) in pauses {
            nanos += interval * percent / 100 + jitter;
            let at = start + Duration::from_nanos(nanos);
            let outcome = quotas.admit(&acme, &e, 1, at);
            prop_assert_eq!(outcome.is_ok(), textbook.admits(nanos));
            if let Err(refused) = outcome {
                let mut meter = the_only_meter(&quotas);
                meter.advance(qps, at + refused.retry_after - Duration::from_nanos(1));
                prop_assert!(!meter.wait(burst).is_zero(), "a nanosecond earlier is too early");
                meter.advance(qps, at + refused.retry_after);
                prop_assert!(meter.wait(burst).is_zero(), "the time told is enough");
            }
        }
    }

    #[test]
    fn no_interval_sees_more_than_the_burst_and_the_rate(
        qps in 1..50_u32, burst in 1..20_u32, times in prop::collection::vec(0..3_000_000_000_u64, 1..200),
    ) {
        let (quotas, start, acme) = (Quotas::new(), Instant::now(), tenant("acme"));
        let e = entitlement("l1", Limits { qps, burst, concurrency: u32::MAX, ..LIMITS });
        let mut times = times;
        times.sort_unstable();
        times.retain(|nanos| quotas.admit(&acme, &e, 1, start + Duration::from_nanos(*nanos)).is_ok());
        for (i, from) in times.iter().enumerate() {
            for (j, to) in times.iter().enumerate().skip(i) {
                let allowed = u128::from(burst) + u128::from(to - from) * u128::from(qps) / 1_000_000_000;
                prop_assert!((j - i + 1) as u128 <= allowed);
            }
        }
    }

    #[test]
    fn what_it_says_remains_is_what_it_admits(
        qps in 1..50_u32, burst in 1..20_u32, used in 0..30_u32, pause in 0..2_000_000_000_u64,
    ) {
        let (quotas, start, acme) = (Quotas::new(), Instant::now(), tenant("acme"));
        let e = entitlement("l1", Limits { qps, burst, concurrency: u32::MAX, ..LIMITS });
        for _ in 0..used {
            let _ = quotas.admit(&acme, &e, 1, start);
        }
        let at = start + Duration::from_nanos(pause);
        if let Ok(permit) = quotas.admit(&acme, &e, 1, at) {
            let (remaining, reset) = (permit.remaining(), permit.rate_limit().reset());
            let mut admitted = 0;
            while quotas.admit(&acme, &e, 1, at).is_ok() {
                admitted += 1;
            }
            prop_assert_eq!(admitted, remaining);
            prop_assert!(quotas.admit(&acme, &e, 1, at + reset - Duration::from_nanos(1)).is_err());
            prop_assert!(quotas.admit(&acme, &e, 1, at + reset).is_ok());
        }
    }
}
