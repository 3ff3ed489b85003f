//! Why a request gets no signature: what the caller is told, and what the audit record says beside it.

use std::time::Duration;

use http::header::HeaderName;

use super::case::DPOP_NONCE;
use crate::api::problem::{Code, Problem};
use crate::api::request::RequestError;
use crate::audit::{AuditError, AuditId, Refused};
use crate::auth::AuthError;
use crate::custody::{CustodyError, ResolveError};
use crate::dsse::RereadError;
use crate::entitlement::PoeError;
use crate::keyless::{FlowStep, KeylessError};
use crate::quota;
use crate::release::ReleaseError;
use crate::telemetry::Metrics;
use crate::timestamp::StampError;

/// A refusal of one step.
pub(crate) struct Refusal {
    /// What the caller is told.
    pub(super) problem: Problem,
    /// The stable reason, for the audit record and the metrics; more precise than what the caller may know.
    pub(super) reason: &'static str,
    /// The same in words, for the auditor and the log alone.
    pub(super) detail: String,
    source: Source,
    /// The last step of a keyless flow that was completed.
    step: Option<FlowStep>,
}

/// Which step refused: decides what is counted, and how loudly it is logged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Not even a request of this API.
    Noise,
    Caller,
    Auth,
    Poe,
    Quota,
    Release,
    /// Where releases are looked up; counted with them, and an operator must hear of it.
    ReleaseLookUp,
    /// The appliance or something it depends on; an operator must hear of it.
    Appliance,
}

impl Refusal {
    fn new(source: Source, problem: Problem, reason: &'static str, detail: &dyn ToString) -> Self {
        Self { problem, reason, detail: detail.to_string(), source, step: None }
    }

    /// What any scanner of ports can cause: recorded at a bounded rate.
    pub(crate) fn noise(reason: &'static str, problem: Problem) -> Self {
        Self::new(Source::Noise, problem, reason, &"")
    }

    /// The request took longer than any may.
    pub(crate) fn timed_out(limit: Duration) -> Self {
        let detail = format!("not answered within {} s", limit.as_secs());
        let problem = Problem::new(Code::Overloaded).reason("timed_out").retry_after(Duration::from_secs(1));
        Self::new(Source::Appliance, problem, "timed_out", &detail)
    }

    /// The client closed the connection before there was an answer.
    pub(super) fn client_gone() -> Self {
        Self::new(Source::Caller, Problem::new(Code::InvalidRequest), "client_gone", &"the client went away")
    }

    /// The task that signs ended without an answer.
    pub(super) fn lost(detail: &dyn ToString) -> Self {
        Self::new(Source::Appliance, Problem::new(Code::Internal), "internal", detail)
    }

    /// A PoE in the body and in the header, or in a header that is no text.
    pub(super) fn poe_placement(detail: &'static str) -> Self {
        let problem = Problem::new(Code::InvalidRequest).reason("poe_placement").detail(detail);
        Self::new(Source::Caller, problem, "poe_placement", &detail)
    }

    /// The tenant of a valid OpTok may not have this predicate type signed.
    pub(super) fn predicate_not_allowed(predicate_type: &str) -> Self {
        let detail = format!("`{predicate_type}` is not among this tenant's predicate types");
        let problem = Problem::new(Code::PredicateNotAllowed).detail(detail.clone());
        Self::new(Source::Caller, problem, "predicate_not_allowed", &detail)
    }

    pub(super) fn is_noise(&self) -> bool {
        self.source == Source::Noise
    }

    pub(super) fn as_record(&self) -> Refused<'_> {
        let code = self.problem.code();
        Refused {
            status: code.status().as_u16(),
            code: code.as_str(),
            reason: self.reason,
            step: self.step.map(FlowStep::name),
            detail: Some(self.detail.as_str()).filter(|detail| !detail.is_empty()),
        }
    }

    pub(super) fn count(&self, metrics: &Metrics, license: Option<(&str, &str)>) {
        match self.source {
            Source::Poe => metrics.poe_failure(self.reason),
            Source::Release | Source::ReleaseLookUp => metrics.release_verify_failure(self.reason),
            Source::Quota => {
                if let Some((license, plan)) = license {
                    metrics.plan_throttle(license, plan);
                }
            }
            Source::Auth => metrics.auth_failure(self.reason),
            Source::Noise | Source::Caller | Source::Appliance => {}
        }
    }

    pub(super) fn log(&self, audit_id: AuditId) {
        let (code, reason, detail) = (self.problem.code().as_str(), self.reason, &self.detail);
        if matches!(self.source, Source::Appliance | Source::ReleaseLookUp) {
            tracing::error!(%audit_id, code, reason, detail, "a request could not be served");
        } else {
            tracing::info!(%audit_id, code, reason, detail, "a request was refused");
        }
    }
}

impl From<Problem> for Refusal {
    /// Problems of reading the request say all there is to say.
    fn from(problem: Problem) -> Self {
        let source = if problem.code() == Code::Overloaded { Source::Appliance } else { Source::Caller };
        let reason = problem.named_reason().unwrap_or(problem.code().as_str());
        let detail = problem.described().unwrap_or_default().to_owned();
        Self::new(source, problem, reason, &detail)
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        let (code, source) = match error.code() {
            "insufficient_scope" => (Code::InsufficientScope, Source::Auth),
            "dependency_unavailable" => (Code::DependencyUnavailable, Source::Appliance),
            "overloaded" => (Code::Overloaded, Source::Appliance),
            _ => (Code::InvalidToken, Source::Auth),
        };
        let mut problem = Problem::new(code).reason(error.reason()).detail(error.title());
        if let Some(challenge) = error.challenge() {
            problem = problem.challenge(challenge);
        }
        if let Some(nonce) = error.dpop_nonce() {
            problem = problem.header(DPOP_NONCE, nonce);
        }
        if let Some(wait) = error.retry_after() {
            problem = problem.retry_after(wait);
        }
        Self::new(source, problem, error.reason(), &error)
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let problem = Problem::new(Code::InvalidRequest).reason(error.reason()).detail(error.to_string());
        Self::new(Source::Caller, problem, error.reason(), &error)
    }
}

