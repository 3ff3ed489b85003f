//! `cargo xtask bench custody`: the token worker alone, on devices of many speeds.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use faulty_token::{Condition, Controller, Says, State, StateFile, attribute};
use serde::Serialize;
use testkit::appliance::Binaries;
use testkit::{Context, Error, Fixture, Result, softhsm};

use crate::run;
use crate::wire_client::{GATHER, Load, Outcome, WireClient};

/// Everything that one run found.
#[derive(Serialize)]
struct Findings {
    devices: Vec<Device>,
    bare: Option<Bare>,
    many_keys: Option<ManyKeys>,
}

/// What to measure of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// All of it.
    All,
    /// Devices of many speeds.
    Devices,
    /// SoftHSM2 with the worker in front and without.
    Bare,
    /// A token with ten thousand keys.
    Keys,
}

/// A device that makes `sessions` signatures at a time, each taking `latency_ms`.
#[derive(Serialize)]
struct Device {
    sessions: u32,
    latency_ms: u32,
    /// Signatures per second that the device can make.
    capacity: f64,
    /// Reached with enough requests waiting.
    saturated: f64,
    /// By how much the operating system woke the device's threads late, on average. The device starts its next signature
    /// earlier by it, so it is not the worker's loss; where it is a good part of the latency, the machine is too busy to
    /// measure on.
    woken_late_us: f64,
    /// Reached while four times as many come as can be made.
    overloaded: f64,
    /// The longest wait for any answer under overload, against the deadline of the requests.
    longest_ms: f64,
    deadline_ms: f64,
    /// Of two tenants that offer ten and one times the capacity, the smaller one's share of the signatures.
    small_tenants_share: f64,
}

/// SoftHSM2 with the worker in front and without: of some rounds, the one with the median share.
#[derive(Serialize)]
struct Bare {
    raw_per_second: f64,
    worker_per_second: f64,
}

/// A token with ten thousand keys, against the same token with a handful.
#[derive(Serialize)]
struct ManyKeys {
    keys: u32,
    /// From the worker's start to the first key being open.
    start_ms: f64,
    /// From there to all of them being open.
    open_all_ms: f64,
    few_median_us: f64,
    many_median_us: f64,
}

/// Runs it and prints it; with `json`, also as one JSON document.
pub(crate) fn run(binaries: &Binaries, phase: Duration, part: Part, json: Option<&Path>) -> Result<()> {
    let wanted = |one: Part| part == Part::All || part == one;
    let mut devices = Vec::new();
    for (sessions, latency_ms) in [(1, 100), (8, 5), (32, 1)].into_iter().filter(|_| wanted(Part::Devices)) {
        let device = device(binaries, sessions, latency_ms, phase)?;
        println!("{}", device.line());
        devices.push(device);
    }
    let bare = wanted(Part::Bare).then(|| bare(binaries, phase)).transpose()?;
    bare.iter().for_each(|bare| println!("{}", bare.line()));
    let many_keys = wanted(Part::Keys).then(|| many_keys(binaries)).transpose()?;
    many_keys.iter().for_each(|keys| println!("{}", keys.line()));
    let findings = Findings { devices, bare, many_keys };
    print!("{}", findings.targets());
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&findings).expect("numbers always serialize");
        fs::write(path, text).context(format!("write {}", path.display()))?;
        println!("as JSON: {}", path.display());
    }
    Ok(())
}

fn device(binaries: &Binaries, sessions: u32, latency_ms: u32, phase: Duration) -> Result<Device> {
    let rig = Rig::start(binaries, sessions, |_| Ok(()))?;
    let lanes =
        Condition::Lanes { lanes: sessions, latency_us: u64::from(latency_ms) * 1000, jitter_us: 0, memo: true };
    rig.control.impose(lanes).context("slow the device down")?;
    let capacity = f64::from(sessions) * 1000.0 / f64::from(latency_ms);
    let budget = DEADLINE;

    // A slow device needs longer phases for its signatures to be counted well.
    let phase = phase.max(Duration::from_secs_f64(200.0 / capacity));
    // The first tenth is the start: the queue fills.
    let (from, to) = (phase / 10, phase);
    let window = 4 * sessions as usize;
    rig.control.reset_counters().context("begin to count")?;
    let load = Load { lane: 1, window, budget: LONG, gather: GATHER };
    let saturated = rig.client()?.saturate(&load, phase).context("saturate the worker")?;
    let seen = rig.control.counters().context("read the device's counters")?;
    let flood = rig.client()?.offer(1, capacity * 4.0, budget, phase).context("overload the worker")?;
    let [large, small] = two(&rig, [capacity * 10.0, capacity], budget, phase)?;
    let (large, small) = (large.rate(from, to), small.rate(from, to));
    Ok(Device {
        sessions,
        latency_ms,
        capacity,
        saturated: saturated.rate(from, to),
        woken_late_us: seen.late_us as f64 / seen.signatures.max(1) as f64,
        overloaded: flood.rate(from, to),
        longest_ms: millis(flood.longest),
        deadline_ms: millis(budget),
        small_tenants_share: small / (large + small),
    })
}

