//! The Authority's token endpoint: client credentials (RFC 6749, section 4.4), proven by a certificate (RFC 8705) or by
//! an assertion that a key in a token signs (RFC 7523).

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::IdentityError;
use super::assertion::{Assertion, AssertionEvents};
use super::token::{Expected, IdentityToken};
use crate::clock::UnixTime;
use crate::config::{ClientAuthentication, ClientCredentials};
use crate::custody::Custody;
use crate::keyless::https::{Exchange, MAX_ANSWER};
use crate::keyless::resolver::Resolver;
use crate::keyless::tap::Tap;
use crate::outbound::{OutboundTls, form_urlencoded};

/// One client at one token endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Scheme, authority and path, as errors name it.
    place: Arc<str>,
    exchange: Exchange,
    /// What never changes of the form.
    form: Vec<(&'static str, String)>,
    assertion: Option<Assertion>,
    timeout: std::time::Duration,
}

/// A 200 of the endpoint, in memory that is wiped.
pub(super) struct Granted {
    body: Zeroizing<Vec<u8>>,
    place: Arc<str>,
}

impl Endpoint {
    pub(super) fn new(
        name: &str,
        config: &ClientCredentials,
        custody: &Arc<Custody>,
        events: &AssertionEvents,
    ) -> Result<Self, IdentityError> {
        let setup = |source| IdentityError::Setup { name: name.to_owned(), source: Arc::new(source) };
        let own = match &config.authentication {
            ClientAuthentication::Mtls(own) => Some((own.certificate.as_path(), own.private_key.as_path())),
            ClientAuthentication::PrivateKeyJwt(_) => None,
        };
        let (provider, tap) = Tap::provider(MAX_ANSWER);
        let tls = OutboundTls::load(Some(&config.ca), own)
            .and_then(|tls| tls.into_client_config_with(provider, &[&rustls::version::TLS13]))
            .map_err(setup)?;
        let place: Arc<str> = config.token_url.split('?').next().unwrap_or_default().into();
        let unusable = || IdentityError::Unanswered { place: Arc::clone(&place), why: "it is no https URL".to_owned() };
        let exchange = exchange(&config.token_url, tls, tap).ok_or_else(unusable)?;
        let mut form = vec![("grant_type", "client_credentials".to_owned()), ("client_id", config.client_id.clone())];
        for (field, value) in [("scope", &config.scope), ("resource", &config.resource), ("audience", &config.audience)]
        {
            form.extend(value.clone().map(|value| (field, value)));
        }
        let assertion = match &config.authentication {
            ClientAuthentication::Mtls(_) => None,
            ClientAuthentication::PrivateKeyJwt(key) => {
                form.push(("client_assertion_type", ASSERTION_TYPE.to_owned()));
                Some(Assertion::new(name, key, &config.client_id, &config.token_url, custody, events))
            }
        };
        Ok(Self { place, exchange, form, assertion, timeout: config.timeout.get() })
    }

    /// Keeps the endpoint's addresses fresh, off the event loops.
    pub(super) fn refresh_addresses(&self) {
        self.exchange.to.refresh();
    }

    /// Asks for a token once.
    pub(super) async fn fetch(&self) -> Result<Granted, IdentityError> {
        let deadline = Instant::now() + self.timeout;
        let unanswered = |why: String| IdentityError::Unanswered { place: Arc::clone(&self.place), why };
        let assertion = match &self.assertion {
            Some(assertion) => Some(assertion.sign(deadline).await?),
            None => None,
        };
        let mut form: Vec<(&str, &str)> = self.form.iter().map(|(field, value)| (*field, value.as_str())).collect();
        form.extend(assertion.as_deref().map(|assertion| ("client_assertion", assertion)));
        let body = form_urlencoded(&form);
        let call = self.exchange.post("application/x-www-form-urlencoded", body.as_bytes(), deadline);
        let answer = match tokio::time::timeout_at(deadline.into(), call).await {
            Ok(answer) => answer.map_err(|error| unanswered(error.to_string()))?,
            Err(_) => return Err(unanswered(format!("not within {:?}", self.timeout))),
        };
        if answer.status == 200 {
            Ok(Granted { body: answer.body, place: Arc::clone(&self.place) })
        } else {
            let error = oauth_error(&answer.body).map(|error| format!(": {error}")).unwrap_or_default();
            Err(IdentityError::Refused { place: Arc::clone(&self.place), status: answer.status, error })
        }
    }
}

impl Granted {
    /// The token of the answer.
    pub(super) fn token(&self, expected: &Expected, now: UnixTime) -> Result<IdentityToken, IdentityError> {
        // Borrowed: a JWT has no character that JSON escapes, so it is not copied. The error would quote it.
        #[derive(Deserialize)]
        struct Answer<'a> {
            access_token: &'a str,
        }
        let answer: Answer<'_> = serde_json::from_slice(&self.body).map_err(|_| IdentityError::Unanswered {
            place: Arc::clone(&self.place),
            why: "its answer has no `access_token`".to_owned(),
        })?;
        IdentityToken::read(answer.access_token.as_bytes(), expected, now)
    }
}

fn exchange(url: &str, tls: ClientConfig, tap: &'static Tap) -> Option<Exchange> {
    let uri: http::Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host.clone()).ok()?;
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let port = authority.port_u16().unwrap_or(443);
    let (to, authority) = (Resolver::new(&host, port), authority.as_str().to_owned());
    Some(Exchange { to, authority, target, name, tls: Arc::new(tls), tap })
}

/// `error` of RFC 6749, section 5.2, if it has the form that the section prescribes.
fn oauth_error(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        error: String,
    }
    let Problem { error } = serde_json::from_slice(body).ok()?;
    let plain = error.len() <= 64 && error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    plain.then_some(error)
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
