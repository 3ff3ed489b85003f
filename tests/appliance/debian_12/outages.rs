//! Processes that are killed or hang, on the real units.

use std::time::{Duration, Instant};

use testkit::hostile_fulcio::{Behaviour, ConnectionFault, Stage};
use testkit::https::Mode;
use testkit::keyless::{self, helpers_of};
use testkit::machine::Frozen;
use testkit::{sample, shell};

use super::IMAGE;
use crate::crowd::Crowd;
use crate::site::Site;

const FRONT: &str = "signerd.service";
const WORKER: &str = "signer-token@main.service";

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn each_process_that_is_killed_comes_back_by_itself() {
    let site = Site::ready(IMAGE);
    for (unit, patience) in [(FRONT, 10), (WORKER, 10)] {
        for _ in 0..3 {
            let (inside, _) = site.machine.main_process(unit).unwrap();
            site.machine.sh(&format!("kill -KILL {inside}")).unwrap();
            let took = site.signs_within(Duration::from_secs(patience));
            let (again, _) = site.machine.main_process(unit).unwrap();
            assert_ne!(inside, again, "{unit} is another process");
            println!("{unit} was killed; a signature after {took:?}");
        }
    }
    // Both at once, and the audit log has no gap that somebody must mend.
    for unit in [FRONT, WORKER] {
        site.machine.run(&["systemctl", "kill", "--signal=KILL", unit]).unwrap();
    }
    let took = site.signs_within(Duration::from_secs(15));
    println!("both were killed; a signature after {took:?}");

    // A helper in the middle of its flow: the request is tried again or refused, and the next one signs.
    let (_, front) = site.machine.main_process(FRONT).unwrap();
    site.world.fulcio.behave(Behaviour::Connection(ConnectionFault::FallSilent(Stage::Request)));
    let client = site.client();
    let calling = std::thread::spawn(move || keyless::sign(&client, "dsse+cert").try_send());
    let helper = keyless::wait_for_helper(front);
    shell::run(std::process::Command::new("kill").args(["-KILL", &helper.to_string()])).unwrap();
    site.world.fulcio.behave(Behaviour::Honest);
    let answer = calling.join().unwrap().unwrap();
    assert!([200, 503].contains(&answer.status), "{}", answer.text());
    keyless::sign(&site.client(), "dsse+cert").send().expect(200);
    keyless::wait_for_no_helper(front);
    assert!(helpers_of(front).is_empty());
    site.signs();
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn a_worker_that_is_killed_under_load_costs_nobody_more_than_a_503() {
    let site = Site::ready(IMAGE);
    let crowd = Crowd::come(&site.client(), 16);
    let (inside, _) = site.machine.main_process(WORKER).unwrap();
    site.machine.sh(&format!("kill -KILL {inside}")).unwrap();
    crowd.wait_for_more(100);
    let tally = crowd.go_home();
    assert!(tally.signed > 100, "{tally:?}");
    let strange: Vec<_> = tally.failures.iter().filter(|failure| !failure.starts_with("503: ")).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn an_event_loop_that_hangs_is_noticed_and_the_front_is_started_again() {
    let site = Site::ready(IMAGE);
    let watchdog: u64 = site.machine.property(FRONT, "WatchdogUSec").unwrap().trim_end_matches('s').parse().unwrap();
    let (inside, outside) = site.machine.main_process(FRONT).unwrap();
    // One of its threads alone stands still; all others, and the one that feeds the watchdog, go on.
    let frozen = Frozen::thread(event_loop(outside)).unwrap();
    let start = Instant::now();
    site.machine
        .wait(Duration::from_secs(watchdog + 20), "the watchdog acts", |machine| {
            frozen.bury();
            machine.main_process(FRONT).is_ok_and(|(now, _)| now != inside)
        })
        .unwrap();
    println!("the watchdog acted after {:?} (WatchdogSec={watchdog})", start.elapsed());
    let journal = site.machine.sh("journalctl --no-pager --unit=signerd.service").unwrap();
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    site.signs_within(Duration::from_secs(15));
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn a_process_that_is_stopped_is_ended_by_its_watchdog() {
    let site = Site::ready(IMAGE);
    for unit in [FRONT, WORKER] {
        let (inside, _) = site.machine.main_process(unit).unwrap();
        let watchdog = site.machine.property(unit, "WatchdogUSec").unwrap();
        assert_ne!(watchdog, "infinity", "{unit} has a watchdog");
        site.machine.sh(&format!("kill -STOP {inside}")).unwrap();
        let took = site
            .machine
            .wait(Duration::from_secs(90), "the watchdog acts", |machine| {
                machine.main_process(unit).is_ok_and(|(now, _)| now != inside)
            })
            .unwrap();
        println!("{unit} was stopped; its watchdog ({watchdog}) acted after {took:?}");
        site.signs_within(Duration::from_secs(15));
    }
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn it_starts_before_its_authority_is_there_and_goes_on_when_it_comes() {
    let site = Site::ready(IMAGE);
    site.world.authority.mode().set(Mode::Down);
    site.machine.run(&["systemctl", "restart", FRONT]).unwrap();
    let answer = site.client().sign(&sample::request()).send();
    let (status, _) = answer.refusal();
    site.world.authority.mode().set(Mode::Up);
    assert_eq!(status, 503);
    site.signs_within(Duration::from_secs(30));
}

/// A thread that runs an event loop of the API, by its name.
fn event_loop(process: u32) -> u32 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let mut loops = threads.filter_map(|thread| {
        let name = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        name.starts_with("api-").then(|| thread.file_name().to_str()?.parse().ok())?
    });
    loops.next().expect("signerd has an event loop")
}