impl From<PoeError> for Refusal {
    fn from(error: PoeError) -> Self {
        let (code, source) = match error.code() {
            "dependency_unavailable" => (Code::DependencyUnavailable, Source::Appliance),
            _ => (Code::EntitlementDenied, Source::Poe),
        };
        let mut problem = Problem::new(code).reason(error.public_reason());
        if let Some(wait) = error.retry_after() {
            problem = problem.retry_after(wait);
        }
        Self::new(source, problem, error.reason(), &causes(&error))
    }
}

impl From<quota::Refused> for Refusal {
    fn from(refused: quota::Refused) -> Self {
        let mut problem = match refused.kind {
            quota::Kind::TooLarge => Problem::new(Code::ArtifactTooLarge)
                .reason("plan_artifact_bytes")
                .detail(format!("the plan allows request bodies of {} bytes", refused.limits.max_artifact_bytes)),
            quota::Kind::Throttled => Problem::new(Code::PlanThrottled).reason("plan_rate"),
            quota::Kind::Concurrency => Problem::new(Code::PlanThrottled).reason("plan_concurrency"),
            quota::Kind::Overloaded => Problem::new(Code::Overloaded).reason("accounts"),
        };
        if !refused.retry_after.is_zero() {
            problem = problem.retry_after(refused.retry_after);
        }
        if let Some(standing) = &refused.rate_limit {
            problem = problem.header(RATE_LIMIT_POLICY, standing.policy_value()).header(RATE_LIMIT, standing.value());
        }
        let source = if refused.kind == quota::Kind::Overloaded { Source::Appliance } else { Source::Quota };
        let reason = problem.named_reason().unwrap_or("plan");
        Self::new(source, problem, reason, &refused)
    }
}

impl From<ReleaseError> for Refusal {
    fn from(error: ReleaseError) -> Self {
        let (code, source) = match error.code() {
            "dependency_unavailable" => (Code::DependencyUnavailable, Source::ReleaseLookUp),
            "overloaded" => (Code::Overloaded, Source::ReleaseLookUp),
            _ => (Code::ReleaseUntrusted, Source::Release),
        };
        let mut problem = Problem::new(code).reason(error.reason());
        if let Some(wait) = error.retry_after() {
            problem = problem.retry_after(wait);
        }
        Self::new(source, problem, error.reason(), &error)
    }
}

impl From<ResolveError> for Refusal {
    fn from(error: ResolveError) -> Self {
        let problem = match error.code() {
            // Asking for a mode that the appliance does not have is the caller's mistake.
            "invalid_request" => Problem::new(Code::InvalidRequest).reason(error.reason()).detail(error.to_string()),
            "not_found" => Problem::new(Code::NotFound).reason(error.reason()).detail(error.to_string()),
            _ => Problem::new(Code::SigningUnavailable)
                .reason(error.reason())
                .retry_after(error.retry_after().unwrap_or(SIGNING_RETRY)),
        };
        let source = if problem.code() == Code::SigningUnavailable { Source::Appliance } else { Source::Caller };
        Self::new(source, problem, error.reason(), &error)
    }
}

impl From<CustodyError> for Refusal {
    fn from(error: CustodyError) -> Self {
        let code = if error.code() == "overloaded" { Code::Overloaded } else { Code::SigningUnavailable };
        let problem = Problem::new(code).reason(error.reason()).retry_after(error.retry_after());
        Self::new(Source::Appliance, problem, error.reason(), &causes(&error))
    }
}

impl From<KeylessError> for Refusal {
    fn from(error: KeylessError) -> Self {
        let code = match error.code() {
            "overloaded" => Code::Overloaded,
            "dependency_unavailable" => Code::DependencyUnavailable,
            _ => Code::SigningUnavailable,
        };
        let problem = Problem::new(code).reason(error.reason()).retry_after(error.retry_after());
        let step = Some(error.step());
        Self { step, ..Self::new(Source::Appliance, problem, error.reason(), &causes(&error)) }
    }
}

impl From<StampError> for Refusal {
    fn from(error: StampError) -> Self {
        let wait = error.retry_after().unwrap_or(STAMP_RETRY).max(Duration::from_secs(1));
        let problem = Problem::new(Code::DependencyUnavailable).reason(error.reason()).retry_after(wait);
        // The signature was made and stays here; what is missing is the step `timestamped`.
        let step = Some(FlowStep::Verified);
        Self { step, ..Self::new(Source::Appliance, problem, error.reason(), &causes(&error)) }
    }
}

impl From<RereadError> for Refusal {
    fn from(error: RereadError) -> Self {
        Self::new(Source::Appliance, Problem::new(Code::Internal), "reread_failed", &error)
    }
}

impl From<AuditError> for Refusal {
    fn from(error: AuditError) -> Self {
        let problem = Problem::new(Code::DependencyUnavailable).reason("audit_unavailable").retry_after(AUDIT_RETRY);
        Self::new(Source::Appliance, problem, error.reason(), &causes(&error))
    }
}

/// An error and everything that led to it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// `RateLimit` and its policy (draft-ietf-httpapi-ratelimit-headers).
pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// See [`RATE_LIMIT`].
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const SIGNING_RETRY: Duration = Duration::from_secs(5);
const STAMP_RETRY: Duration = Duration::from_secs(5);
const AUDIT_RETRY: Duration = Duration::from_secs(5);
