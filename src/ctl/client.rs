//! HTTP over mTLS as a client of the appliance and of the Authority: one runtime, one connection kept, no redirects.

use std::time::Duration;

use http::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{AlertDescription, ClientConfig, Error as TlsError};

use super::answer::{Answer, innermost};
use super::error::CtlError;
use super::upload::Upload;

/// A client of one peer.
pub(crate) struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Upload>,
    timeout: Duration,
}

impl Client {
    /// A client that waits at most `timeout` for a whole answer.
    pub(crate) fn new(tls: ClientConfig, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(timeout.min(CONNECT_TIMEOUT)));
        tcp.set_nodelay(true);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions().wrap_connector(tcp);
        let inner = legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https);
        Self { inner, timeout }
    }

    /// Sends and reads the whole answer, whatever its status.
    pub(crate) async fn send(&self, request: Request<Upload>, max_answer_bytes: usize) -> Result<Answer, CtlError> {
        let url = request.uri().to_string();
        let exchange = async {
            let response = self.inner.request(request).await.map_err(|error| explain(&error, &url))?;
            Answer::read(response, &url, max_answer_bytes).await
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(CtlError::Unreachable {
                url,
                cause: format!("nothing came within {:?}", self.timeout),
                remedy: "raise --timeout, or look at the peer; whether a signature was made is in its audit log",
            }),
        }
    }
}

/// A runtime for one command: network input and output on this thread alone.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, CtlError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CtlError::Unexpected(format!("the operating system gives no event loop: {error}")))
}

/// Reads `text` as a base URL without path, query and fragment: `https`, or `http` where the host is loopback.
///
/// `option` names it in the error.
pub(crate) fn base_url(text: &str, option: &str) -> Result<String, CtlError> {
    let wrong = |why: &str| CtlError::Usage(format!("--{option}: `{text}` {why}"));
    let trimmed = text.trim_end_matches('/');
    let uri: Uri = trimmed.parse().map_err(|_| wrong("is no URL; write it as in https://signer.example:8443"))?;
    let host = uri.host().ok_or_else(|| wrong("names no host; write it as in https://signer.example:8443"))?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if is_loopback(host) => {}
        Some("http") => return Err(wrong("would send secrets in the clear; write https")),
        _ => return Err(wrong("must begin with https://")),
    }
    if text.contains(['?', '#', '@']) {
        return Err(wrong("must not hold a query, a fragment or a user"));
    }
    Ok(trimmed.to_owned())
}

/// Whether a URL's host is this machine itself.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn explain(error: &legacy::Error, url: &str) -> CtlError {
    let url = url.to_owned();
    match tls_error(error) {
        Some(TlsError::AlertReceived(alert)) if concerns_client_certificate(*alert) => {
            CtlError::CertificateRefused { url, cause: format!("{alert:?}") }
        }
        Some(TlsError::InvalidCertificate(why)) => CtlError::Unreachable {
            url,
            cause: format!("its certificate is not trusted: {why}"),
            remedy: "check the CA file and that the URL uses a name of the certificate",
        },
        Some(other) => CtlError::Unreachable {
            url,
            cause: format!("TLS: {other}"),
            remedy: "check that the URL names a TLS listener; the peer's log says more",
        },
        None => CtlError::Unreachable {
            url,
            cause: innermost(error),
            remedy: "check the URL, that the service runs, and what lies between",
        },
    }
}

/// Alerts by which a server refuses what the client presented, or that it presented nothing (RFC 8446, section 6.2).
fn concerns_client_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::CertificateRequired
            // What a server says when a certificate's signature is not the CA's of that name.
            | A::DecryptError
    )
}

/// rustls errors travel inside `io::Error`s, whose `source` skips the very error they hold.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<TlsError>() {
            return Some(found);
        }
        let held = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match held {
            Some(held) => Some(held as &(dyn std::error::Error + 'static)),
            None => cause.source(),
        };
    }
    None
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_https_or_loopback_and_bare() {
        for (text, expected) in [
            ("https://signer.example:8443", Some("https://signer.example:8443")),
            ("https://signer.example:8443/", Some("https://signer.example:8443")),
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("http://[::1]:8080/oidc", Some("http://[::1]:8080/oidc")),
            ("http://localhost:8080", Some("http://localhost:8080")),
            ("http://signer.example", None),
            ("http://localhost.example", None),
            ("ftp://signer.example", None),
            ("signer.example:8443", None),
            ("https://user@signer.example", None),
            ("https://signer.example/?q", None),
            ("https://signer.example/#f", None),
            ("https://", None),
            ("", None),
        ] {
            assert_eq!(base_url(text, "url").ok().as_deref(), expected, "{text}");
        }
    }
}
