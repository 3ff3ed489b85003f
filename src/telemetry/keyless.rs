//! Keyless signing and timestamps, as metrics. Labels are fixed in the code or come from the configuration.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::metrics::registered;

type Fixed = Family<[(&'static str, &'static str); 1], Counter>;

/// What keyless signing counts. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct KeylessMetrics {
    /// Certificates that Fulcio issued.
    pub certs_issued: Counter,
    /// Signatures made by helpers and released.
    pub signatures: Counter,
    /// Flows in progress now.
    pub flows: Gauge,
    /// Helpers that hold a certificate and wait to sign again.
    pub helpers_kept: Gauge,
    failures: Fixed,
    helper_failures: Fixed,
    refuted: Fixed,
    steps: Family<[(&'static str, &'static str); 1], Histogram>,
    circuit: Family<[(&'static str, &'static str); 1], Gauge>,
    identity_expiry: Family<[(&'static str, String); 1], Gauge>,
    identity_failures: Family<[(&'static str, String); 1], Gauge>,
}

/// What timestamps count. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TimestampMetrics {
    issued: Family<[(&'static str, String); 1], Counter>,
    failures: Family<[(&'static str, String); 2], Counter>,
}

impl KeylessMetrics {
    pub(super) fn new(registry: &mut Registry, certs_issued: &Counter) -> Self {
        let steps: Family<_, Histogram> = Family::new_with_constructor(|| Histogram::new(STEP_BUCKETS.iter().copied()));
        registry.register("keyless_step_seconds", "Time of the steps of a keyless flow, in seconds", steps.clone());
        Self {
            certs_issued: certs_issued.clone(),
            signatures: registered(registry, "keyless_sign", "Signatures made by keyless helpers", Counter::default()),
            flows: registered(registry, "keyless_flows", "Keyless flows in progress now", Gauge::default()),
            helpers_kept: registered(
                registry,
                "keyless_helpers_kept",
                "Helpers that wait to sign again under their certificate",
                Gauge::default(),
            ),
            failures: registered(registry, "keyless_failures", "Keyless signatures that failed", Family::default()),
            helper_failures: registered(
                registry,
                "keyless_helper_failures",
                "Helpers that failed, by the last step that was completed",
                Family::default(),
            ),
            refuted: registered(
                registry,
                "keyless_answers_refused",
                "Answers of Fulcio or a helper that were found to be wrong",
                Family::default(),
            ),
            steps,
            circuit: registered(
                registry,
                "keyless_circuit",
                "1 for the state that the circuit to Fulcio is in; 0 for the others",
                Family::default(),
            ),
            identity_expiry: registered(
                registry,
                "keyless_identity_expiry_seconds",
                "When the identity token that is held ends, in Unix time; 0 when none is held",
                Family::default(),
            ),
            identity_failures: registered(
                registry,
                "keyless_identity_failed",
                "1 while no new identity token can be had",
                Family::default(),
            ),
        }
    }

    /// A signature failed.
    pub fn failure(&self, reason: &'static str) {
        self.failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// A helper failed after this step.
    pub fn helper_failure(&self, step: &'static str) {
        self.helper_failures.get_or_create(&[("step", step)]).inc();
    }

    /// An answer was found to be wrong.
    pub fn refuted(&self, reason: &'static str) {
        self.refuted.get_or_create(&[("reason", reason)]).inc();
    }

    /// A step took so long.
    pub fn step(&self, step: &'static str, time: Duration) {
        self.steps.get_or_create(&[("step", step)]).observe(time.as_secs_f64());
    }

    /// The state of the circuit, of these.
    pub fn circuit(&self, state: &'static str, all: &[&'static str]) {
        for name in all {
            self.circuit.get_or_create(&[("state", name)]).set(i64::from(*name == state));
        }
    }

    /// How an identity is.
    pub fn identity(&self, name: &str, expires: Option<i64>, failed: bool) {
        let labels = [("identity", name.to_owned())];
        self.identity_expiry.get_or_create(&labels).set(expires.unwrap_or(0));
        self.identity_failures.get_or_create(&labels).set(i64::from(failed));
    }
}

impl TimestampMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            issued: registered(registry, "timestamps", "Timestamps that were had and verified", Family::default()),
            failures: registered(registry, "timestamp_failures", "Timestamps that could not be had", Family::default()),
        }
    }

    /// An authority gave a timestamp.
    pub fn issued(&self, authority: &str) {
        self.issued.get_or_create(&[("authority", authority.to_owned())]).inc();
    }

    /// An authority gave none, or a wrong one.
    pub fn failure(&self, authority: &str, reason: &'static str) {
        self.failures.get_or_create(&[("authority", authority.to_owned()), ("reason", reason.to_owned())]).inc();
    }
}

const STEP_BUCKETS: [f64; 14] = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
