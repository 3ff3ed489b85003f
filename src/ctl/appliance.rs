//! One appliance as its client sees it: mTLS, the OpTok and its proof, nonces, and patience.

use std::time::{Duration, Instant};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderName, Method, Request, StatusCode, request};

use super::answer::Answer;
use super::client::{Client, base_url};
use super::error::CtlError;
use super::optok::Credentials;
use super::problem::{Peer, Refusal};
use super::settings::{Access, Patience, required};
use super::tls::{Identity, client_config};
use super::upload::Upload;
use crate::config::Span;

/// An appliance and what it takes to call it.
pub(crate) struct Appliance {
    base: String,
    client: Client,
    credentials: Credentials,
    retry_for: Duration,
}

/// One operation of the Signer API, formed anew for every attempt.
pub(crate) trait Call {
    /// HTTP method.
    fn method(&self) -> Method;
    /// Path, which is what a DPoP proof names, too.
    fn path(&self) -> &str;
    /// Puts headers on, and gives the body.
    fn form(&self, request: request::Builder) -> (request::Builder, Upload);
    /// What an answer may be long.
    fn max_answer_bytes(&self) -> usize;
    /// Says that another attempt follows.
    fn waiting(&self, _why: &str, _wait: Duration) {}
}

impl Appliance {
    /// Loads what the settings name; nothing is sent yet.
    pub(crate) fn prepare(access: &Access) -> Result<Self, CtlError> {
        let base = base_url(&required(&access.url, "url")?, "url")?;
        if !base.starts_with("https://") {
            return Err(CtlError::Usage(format!("--url: `{base}` must be https; the Signer API speaks TLS alone")));
        }
        let identity = Identity::load(&required(&access.cert, "cert")?, &required(&access.key, "key")?)?;
        let tls = client_config(&required(&access.ca, "ca")?, Some(&identity))?;
        Ok(Self {
            base,
            client: Client::new(tls, access.timeout.map_or(DEFAULT_TIMEOUT, Span::get)),
            credentials: Credentials::load(access, &identity)?,
            retry_for: access.retry_for.map_or(DEFAULT_RETRY_FOR, |Patience(duration)| duration),
        })
    }

    /// Calls until there is an answer to keep: 200, or the error. Tried again is what was certainly not done: a
    /// demand for a nonce (once for each attempt; RFC 9449, section 9), and 429 and 503 when they say how long to
    /// wait and that fits into the patience.
    pub(crate) async fn call(&mut self, call: &impl Call) -> Result<Answer, CtlError> {
        let give_up = Instant::now() + self.retry_for;
        let mut nonce: Option<String> = None;
        loop {
            self.credentials.refresh().await?;
            let mut answer = self.attempt(call, nonce.as_deref()).await?;
            if let Some(wanted) = wanted_nonce(&answer) {
                answer = self.attempt(call, Some(&wanted)).await?;
                nonce = Some(wanted);
            }
            if answer.status == StatusCode::OK {
                return Ok(answer);
            }
            // A nonce may come with any answer; the newest is the one to use (RFC 9449, section 8.2).
            nonce = answer.header(DPOP_NONCE).map(str::to_owned).or(nonce);
            let refusal = Refusal::read(Peer::Appliance, &answer);
            match refusal.retry_after().map(|wait| wait.max(SHORTEST_WAIT)) {
                Some(wait) if Instant::now() + wait <= give_up => {
                    call.waiting(refusal.code(), wait);
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(CtlError::Refused(Box::new(refusal))),
            }
        }
    }

    /// What the OpTok is bound to: `dpop` or `mtls`.
    pub(crate) fn binding(&self) -> &'static str {
        self.credentials.binding()
    }

    async fn attempt(&self, call: &impl Call, nonce: Option<&str>) -> Result<Answer, CtlError> {
        let url = format!("{}{}", self.base, call.path());
        let method = call.method();
        let request = Request::builder().method(method.clone()).uri(&url);
        let (request, body) = call.form(self.credentials.authorise(request, method.as_str(), &url, nonce)?);
        let request = request
            .body(body)
            .map_err(|error| CtlError::Unexpected(format!("the request cannot be formed: {error}")))?;
        self.client.send(request, call.max_answer_bytes()).await
    }
}

fn wanted_nonce(answer: &Answer) -> Option<String> {
    let demands = answer.headers.get_all(WWW_AUTHENTICATE).iter();
    let demanded = demands.filter_map(|value| value.to_str().ok()).any(|text| text.contains("\"use_dpop_nonce\""));
    let demanded = demanded && answer.status == StatusCode::UNAUTHORIZED;
    answer.header(DPOP_NONCE).filter(|_| demanded).map(str::to_owned)
}

const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(30);
/// `Retry-After: 0` is an invitation, not one to a tight loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
