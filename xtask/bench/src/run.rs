//! The phases of the bench.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use testkit::client::Client;
use testkit::{Context, Error, Fixture, Result, sample};

use crate::bare_tls;
use crate::lean_client;
use crate::load::{self, Prepared, Seen, Target};
use crate::measure;
use crate::report::{self, Disk, OpenLoop, Report, Saturation};

/// How long and how hard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// One measured phase.
    pub(crate) phase: Duration,
    /// Connections that keep the front busy.
    pub(crate) connections: usize,
}

/// Runs the whole bench on release binaries and prints it; with `json`, also as one JSON document.
pub(crate) fn run(binaries: testkit::appliance::Binaries, plan: Plan, json: Option<&Path>) -> Result<()> {
    let (mut fixture, cores) = fixture(binaries)?;
    let mut report = Report::new(cores);

    report.front_idle_bytes = measure::resident(front(&mut fixture)).context("read the front's memory")?;
    report.raw_token = raw_token(&fixture, plan.phase)?;
    println!("{}", report.raw_token.line());

    for (name, bytes) in [("2 KB", 2 << 10), ("64 KB", 64 << 10), ("1 MB", 1 << 20)] {
        let saturation = saturation(&mut fixture, name, bytes, plan, report.raw_token.cpu_per_signature())?;
        println!("{}", saturation.line());
        report.saturation.push(saturation);
    }
    let capacity = report.saturation[0].per_second;
    for share in [0.3, 0.7] {
        let open_loop = open_loop(&fixture, plan, capacity, share)?;
        println!("{}", open_loop.line());
        report.open_loop.push(open_loop);
    }
    memory_and_handshakes(&mut fixture, plan, cores, &mut report)?;
    print!("{}", report.rest());
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report).expect("numbers always serialize");
        std::fs::write(path, text).context(format!("write {}", path.display()))?;
        println!("as JSON: {}", path.display());
    }
    Ok(())
}

/// One size of body at saturation alone, for whoever works on what a signature costs.
pub(crate) fn saturated(binaries: testkit::appliance::Binaries, plan: Plan, bytes: usize) -> Result<()> {
    let (mut fixture, _) = fixture(binaries)?;
    let raw_token = raw_token(&fixture, plan.phase)?;
    println!("{}", raw_token.line());
    let saturation = saturation(&mut fixture, "alone", bytes, plan, raw_token.cpu_per_signature())?;
    println!("{}", saturation.line());
    Ok(())
}

/// Full handshakes alone, for whoever works on them.
pub(crate) fn handshakes(binaries: testkit::appliance::Binaries, plan: Plan) -> Result<()> {
    let (mut fixture, cores) = fixture(binaries)?;
    let before = front_cpu(&mut fixture)?;
    let target = lean(&fixture)?;
    let count = load::handshakes(&target, cores, plan.phase).context("make handshakes")?;
    let each = (front_cpu(&mut fixture)? - before) / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let bare = bare_tls::handshakes(&fixture.pki, &target.tls, cores, plan.phase)?;
    println!(
        "{:.0} full handshakes/s, {} µs CPU of the front each; rustls with itself in memory: {bare:.0}/s",
        count as f64 / plan.phase.as_secs_f64(),
        each.as_micros()
    );
    Ok(())
}

/// One constant rate alone, and where its time goes, for whoever works on it.
pub(crate) fn constant_rate(binaries: testkit::appliance::Binaries, plan: Plan, rate: f64) -> Result<()> {
    let (mut fixture, _) = fixture(binaries)?;
    // Caches and connections are warm, as those of the other phases are.
    let mut maker = Maker::new(&fixture, 2 << 10)?;
    load::saturate(&target(&fixture)?, plan.connections, maker.make(2_000)).context("run the trial load")?;
    let before = fixture.appliance.metrics()?;
    let cpu = [front_cpu(&mut fixture)?, worker_cpu(&mut fixture)?];
    let seen = open_loop(&fixture, plan, rate, 1.0)?;
    // Nothing else was asked of the appliance meanwhile: the disk alone does not count here.
    let cpu = [front_cpu(&mut fixture)? - cpu[0], worker_cpu(&mut fixture)? - cpu[1]];
    let after = fixture.appliance.metrics()?;
    println!("{}", seen.line());
    println!("CPU of the front {:.0} %, of the worker {:.0} %", percent(cpu[0], plan), percent(cpu[1], plan));
    let grown = |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    for stage in
        ["read", "authenticate", "entitle", "state", "audit_intent", "sign", "verify", "audit_outcome", "total"]
    {
        let labels = [("stage", stage)];
        let count = grown("signer_latency_seconds_count", &labels).max(1.0);
        println!("  {stage:<14} {:>8.0} µs", grown("signer_latency_seconds_sum", &labels) / count * 1e6);
    }
    let syncs = grown("signer_audit_flush_seconds_count", &[]);
    let each = grown("signer_audit_flush_seconds_sum", &[]) / syncs.max(1.0);
    let beyond = |bound: &str| {
        let within = grown("signer_audit_flush_seconds_bucket", &[("le", bound)]);
        (1.0 - within / syncs.max(1.0)) * 100.0
    };
    println!(
        "  {syncs:.0} syncs, {:.0} µs each; {:.1} % took longer than 1 ms, {:.2} % longer than 5 ms",
        each * 1e6,
        beyond("0.001"),
        beyond("0.005")
    );
    Ok(())
}

