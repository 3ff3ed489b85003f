//! The keys that an issuer publishes.

use serde::Deserialize;
use serde_json::Value;

use super::{Algorithm, JoseError, Jwk, VerifyingKey};

/// A JWK set (RFC 7517, section 5), as far as its keys can be used here.
#[derive(Clone, Debug, Default)]
pub struct JwkSet {
    keys: Vec<VerifyingKey>,
    skipped: usize,
}

impl JwkSet {
    /// Reads a JWK set. Keys that cannot be used here (other kinds, other algorithms, for encryption, malformed, or
    /// with private members, which nobody should trust any more) are left out, as RFC 7517, section 5 advises; see
    /// [`skipped`](Self::skipped).
    ///
    /// # Errors
    /// [`JoseError::Json`] when it is no JWK set, [`JoseError::TooManyKeys`] beyond 64 keys.
    pub fn parse(json: &[u8]) -> Result<Self, JoseError> {
        let document: Document =
            serde_json::from_slice(json).map_err(|source| JoseError::Json { part: "JWK set", source })?;
        let published = document.keys.len();
        if published > MAX_KEYS {
            return Err(JoseError::TooManyKeys { keys: published, limit: MAX_KEYS });
        }
        let usable = |value: &Value| Jwk::from_value(value).and_then(|jwk| VerifyingKey::from_jwk(&jwk)).ok();
        let keys: Vec<_> = document.keys.iter().filter_map(usable).collect();
        Ok(Self { skipped: published - keys.len(), keys })
    }

    /// The keys that a token with this header may be signed by. A token that names no `kid` leaves the choice to the
    /// set: take it only when the iterator yields exactly one key.
    pub fn find<'a>(&'a self, kid: Option<&'a str>, algorithm: Algorithm) -> impl Iterator<Item = &'a VerifyingKey> {
        self.keys.iter().filter(move |key| (kid.is_none() || key.kid() == kid) && key.jwk().fits(algorithm))
    }

    /// Does any key have this name?
    #[must_use]
    pub fn has_kid(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }

    /// The usable keys.
    #[must_use]
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// How many published keys were left out.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

const MAX_KEYS: usize = 64;
