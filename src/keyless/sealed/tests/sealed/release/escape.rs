//! Every way out is shut, and by which layer.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use signer_keyless::wire::{Layer, Layers};

use super::attempts::{Argument, Attempt, Scene, attempts};
use super::observer::{Observed, Outcome};
use super::program;
use crate::fulcio::{Fulcio, Manner};
use crate::helper::Helper;

#[test]
#[ignore = "needs root and a release build: cargo xtask test sealed"]
fn every_way_out_is_shut_and_by_which_layer() {
    let world = World::new();
    let names: Vec<_> = world.list(0).into_iter().map(|attempt| attempt.name).collect();
    assert!(names.len() >= 40);
    let mut table = String::new();
    let mut broken = Vec::new();
    writeln!(table, "{:<52} {:<16} {:<34} nothing sealed", "attempt", "sealed", "with seccomp named as missing")
        .unwrap();
    for (index, name) in names.iter().enumerate() {
        let sealed = world.attempt(index, &[]);
        let behind = world.attempt(index, &[Layer::Seccomp]);
        let open = world.attempt(index, &Layer::ALL);
        let by: Vec<Layer> = if behind == open { Vec::new() } else { world.who_refuses(index, behind) };
        let second = match by[..] {
            [] if same(behind, open) => "nothing else".to_owned(),
            [] => format!("{}, several layers", say(behind)),
            _ => format!("{}, {}", say(behind), by.iter().map(|layer| layer.name()).collect::<Vec<_>>().join(" or ")),
        };
        writeln!(table, "{name:<52} {:<16} {second:<34} {}", say(sealed), say(open)).unwrap();
        if sealed != Outcome::Killed(Signal::SIGSYS) {
            broken.push(format!("{name}: sealed, it is {}", say(sealed)));
        }
        if matches!(open, Outcome::Killed(_)) {
            broken.push(format!("{name}: with nothing sealed it dies as well, so this proves nothing"));
        }
        let expected = world.list(0).swap_remove(index).behind;
        if !expected.is_empty() && same(behind, open) {
            broken.push(format!("{name}: nothing stands behind the filter; {} should", expected[0].name()));
        }
    }
    println!("{table}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Everything that the attempts are made with.
struct World {
    fulcio: Fulcio,
    elsewhere: TcpListener,
    victim: Child,
}

impl World {
    fn new() -> Self {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let victim = Command::new("/bin/sleep").arg("600").spawn().unwrap();
        Self { fulcio: Fulcio::start(Manner::Silent), elsewhere, victim }
    }

    fn list(&self, scratch: u64) -> Vec<Attempt> {
        attempts(&Scene { victim: self.victim.id(), elsewhere: self.elsewhere.local_addr().unwrap(), scratch })
    }

    /// Makes one attempt from within a helper that waits for Fulcio's answer; what became of its last call.
    fn attempt(&self, index: usize, without: &[Layer]) -> Outcome {
        let before = self.fulcio.requests().len();
        let mut helper = Helper::start(&program(), without);
        let sealed = helper.sealed();
        assert_eq!(sealed.layers.missing(), without.iter().copied().collect::<Layers>());
        helper.work(&self.fulcio, |_| ());
        let pid = helper.child.id();
        until("the request is sent", || self.fulcio.requests().len() > before);
        until("it waits for the answer", || waits_for_fulcio(pid));

        let observed = Observed::seize(pid);
        observed.interrupt();
        // Deep in the stack, where nobody is.
        let scratch = (observed.registers().rsp - 16 * 1024) & !63;
        let attempt = self.list(scratch).swap_remove(index);
        let outcome = make(&observed, &attempt, scratch);
        let _ = helper.child.kill();
        let _ = helper.child.wait();
        outcome
    }

    /// The layers without which the outcome is another one.
    fn who_refuses(&self, index: usize, outcome: Outcome) -> Vec<Layer> {
        let candidates = [Layer::Limits, Layer::Landlock, Layer::Capabilities, Layer::Unprivileged, Layer::NotDumpable];
        let changes = |layer: &Layer| {
            // Capabilities go with root, and root with them.
            let without: &[Layer] = match layer {
                Layer::Capabilities => &[Layer::Seccomp, Layer::Capabilities, Layer::Unprivileged],
                other => &[Layer::Seccomp, *other],
            };
            !same(self.attempt(index, without), outcome)
        };
        candidates.into_iter().filter(changes).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

fn make(observed: &Observed, attempt: &Attempt, scratch: u64) -> Outcome {
    let mut outcome = Outcome::Done(0);
    for call in &attempt.calls {
        let mut free = scratch;
        let mut arguments = [0; 6];
        for (argument, slot) in call.arguments.iter().zip(&mut arguments) {
            *slot = match argument {
                Argument::Number(number) => *number,
                Argument::Last => match outcome {
                    Outcome::Done(result) => result,
                    refused => return refused,
                },
                Argument::Bytes(bytes) => {
                    observed.write(free, bytes);
                    let here = free;
                    free += u64::try_from(bytes.len().next_multiple_of(64)).unwrap();
                    here
                }
            };
        }
        outcome = observed.call(call.number, arguments);
        if matches!(outcome, Outcome::Killed(_)) {
            break;
        }
    }
    outcome
}

/// Numbers of descriptors and processes are not what matters.
fn same(one: Outcome, other: Outcome) -> bool {
    matches!((one, other), (Outcome::Done(_), Outcome::Done(_))) || one == other
}

fn say(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done(_) => "done".to_owned(),
        Outcome::Refused(error) => format!("{error:?}"),
        Outcome::Killed(Signal::SIGSYS) => "killed: seccomp".to_owned(),
        Outcome::Killed(signal) => format!("killed: {signal}"),
    }
}

fn waits_for_fulcio(pid: u32) -> bool {
    // The number of `read` and its first argument.
    fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("syscall"))
        .is_ok_and(|text| text.starts_with("0 0x3 "))
}

pub(super) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_micros(200));
    }
}
