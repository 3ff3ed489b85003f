//! `cargo xtask bench keyless`: what a keyless signature costs beyond Fulcio's own time, and what its helper takes.
//!
//! Fulcio is one of our own, in this process: it answers within a millisecond, so that nothing of the signer's time is
//! hidden behind it, and it varies less than the difference that is to be measured. A real one takes 3 to 10 ms and
//! asks a CT log.

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use signer_keyless::wire::{self, FromHelper, Layers};
use testkit::appliance::Binaries;
use testkit::fulcio_client::{Applicant, Target};
use testkit::keyless::{OwnFulcio, helpers_of, sign, token_file, wait_until};
use testkit::{Context, Error, Fixture, Result, sample};

/// Everything that one run found. Times in milliseconds.
#[derive(Serialize)]
struct Findings {
    /// From before the helper is started until it has said that it is sealed.
    spawn_to_sealed_p50: f64,
    spawn_to_sealed_p99: f64,
    /// A plain client: connects, TLS, posts a CSR made before, has the certificate.
    bare_round_trip_p50: f64,
    /// A request of the Signer API, signed keyless.
    keyless_request_p50: f64,
    keyless_request_p99: f64,
    /// The same request, signed by a key in the token.
    keyful_request_p50: f64,
    /// What the token's signature is of it.
    keyful_signature: f64,
    /// What the keyless flow takes beyond the bare round trip.
    added_p50: f64,
    /// Resident memory, in bytes: when it is sealed, and the most that it ever had when it has signed.
    sealed_resident: u64,
    signed_peak_resident: u64,
    /// Flows at once, how many of them failed, and the slowest.
    at_once: usize,
    at_once_failures: usize,
    at_once_p50: f64,
    at_once_slowest: f64,
}

/// Runs it and prints it; with `json`, also as one JSON document.
pub(crate) fn run(binaries: &Binaries, json: Option<&Path>) -> Result<()> {
    let (sealed, sealed_resident) = spawn_to_sealed(&binaries.signer_keyless())?;
    println!("spawn to sealed     {:>7.2} ms median, {:.2} ms at the 99th percentile", sealed.p50(), sealed.p99());

    let world = world(binaries, 1);
    let Rounds { bare, keyless, keyful, keyful_signature } = rounds(&world)?;
    // What the two requests have in common, the token's signature not included.
    let common = keyful.p50() - keyful_signature;
    let added = keyless.p50() - common - bare.p50();
    println!("bare round trip     {:>7.2} ms median, of a plain client to the same Fulcio", bare.p50());
    println!("keyless request     {:>7.2} ms median, {:.2} ms at the 99th percentile", keyless.p50(), keyless.p99());
    println!("keyful request      {:>7.2} ms median, {keyful_signature:.2} ms of it in the token", keyful.p50());
    let (at_once, failures) = at_once(&world);
    println!("{AT_ONCE} flows at once    {:>7.2} ms median, {:.2} ms the slowest", at_once.p50(), at_once.slowest());
    drop(world);
    let signed_peak_resident = peak(binaries)?;

    let findings = Findings {
        spawn_to_sealed_p50: sealed.p50(),
        spawn_to_sealed_p99: sealed.p99(),
        bare_round_trip_p50: bare.p50(),
        keyless_request_p50: keyless.p50(),
        keyless_request_p99: keyless.p99(),
        keyful_request_p50: keyful.p50(),
        keyful_signature,
        added_p50: added,
        sealed_resident,
        signed_peak_resident,
        at_once: AT_ONCE,
        at_once_failures: failures,
        at_once_p50: at_once.p50(),
        at_once_slowest: at_once.slowest(),
    };
    findings.print();
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&findings).expect("numbers always serialize");
        fs::write(path, text).context(format!("write {}", path.display()))?;
        println!("as JSON: {}", path.display());
    }
    if failures == 0 { Ok(()) } else { Err(Error(format!("{failures} of {AT_ONCE} flows at once failed"))) }
}

impl Findings {
    /// The targets beside the results.
    fn print(&self) {
        println!("\n{:<34}{:>10}{:>12}", "", "measured", "target");
        let row = |name: &str, measured: f64, target: f64, unit: &str| {
            let met = if measured <= target { "met" } else { "MISSED" };
            println!("{name:<34}{measured:>10.2}{:>12} {unit:<4} {met}", format!("≤ {target}"));
        };
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        row("added to a bare round trip, median", self.added_p50, 4.0, "ms");
        row("spawn to sealed, median", self.spawn_to_sealed_p50, 2.0, "ms");
        row("helper's memory, sealed", mib(self.sealed_resident), 4.0, "MiB");
        row("helper's memory, the most ever", mib(self.signed_peak_resident), 4.0, "MiB");
        row("failures of 50 flows at once", self.at_once_failures as f64, 0.0, "");
    }
}

/// Times of the same thing, many times.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// In milliseconds.
    fn at(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share).round() as usize).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    fn p50(&self) -> f64 {
        self.at(0.5)
    }

    fn p99(&self) -> f64 {
        self.at(0.99)
    }

    fn slowest(&self) -> f64 {
        self.at(1.0)
    }
}

