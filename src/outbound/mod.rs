//! HTTP to the services the appliance depends on: bounded, verified, never redirected.
//!
//! One [`Outbound`] serves one dependency: it has that dependency's trust anchors, the certificate that the appliance
//! presents to it, and the limits of one call. Plain `http` goes to loopback hosts only. A redirect is an answer like
//! any other, so an answer never comes from anywhere but the configured place.

#![forbid(unsafe_code)]

mod tls;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::runtime::Handle;

pub use tls::OutboundTls;

/// A client of one dependency. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Outbound {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    limits: OutboundLimits,
    /// Of an answer other than 200, where that is not for `limits` to say.
    refusal_bytes: Option<usize>,
    runtime: Handle,
}

/// What one call may cost.
#[derive(Clone, Copy, Debug)]
pub struct OutboundLimits {
    /// The whole of a call: connect, TLS, request, answer.
    pub timeout: Duration,
    /// The largest answer that is read.
    pub max_body_bytes: usize,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its status, whatever it is.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, all of it.
    pub body: Bytes,
}

impl Outbound {
    /// A client that does its input and output on `runtime`, because its callers live on several runtimes of one
    /// thread each, and a pooled connection belongs to the runtime it was made on.
    ///
    /// # Errors
    /// [`OutboundError::Tls`] when the key does not belong to the certificate.
    pub fn new(tls: OutboundTls, limits: OutboundLimits, runtime: Handle) -> Result<Self, OutboundError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limits.timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.into_client_config()?)
            .https_or_http() // `admitted` lets http through to loopback only
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .build(connector);
        Ok(Self { client, limits, refusal_bytes: None, runtime })
    }

    /// The same client, connections and all, with other limits.
    #[must_use]
    pub fn limited(&self, limits: OutboundLimits) -> Self {
        Self { limits, ..self.clone() }
    }

    /// The same client for callers who look at the body of a 200 alone: of any other answer up to so many bytes are read,
    /// and one with more is given without its body, so that its status is known all the same.
    #[must_use]
    pub fn refusals_up_to(self, bytes: usize) -> Self {
        Self { refusal_bytes: Some(bytes), ..self }
    }

    /// What one call may cost.
    #[must_use]
    pub fn limits(&self) -> OutboundLimits {
        self.limits
    }

    /// `GET url`.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn get(&self, url: &str, accept: &str) -> Result<Fetched, OutboundError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = parse(url)?;
        let accept = HeaderValue::from_str(accept).map_err(|_| OutboundError::Header { name: ACCEPT })?;
        request.headers_mut().insert(ACCEPT, accept);
        self.send(request).await
    }

    /// `POST url` with `form` as `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn post_form(
        &self,
        url: &str,
        form: &[(&str, &str)],
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Fetched, OutboundError> {
        let mut request = Request::new(Full::from(form_urlencoded(form)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = parse(url)?;
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form_type);
        request.headers_mut().extend(headers.iter().cloned());
        self.send(request).await
    }

    /// Sends `request` and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// An [`OutboundError`]: the URL is not one that is called, the service is not there or not who it should be, the
    /// answer does not come in time or is too large.
    pub async fn request(&self, request: Request<Bytes>) -> Result<Fetched, OutboundError> {
        self.send(request.map(Full::new)).await
    }

    /// The runtime that the calls run on, for work that must outlive the caller who asked for it.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Fetched, OutboundError> {
        let place = admitted(request.uri())?;
        let (client, limits, refusal_bytes) = (self.client.clone(), self.limits, self.refusal_bytes);
        let call = self.runtime.spawn(async move {
            let exchange = exchange(&client, request, limits.max_body_bytes, refusal_bytes, &place);
            match tokio::time::timeout(limits.timeout, exchange).await {
                Ok(result) => result,
                Err(_) => Err(OutboundError::Timeout { place, after: limits.timeout }),
            }
        });
        AbortOnDrop(call).join().await
    }
}

impl Fetched {
    /// The body of a 200.
    ///
    /// # Errors
    /// [`OutboundError::Status`] for any other status.
    pub fn into_ok_body(self, url: &str) -> Result<Bytes, OutboundError> {
        match self.status {
            StatusCode::OK => Ok(self.body),
            status => Err(OutboundError::Status { place: parse(url).and_then(|uri| admitted(&uri))?, status }),
        }
    }
}

