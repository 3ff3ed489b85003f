//! The Authority: its metadata (RFC 8414, OpenID Connect Discovery 1.0) and its token endpoint.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, Method, Request, StatusCode, Uri};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::client::{Client, base_url};
use super::error::CtlError;
use super::problem::{Peer, Refusal};
use super::proof_key::{Proof, ProofKey};
use super::settings::{Access, Binding, required};
use super::tls::{Identity, client_config};
use super::upload::Upload;
use crate::config::Span;

/// An Authority and how this client proves itself to it.
pub(crate) struct Issuer {
    client: Client,
    url: String,
    client_id: String,
    assertion_key: Option<ProofKey>,
    assertion_kid: Option<String>,
    scope: String,
    resource: Option<String>,
    certificate_bound: bool,
    metadata: Option<Metadata>,
    nonce: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    #[serde(default)]
    mtls_endpoint_aliases: Aliases,
}

#[derive(Default, Deserialize)]
struct Aliases {
    token_endpoint: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

impl Issuer {
    /// Loads what the settings name; nothing is sent yet.
    pub(crate) fn load(settings: &Access, identity: &Identity) -> Result<Self, CtlError> {
        let url = base_url(&required(&settings.authority, "authority")?, "authority")?;
        let ca = match &settings.authority_ca {
            Some(ca) => ca.clone(),
            None => required(&settings.ca, "ca")?,
        };
        let timeout = settings.timeout.map_or(DEFAULT_TIMEOUT, Span::get);
        Ok(Self {
            client: Client::new(client_config(&ca, Some(identity))?, timeout),
            url,
            client_id: required(&settings.client_id, "client-id")?,
            assertion_key: settings.client_key.as_deref().map(ProofKey::load).transpose()?,
            assertion_kid: settings.client_key_id.clone(),
            scope: settings.scope.clone().unwrap_or_else(|| "signer.sign".to_owned()),
            resource: settings.resource.clone(),
            certificate_bound: settings.binding == Some(Binding::Mtls),
            metadata: None,
            nonce: None,
        })
    }

    /// Fetches a token by client_credentials (RFC 6749, section 4.4), bound to `key` unless the settings want it
    /// bound to the certificate. One more attempt when the Authority asks for a nonce (RFC 9449, section 8).
    pub(crate) async fn fetch(&mut self, key: Option<&ProofKey>) -> Result<Zeroizing<String>, CtlError> {
        if self.metadata.is_none() {
            self.metadata = Some(self.discover().await?);
        }
        let key = key.filter(|_| !self.certificate_bound);
        let mut answer = self.ask(key).await?;
        if let Some(nonce) = wanted_nonce(&answer) {
            self.nonce = Some(nonce);
            answer = self.ask(key).await?;
        }
        if answer.status != StatusCode::OK {
            return Err(CtlError::Refused(Box::new(Refusal::read(Peer::Authority, &answer))));
        }
        let token: TokenAnswer = serde_json::from_slice(&answer.body)
            .map_err(|_| CtlError::Unexpected(format!("the token endpoint of {} gave no access_token", self.url)))?;
        Ok(Zeroizing::new(token.access_token))
    }

    async fn discover(&self) -> Result<Metadata, CtlError> {
        let mut answer = self.read(&format!("{}/.well-known/openid-configuration", self.url)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            answer = self.read(&oauth_metadata_url(&self.url)).await?;
        }
        if answer.status != StatusCode::OK {
            return Err(CtlError::Refused(Box::new(Refusal::read(Peer::Authority, &answer))));
        }
        let metadata: Metadata = serde_json::from_slice(&answer.body)
            .map_err(|error| CtlError::Unexpected(format!("the metadata of {} cannot be read: {error}", self.url)))?;
        // A metadata document of another issuer would send our assertion there (RFC 8414, section 3.3).
        if metadata.issuer.trim_end_matches('/') != self.url {
            return Err(CtlError::Unexpected(format!(
                "the metadata at {} is of issuer {}; --authority must be the issuer itself",
                self.url,
                super::output::plain(&metadata.issuer)
            )));
        }
        let alias = metadata.mtls_endpoint_aliases.token_endpoint.as_ref();
        for endpoint in [Some(&metadata.token_endpoint), alias].into_iter().flatten() {
            if base_url(endpoint, "authority").is_err() {
                let shown = super::output::plain(endpoint);
                return Err(CtlError::Unexpected(format!(
                    "the token endpoint of {} is `{shown}`, not https",
                    self.url
                )));
            }
        }
        Ok(metadata)
    }