fn percent(cpu: Duration, plan: Plan) -> f64 {
    cpu.as_secs_f64() / plan.phase.as_secs_f64() * 100.0
}

/// An appliance that no plan holds back, with an event loop per core.
fn fixture(binaries: testkit::appliance::Binaries) -> Result<(Fixture, usize)> {
    let cores = std::thread::available_parallelism().context("count the cores")?.get();
    let fixture = Fixture::builder()
        .binaries(binaries)
        .set("server.threads", i64::try_from(cores).unwrap_or(2))
        .set("server.limits.idle_timeout", "10m")
        .set("plans.pro.qps", 1_000_000)
        .set("plans.pro.burst", 1_000_000)
        .set("plans.pro.concurrency", 10_000)
        .set("log.filter", "warn")
        .try_start()?;
    Ok((fixture, cores))
}

/// The rate of a bare PKCS#11 loop with the sessions that the worker has, on the very token.
pub(crate) fn raw_token(fixture: &Fixture, time: Duration) -> Result<report::RawToken> {
    let output = Command::new(fixture.appliance.binaries().signer_token())
        .args(["bench", "--name", "main", "--json", "--seconds", &time.as_secs().max(1).to_string()])
        .arg("--config")
        .arg(fixture.appliance.config_file())
        .envs(fixture.token.environment())
        .output()
        .context("run signer-token bench")?;
    if !output.status.success() {
        return Err(Error(format!("signer-token bench failed: {}", String::from_utf8_lossy(&output.stderr))));
    }
    serde_json::from_slice(&output.stdout).context("read the output of signer-token bench")
}

/// Closed loop: every connection sends its next request when it has the answer to the last.
fn saturation(
    fixture: &mut Fixture,
    name: &'static str,
    bytes: usize,
    plan: Plan,
    token_sign: Duration,
) -> Result<Saturation> {
    let target = target(fixture)?;
    let mut maker = Maker::new(fixture, bytes)?;
    // A first, short run finds out how many requests make a phase, and warms caches and connections.
    let trial = load::saturate(&target, plan.connections, maker.make(200)).context("run the trial load")?;
    let wanted = (trial.rate() * plan.phase.as_secs_f64()).ceil() as usize;
    let requests = maker.make(wanted.max(200));

    let before = measure::primitives(2, PRIMITIVES);
    let cpu = [front_cpu(fixture)?, worker_cpu(fixture)?];
    let mut seen = load::saturate(&target, plan.connections, requests).context("run the load")?;
    let cpu = [front_cpu(fixture)? - cpu[0], worker_cpu(fixture)? - cpu[1]];
    let after = measure::primitives(2, PRIMITIVES);
    require_all_answered(&seen, name)?;

    let signatures = u32::try_from(seen.latencies.len()).unwrap_or(u32::MAX);
    let verify = (before.verify + after.verify) / 2;
    let per_byte = (before.sha256_per_byte + after.sha256_per_byte) / 2.0;
    Ok(Saturation {
        body: name,
        body_bytes: maker.body.len(),
        per_second: seen.rate(),
        p50: seen.percentile(0.5),
        p99: seen.percentile(0.99),
        front_cpu: cpu[0] / signatures,
        worker_cpu: cpu[1] / signatures,
        token_sign,
        verify,
        sha256: Duration::from_secs_f64(per_byte * maker.body.len() as f64),
    })
}

/// Open loop: requests come at a constant rate, whether answers come or not. Then the disk alone, at the same rate of
/// syncs.
fn open_loop(fixture: &Fixture, plan: Plan, capacity: f64, share: f64) -> Result<OpenLoop> {
    let target = target(fixture)?;
    let rate = capacity * share;
    let mut maker = Maker::new(fixture, 2 << 10)?;
    let requests = maker.make((rate * plan.phase.as_secs_f64()).ceil() as usize);
    let before = LogSize::read(fixture)?;
    let mut seen = load::constant_rate(&target, plan.connections, requests, rate).context("run the constant load")?;
    let after = LogSize::read(fixture)?;
    require_all_answered(&seen, "constant rate")?;
    Ok(OpenLoop {
        share,
        per_second: seen.rate(),
        p50: seen.percentile(0.5),
        p99: seen.percentile(0.99),
        p999: seen.percentile(0.999),
        disk: disk(fixture, after.syncs - before.syncs, after.bytes - before.bytes, seen.took)?,
    })
}

/// How far the audit log is.
struct LogSize {
    syncs: f64,
    bytes: u64,
}