/// Starts helpers one after the other, as the front does. Returns the times, and the resident memory of one.
fn spawn_to_sealed(program: &Path) -> Result<(Times, u64)> {
    let mut resident = 0;
    let mut times = Vec::new();
    for _ in 0..SPAWNS {
        let begun = Instant::now();
        let (mut ours, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .args(wire::arguments(Layers::default()))
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context(format!("start {}", program.display()))?;
        let mut child = Ended(child);
        ours.set_read_timeout(Some(PATIENCE))?;
        let mut header = [0; wire::HEADER];
        ours.read_exact(&mut header).context("hear from the helper")?;
        let length = wire::body_length(header, wire::MAX_FROM_HELPER).map_err(|error| Error(error.to_string()))?;
        let mut body = vec![0; length];
        ours.read_exact(&mut body).context("hear from the helper")?;
        let took = begun.elapsed();
        match wire::decode_from_helper(&body) {
            Ok(FromHelper::Sealed(_)) => times.push(took),
            other => return Err(Error(format!("the helper does not say that it is sealed: {other:?}"))),
        }
        resident = status_bytes(child.0.id(), "VmRSS")?;
        drop(ours);
        child.0.wait()?;
    }
    Ok((Times::new(times), resident))
}

/// A child that does not outlive an error.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The appliance with a Fulcio of our own; a certificate serves for `signatures`.
fn world(binaries: &Binaries, signatures: i64) -> OwnFulcio {
    OwnFulcio::start_from(Fixture::builder().binaries(binaries.clone()), |builder| {
        builder
            .set("keyless.max_flows", i64::try_from(AT_ONCE).unwrap_or(50))
            .set("keyless.reuse.max_signatures", signatures)
            .set("log.filter", "warn")
    })
}

struct Rounds {
    bare: Times,
    keyless: Times,
    keyful: Times,
    keyful_signature: f64,
}

/// The three in turn, so that whatever else the machine does befalls them alike.
fn rounds(world: &OwnFulcio) -> Result<Rounds> {
    let client = world.fixture.client();
    let target = Target::new(&world.fulcio.url(), world.fixture.pki.server_roots())?;
    let applicant = Applicant::new()?;
    let token = fs::read_to_string(token_file(world.fixture.dir(), "acme")).context("read the identity token")?;
    let (mut bare, mut keyless, mut keyful) = (Vec::new(), Vec::new(), Vec::new());
    let timed = |times: &mut Vec<Duration>, act: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let begun = Instant::now();
        act()?;
        times.push(begun.elapsed());
        Ok(())
    };
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            [&mut bare, &mut keyless, &mut keyful].into_iter().for_each(Vec::clear);
        }
        timed(&mut bare, &mut || target.certify(&token, &applicant.csr).map(drop))?;
        let call = sign(&client, "dsse+cert");
        timed(&mut keyless, &mut || succeeded(call.clone()))?;
        let call = client.sign(&sample::request());
        timed(&mut keyful, &mut || succeeded(call.clone()))?;
    }
    // The step of signing alone, by the front's own clock, of keyful requests alone.
    let before = world.fixture.appliance.metrics()?;
    for _ in 0..ROUNDS {
        succeeded(client.sign(&sample::request()))?;
    }
    let after = world.fixture.appliance.metrics()?;
    let grown = |name: &str| after.sum(name, &[("stage", "sign")]) - before.sum(name, &[("stage", "sign")]);
    let keyful_signature = grown("signer_latency_seconds_sum") / grown("signer_latency_seconds_count").max(1.0) * 1e3;
    let [bare, keyless, keyful] = [bare, keyless, keyful].map(Times::new);
    Ok(Rounds { bare, keyless, keyful, keyful_signature })
}

fn succeeded(call: testkit::client::Call) -> Result<()> {
    let answer = call.try_send()?;
    if answer.status == 200 { Ok(()) } else { Err(Error(format!("no signature: {answer}"))) }
}

/// So many clients, each on a connection of its own that is there already, ask at the same moment.
fn at_once(world: &OwnFulcio) -> (Times, usize) {
    let barrier = std::sync::Barrier::new(AT_ONCE);
    let outcomes: Vec<Result<Duration>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (client, barrier) = (world.fixture.client().fork(), &barrier);
                scope.spawn(move || {
                    let connected = succeeded(client.sign(&sample::request()));
                    let call = sign(&client, "dsse+cert");
                    barrier.wait();
                    let begun = Instant::now();
                    connected?;
                    succeeded(call).map(|()| begun.elapsed())
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| Err(Error::new("a client panicked"))))
            .collect()
    });
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        eprintln!("{error}");
    }
    let times: Vec<Duration> = outcomes.into_iter().filter_map(Result::ok).collect();
    let failures = AT_ONCE - times.len();
    (Times::new(times), failures)
}

/// The most memory that a helper ever had, when it has signed and waits to sign again.
fn peak(binaries: &Binaries) -> Result<u64> {
    let mut world = world(binaries, 2);
    let front = world.fixture.appliance.front().id();
    succeeded(sign(&world.fixture.client(), "dsse+cert"))?;
    wait_until("the helper waits", || helpers_of(front).len() == 1);
    status_bytes(helpers_of(front)[0], "VmHWM")
}

/// A line of `/proc/PID/status`, in bytes.
fn status_bytes(process: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("read /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).context(format!("read {name} of a helper"))
}

const SPAWNS: usize = 300;
const WARM_UP: usize = 30;
const ROUNDS: usize = 300;
const AT_ONCE: usize = 50;
const PATIENCE: Duration = Duration::from_secs(5);