/// Why a dependency gave no answer. `place` is scheme, authority and path: never a query, which may carry a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// The configured URL is none.
    #[error("`{url}` is no URL; write one like https://host/path")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong with it.
        source: http::uri::InvalidUri,
    },
    /// The URL is of a kind that is never called.
    #[error("{place} is not called: {why}")]
    Forbidden {
        /// Where to.
        place: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A header value that cannot be sent.
    #[error("the value of the header {name} cannot be sent")]
    Header {
        /// Which header.
        name: HeaderName,
    },
    /// A PEM file cannot be read or holds nothing usable.
    #[error("{path}: {why}")]
    Pem {
        /// Which file.
        path: std::path::PathBuf,
        /// What was expected.
        why: &'static str,
        /// What is wrong with it.
        source: Option<rustls_pki_types::pem::Error>,
    },
    /// Certificate, key and trust anchors make no TLS configuration.
    #[error("the certificate and key for outbound TLS cannot be used together")]
    Tls(#[source] rustls::Error),
    /// The service cannot be reached, or is not who it should be.
    #[error("no connection to {place}")]
    Unreachable {
        /// Where to.
        place: String,
        /// What happened.
        source: hyper_util::client::legacy::Error,
    },
    /// The service was reached, and the exchange broke off.
    #[error("{place} broke off")]
    Broken {
        /// Where to.
        place: String,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No whole answer in time.
    #[error("{place} did not answer within {after:?}")]
    Timeout {
        /// Where to.
        place: String,
        /// The limit.
        after: Duration,
    },
    /// The answer is larger than what is read.
    #[error("the answer of {place} is larger than {limit} bytes")]
    TooLarge {
        /// Where from.
        place: String,
        /// The limit.
        limit: usize,
    },
    /// The answer is not the one that was needed.
    #[error("{place} answered {status}")]
    Status {
        /// Where from.
        place: String,
        /// Its status.
        status: StatusCode,
    },
    /// The background runtime is gone: the process is stopping.
    #[error("the call was abandoned because the process is stopping")]
    Stopping,
}

async fn exchange(
    client: &Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    request: Request<Full<Bytes>>,
    limit: usize,
    refusal_bytes: Option<usize>,
    place: &str,
) -> Result<Fetched, OutboundError> {
    let answer = client.request(request).await.map_err(|source| {
        let place = place.to_owned();
        if source.is_connect() {
            OutboundError::Unreachable { place, source }
        } else {
            OutboundError::Broken { place, source: source.into() }
        }
    })?;
    let (parts, body) = answer.into_parts();
    let refusal_bytes = refusal_bytes.filter(|_| parts.status != StatusCode::OK);
    let limit = refusal_bytes.unwrap_or(limit);
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let whole = match announced {
        Some(bytes) if bytes > limit as u64 => None,
        _ => match Limited::new(body, limit).collect().await {
            Ok(body) => Some(body.to_bytes()),
            Err(source) if source.is::<LengthLimitError>() => None,
            Err(source) => return Err(OutboundError::Broken { place: place.to_owned(), source }),
        },
    };
    let body = match whole {
        Some(body) => body,
        None if refusal_bytes.is_some() => Bytes::new(),
        None => return Err(OutboundError::TooLarge { place: place.to_owned(), limit }),
    };
    Ok(Fetched { status: parts.status, headers: parts.headers, body })
}

fn parse(url: &str) -> Result<Uri, OutboundError> {
    url.parse().map_err(|source| OutboundError::Url { url: url.to_owned(), source })
}

/// The place behind `uri` as errors name it, if it is one that may be called.
fn admitted(uri: &Uri) -> Result<String, OutboundError> {
    let host = uri.host().unwrap_or_default();
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let named = authority.rsplit('@').next().unwrap_or_default();
    let place = format!("{}://{named}{}", uri.scheme_str().unwrap_or_default(), uri.path());
    let why = match uri.scheme_str() {
        _ if host.is_empty() => "it names no host",
        _ if authority.contains('@') => "it carries a user name or password",
        Some("https") => return Ok(place),
        Some("http") if is_loopback(host) => return Ok(place),
        Some("http") => "plain http goes to loopback hosts only; use https",
        _ => "only https is called, and http on loopback",
    };
    Err(OutboundError::Forbidden { place, why })
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The form serialisation of the URL standard (section 5.2).
pub(crate) fn form_urlencoded(form: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(form.iter().map(|(name, value)| name.len() + value.len() + 2).sum());
    let mut encode = |text: &str, lead: Option<char>| {
        out.extend(lead);
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
                b' ' => out.push('+'),
                _ => out.extend(['%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
            }
        }
    };
    for (index, (name, value)) in form.iter().enumerate() {
        encode(name, (index > 0).then_some('&'));
        encode(value, Some('='));
    }
    out
}

/// A caller who goes away takes its call along.
struct AbortOnDrop(tokio::task::JoinHandle<Result<Fetched, OutboundError>>);

impl AbortOnDrop {
    async fn join(mut self) -> Result<Fetched, OutboundError> {
        (&mut self.0).await.unwrap_or(Err(OutboundError::Stopping))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_IDLE_CONNECTIONS: usize = 8;

#[cfg(test)]
mod tests;
