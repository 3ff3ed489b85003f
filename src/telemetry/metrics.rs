//! The metrics, by the names that StellaOps dashboards expect, and what an operator of HSMs needs beside them.
//!
//! Labels are bounded: reasons are fixed in the code, tokens and certificates come from the configuration, licences
//! and plans are merged into `other` beyond a number of them.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use super::Stage;
use super::custody::CustodyMetrics;
use super::keyless::{KeylessMetrics, TimestampMetrics};
use super::release::ReleaseMetrics;
use crate::audit::Kind;

/// The content type of [`Metrics::render`] (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Fixed = [(&'static str, &'static str); 1];
type Named = [(&'static str, String); 1];
/// The labels of one licence's series.
pub type PlanLabels = [(&'static str, String); 2];

/// Every metric of the front. Counting is a few atomic operations; handles of what is counted on each request are
/// made once.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    latency: [Histogram; Stage::ALL.len()],
    requests: Family<Fixed, Counter>,
    auth_failures: Family<Fixed, Counter>,
    poe_failures: Family<Fixed, Counter>,
    release_verify_failures: Family<Fixed, Counter>,
    tls_handshake_failures: Family<Fixed, Counter>,
    plan_throttle: Family<PlanLabels, Counter>,
    plans: Mutex<HashSet<PlanLabels>>,
    tokens: TokenMetrics,
    /// Keys in their tokens.
    pub custody: CustodyMetrics,
    /// Look-ups of scanner images.
    pub release: ReleaseMetrics,
    revocation_list: Gauge,
    certificate_expiry: Family<Named, Gauge>,
    /// A family, so that without a list there is no zero, which would be an alarm.
    client_crl: Family<Named, Gauge>,
    audit: AuditMetrics,
    reloads: Family<Fixed, Counter>,
    reload_refused: Gauge,
    /// Bytes of bundles answered.
    pub bundle_bytes: Counter,
    /// Keyless signing.
    pub keyless: KeylessMetrics,
    /// Timestamps.
    pub timestamps: TimestampMetrics,
    /// Signatures made in tokens.
    pub kms_sign: Counter,
    /// Signatures that came back from a token and did not verify.
    pub verify_after_sign_failures: Counter,
    /// Connections open now.
    pub connections: Gauge,
    /// Memory that bodies of requests and answers hold now, in bytes.
    pub body_bytes_held: Gauge,
}

/// What is counted of one token. All but the first four only grow, until its worker is started again.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenFigures {
    /// Whether it can sign.
    pub up: bool,
    /// Requests waiting for a session.
    pub queue_depth: u32,
    /// Sessions that can sign now.
    pub sessions: u32,
    /// Sessions that the configuration asks for.
    pub sessions_configured: u32,
    /// Sign requests that reached the worker.
    pub sign_requests: u64,
    /// Signatures that the device made.
    pub signatures: u64,
    /// Log-ins to the token.
    pub logins: u64,
    /// Sessions closed because of a fatal code.
    pub sessions_lost: u64,
}

/// The families of [`TokenFigures`].
#[derive(Debug)]
struct TokenMetrics {
    gauges: [Family<Named, Gauge>; 4],
    counters: [Family<Named, Counter>; 4],
}

impl TokenMetrics {
    fn new(registry: &mut Registry) -> Self {
        let mut gauge = |name, help| registered(registry, name, help, Family::<Named, Gauge>::default());
        let gauges = [
            gauge("custody_up", "1 while the token can sign"),
            gauge("token_queue_depth", "Requests waiting for the token"),
            gauge("token_sessions", "Sessions that can sign now"),
            gauge("token_sessions_configured", "Sessions that the configuration asks for"),
        ];
        let mut counter = |name, help| registered(registry, name, help, Family::<Named, Counter>::default());
        let counters = [
            counter("token_sign_requests", "Sign requests that reached the token's worker"),
            counter("token_signatures", "Signatures that the token made"),
            counter("token_logins", "Log-ins to the token"),
            counter("token_sessions_lost", "Sessions closed because of a fatal code"),
        ];
        Self { gauges, counters }
    }

    fn set(&self, token: &str, figures: &TokenFigures) {
        let name = [("token", token.to_owned())];
        let now = [
            i64::from(figures.up),
            figures.queue_depth.into(),
            figures.sessions.into(),
            figures.sessions_configured.into(),
        ];
        for (gauge, value) in self.gauges.iter().zip(now) {
            gauge.get_or_create(&name).set(value);
        }
        let counted = [figures.sign_requests, figures.signatures, figures.logins, figures.sessions_lost];
        for (counter, value) in self.counters.iter().zip(counted) {
            // The worker counts; this process only passes the figure on.
            counter.get_or_create(&name).inner().store(value, Ordering::Relaxed);
        }
    }
}

/// What the audit log counts.
#[derive(Clone, Debug)]
pub struct AuditMetrics {
    records: [Counter; Kind::ALL.len()],
    /// 1 while the log refuses records.
    pub failed: Gauge,
    /// Seconds of a write and its sync.
    pub flush: Histogram,
}

impl Metrics {
    /// All of them, at zero.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a second set would split the counts; it is made on purpose")]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("signer");
        let requests = registered(&mut registry, "requests", "Requests by how they ended", Family::default());
        let latency: Family<Fixed, Histogram> =
            Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS.iter().copied()));
        registry.register("latency_seconds", "Time of the steps of a request, in seconds", latency.clone());
        let auth_failures =
            registered(&mut registry, "auth_failures", "Requests whose token or proof was refused", Family::default());
        let poe_failures =
            registered(&mut registry, "poe_failures", "Proofs of entitlement refused", Family::default());
        let release_verify_failures = registered(
            &mut registry,
            "release_verify_failures",
            "Scanner images that are no trusted release",
            Family::default(),
        );
        let plan_throttle =
            registered(&mut registry, "plan_throttle", "Requests refused by a plan's quotas", Family::default());
        let bundle_bytes = registered(&mut registry, "bundle_bytes", "Bytes of bundles answered", Counter::default());
        let keyless_certs_issued =
            registered(&mut registry, "keyless_certs_issued", "Certificates issued by Fulcio", Counter::default());
        let keyless = KeylessMetrics::new(&mut registry, &keyless_certs_issued);
        let timestamps = TimestampMetrics::new(&mut registry);
        let kms_sign = registered(&mut registry, "kms_sign", "Signatures made in tokens", Counter::default());
        let verify_after_sign_failures = registered(
            &mut registry,
            "verify_after_sign_failures",
            "Signatures from a token that did not verify and were not released",
            Counter::default(),
        );
        let tokens = TokenMetrics::new(&mut registry);
        let custody = CustodyMetrics::new(&mut registry);
        let release = ReleaseMetrics::new(&mut registry);
        let revocation_list = registered(
            &mut registry,
            "revocation_list_fresh_until_seconds",
            "From when on the licensing revocation list proves nothing, in Unix time",
            Gauge::default(),
        );
        let connections = registered(&mut registry, "connections", "Connections open now", Gauge::default());
        let body_bytes_held =
            registered(&mut registry, "body_bytes_held", "Bytes of bodies held now", Gauge::default());
        let tls_handshake_failures =
            registered(&mut registry, "tls_handshake_failures", "TLS handshakes that failed", Family::default());
        let certificate_expiry = registered(
            &mut registry,
            "certificate_expiry_seconds",
            "When the certificate ends, in Unix time",
            Family::default(),
        );
        let client_crl = registered(
            &mut registry,
            "crl_next_update_seconds",
            "When the first of these revocation lists is past its nextUpdate, in Unix time",
            Family::default(),
        );
        let audit = AuditMetrics::new(&mut registry);
        let reloads = registered(
            &mut registry,
            "config_reloads",
            "How often the configuration was read anew, by what came of it",
            Family::default(),
        );
        let reload_refused = registered(
            &mut registry,
            "config_reload_refused",
            "1 while the configuration on disk was refused and an older one is in force",
            Gauge::default(),
        );
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The build that is running", Info::new(version));
        Self {
            latency: Stage::ALL.map(|stage| latency.get_or_create_owned(&[("stage", stage.name())])),
            registry,
            requests,
            auth_failures,
            poe_failures,
            release_verify_failures,
            tls_handshake_failures,
            plan_throttle,
            plans: Mutex::default(),
            tokens,
            custody,
            release,
            revocation_list,
            certificate_expiry,
            client_crl,
            audit,
            reloads,
            reload_refused,
            bundle_bytes,
            keyless,
            timestamps,
            kms_sign,
            verify_after_sign_failures,
            connections,
            body_bytes_held,
        }
    }

    /// The exposition, to be served as [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// When a metric cannot be written, which would be a defect of it.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 << 10);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// A step took `time`.
    pub fn observe(&self, stage: Stage, time: Duration) {
        self.latency[stage as usize].observe(time.as_secs_f64());
    }

    /// A request ended: `"signed"`, `"ok"` or the `code` of its problem document.
    pub fn request(&self, result: &'static str) {
        self.requests.get_or_create(&[("result", result)]).inc();
    }

    /// An OpTok or its proof was refused.
    pub fn auth_failure(&self, reason: &'static str) {
        self.auth_failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// A PoE was refused.
    pub fn poe_failure(&self, reason: &'static str) {
        self.poe_failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// A scanner image is no trusted release.
    pub fn release_verify_failure(&self, reason: &'static str) {
        self.release_verify_failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// A TLS handshake failed.
    pub fn tls_handshake_failure(&self, reason: &'static str) {
        self.tls_handshake_failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// A quota refused a request.
    pub fn plan_throttle(&self, license: &str, plan: &str) {
        self.plan_throttle.get_or_create(&self.plan_labels(license, plan)).inc();
    }

    /// How a token is, as its worker last said.
    pub fn token(&self, token: &str, figures: &TokenFigures) {
        self.tokens.set(token, figures);
    }

    /// A token's worker cannot be asked. What it has counted stays as it was last heard.
    pub fn token_down(&self, token: &str) {
        self.tokens.gauges[0].get_or_create(&[("token", token.to_owned())]).set(0);
    }

    /// From when on the licensing revocation list proves nothing, in Unix time.
    pub fn revocation_list_fresh_until(&self, moment: i64) {
        self.revocation_list.set(moment);
    }

    /// When a certificate of the configuration ends, in Unix time.
    pub fn certificate_expiry(&self, certificate: &str, not_after: i64) {
        self.certificate_expiry.get_or_create(&[("certificate", certificate.to_owned())]).set(not_after);
    }

    /// When the first of the revocation lists for client certificates is past its `nextUpdate`, in Unix time.
    pub fn client_crl_next_update(&self, moment: i64) {
        self.client_crl.get_or_create(&[("of", "clients".to_owned())]).set(moment);
    }

    /// The configuration was read anew, and taken or not.
    pub fn reload(&self, taken: bool) {
        self.reloads.get_or_create(&[("result", if taken { "taken" } else { "refused" })]).inc();
        self.reload_refused.set(i64::from(!taken));
    }

    /// What the audit log counts by; see [`crate::audit::AuditLog::observe`].
    #[must_use]
    pub fn audit(&self) -> AuditMetrics {
        self.audit.clone()
    }

    fn plan_labels(&self, license: &str, plan: &str) -> PlanLabels {
        let labels = [("license", bounded(license)), ("plan", bounded(plan))];
        let mut known = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&labels) {
            if known.len() >= MAX_PLAN_SERIES {
                return [("license", OTHER.to_owned()), ("plan", OTHER.to_owned())];
            }
            known.insert(labels.clone());
        }
        labels
    }
}

impl AuditMetrics {
    fn new(registry: &mut Registry) -> Self {
        let records: Family<Fixed, Counter> =
            registered(registry, "audit_records", "Records entered into the audit log", Family::default());
        let flush = Histogram::new(LATENCY_BUCKETS.iter().copied());
        Self {
            records: Kind::ALL.map(|kind| records.get_or_create_owned(&[("kind", kind.name())])),
            failed: registered(registry, "audit_failed", "1 while the audit log refuses records", Gauge::default()),
            flush: registered(registry, "audit_flush_seconds", "Time of a write and its sync, in seconds", flush),
        }
    }

    /// The counter of one kind of records.
    #[must_use]
    pub fn records(&self, kind: Kind) -> &Counter {
        &self.records[kind as usize]
    }
}

// The library appends `_total` to the names of counters, as OpenMetrics prescribes.
pub(super) fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn bounded(label: &str) -> String {
    label.chars().map(|c| if c.is_control() { '_' } else { c }).take(MAX_LABEL_CHARS).collect()
}

const LATENCY_BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const MAX_PLAN_SERIES: usize = 1000;
const MAX_LABEL_CHARS: usize = 64;
const OTHER: &str = "other";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_that_dashboards_expect() {
        let metrics = Metrics::new();
        for stage in Stage::ALL {
            metrics.observe(stage, Duration::from_micros(700));
        }
        metrics.request("signed");
        metrics.auth_failure("optok_expired");
        metrics.poe_failure("poe_expired");
        metrics.release_verify_failure("unsigned");
        metrics.tls_handshake_failure("no_certificate");
        metrics.plan_throttle("lic-\"1\"", "pro");
        metrics.token("main", &TokenFigures { up: true, queue_depth: 3, signatures: 7, ..TokenFigures::default() });
        metrics.certificate_expiry("server", 1_800_000_000);
        metrics.audit().records(Kind::Intent).inc();
        metrics.audit().failed.set(1);
        metrics.audit().flush.observe(0.0003);
        metrics.bundle_bytes.inc_by(2048);
        metrics.keyless.certs_issued.inc();
        metrics.keyless.helper_failure("job_sent");
        metrics.keyless.circuit("open", &["closed", "open", "half_open"]);
        metrics.timestamps.failure("main", "timestamp_nonce");
        metrics.kms_sign.inc();
        metrics.verify_after_sign_failures.inc();
        metrics.connections.set(7);
        metrics.reload(false);
        let text = metrics.render().unwrap();
        for line in [
            "signer_requests_total{result=\"signed\"} 1",
            "signer_latency_seconds_count{stage=\"read\"} 1",
            "signer_latency_seconds_bucket{le=\"0.0005\",stage=\"audit_intent\"} 0",
            "signer_latency_seconds_bucket{le=\"0.001\",stage=\"total\"} 1",
            "signer_auth_failures_total{reason=\"optok_expired\"} 1",
            "signer_poe_failures_total{reason=\"poe_expired\"} 1",
            "signer_release_verify_failures_total{reason=\"unsigned\"} 1",
            "signer_tls_handshake_failures_total{reason=\"no_certificate\"} 1",
            "signer_plan_throttle_total{license=\"lic-\\\"1\\\"\",plan=\"pro\"} 1",
            "signer_custody_up{token=\"main\"} 1",
            "signer_token_queue_depth{token=\"main\"} 3",
            "signer_token_signatures_total{token=\"main\"} 7",
            "signer_certificate_expiry_seconds{certificate=\"server\"} 1800000000",
            "signer_audit_records_total{kind=\"intent\"} 1",
            "signer_audit_records_total{kind=\"connection_refused\"} 0",
            "signer_audit_failed 1",
            "signer_audit_flush_seconds_count 1",
            "signer_bundle_bytes_total 2048",
            "signer_keyless_certs_issued_total 1",
            "signer_keyless_flows 0",
            "signer_keyless_helper_failures_total{step=\"job_sent\"} 1",
            "signer_keyless_circuit{state=\"open\"} 1",
            "signer_keyless_circuit{state=\"closed\"} 0",
            "signer_timestamp_failures_total{authority=\"main\",reason=\"timestamp_nonce\"} 1",
            "signer_kms_sign_total 1",
            "signer_verify_after_sign_failures_total 1",
            "signer_connections 7",
            "signer_config_reloads_total{result=\"refused\"} 1",
            "signer_config_reload_refused 1",
            "signer_build_info{version=\"0.1.0\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn each_stage_and_each_kind_counts_in_its_own_series() {
        let metrics = Metrics::new();
        for (i, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, i);
            (0..=i).for_each(|_| metrics.observe(stage, Duration::ZERO));
        }
        for (i, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, i);
        }
        let text = metrics.render().unwrap();
        for (i, stage) in Stage::ALL.into_iter().enumerate() {
            let line = format!("signer_latency_seconds_count{{stage=\"{}\"}} {}", stage.name(), i + 1);
            assert!(text.lines().any(|have| have == line), "{line}");
        }
    }

    #[test]
    fn a_stranger_cannot_make_series_without_bound() {
        let metrics = Metrics::new();
        for i in 0..MAX_PLAN_SERIES + 50 {
            metrics.plan_throttle(&format!("license-{i}"), "pro");
        }
        metrics.plan_throttle("license-7", "pro");
        metrics.plan_throttle(&"x".repeat(10_000), "pro");
        let text = metrics.render().unwrap();
        assert!(text.contains("signer_plan_throttle_total{license=\"other\",plan=\"other\"} 51\n"));
        assert!(text.contains("signer_plan_throttle_total{license=\"license-7\",plan=\"pro\"} 2\n"));
        assert_eq!(
            text.lines().filter(|line| line.starts_with("signer_plan_throttle_total")).count(),
            MAX_PLAN_SERIES + 1
        );
        assert!(text.lines().all(|line| line.len() < 1000));
    }
}
