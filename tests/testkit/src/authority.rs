//! A development Authority: metadata, JWK set, token endpoint, and tokens minted at will.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::fulcio;
use crate::https::{Asked, Clients, ModeSwitch, Reply, Server};
use crate::jwt::{self, Jwt};
use crate::key::{self, Key};
use crate::pki::Pki;
use crate::{Context, Error, Result, base64url, now, random_id, sha256};

/// The Authority, on loopback until dropped.
pub struct Authority {
    server: Server,
    state: Arc<State>,
}

/// What binds a token to its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// `cnf.jkt`: the thumbprint of a DPoP key.
    Dpop(String),
    /// `cnf.x5t#S256`: the thumbprint of a certificate.
    Certificate(String),
    /// Nothing.
    None,
}

/// A client the token endpoint knows (`client_credentials` by secret, or by certificate alone).
#[derive(Clone, Debug)]
pub struct Registered {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: String,
    /// The `tid` of its tokens.
    pub tenant: String,
}

struct State {
    issuer: Mutex<String>,
    keys: Mutex<Keys>,
    clients: Vec<Registered>,
    seen_proofs: Mutex<HashSet<String>>,
}

struct Keys {
    signing: Key,
    published: Vec<Key>,
}

impl Authority {
    /// Starts it with a client `acme-ci` of tenant acme and a client `globex-ci` of tenant globex.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(pki: &Pki) -> Result<Self> {
        let signing = Key::p256();
        let client =
            |tenant: &str| Registered { id: format!("{tenant}-ci"), secret: random_id(), tenant: tenant.to_owned() };
        let state = Arc::new(State {
            issuer: Mutex::default(),
            keys: Mutex::new(Keys { published: vec![signing.clone()], signing }),
            clients: vec![client("acme"), client("globex")],
            seen_proofs: Mutex::default(),
        });
        let shared = state.clone();
        let clients = Clients::MayShow(pki.client_ca.roots());
        let server = Server::start(&pki.services, clients, move |asked| shared.answer(asked))?;
        *state.issuer.lock().expect("no holder panics") = server.url();
        Ok(Self { server, state })
    }

    /// `iss` of its tokens: `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.server.url()
    }

    /// URL of its metadata document (OpenID Connect Discovery 1.0).
    #[must_use]
    pub fn discovery_url(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.issuer())
    }

    /// URL of its JWK set.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.issuer())
    }

    /// URL of its token endpoint.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}/token", self.issuer())
    }

    /// The client registered for a tenant.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn client_of(&self, tenant: &str) -> &Registered {
        self.state.clients.iter().find(|client| client.tenant == tenant).expect("the tenant has a client")
    }

    /// An OpTok as the token endpoint would issue it, ready to be changed: five minutes, scope `signer.sign`.
    #[must_use]
    pub fn mint(&self, tenant: &str, binding: &Binding) -> Jwt {
        let client = self.state.clients.iter().find(|client| client.tenant == tenant);
        let id = client.map_or_else(|| format!("{tenant}-ci"), |client| client.id.clone());
        self.state.mint(&id, tenant, "signer.sign", binding)
    }

    /// An identity token for Fulcio, ready to be changed: five minutes, for the subject that `tenant` signs as.
    #[must_use]
    pub fn mint_identity(&self, tenant: &str) -> Jwt {
        self.state.mint_identity(tenant)
    }

    /// The key that signs now.
    #[must_use]
    pub fn signing_key(&self) -> Key {
        self.state.keys.lock().expect("no holder panics").signing.clone()
    }

    /// Signs with a new key from now on and publishes it beside the old ones.
    pub fn rotate(&self) -> Key {
        self.rotate_to(Key::p256())
    }

    /// Signs with this key from now on and publishes it beside the old ones.
    pub fn rotate_to(&self, key: Key) -> Key {
        let mut keys = self.state.keys.lock().expect("no holder panics");
        keys.published.push(key.clone());
        keys.signing = key.clone();
        key
    }

    /// Publishes a key without signing with it.
    pub fn publish(&self, key: &Key) {
        self.state.keys.lock().expect("no holder panics").published.push(key.clone());
    }

    /// Takes a key out of the JWK set.
    pub fn withdraw(&self, key: &Key) {
        self.state.keys.lock().expect("no holder panics").published.retain(|other| other.kid != key.kid);
    }

    /// The published JWK set.
    #[must_use]
    pub fn jwks(&self) -> Value {
        self.state.jwks()
    }

    /// Its failures.
    #[must_use]
    pub fn mode(&self) -> &ModeSwitch {
        &self.server.mode
    }

    /// Requests received for a path, as in `/jwks`.
    #[must_use]
    pub fn calls(&self, path: &str) -> u64 {
        self.server.calls(path)
    }
}

