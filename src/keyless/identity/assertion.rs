//! Client assertions (RFC 7523, section 2.2) by a key in a token: the appliance proves at the Authority who it is, and no
//! secret lies on disk.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::IdentityError;
use crate::audit::{Detail, Record};
use crate::clock::UnixTime;
use crate::config::AssertionKey;
use crate::custody::Custody;
use crate::jose::base64url;

/// Signs assertions for one client.
#[derive(Debug)]
pub(super) struct Assertion {
    identity: Arc<str>,
    key: String,
    kid: Option<String>,
    audience: String,
    client_id: String,
    custody: Arc<Custody>,
    events: AssertionEvents,
}

/// A key of the appliance is about to sign an assertion. It is signed when the record is durable.
#[derive(Debug)]
pub struct AssertionSigned {
    identity: Arc<str>,
    key: String,
    keyid: Arc<str>,
    audience: String,
    jti: String,
    recorded: oneshot::Sender<bool>,
}

/// Where assertions are announced.
#[derive(Clone, Debug)]
pub(in crate::keyless) struct AssertionEvents(pub(in crate::keyless) mpsc::UnboundedSender<AssertionSigned>);

impl AssertionSigned {
    /// Gives `enter` the record.
    pub fn as_record<T>(&self, enter: impl FnOnce(&Record<'_>) -> T) -> T {
        enter(&Record::Event {
            event: "identity_assertion",
            details: &[
                ("identity", Detail::Text(&self.identity)),
                ("key", Detail::Text(&self.key)),
                ("keyid", Detail::Text(&self.keyid)),
                ("audience", Detail::Text(&self.audience)),
                ("jti", Detail::Text(&self.jti)),
            ],
        })
    }

    /// The record is durable, or cannot be made so.
    pub fn recorded(self, durable: bool) {
        // Nobody waits any more when the fetch was given up.
        let _ = self.recorded.send(durable);
    }
}

impl Assertion {
    pub(super) fn new(
        identity: &str,
        config: &AssertionKey,
        client_id: &str,
        token_url: &str,
        custody: &Arc<Custody>,
        events: &AssertionEvents,
    ) -> Self {
        Self {
            identity: identity.into(),
            key: config.key.clone(),
            kid: config.kid.clone(),
            audience: config.audience.clone().unwrap_or_else(|| token_url.to_owned()),
            client_id: client_id.to_owned(),
            custody: Arc::clone(custody),
            events: events.clone(),
        }
    }

    /// A fresh assertion, recorded before it is signed.
    pub(super) async fn sign(&self, deadline: Instant) -> Result<String, IdentityError> {
        let failed = |why: String| IdentityError::Assertion { key: self.key.clone(), why };
        let key = self.custody.named_key(None, &self.key).map_err(|error| failed(error.to_string()))?;
        let (announced, recorded) = oneshot::channel();
        let jti = Uuid::new_v4().to_string();
        let event = AssertionSigned {
            identity: Arc::clone(&self.identity),
            key: self.key.clone(),
            keyid: Arc::clone(key.keyid()),
            audience: self.audience.clone(),
            jti: jti.clone(),
            recorded: announced,
        };
        let durable = self.events.0.send(event).is_ok()
            && match tokio::time::timeout_at(deadline.into(), recorded).await {
                Ok(recorded) => recorded.unwrap_or(false),
                Err(_) => return Err(failed("the audit log did not take the record of it in time".to_owned())),
            };
        if !durable {
            return Err(failed("the audit log does not take the record of it".to_owned()));
        }
        let kid = self.kid.as_deref().unwrap_or_else(|| key.keyid());
        let now = UnixTime::now();
        let header = serde_json::json!({"alg": "ES256", "typ": "JWT", "kid": kid});
        let claims = serde_json::json!({
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.audience,
            "jti": jti,
            "iat": now.0,
            "exp": now.plus(LIFE).0,
        });
        let signing_input =
            format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
        let hash = digest(&SHA256, signing_input.as_bytes());
        let hash: &[u8; 32] = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
        // Raw r ‖ s is what JWS wants (RFC 7518, section 3.4).
        let signed = self.custody.sign(&key, hash, deadline).await.map_err(|error| failed(error.to_string()))?;
        Ok(format!("{signing_input}.{}", base64url(&signed.signature)))
    }
}

/// Long enough for clocks that differ a little; the assertion is used once, at once.
const LIFE: Duration = Duration::from_secs(60);
