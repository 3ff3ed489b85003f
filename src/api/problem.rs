//! How a refusal looks on the wire: RFC 9457 problem details with a stable `code`.

use std::time::Duration;

use super::sending::Sending;
use crate::audit::AuditId;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

/// The stable code of a refusal. A caller switches on it; titles and details may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// 400: the request itself is wrong; repeating it will not help.
    InvalidRequest,
    /// 401: OpTok, DPoP proof or certificate binding fails.
    InvalidToken,
    /// 403: the OpTok lacks the scope.
    InsufficientScope,
    /// 403: no valid Proof of Entitlement.
    EntitlementDenied,
    /// 403: the scanner image is no trusted release.
    ReleaseUntrusted,
    /// 403: this tenant may not have this predicate type signed.
    PredicateNotAllowed,
    /// 404: no such route.
    NotFound,
    /// 405: the route knows other methods.
    MethodNotAllowed,
    /// 413: larger than the plan or the appliance allows.
    ArtifactTooLarge,
    /// 429: the plan's rate or concurrency is used up.
    PlanThrottled,
    /// 503: the token cannot sign now.
    SigningUnavailable,
    /// 503: too much is waiting already.
    Overloaded,
    /// 503: Authority, Licensing Service or registry cannot be asked, or the audit log cannot be written.
    DependencyUnavailable,
    /// 500: a defect of the appliance; no signature was released.
    Internal,
}

impl Code {
    /// Every code, for documents and tests.
    pub const ALL: [Self; 14] = [
        Self::InvalidRequest,
        Self::InvalidToken,
        Self::InsufficientScope,
        Self::EntitlementDenied,
        Self::ReleaseUntrusted,
        Self::PredicateNotAllowed,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::ArtifactTooLarge,
        Self::PlanThrottled,
        Self::SigningUnavailable,
        Self::Overloaded,
        Self::DependencyUnavailable,
        Self::Internal,
    ];

    /// As it stands in the problem document, the audit record and the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::EntitlementDenied => "entitlement_denied",
            Self::ReleaseUntrusted => "release_untrusted",
            Self::PredicateNotAllowed => "predicate_not_allowed",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::ArtifactTooLarge => "artifact_too_large",
            Self::PlanThrottled => "plan_throttled",
            Self::SigningUnavailable => "signing_unavailable",
            Self::Overloaded => "overloaded",
            Self::DependencyUnavailable => "dependency_unavailable",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::InsufficientScope | Self::EntitlementDenied | Self::ReleaseUntrusted | Self::PredicateNotAllowed => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ArtifactTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::PlanThrottled => StatusCode::TOO_MANY_REQUESTS,
            Self::SigningUnavailable | Self::Overloaded | Self::DependencyUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is not one this API understands",
            Self::InvalidToken => "The access token, or the proof that it is yours, was not accepted",
            Self::InsufficientScope => "The access token lacks the scope that this call needs",
            Self::EntitlementDenied => "The Proof of Entitlement does not cover this request",
            Self::ReleaseUntrusted => "The scanner image is not a trusted release",
            Self::PredicateNotAllowed => "This tenant may not have this predicate type signed",
            Self::NotFound => "There is no such route",
            Self::MethodNotAllowed => "This route does not know that method",
            Self::ArtifactTooLarge => "The request is larger than allowed",
            Self::PlanThrottled => "The plan's limit is used up for now",
            Self::SigningUnavailable => "The signing token is not available now",
            Self::Overloaded => "The appliance has more waiting than it can serve in time",
            Self::DependencyUnavailable => "A service that this request depends on is not available now",
            Self::Internal => "The appliance failed; no signature was released",
        }
    }
}

/// A problem document and the headers that belong to it.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    reason: Option<&'static str>,
    detail: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The wire form (RFC 9457, section 3.1). Members beside the standard ones are extensions of section 3.2.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDocument<'a> {
    /// `urn:stellaops:signer:problem:` and the code.
    pub r#type: String,
    /// What is wrong, for a person.
    pub title: &'a str,
    /// The HTTP status again.
    pub status: u16,
    /// What is wrong, for a program.
    pub code: Code,
    /// Which check failed, where telling the caller leaks nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// What exactly was wrong and what would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    /// The audit record of this refusal.
    pub audit_id: String,
}

impl Problem {
    /// A problem with its code's own title.
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self { code, reason: None, detail: None, headers: Vec::new() }
    }

    /// Its code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The check that failed, where it is named.
    #[must_use]
    pub const fn named_reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// What exactly was wrong, where it is said.
    #[must_use]
    pub fn described(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Names the check that failed.
    #[must_use]
    pub const fn reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Says what exactly was wrong. Never with a secret, a path or an address of the appliance.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds `WWW-Authenticate` (RFC 9110, section 11.6.1).
    #[must_use]
    pub fn challenge(self, value: HeaderValue) -> Self {
        self.header(WWW_AUTHENTICATE, value)
    }

    /// Adds `Retry-After` in whole seconds, rounded up (RFC 9110, section 10.2.3).
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The response, naming the audit record that tells the rest.
    #[must_use]
    pub(crate) fn into_response(self, audit_id: AuditId) -> Response<Sending> {
        let status = self.code.status();
        let document = ProblemDocument {
            r#type: format!("urn:stellaops:signer:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: status.as_u16(),
            code: self.code,
            reason: self.reason,
            detail: self.detail.as_deref(),
            audit_id: audit_id.to_string(),
        };
        let body = serde_json::to_vec(&document).expect("strings and numbers always serialize");
        let mut response = Response::new(Sending::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_the_same_in_the_document_and_in_the_log() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_string(&code).expect("a name"), format!("\"{}\"", code.as_str()));
        }
    }

    #[test]
    fn retry_after_is_rounded_up_to_the_second_and_never_zero() {
        for (wait, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_999, "60")] {
            let response =
                Problem::new(Code::Overloaded).retry_after(Duration::from_millis(wait)).into_response(AuditId::new());
            assert_eq!(response.headers()[RETRY_AFTER], seconds);
        }
    }
}