impl State {
    fn answer(&self, asked: &Asked) -> Reply {
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server") => {
                Reply::json(200, &self.metadata())
            }
            ("GET", "/jwks") => Reply::json(200, &self.jwks()),
            ("POST", "/token") => self.token(asked).unwrap_or_else(|(error, description)| {
                let status = if error == "invalid_client" { 401 } else { 400 };
                Reply::json(status, &json!({"error": error, "error_description": description}))
            }),
            _ => Reply::empty(404),
        }
    }

    fn metadata(&self) -> Value {
        let issuer = self.issuer();
        json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/jwks"),
            "token_endpoint": format!("{issuer}/token"),
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
            "tls_client_certificate_bound_access_tokens": true,
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "tls_client_auth"],
        })
    }

    fn jwks(&self) -> Value {
        let keys = self.keys.lock().expect("no holder panics");
        json!({"keys": keys.published.iter().map(Key::jwk).collect::<Vec<_>>()})
    }

    /// RFC 6749, section 4.4, with RFC 9449 when a proof comes and RFC 8705 when a certificate comes without one.
    fn token(&self, asked: &Asked) -> Result<Reply, (&'static str, String)> {
        let form = asked.form();
        if form.get("grant_type").map(String::as_str) != Some("client_credentials") {
            return Err(("unsupported_grant_type", "only client_credentials".into()));
        }
        let client = self.client(asked).ok_or(("invalid_client", "unknown client or wrong secret".into()))?;
        let thumbprint = asked.certificate.as_ref().map(|leaf| base64url(sha256(leaf)));
        let binding = match (asked.headers.get("dpop"), thumbprint) {
            (Some(proof), _) => {
                let proof = proof.to_str().map_err(|_| ("invalid_dpop_proof", "not text".to_owned()))?;
                Binding::Dpop(self.check_proof(proof).map_err(|error| ("invalid_dpop_proof", error.0))?)
            }
            (None, Some(thumbprint)) => Binding::Certificate(thumbprint),
            (None, None) => Binding::None,
        };
        if form.get("resource").or(form.get("audience")).map(String::as_str) == Some(fulcio::AUDIENCE) {
            let token = self.mint_identity(&client.tenant).encode();
            let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": 300});
            return Ok(Reply::json(200, &answer).header("cache-control", "no-store"));
        }
        let scope = form.get("scope").map_or("signer.sign", String::as_str);
        let token_type = if matches!(binding, Binding::Dpop(_)) { "DPoP" } else { "Bearer" };
        let token = self.mint(&client.id, &client.tenant, scope, &binding).encode();
        Ok(Reply::json(
            200,
            &json!({"access_token": token, "token_type": token_type, "expires_in": 300, "scope": scope}),
        )
        .header("cache-control", "no-store"))
    }

    fn client(&self, asked: &Asked) -> Option<&Registered> {
        let form = asked.form();
        let basic = asked.headers.get("authorization").and_then(|value| {
            let decoded = STANDARD.decode(value.to_str().ok()?.strip_prefix("Basic ")?).ok()?;
            let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
            Some((id.to_owned(), Some(secret.to_owned())))
        });
        let (id, secret) =
            basic.or_else(|| Some((form.get("client_id")?.clone(), form.get("client_secret").cloned())))?;
        let client = self.clients.iter().find(|client| client.id == id)?;
        match secret {
            Some(secret) => secret == client.secret,
            // RFC 8705, section 2: the certificate is the credential; its name is the client's.
            None => asked.certificate.as_ref().is_some_and(|leaf| contains(leaf, client.id.as_bytes())),
        }
        .then_some(client)
    }

    /// RFC 9449, section 4.3; returns the thumbprint.
    fn check_proof(&self, proof: &str) -> Result<String> {
        let (header, claims) = jwt::decode(proof)?;
        let demand = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(Error(format!("the proof's {rule}"))) };
        demand(header["typ"] == "dpop+jwt", "typ is not dpop+jwt")?;
        demand(header["jwk"]["d"].is_null(), "jwk holds a private key")?;
        let (input, signature) = proof.rsplit_once('.').context("find the proof's signature")?;
        key::verify(&header["jwk"], input.as_bytes(), &crate::from_base64url(signature)?)?;
        demand(claims["htm"] == "POST", "htm is not POST")?;
        demand(claims["htu"] == format!("{}/token", self.issuer()), "htu is not the token endpoint")?;
        let age = now() - claims["iat"].as_i64().context("find the proof's iat")?;
        demand((-30..=90).contains(&age), "iat is not about now")?;
        let jti = claims["jti"].as_str().context("find the proof's jti")?;
        demand(self.seen_proofs.lock().expect("no holder panics").insert(jti.to_owned()), "jti was used before")?;
        key::thumbprint(&header["jwk"])
    }

    fn mint(&self, client: &str, tenant: &str, scope: &str, binding: &Binding) -> Jwt {
        let claims = json!({
            "iss": self.issuer(),
            "sub": client,
            "client_id": client,
            "aud": "signer",
            "iat": now(),
            "nbf": now(),
            "exp": now() + 300,
            "jti": random_id(),
            "scope": scope,
            "tid": tenant,
            "inst": format!("{tenant}-install-1"),
            "roles": ["scanner"],
        });
        let token = Jwt::new("at+jwt", claims, &self.keys.lock().expect("no holder panics").signing);
        match binding {
            Binding::Dpop(thumbprint) => token.claim("cnf", json!({"jkt": thumbprint})),
            Binding::Certificate(thumbprint) => token.claim("cnf", json!({"x5t#S256": thumbprint})),
            Binding::None => token,
        }
    }

    fn mint_identity(&self, tenant: &str) -> Jwt {
        let claims = json!({
            "iss": self.issuer(),
            "sub": identity(tenant),
            "aud": fulcio::AUDIENCE,
            "iat": now(),
            "nbf": now(),
            "exp": now() + 300,
            "jti": random_id(),
        });
        Jwt::new("JWT", claims, &self.keys.lock().expect("no holder panics").signing)
    }

    fn issuer(&self) -> String {
        self.issuer.lock().expect("no holder panics").clone()
    }
}

/// The subject that the signer's certificates for a tenant are issued to: a SPIFFE id.
#[must_use]
pub fn identity(tenant: &str) -> String {
    format!("spiffe://{}/signer/{tenant}", fulcio::TRUST_DOMAIN)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
