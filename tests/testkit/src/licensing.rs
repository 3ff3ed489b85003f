//! A development Licensing Service: offline PoEs, the signed revocation list, introspection over mTLS.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::authority::Binding;
use crate::https::{Asked, Clients, ModeSwitch, Reply, Server};
use crate::jwt::Jwt;
use crate::key::Key;
use crate::pki::Pki;
use crate::{Context, Result, now, random_id, shell};

/// The Licensing Service, on loopback until dropped.
pub struct Licensing {
    /// JWK set of its keys, for pinning.
    pub keys_file: PathBuf,
    /// The signed revocation list.
    pub revocation_file: PathBuf,
    /// The key that signs PoEs and the revocation list.
    pub key: Key,
    server: Server,
    revoked: Mutex<Revoked>,
    online: Arc<Mutex<HashMap<String, Value>>>,
}

#[derive(Default)]
struct Revoked {
    seq: u64,
    license_ids: Vec<String>,
    jtis: Vec<String>,
}

impl Licensing {
    /// Starts it; its files go to `dir`.
    ///
    /// # Errors
    /// When no port can be bound or a file cannot be written.
    pub fn start(pki: &Pki, dir: &Path) -> Result<Self> {
        let key = Key::p256().with_kid("licensing-1");
        let keys_file = dir.join("licensing-jwks.json");
        fs::write(&keys_file, json!({"keys": [key.jwk()]}).to_string()).context("write the licensing keys")?;
        let online: Arc<Mutex<HashMap<String, Value>>> = Arc::default();
        let known = online.clone();
        let clients = Clients::MustShow(pki.appliance_ca.roots());
        let server = Server::start(&pki.services, clients, move |asked| introspect(asked, &known))?;
        let service = Self {
            keys_file,
            revocation_file: dir.join("revocations.jwt"),
            key,
            server,
            revoked: Mutex::default(),
            online,
        };
        service.publish_revocations()?;
        Ok(service)
    }

    /// A PoE of plan `pro` for a tenant, ready to be changed: licence `lic-TENANT-1`, one day.
    #[must_use]
    pub fn poe(&self, tenant: &str, binding: &Binding) -> Jwt {
        let claims = json!({
            "iss": ISSUER,
            "sub": format!("cust-{tenant}"),
            "iat": now(),
            "nbf": now(),
            "exp": now() + 86_400,
            "jti": random_id(),
            "plan": "pro",
            "tid": tenant,
            "license_id": format!("lic-{tenant}-1"),
            "customer_id": format!("cust-{tenant}"),
            "valid_release_year": 2099,
            "max_version": "2099.12",
        });
        let poe = Jwt::new("JWT", claims, &self.key);
        match binding {
            Binding::Dpop(thumbprint) => poe.claim("cnf", json!({"jkt": thumbprint})),
            Binding::Certificate(thumbprint) => poe.claim("cnf", json!({"x5t#S256": thumbprint})),
            Binding::None => poe,
        }
    }

    /// Makes an opaque PoE known to introspection, with the claims of `poe` and `active: true`.
    #[must_use]
    pub fn register(&self, poe: &Jwt) -> String {
        let token = format!("poe_{}", random_id());
        let mut answer = poe.claims.clone();
        answer.entry("active").or_insert(json!(true));
        self.online.lock().expect("no holder panics").insert(token.clone(), Value::Object(answer));
        token
    }

    /// Answers `active: false` for an opaque PoE from now on.
    pub fn deactivate(&self, token: &str) {
        self.online.lock().expect("no holder panics").remove(token);
    }

    /// Puts a licence on the revocation list and publishes it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn revoke_license(&self, license_id: &str) -> Result<()> {
        self.revoked.lock().expect("no holder panics").license_ids.push(license_id.to_owned());
        self.publish_revocations()
    }

    /// Puts one PoE on the revocation list, by its `jti`, and publishes it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn revoke_poe(&self, jti: &str) -> Result<()> {
        self.revoked.lock().expect("no holder panics").jtis.push(jti.to_owned());
        self.publish_revocations()
    }

    /// Empties the revocation list and publishes it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn revoke_nothing(&self) -> Result<()> {
        let mut revoked = self.revoked.lock().expect("no holder panics");
        *revoked = Revoked { seq: revoked.seq, ..Revoked::default() };
        drop(revoked);
        self.publish_revocations()
    }

    /// The next revocation list, ready to be changed and then [published](Self::publish).
    #[must_use]
    pub fn revocation_list(&self) -> Jwt {
        let mut revoked = self.revoked.lock().expect("no holder panics");
        revoked.seq += 1;
        let claims = json!({
            "iss": ISSUER,
            "iat": now(),
            "seq": revoked.seq,
            "revoked": {"license_ids": revoked.license_ids, "jtis": revoked.jtis},
        });
        Jwt::new("JWT", claims, &self.key)
    }

    /// Writes a revocation list, whatever it says.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self, list: &str) -> Result<()> {
        shell::replace(&self.revocation_file, list.as_bytes())
    }

    /// `https://127.0.0.1:PORT/license/introspect`.
    #[must_use]
    pub fn introspection_url(&self) -> String {
        format!("{}{INTROSPECTION_PATH}", self.server.url())
    }

    /// Introspection requests so far.
    #[must_use]
    pub fn introspections(&self) -> u64 {
        self.server.calls(INTROSPECTION_PATH)
    }

    /// Its failures.
    #[must_use]
    pub fn mode(&self) -> &ModeSwitch {
        &self.server.mode
    }

    fn publish_revocations(&self) -> Result<()> {
        self.publish(&self.revocation_list().encode())
    }
}

/// `iss` of offline PoEs and of the revocation list.
pub const ISSUER: &str = "https://licensing.stella-ops.test";

/// RFC 7662, section 2.
fn introspect(asked: &Asked, known: &Mutex<HashMap<String, Value>>) -> Reply {
    if asked.method != "POST" || asked.path != INTROSPECTION_PATH {
        return Reply::empty(404);
    }
    let form = asked.form();
    let Some(token) = form.get("token") else {
        return Reply::json(400, &json!({"error": "invalid_request", "error_description": "no token"}));
    };
    match known.lock().expect("no holder panics").get(token) {
        Some(answer) => Reply::json(200, answer),
        None => Reply::json(200, &json!({"active": false})),
    }
}

const INTROSPECTION_PATH: &str = "/license/introspect";
