//! What a verdict costs that is at hand: no network, and below 20 µs. `cargo bench --bench release`.

#![allow(missing_docs, dead_code, clippy::unwrap_used)]

#[path = "../tests/release/stage.rs"]
mod stage;

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use criterion::{Criterion, criterion_group, criterion_main};

use stage::{Stage, check, releases};

fn verdict_at_hand(c: &mut Criterion) {
    let stage = Stage::new();
    stage.attach_all(&[stage.good()]);
    let releases = releases(&stage.config());
    check(&releases, &stage.image).unwrap();
    let asked = stage.registry.exchanges().len();
    let tenant: Arc<str> = "acme".into();
    c.bench_function("release verdict at hand", |bench| {
        bench.iter(|| {
            // It is there at the first poll, or it is not at hand.
            let verdict = pin!(releases.check(black_box(&stage.image), &tenant));
            match verdict.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(verdict) => verdict.unwrap(),
                Poll::Pending => panic!("it was looked up"),
            }
        });
    });
    assert_eq!(stage.registry.exchanges().len(), asked, "nobody was asked");
}

criterion_group!(benches, verdict_at_hand);
criterion_main!(benches);
