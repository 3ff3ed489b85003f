//! What a helper costs.

use std::fs;
use std::time::{Duration, Instant};

use signer_keyless::wire::FromHelper;

use super::program;
use crate::fulcio::{Fulcio, Manner};
use crate::helper::Helper;

#[test]
#[ignore = "needs a release build: cargo xtask test sealed"]
fn a_helper_is_sealed_in_milliseconds_and_a_few_megabytes() {
    let fulcio = Fulcio::start(Manner::Issue);
    let (mut spawn, mut whole, mut resident) = (Vec::new(), Vec::new(), 0);
    for _ in 0..100 {
        let start = Instant::now();
        let mut helper = Helper::start(&program(), &[]);
        helper.sealed();
        spawn.push(start.elapsed());
        let status = fs::read_to_string(format!("/proc/{}/status", helper.child.id())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        resident = resident.max(kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
        helper.work(&fulcio, |_| ());
        assert!(matches!(helper.hear(), Some(FromHelper::Signed(_))));
        whole.push(start.elapsed());
        helper.end();
    }
    let size = fs::metadata(program()).unwrap().len();
    println!("spawn to sealed: median {:?}; spawn to signed: median {:?}", median(&mut spawn), median(&mut whole));
    println!("resident when sealed: at most {resident} KiB; binary: {size} bytes with its symbols");
    assert!(resident <= 4096);
    // Twice what a slow crypto library would cost; the figure itself is what the benchmark is for.
    assert!(median(&mut spawn) < Duration::from_millis(50));
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
