//! Where the time of one request goes, step by step.

use std::time::{Duration, Instant};

use super::Metrics;

/// A step of the way of a request: the `stage` of `signer_latency_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the body and its JSON.
    Read,
    /// OpTok and sender constraint.
    Authenticate,
    /// PoE.
    Entitle,
    /// Plan quotas.
    Admit,
    /// Release integrity.
    Release,
    /// Building the statement.
    State,
    /// Finding the tenant's key.
    Resolve,
    /// The durable intent.
    AuditIntent,
    /// The token or the keyless flow, the way there and the queue included.
    Sign,
    /// Timestamps of the signature.
    Timestamp,
    /// Verification of what came back.
    Verify,
    /// The durable outcome.
    AuditOutcome,
    /// All of it, from the request's first byte to the answer.
    Total,
}

impl Stage {
    /// All of them, in the order of a request.
    pub const ALL: [Self; 13] = [
        Self::Read,
        Self::Authenticate,
        Self::Entitle,
        Self::Admit,
        Self::Release,
        Self::State,
        Self::Resolve,
        Self::AuditIntent,
        Self::Sign,
        Self::Timestamp,
        Self::Verify,
        Self::AuditOutcome,
        Self::Total,
    ];

    /// As the label says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Authenticate => "authenticate",
            Self::Entitle => "entitle",
            Self::Admit => "admit",
            Self::Release => "release",
            Self::State => "state",
            Self::Resolve => "resolve",
            Self::AuditIntent => "audit_intent",
            Self::Sign => "sign",
            Self::Timestamp => "timestamp",
            Self::Verify => "verify",
            Self::AuditOutcome => "audit_outcome",
            Self::Total => "total",
        }
    }
}

/// A stopwatch for one request.
#[derive(Debug)]
pub struct Laps<'a> {
    metrics: &'a Metrics,
    started: Instant,
    last: Instant,
}

impl<'a> Laps<'a> {
    /// Of a request that began at `started`.
    #[must_use]
    pub fn since(metrics: &'a Metrics, started: Instant) -> Self {
        Self { metrics, started, last: started }
    }

    /// The step that has taken the time since the last one is over.
    pub fn done(&mut self, stage: Stage) {
        let now = Instant::now();
        self.metrics.observe(stage, now.duration_since(self.last));
        self.last = now;
    }

    /// The request's age.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The request is answered.
    pub fn finish(self) {
        self.metrics.observe(Stage::Total, self.started.elapsed());
    }
}
