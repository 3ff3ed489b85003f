//! Every way out is shut, and by which layer.

use std::env;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use signer_keyless::wire::{FromHelper, Layer, Layers};

use super::attempts::{Argument, Attempt, Behind, Scene, attempts};
use super::observer::{Observed, Outcome};
use super::program;
use crate::fulcio::{Fulcio, Manner};
use crate::helper::Helper;

#[test]
#[ignore = "needs root and a release build: cargo xtask test sealed"]
fn every_way_out_is_shut_and_by_which_layer() {
    let world = World::new();
    let attempts = world.list(0);
    assert!(attempts.len() >= 40);
    let mut broken = Vec::new();
    println!("{:<52} {:<16} {:<18} {:<52} none", "the layers in force:", "all", "all but seccomp", "one alone");
    for (index, attempt) in attempts.iter().enumerate() {
        let name = attempt.name;
        let sealed = world.attempt(index, Layers::all());
        let behind = world.attempt(index, but(Layer::Seccomp));
        let open = world.attempt(index, Layers::default());
        let alone: Vec<(Layer, Outcome)> = ALONE
            .into_iter()
            .map(|layer| (layer, world.attempt(index, [layer].into_iter().collect())))
            .filter(|(_, outcome)| !same(*outcome, open))
            .collect();
        let each = alone.iter().map(|(layer, outcome)| format!("{} {}", layer.name(), say(*outcome)));
        let each = each.collect::<Vec<_>>().join(", ");
        println!("{name:<52} {:<16} {:<18} {each:<52} {}", say(sealed), say(behind), say(open));

        if sealed != Outcome::Killed(Signal::SIGSYS) {
            broken.push(format!("{name}: sealed, it is {}", say(sealed)));
        }
        if matches!(open, Outcome::Killed(_)) {
            broken.push(format!("{name}: with nothing sealed it dies as well, so this proves nothing"));
        }
        let expected = match attempt.behind {
            Behind::Each(layers) => layers,
            Behind::Together | Behind::Nothing => &[],
        };
        if !matches!(attempt.behind, Behind::Nothing) && same(behind, open) {
            broken.push(format!("{name}: nothing stands behind the filter"));
        }
        // An older kernel's Landlock knows neither TCP nor signals.
        let due = expected.iter().filter(|layer| **layer != Layer::Landlock || world.landlock_abi() >= 6);
        for layer in due.filter(|layer| !alone.iter().any(|(refusing, _)| refusing == *layer)) {
            broken.push(format!("{name}: {} by itself does not refuse it", layer.name()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
#[ignore = "needs root and a release build: cargo xtask test sealed"]
fn what_the_parent_left_open_is_closed() {
    // A shell leaves two files open, and the helper is what it becomes.
    let script = r#"exec 3</etc/passwd 7<&3; exec /usr/bin/env -i "$0""#;
    let mut helper = Helper::from(Command::new("/bin/sh").args(["-c", script]).arg(program()));
    helper.sealed();
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", helper.child.id()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
}

/// As it is in the field: `signerd` is not root, and the helper is root's to change and nobody's to read.
#[test]
#[ignore = "needs root and a release build: cargo xtask test sealed"]
fn every_layer_is_to_be_had_by_a_user_without_any_right() {
    let installed = env::temp_dir().join(format!("signer-keyless-installed-{}", process::id()));
    fs::copy(program(), &installed).unwrap();
    fs::set_permissions(&installed, Permissions::from_mode(0o711)).unwrap();
    let fulcio = Fulcio::start(Manner::Issue);
    let mut helper = Helper::from(Command::new(&installed).env_clear().uid(USER).gid(USER));
    let sealed = helper.sealed();
    assert_eq!((sealed.layers, sealed.uid), (Layers::all(), USER));
    helper.work(&fulcio, |_| ());
    assert!(matches!(helper.hear(), Some(FromHelper::Signed(_))));
    assert_eq!(helper.end().code(), Some(0));
    fs::remove_file(&installed).unwrap();
}

const USER: u32 = 61_000;

/// The layers that stand behind the filter.
const ALONE: [Layer; 5] =
    [Layer::Limits, Layer::Landlock, Layer::Capabilities, Layer::Unprivileged, Layer::NotDumpable];

fn but(layer: Layer) -> Layers {
    [layer].into_iter().collect::<Layers>().missing()
}

/// Everything that the attempts are made with.
struct World {
    fulcio: Fulcio,
    elsewhere: TcpListener,
    victim: Child,
    directory: PathBuf,
}

impl World {
    fn new() -> Self {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let victim = Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let directory = env::temp_dir().join(format!("signer-keyless-{}", process::id()));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        Self { fulcio: Fulcio::start(Manner::Silent), elsewhere, victim, directory }
    }

    fn list(&self, scratch: u64) -> Vec<Attempt> {
        attempts(&Scene {
            directory: self.directory.clone(),
            victim: self.victim.id(),
            elsewhere: self.elsewhere.local_addr().unwrap(),
            scratch,
        })
    }

    /// Makes one attempt from within a helper that waits for Fulcio's answer, with these layers in force; what became of
    /// its last call.
    fn attempt(&self, index: usize, layers: Layers) -> Outcome {
        let file = self.directory.join("file");
        fs::write(&file, "of everybody's").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        let before = self.fulcio.requests().len();
        let mut helper = Helper::start(&program(), &layers.missing().iter().collect::<Vec<_>>());
        assert_eq!(helper.sealed().layers, layers);
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

    fn landlock_abi(&self) -> u8 {
        Helper::start(&program(), &[]).sealed().landlock_abi
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
        let _ = fs::remove_dir_all(&self.directory);
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
