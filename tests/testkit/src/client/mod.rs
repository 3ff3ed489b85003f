//! A client of the Signer API, every part of whose requests can be replaced.
//!
//! ```text
//! let answer = client.sign(&sample::request()).send();                                  // as it should be
//! let answer = client.sign(&sample::request()).token(|token| token.shift("exp", -3600)).send();
//! let answer = client.sign(&sample::request()).proof(|proof| proof.claim("htm", "GET")).send();
//! let answer = client.sign(&sample::request()).body(|body| body["subject"] = json!([])).send();
//! assert_eq!(answer.refusal(), (400, "invalid_request"));
//! ```

#![forbid(unsafe_code)]

mod answer;
mod call;
mod connection;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use serde_json::{Value, json};

use crate::authority::{Authority, Binding};
use crate::jwt::Jwt;
use crate::key::Key;
use crate::licensing::Licensing;
use crate::pki::Identity;
use crate::{base64url, now, random_id, sha256};

pub use answer::{Answer, Problem};
pub use call::Call;
pub use connection::{Connection, Protocol, TlsOptions, TlsVersions};

/// Where an appliance is.
#[derive(Clone)]
pub struct Endpoint {
    /// What the socket connects to.
    pub addr: SocketAddr,
    /// Its `public_url`, as in `https://localhost:8443`: what `htu` begins with.
    pub url: String,
    /// What its certificate must chain to.
    pub roots: Arc<RootCertStore>,
}

/// A client with a certificate, a DPoP key, a tenant, and one connection that is kept alive. Clones share all of it.
#[derive(Clone)]
pub struct Client {
    parts: Arc<Parts>,
    connection: Arc<Connection>,
}

struct Parts {
    endpoint: Endpoint,
    tls: TlsOptions,
    protocol: Protocol,
    tenant: String,
    dpop_key: Key,
    bound_by: BoundBy,
    authority: Arc<Authority>,
    licensing: Arc<Licensing>,
    nonce: Arc<Mutex<Option<String>>>,
}

/// What a client's tokens are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundBy {
    /// Its DPoP key (RFC 9449).
    Dpop,
    /// Its certificate (RFC 8705).
    Certificate,
}

impl Client {
    /// A client of `tenant` that shows this certificate and binds its tokens by DPoP.
    #[must_use]
    pub fn new(
        endpoint: Endpoint,
        identity: &Identity,
        tenant: &str,
        authority: Arc<Authority>,
        licensing: Arc<Licensing>,
    ) -> Self {
        Self::of(Parts {
            tls: TlsOptions::new(endpoint.roots.clone(), Some(identity.clone())),
            protocol: Protocol::Http1,
            tenant: tenant.to_owned(),
            dpop_key: Key::p256(),
            bound_by: BoundBy::Dpop,
            nonce: Arc::default(),
            endpoint,
            authority,
            licensing,
        })
    }