/// Two tenants at once, on connections of their own.
fn two(rig: &Rig, rates: [f64; 2], budget: Duration, phase: Duration) -> Result<[Outcome; 2]> {
    let clients = [rig.client()?, rig.client()?];
    let running = [1, 2]
        .into_iter()
        .zip(clients)
        .zip(rates)
        .map(|((lane, client), rate)| std::thread::spawn(move || client.offer(lane, rate, budget, phase)));
    let running: Vec<_> = running.collect();
    let mut outcomes = running.into_iter().map(|one| {
        let outcome = one.join().map_err(|_| Error("a load thread panicked".to_owned()))?;
        outcome.context("load the worker for two tenants")
    });
    let (first, second) = (outcomes.next(), outcomes.next());
    Ok([first.expect("two were started")?, second.expect("two were started")?])
}

/// SoftHSM2 through the worker, and without it.
fn bare(binaries: &Binaries, phase: Duration) -> Result<Bare> {
    let fixture = Fixture::builder().binaries(binaries.clone()).set("log.filter", "warn").try_start()?;
    let mut rounds = Vec::new();
    // In turns, so that both meet the same noise: SoftHSM2's threads wait for each other's locks, more in one moment than in
    // another.
    let each = (phase / BARE_ROUNDS).max(Duration::from_secs(1));
    for _ in 0..BARE_ROUNDS {
        let raw = run::raw_token(&fixture, each)?;
        let load = Load { lane: 1, window: 16 * raw.sessions as usize, budget: LONG, gather: GATHER };
        let client =
            WireClient::connect(&fixture.dir().join("main.sock"), &fixture.keys.acme.uri).context("connect")?;
        let outcome = client.saturate(&load, each).context("saturate the worker")?;
        rounds.push(Bare { raw_per_second: raw.per_second, worker_per_second: outcome.rate(each / 10, each) });
    }
    rounds.sort_by(|a, b| a.share().total_cmp(&b.share()));
    Ok(rounds.swap_remove(rounds.len() / 2))
}

