//! A refusal, for the caller, the audit record and the log.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::credentials::Scheme;
use super::{Caller, Class, Reason};

/// Why a request was not authenticated. Displayed, it is the detail for log and audit record, without any content of
/// the token or the proof; the caller is told [`title`](Self::title) and [`challenge`](Self::challenge).
pub struct AuthError(Box<Inner>);

struct Inner {
    reason: Reason,
    detail: Option<String>,
    scheme: Option<Scheme>,
    scope: Option<String>,
    caller: Option<Arc<Caller>>,
    nonce: Option<HeaderValue>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl AuthError {
    /// The stable code of the problem document.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.0.reason.class() {
            Class::NoCredentials | Class::InvalidToken | Class::InvalidProof | Class::UseNonce => "invalid_token",
            Class::InsufficientScope => "insufficient_scope",
            Class::DependencyUnavailable => "dependency_unavailable",
            Class::Overloaded => "overloaded",
        }
    }

    /// The stable word for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.0.reason.name()
    }

    /// What was wrong, in plain words that are safe to tell the caller.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.0.reason.title()
    }

    /// `WWW-Authenticate` (RFC 6750, section 3; RFC 9449, section 7.1): both schemes where none was used, otherwise
    /// the one that the token asks for. None where another token or proof would not help.
    #[must_use]
    pub fn challenge(&self) -> Option<HeaderValue> {
        let Inner { reason, scheme, scope, .. } = &*self.0;
        let error = match reason.class() {
            Class::NoCredentials => return Some(HeaderValue::from_static(BOTH_SCHEMES)),
            Class::DependencyUnavailable | Class::Overloaded => return None,
            Class::InvalidToken => "invalid_token",
            Class::InvalidProof => "invalid_dpop_proof",
            Class::UseNonce => "use_dpop_nonce",
            Class::InsufficientScope => "insufficient_scope",
        };
        let dpop = match reason.class() {
            Class::InvalidProof | Class::UseNonce => true,
            _ if *reason == Reason::DPOP_BOUND_AS_BEARER => true,
            _ if *reason == Reason::OPTOK_NOT_DPOP_BOUND => false,
            _ => *scheme != Some(Scheme::Bearer),
        };
        let lead = if dpop { DPOP } else { BEARER };
        let scope = scope.as_ref().map(|scope| format!(", scope=\"{scope}\"")).unwrap_or_default();
        let title = reason.title();
        HeaderValue::try_from(format!("{lead}, error=\"{error}\", error_description=\"{title}\"{scope}")).ok()
    }

    /// `DPoP-Nonce`, where the next proof must carry one.
    #[must_use]
    pub fn dpop_nonce(&self) -> Option<HeaderValue> {
        self.0.nonce.clone()
    }

    /// When another attempt makes sense, where time alone may help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Who was refused, where the token and its binding were in order and only the scope was not.
    #[must_use]
    pub fn caller(&self) -> Option<&Arc<Caller>> {
        self.0.caller.as_ref()
    }

    pub(super) fn new(reason: Reason) -> Self {
        Self(Box::new(Inner {
            reason,
            detail: None,
            scheme: None,
            scope: None,
            caller: None,
            nonce: None,
            retry_after: None,
            source: None,
        }))
    }

    /// More for log and audit; never anything secret.
    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    pub(super) fn with_nonce(mut self, nonce: HeaderValue) -> Self {
        self.0.nonce = Some(nonce);
        self
    }

    pub(super) fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    pub(super) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(super) fn of_caller(mut self, caller: &Arc<Caller>, required_scope: &str) -> Self {
        self.0.caller = Some(Arc::clone(caller));
        self.0.scope = Some(required_scope.to_owned());
        self
    }

    pub(super) fn under(mut self, scheme: Scheme) -> Self {
        self.0.scheme = Some(scheme);
        self
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())?;
        self.0.detail.as_ref().map_or(Ok(()), |detail| write!(f, " ({detail})"))
    }
}

impl fmt::Debug for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { reason, detail, source, .. } = &*self.0;
        f.debug_struct("AuthError")
            .field("reason", &reason.name())
            .field("detail", detail)
            .field("source", source)
            .finish_non_exhaustive()
    }
}

impl Error for AuthError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

const DPOP: &str = r#"DPoP algs="ES256 EdDSA PS256 RS256""#;
const BEARER: &str = r#"Bearer realm="signer""#;
/// A stranger is shown both ways in.
const BOTH_SCHEMES: &str = r#"DPoP algs="ES256 EdDSA PS256 RS256", Bearer realm="signer""#;