    async fn read(&self, url: &str) -> Result<Answer, CtlError> {
        let request = Request::get(url).header(ACCEPT, "application/json").body(Upload::default());
        self.client.send(request.map_err(|error| unsendable(&error))?, MAX_ANSWER_BYTES).await
    }

    async fn ask(&mut self, key: Option<&ProofKey>) -> Result<Answer, CtlError> {
        let Some(metadata) = &self.metadata else { return Err(CtlError::Unexpected("no metadata".to_owned())) };
        let alias = metadata.mtls_endpoint_aliases.token_endpoint.as_deref();
        let by_certificate = self.assertion_key.is_none() || self.certificate_bound;
        let endpoint = alias.filter(|_| by_certificate).unwrap_or(&metadata.token_endpoint);
        let assertion = match &self.assertion_key {
            Some(assertion_key) => {
                Some(assertion_key.assert(&self.client_id, &metadata.issuer, self.assertion_kid.as_deref())?)
            }
            None => None,
        };
        let mut form =
            vec![("grant_type", "client_credentials"), ("client_id", &self.client_id), ("scope", &self.scope)];
        if let Some(resource) = &self.resource {
            form.push(("resource", resource));
        }
        if let Some(assertion) = &assertion {
            form.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
            form.push(("client_assertion", assertion));
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(endpoint)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(key) = key {
            let url = endpoint.split(['?', '#']).next().unwrap_or(endpoint);
            let proof = Proof { method: "POST", url, token: None, nonce: self.nonce.as_deref() };
            request = request.header("dpop", key.prove(&proof)?);
        }
        let body = Upload::new([Bytes::from(encode_form(&form))]);
        self.client.send(request.body(body).map_err(|error| unsendable(&error))?, MAX_ANSWER_BYTES).await
    }
}

fn wanted_nonce(answer: &Answer) -> Option<String> {
    let asks = answer.status == StatusCode::BAD_REQUEST || answer.status == StatusCode::UNAUTHORIZED;
    let error: ErrorAnswer = serde_json::from_slice(&answer.body).ok().filter(|_| asks)?;
    (error.error == "use_dpop_nonce")
        .then(|| answer.header(HeaderName::from_static("dpop-nonce")).map(str::to_owned))
        .flatten()
}

/// RFC 8414, section 3.1: the well-known part goes between host and path.
fn oauth_metadata_url(issuer: &str) -> String {
    let path = issuer.parse::<Uri>().map(|uri| uri.path().trim_end_matches('/').to_owned()).unwrap_or_default();
    let origin = issuer.strip_suffix(path.as_str()).unwrap_or(issuer);
    format!("{origin}/.well-known/oauth-authorization-server{path}")
}

/// `application/x-www-form-urlencoded` (WHATWG URL, section 5.2), with `%20` for a blank, which every reader takes.
fn encode_form(form: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in form {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

fn unsendable(error: &http::Error) -> CtlError {
    CtlError::Unexpected(format!("the Authority's metadata leads to a request that cannot be sent: {error}"))
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_values_are_escaped_byte_by_byte() {
        assert_eq!(encode_form(&[("a", "x y&z=ü"), ("b", "~-._")]), "a=x%20y%26z%3D%C3%BC&b=~-._");
    }

    #[test]
    fn the_oauth_metadata_lies_between_host_and_path() {
        for (issuer, url) in [
            ("https://as.example", "https://as.example/.well-known/oauth-authorization-server"),
            ("https://as.example/t/1", "https://as.example/.well-known/oauth-authorization-server/t/1"),
        ] {
            assert_eq!(oauth_metadata_url(issuer), url);
        }
    }
}