impl LogSize {
    fn read(fixture: &Fixture) -> Result<Self> {
        let syncs = fixture.appliance.metrics()?.sum("signer_audit_flush_seconds_count", &[]);
        let bytes = fixture.appliance.audit_path().metadata().context("look at the audit log")?.len();
        Ok(Self { syncs, bytes })
    }
}

/// The disk under the audit log, with as many syncs of as many bytes as it had in that time.
fn disk(fixture: &Fixture, syncs: f64, bytes: u64, time: Duration) -> Result<Disk> {
    let path = fixture.appliance.audit_path();
    let directory = path.parent().context("find the directory of the audit log")?;
    let (per_second, each) = (syncs / time.as_secs_f64(), (bytes as f64 / syncs) as usize);
    let seen = measure::bare_syncs(directory, each, per_second, time).context("sync a file of our own")?;
    Ok(Disk {
        syncs_per_second: per_second,
        bytes_per_sync: each,
        one_p50: measure::percentile(&seen.one, 0.5),
        one_p99: measure::percentile(&seen.one, 0.99),
        two_p50: measure::percentile(&seen.two_in_turn, 0.5),
        two_p99: measure::percentile(&seen.two_in_turn, 0.99),
    })
}

fn memory_and_handshakes(fixture: &mut Fixture, plan: Plan, cores: usize, report: &mut Report) -> Result<()> {
    let lean = lean(fixture)?;
    let before = front_cpu(fixture)?;
    let count = load::handshakes(&lean, cores, plan.phase).context("make handshakes")?;
    report.handshake_cpu = (front_cpu(fixture)? - before) / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    report.handshakes_per_second = count as f64 / plan.phase.as_secs_f64();
    report.bare_handshakes_per_second = bare_tls::handshakes(&fixture.pki, &lean.tls, cores, plan.phase)?;
    let target = target(fixture)?;
    // A front that has just been under load keeps freed memory for a while; idle connections are measured on a
    // fresh one.
    fixture.appliance.restart_front()?;
    fixture.appliance.wait_until_ready()?;
    for (count, bytes) in [(256, &mut report.front_256_bytes), (2_000, &mut report.front_2000_bytes)] {
        let held = load::hold_open(&target, count).context(format!("hold {count} connections open"))?;
        *bytes = measure::resident(front(fixture)).context("read the front's memory")?;
        drop(held);
    }
    Ok(())
}

fn require_all_answered(seen: &Seen, what: &str) -> Result<()> {
    match seen.failures.first() {
        None => Ok(()),
        Some(status) => {
            let count = seen.failures.len();
            Err(Error(format!("{what}: {count} requests were not answered 200, the first with status {status}")))
        }
    }
}

fn target(fixture: &Fixture) -> Result<Target> {
    let client = fixture.client();
    let mut config = client.tls().config()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Target { address: fixture.appliance.addr(), tls: Arc::new(config) })
}

/// As [`target`], for handshake after handshake.
fn lean(fixture: &Fixture) -> Result<Target> {
    let target = target(fixture)?;
    let tls = lean_client::config(&target.tls, fixture.pki.server_roots())?;
    Ok(Target { tls: Arc::new(tls), ..target })
}

/// Makes requests that differ in their DPoP proof alone, as those of a busy client do.
struct Maker {
    client: Client,
    token: String,
    poe: String,
    body: Arc<[u8]>,
}

impl Maker {
    fn new(fixture: &Fixture, bytes: usize) -> Result<Self> {
        let client = fixture.client();
        let body = sample::request_of(bytes);
        // The first call fetches the nonce that proofs must carry right after the start.
        client.sign(&body).try_send()?;
        let body: Arc<[u8]> = body.to_string().into_bytes().into();
        Ok(Self { token: client.token().encode(), poe: client.poe().encode(), body, client })
    }

    fn make(&mut self, count: usize) -> Vec<Prepared> {
        // A token that outlives the phase by minutes, and proofs made just before it.
        self.token = self.client.token().encode();
        let half = |count: usize| (0..count).map(|_| self.one()).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| half(count / 2));
            let mut all = half(count - count / 2);
            all.extend(other.join().expect("no panic in signing"));
            all
        })
    }

    fn one(&self) -> Prepared {
        let proof = self.client.proof("POST", SIGN, &self.token).encode();
        let head = format!(
            "POST {SIGN} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: DPoP {}\r\n\
             DPoP: {proof}\r\nX-PoE: {}\r\nContent-Length: {}\r\n\r\n",
            self.token,
            self.poe,
            self.body.len()
        );
        Prepared { head: head.into_bytes(), body: Arc::clone(&self.body) }
    }
}

fn front(fixture: &mut Fixture) -> u32 {
    fixture.appliance.front().id()
}

fn front_cpu(fixture: &mut Fixture) -> Result<Duration> {
    measure::process_cpu(front(fixture)).context("read the front's CPU time")
}

fn worker_cpu(fixture: &mut Fixture) -> Result<Duration> {
    measure::process_cpu(fixture.appliance.worker("main").id()).context("read the worker's CPU time")
}

const SIGN: &str = "/api/v1/signer/sign/dsse";
const PRIMITIVES: Duration = Duration::from_millis(400);