fn many_keys(binaries: &Binaries) -> Result<ManyKeys> {
    let few = Rig::start(binaries, 4, |_| Ok(()))?;
    let mut many = Rig::start(binaries, 4, |device| {
        let condition = Condition::VirtualKeys { count: KEYS, like: LIKE.to_owned() };
        // The key that they are like has a `custody_exception` for what the tool that made it allowed; they have none.
        let unwraps_nothing =
            Condition::Lie { attribute: attribute::CKA_UNWRAP, says: Says::Bool(false), class: None, label: None };
        let fill = |state: &mut State| state.conditions.extend([condition, unwraps_nothing]);
        device.update(fill).context("fill the token with keys")
    })?;
    let began = Instant::now();
    many.fixture.appliance.worker("main").kill();
    many.fixture.appliance.start_worker("main")?;
    // Opening the key is part of the start: nothing can be signed before.
    while many.client().is_err() {
        if began.elapsed() > LONG {
            return Err(Error("the worker did not start on a token with many keys".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let start = began.elapsed();
    let all = (0..KEYS).map(|number| format!("pkcs11:object=virtual-{number:05}"));
    let open_all = many.client()?.open_all(all).context("open every key")?;
    // In turns, so that both meet the same noise; the median of the rounds' medians.
    let mut medians = [Vec::new(), Vec::new()];
    let one = Load { lane: 1, window: 1, budget: LONG, gather: Duration::ZERO };
    for _ in 0..ROUNDS {
        for (rig, medians) in [&few, &many].into_iter().zip(&mut medians) {
            let mut outcome = rig.client()?.saturate(&one, ROUND).context("sign one by one")?;
            medians.push(outcome.median());
        }
    }
    let [few, many] = medians.map(|mut medians| {
        medians.sort_unstable();
        medians[ROUNDS / 2].as_secs_f64() * 1e6
    });
    Ok(ManyKeys {
        keys: KEYS,
        start_ms: millis(start),
        open_all_ms: millis(open_all),
        few_median_us: few,
        many_median_us: many,
    })
}

/// An appliance on a token that can be made slow.
struct Rig {
    fixture: Fixture,
    control: Controller,
    // After the processes that use what is in it.
    _dir: tempfile::TempDir,
}

impl Rig {
    fn start(binaries: &Binaries, sessions: u32, prepare: impl FnOnce(&StateFile) -> Result<()>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bench-").tempdir().context("make a folder")?;
        // Where cargo leaves it, others may be allowed to write; the worker does not load it from there.
        let module: PathBuf = dir.path().join("libfaulty_token.so");
        fs::copy(faulty_token::module_path().context("find the faulty token")?, &module).context("copy the module")?;
        fs::set_permissions(&module, Permissions::from_mode(0o755)).context("protect the module")?;
        let (control, device) = (dir.path().join("control"), dir.path().join("device.json"));
        prepare(&StateFile::at(device.clone()))?;
        let fixture = Fixture::builder()
            .binaries(binaries.clone())
            .environment("FAULTY_TOKEN_MODULE", softhsm::find_module()?)
            .environment("FAULTY_TOKEN_CONTROL", &control)
            .environment("FAULTY_TOKEN_STATE", &device)
            .settings(move |settings, _| {
                settings
                    .set_path("tokens.main.module", &module)
                    .set("tokens.main.sessions", i64::from(sessions))
                    .set("log.filter", "warn");
            })
            .try_start()?;
        let control = Controller::connect(control).context("reach the faulty token")?;
        Ok(Self { fixture, control, _dir: dir })
    }

    fn client(&self) -> Result<WireClient> {
        WireClient::connect(&self.fixture.dir().join("main.sock"), &self.fixture.keys.acme.uri).context("connect")
    }
}

impl Device {
    fn line(&self) -> String {
        format!(
            "{:>2} × {:>3} ms         {:>8.0} signatures/s possible, {:.1} % reached (threads woken {:.0} µs late), \
             {:.1} % under fourfold load; longest answer {:.0} ms of {:.0}; 10:1 tenants: the small one has {:.1} %",
            self.sessions,
            self.latency_ms,
            self.capacity,
            self.saturated / self.capacity * 100.0,
            self.woken_late_us,
            self.overloaded / self.capacity * 100.0,
            self.longest_ms,
            self.deadline_ms,
            self.small_tenants_share * 100.0
        )
    }
}

impl Bare {
    fn share(&self) -> f64 {
        self.worker_per_second / self.raw_per_second
    }

    fn line(&self) -> String {
        format!(
            "bare SoftHSM2       {:>8.0} signatures/s, through the worker {:.0}: {:.1} %",
            self.raw_per_second,
            self.worker_per_second,
            self.share() * 100.0
        )
    }
}

impl ManyKeys {
    fn line(&self) -> String {
        format!(
            "{} keys          started in {:.0} ms, all open {:.0} ms later; median {:.0} µs against {:.0} with a handful",
            self.keys, self.start_ms, self.open_all_ms, self.many_median_us, self.few_median_us
        )
    }
}

impl Findings {
    fn targets(&self) -> String {
        let mut text = format!("\n{:<44}{:>10}{:>12}\n", "", "measured", "target");
        let mut row = |name: String, measured: f64, bound: &str, met: bool| {
            let verdict = if met { "met" } else { "MISSED" };
            text.push_str(&format!("{name:<44}{measured:>10.1}{bound:>12} {verdict}\n"));
        };
        for device in &self.devices {
            let named = |what: &str| format!("{} × {} ms: {what}", device.sessions, device.latency_ms);
            for (what, rate) in [("throughput", device.saturated), ("under fourfold load", device.overloaded)] {
                let share = rate / device.capacity * 100.0;
                row(named(what), share, "≥ 98 %", share >= 98.0);
            }
            // One that expires while it waits is answered at its deadline, and read a moment later.
            let in_time = device.longest_ms <= device.deadline_ms + millis(2 * GATHER);
            row(named("longest answer, ms"), device.longest_ms, "≤ deadline", in_time);
            let share = device.small_tenants_share * 100.0;
            row(named("small tenant's share"), share, "≥ 49 %", share >= 49.0);
        }
        if let Some(bare) = &self.bare {
            let share = bare.share() * 100.0;
            row("SoftHSM2 through the worker".to_owned(), share, "≥ 90 %", share >= 90.0);
        }
        if let Some(many) = &self.many_keys {
            let seconds = (many.start_ms + many.open_all_ms) / 1000.0;
            row(format!("start and open {} keys, s", many.keys), seconds, "≤ 3", seconds <= 3.0);
            let more = (many.many_median_us / many.few_median_us - 1.0) * 100.0;
            row("latency with them, more by %".to_owned(), more, "≤ 5", more <= 5.0);
        }
        text
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const DEADLINE: Duration = Duration::from_millis(1000);
const LONG: Duration = Duration::from_secs(20);
/// A key of the fixture.
const LIKE: &str = "acme-active";
const KEYS: u32 = 10_000;
const ROUNDS: usize = 31;
const BARE_ROUNDS: u32 = 7;

const ROUND: Duration = Duration::from_millis(100);
