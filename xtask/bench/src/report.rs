//! The bench's results: as a person reads them, and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

/// Everything that one run found.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) cores: usize,
    pub(crate) raw_token: RawToken,
    pub(crate) saturation: Vec<Saturation>,
    pub(crate) open_loop: Vec<OpenLoop>,
    pub(crate) handshakes_per_second: f64,
    /// CPU of the front for one, its answer included.
    #[serde(serialize_with = "micros")]
    pub(crate) handshake_cpu: Duration,
    /// Both sides in memory, without sockets and HTTP.
    pub(crate) bare_handshakes_per_second: f64,
    pub(crate) front_idle_bytes: u64,
    pub(crate) front_256_bytes: u64,
    pub(crate) front_2000_bytes: u64,
}

/// The bare PKCS#11 loop, as `signer-token bench` reports it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct RawToken {
    pub(crate) sessions: u32,
    pub(crate) per_second: f64,
    pub(crate) cpu_us_per_signature: f64,
}

/// One body size at saturation. Times are CPU time per signature, but for the percentiles.
#[derive(Serialize)]
pub(crate) struct Saturation {
    pub(crate) body: &'static str,
    pub(crate) body_bytes: usize,
    pub(crate) per_second: f64,
    #[serde(serialize_with = "micros")]
    pub(crate) p50: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) p99: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) front_cpu: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) worker_cpu: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) token_sign: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) verify: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) sha256: Duration,
}

/// One constant arrival rate.
#[derive(Serialize)]
pub(crate) struct OpenLoop {
    pub(crate) share: f64,
    pub(crate) per_second: f64,
    #[serde(serialize_with = "micros")]
    pub(crate) p50: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) p99: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) p999: Duration,
    pub(crate) disk: Disk,
}

/// The disk alone, right after a constant rate: as many syncs a second, as large, on the same directory.
#[derive(Serialize)]
pub(crate) struct Disk {
    pub(crate) syncs_per_second: f64,
    pub(crate) bytes_per_sync: usize,
    #[serde(serialize_with = "micros")]
    pub(crate) one_p50: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) one_p99: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) two_p50: Duration,
    #[serde(serialize_with = "micros")]
    pub(crate) two_p99: Duration,
}

impl Report {
    pub(crate) fn new(cores: usize) -> Self {
        Self {
            cores,
            raw_token: RawToken::default(),
            saturation: Vec::new(),
            open_loop: Vec::new(),
            handshakes_per_second: 0.0,
            handshake_cpu: Duration::ZERO,
            bare_handshakes_per_second: 0.0,
            front_idle_bytes: 0,
            front_256_bytes: 0,
            front_2000_bytes: 0,
        }
    }

    /// What is not printed as it is measured: memory, handshakes, and the targets beside the results.
    pub(crate) fn rest(&self) -> String {
        let mut text = String::new();
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        let _ = writeln!(
            text,
            "full handshakes     {:>8.0} /s, {} µs CPU of the front each, the client on the same {} cores; rustls with itself in memory: {:.0} /s",
            self.handshakes_per_second,
            self.handshake_cpu.as_micros(),
            self.cores,
            self.bare_handshakes_per_second
        );
        let _ = writeln!(
            text,
            "memory of the front {:>8.1} MiB idle, {:.1} at 256 connections, {:.1} at 2,000",
            mib(self.front_idle_bytes),
            mib(self.front_256_bytes),
            mib(self.front_2000_bytes)
        );
        let _ = writeln!(text, "\n{:<34}{:>10}{:>12}", "", "measured", "target");
        let mut row = |name: &str, measured: f64, target: f64, at_most: bool, unit: &str| {
            let met = if at_most { measured <= target } else { measured >= target };
            let bound = if at_most { "≤" } else { "≥" };
            let _ = writeln!(
                text,
                "{name:<34}{measured:>10.2}{:>12} {unit:<4} {}",
                format!("{bound} {target}"),
                if met { "met" } else { "MISSED" }
            );
        };
        for (saturation, target) in self.saturation.iter().zip([1.6, 3.0, 8.0]) {
            row(&format!("CPU ÷ unavoidable crypto, {}", saturation.body), saturation.ratio(), target, true, "");
        }
        if let Some(light) = self.open_loop.first() {
            row("p99 at 30 % load", light.p99.as_secs_f64() * 1e3, 4.0, true, "ms");
        }
        row("front idle", mib(self.front_idle_bytes), 15.0, true, "MiB");
        row("front at 2,000 connections", mib(self.front_2000_bytes), 80.0, true, "MiB");
        row("full handshakes", self.handshakes_per_second, 3000.0, false, "/s");
        text
    }
}

impl RawToken {
    /// CPU time of one signature in the token.
    pub(crate) fn cpu_per_signature(&self) -> Duration {
        Duration::from_secs_f64(self.cpu_us_per_signature / 1e6)
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "bare PKCS#11 loop   {:>8.0} signatures/s, {} sessions, {:.1} µs CPU each",
            self.per_second, self.sessions, self.cpu_us_per_signature
        )
    }
}

impl Saturation {
    /// What no implementation can do without: one signature in the token, the verification of it and of the DPoP
    /// proof, and SHA-256 over the body.
    fn unavoidable(&self) -> Duration {
        self.token_sign + self.verify * 2 + self.sha256
    }

    /// CPU of front and worker over what is unavoidable.
    pub(crate) fn ratio(&self) -> f64 {
        (self.front_cpu + self.worker_cpu).as_secs_f64() / self.unavoidable().as_secs_f64()
    }

    pub(crate) fn line(&self) -> String {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        format!(
            "API, {:<6} bodies  {:>8.0} signatures/s, p50 {:.1} ms, p99 {:.1} ms; CPU {:.0} µs front + {:.0} worker = {:.2} × unavoidable {:.0} (sign {:.0}, 2 × verify {:.0}, SHA-256 {:.0})",
            self.body,
            self.per_second,
            us(self.p50) / 1e3,
            us(self.p99) / 1e3,
            us(self.front_cpu),
            us(self.worker_cpu),
            self.ratio(),
            us(self.unavoidable()),
            us(self.token_sign),
            us(self.verify),
            us(self.sha256),
        )
    }
}

impl OpenLoop {
    /// How many times as long as two bare syncs in turn the slowest hundredth takes.
    pub(crate) fn ratio(&self) -> f64 {
        self.p99.as_secs_f64() / self.disk.two_p99.as_secs_f64()
    }

    pub(crate) fn line(&self) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let disk = &self.disk;
        format!(
            "constant {:>2.0} % load   {:>7.0} requests/s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms\n  \
             the disk alone     {:>7.0} syncs/s of {} bytes: one p50 {:.2} ms, p99 {:.2} ms; two in turn p50 {:.2} ms, p99 {:.2} ms: p99 is {:.1} × that",
            self.share * 100.0,
            self.per_second,
            ms(self.p50),
            ms(self.p99),
            ms(self.p999),
            disk.syncs_per_second,
            disk.bytes_per_sync,
            ms(disk.one_p50),
            ms(disk.one_p99),
            ms(disk.two_p50),
            ms(disk.two_p99),
            self.ratio()
        )
    }
}

fn micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e6)
}