    /// The same client on a connection of its own.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.with(|_| ())
    }

    /// The same client with its tokens bound to its certificate.
    #[must_use]
    pub fn bound_by_certificate(&self) -> Self {
        self.with(|parts| parts.bound_by = BoundBy::Certificate)
    }

    /// The same client over HTTP/2.
    #[must_use]
    pub fn over_http2(&self) -> Self {
        self.with(|parts| parts.protocol = Protocol::Http2)
    }

    /// The same client with other TLS options.
    #[must_use]
    pub fn with_tls(&self, change: impl FnOnce(&mut TlsOptions)) -> Self {
        self.with(|parts| change(&mut parts.tls))
    }

    /// The same client with another certificate, or none.
    #[must_use]
    pub fn showing(&self, identity: Option<&Identity>) -> Self {
        self.with_tls(|tls| tls.identity = identity.cloned())
    }

    /// The same client with another DPoP key.
    #[must_use]
    pub fn with_dpop_key(&self, key: &Key) -> Self {
        self.with(|parts| parts.dpop_key = key.clone())
    }

    /// The same client for another tenant.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Self {
        self.with(|parts| tenant.clone_into(&mut parts.tenant))
    }

    /// `POST /sign/dsse` with a fresh token, proof and PoE; `body` without a PoE gets one.
    pub fn sign(&self, body: &Value) -> Call {
        Call::authorized(self, "POST", "/api/v1/signer/sign/dsse").json(body).with_poe()
    }

    /// `POST /verify/dsse` with a token that may read.
    pub fn verify(&self, envelope: &Value) -> Call {
        self.read("POST", "/api/v1/signer/verify/dsse").json(&json!({"envelope": envelope}))
    }

    /// `GET /keys` with a token that may read.
    pub fn keys(&self) -> Call {
        self.read("GET", "/api/v1/signer/keys")
    }

    /// `GET /verify/referrers` with this query, `?imageDigest=sha256:…`, and a token that may read.
    pub fn referrers(&self, query: &str) -> Call {
        self.read("GET", &format!("/api/v1/signer/verify/referrers{query}"))
    }

    /// Any request, with neither token nor proof nor PoE.
    pub fn request(&self, method: &str, path: &str) -> Call {
        Call::bare(self, method, path)
    }

    /// What its tokens and PoEs are bound to.
    ///
    /// # Panics
    /// When it is bound by a certificate and shows none.
    #[must_use]
    pub fn binding(&self) -> Binding {
        match self.parts.bound_by {
            BoundBy::Dpop => Binding::Dpop(self.parts.dpop_key.thumbprint()),
            BoundBy::Certificate => {
                let identity = self.parts.tls.identity.as_ref().expect("a client bound by its certificate has one");
                Binding::Certificate(identity.thumbprint())
            }
        }
    }

    /// A fresh OpTok, before encoding.
    #[must_use]
    pub fn token(&self) -> Jwt {
        self.parts.authority.mint(&self.parts.tenant, &self.binding())
    }

    /// A fresh PoE, before encoding.
    #[must_use]
    pub fn poe(&self) -> Jwt {
        self.parts.licensing.poe(&self.parts.tenant, &self.binding())
    }

    /// A DPoP proof for a request and a token (RFC 9449, section 4.2), with the last nonce the signer gave.
    #[must_use]
    pub fn proof(&self, method: &str, path: &str, token: &str) -> Jwt {
        let path = path.split(['?', '#']).next().unwrap_or(path);
        let mut claims = json!({
            "jti": random_id(),
            "htm": method,
            "htu": format!("{}{path}", self.parts.endpoint.url),
            "iat": now(),
            "ath": base64url(sha256(token)),
        });
        if let Some(nonce) = self.nonce() {
            claims["nonce"] = json!(nonce);
        }
        Jwt::new("dpop+jwt", claims, &self.parts.dpop_key).header("jwk", self.parts.dpop_key.bare_jwk())
    }

    /// The last `DPoP-Nonce` the signer gave.
    #[must_use]
    pub fn nonce(&self) -> Option<String> {
        self.parts.nonce.lock().expect("no holder panics").clone()
    }

    /// The key of its proofs.
    #[must_use]
    pub fn dpop_key(&self) -> &Key {
        &self.parts.dpop_key
    }

    /// Its tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.parts.tenant
    }

    /// Where it calls.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.parts.endpoint
    }

    /// How it speaks TLS.
    #[must_use]
    pub fn tls(&self) -> &TlsOptions {
        &self.parts.tls
    }

    fn read(&self, method: &str, path: &str) -> Call {
        Call::authorized(self, method, path).token(|token| token.claim("scope", "signer.read"))
    }

    fn remember_nonce(&self, nonce: &str) {
        *self.parts.nonce.lock().expect("no holder panics") = Some(nonce.to_owned());
    }

    fn with(&self, change: impl FnOnce(&mut Parts)) -> Self {
        let old = &self.parts;
        let mut parts = Parts {
            endpoint: old.endpoint.clone(),
            tls: old.tls.clone(),
            protocol: old.protocol,
            tenant: old.tenant.clone(),
            dpop_key: old.dpop_key.clone(),
            bound_by: old.bound_by,
            authority: old.authority.clone(),
            licensing: old.licensing.clone(),
            // One signer gives the nonces, so what one client heard helps all.
            nonce: old.nonce.clone(),
        };
        change(&mut parts);
        Self::of(parts)
    }

    fn of(parts: Parts) -> Self {
        let connection = Connection::new(parts.endpoint.addr, parts.tls.clone(), parts.protocol);
        Self { parts: Arc::new(parts), connection: Arc::new(connection) }
    }
}
