//! What the tests of this module share.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::auth::SenderKey;
use crate::config::{ByteSize, OfflineLicensing, Span};
use crate::jose::testing::SigningKey;
use crate::jose::{Algorithm, base64url};

pub(super) const ISSUER: &str = "https://licensing.example";
pub(super) const KID: &str = "licensing-1";

/// The caller's DPoP key in every test.
pub(super) const THUMBPRINT: [u8; 32] = [7; 32];

/// A Licensing Service with one key, a directory with what it publishes, and the appliance's view of them.
pub(super) struct Licensing {
    pub(super) directory: tempfile::TempDir,
    pub(super) key: SigningKey,
    pub(super) now: UnixTime,
}

impl Licensing {
    pub(super) fn new() -> Self {
        let this = Self {
            directory: tempfile::tempdir().unwrap(),
            key: SigningKey::generate(Algorithm::Es256),
            now: UnixTime::now(),
        };
        this.publish_keys(&[this.key_under(KID)]);
        this.publish_list(&this.list());
        this
    }

    pub(super) fn key_under(&self, kid: &str) -> Value {
        patched(self.key.jwk(), &json!({ "kid": kid }))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn publish_keys(&self, keys: &[Value]) {
        std::fs::write(self.path("keys.json"), json!({ "keys": keys }).to_string()).unwrap();
    }

    pub(super) fn publish_list(&self, claims: &Value) {
        replace(&self.path("revoked.jwt"), &self.sign(claims));
    }

    /// A list that revokes nothing.
    pub(super) fn list(&self) -> Value {
        json!({ "iss": ISSUER, "iat": self.now.0, "seq": 1, "revoked": { "license_ids": [], "jtis": [] } })
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.key.token(Algorithm::Es256, &json!({ "alg": "ES256", "kid": KID }), claims)
    }

    /// A PoE with nothing wrong.
    pub(super) fn claims(&self) -> Value {
        json!({
            "iss": ISSUER, "sub": "customer-1/installation-1", "jti": "poe-1",
            "iat": self.now.0 - 60, "exp": self.now.0 + 3600,
            "tid": "acme", "license_id": "lic-1", "customer_id": "customer-1", "plan": "pro",
            "cnf": { "jkt": base64url(&THUMBPRINT) },
        })
    }

    pub(super) fn config(&self) -> config::Licensing {
        config::Licensing {
            offline: Some(OfflineLicensing {
                issuer: ISSUER.to_owned(),
                keys: self.path("keys.json"),
                algorithms: vec![Algorithm::Es256, Algorithm::Rs256],
                revocation_list: self.path("revoked.jwt"),
                revocation_max_age: Span::seconds(3600),
            }),
            online: None,
            clock_skew: Span::seconds(30),
            require_cnf: true,
        }
    }

    pub(super) fn entitlements(&self) -> Entitlements {
        Entitlements::new(&self.config(), plans(), None).unwrap()
    }
}

pub(super) fn plans() -> BTreeMap<String, config::Plan> {
    let nonzero = |n| NonZeroU32::new(n).unwrap();
    let pro = config::Plan {
        qps: nonzero(100),
        burst: None,
        concurrency: nonzero(8),
        max_artifact_bytes: ByteSize::mib(100),
    };
    let bursty = config::Plan { burst: Some(nonzero(500)), ..pro.clone() };
    BTreeMap::from([("pro".to_owned(), pro), ("bursty".to_owned(), bursty)])
}

pub(super) fn caller() -> Caller {
    Caller {
        tenant: "acme".into(),
        subject: "ci".into(),
        client_id: None,
        token_id: "optok-1".into(),
        installation: None,
        sender: SenderKey::Dpop(THUMBPRINT),
        expires_at: UnixTime(i64::MAX),
    }
}

/// As an operator should: a whole new file under the old name.
pub(super) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// `value` with the members of `patch` put over its own, at every depth.
pub(super) fn patched(mut value: Value, patch: &Value) -> Value {
    for (name, new) in patch.as_object().unwrap() {
        let old = &mut value[name];
        *old = if old.is_object() && new.is_object() { patched(old.take(), new) } else { new.clone() };
    }
    value
}
