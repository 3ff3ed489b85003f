//! The answer to a signed request.

use http::Response;
use http::header::HeaderValue;

use super::body::Held;
use super::sending::{Sending, keeping};
use crate::audit::AuditId;
use crate::dsse::Bundle;
use crate::entitlement::Entitlement;
use crate::pipeline::{RATE_LIMIT, RATE_LIMIT_POLICY, json};
use crate::quota::Permit;

/// A body that was written, read back and recorded, and the headers that go with it.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    pub(crate) permit: Permit,
    pub(crate) held: Held,
    pub(crate) dpop_nonce: Option<HeaderValue>,
}

impl Answer {
    /// Writes the whole body: the bundle, what the plan has left, and the audit id.
    pub(crate) fn write(bundle: &Bundle<'_>, entitlement: &Entitlement, permit: &Permit, audit_id: AuditId) -> Vec<u8> {
        let plan = serde_json::to_string(&*entitlement.plan).expect("a string serializes");
        let rest = format!(
            ",\"policy\":{{\"plan\":{plan},\"maxArtifactBytes\":{},\"qpsRemaining\":{}}},\"auditId\":\"{audit_id}\"}}",
            entitlement.limits.max_artifact_bytes,
            permit.remaining(),
        );
        let mut body = Vec::with_capacity(BUNDLE.len() + bundle.max_len() + rest.len());
        body.extend_from_slice(BUNDLE);
        bundle.write(&mut body);
        body.extend_from_slice(rest.as_bytes());
        body
    }

    /// The response. The permit, and the memory that the body takes of all bodies', are given back when it is sent.
    pub(crate) fn into_response(mut self) -> Response<Sending> {
        self.held.now_holds(self.body.len());
        let mut response = json(self.body, self.dpop_nonce);
        let standing = self.permit.rate_limit();
        response.headers_mut().insert(RATE_LIMIT_POLICY, standing.policy_value());
        response.headers_mut().insert(RATE_LIMIT, standing.value());
        keeping(keeping(response, self.permit), self.held)
    }
}

/// How a body begins; the bundle follows.
const BUNDLE: &[u8] = b"{\"bundle\":";
