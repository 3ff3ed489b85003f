//! The keys by name and by tenant, and which one signs at a given moment.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;

use super::error::{OutOfService, ResolveError};
use super::wire::OpenedKey;
use super::{KeyAttributes, PublicKey};
use crate::config::{KeyState, SigningMode};
use crate::dsse;

/// A key whose public half is known: from the configuration, or from the token at first sight. It stays the same for
/// the life of the process.
#[derive(Debug)]
pub struct SigningKey {
    pub(super) index: usize,
    pub(super) link: usize,
    pub(super) health: Arc<Health>,
    name: Arc<str>,
    token: Arc<str>,
    state: KeyState,
    public_key: PublicKey,
    keyid: Arc<str>,
    verifier: dsse::PublicKey,
    certificate_chain: Arc<[String]>,
}

impl SigningKey {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The token that holds it, by its name in the configuration.
    #[must_use]
    pub fn token(&self) -> &Arc<str> {
        &self.token
    }

    /// `keyid` of its signatures.
    #[must_use]
    pub fn keyid(&self) -> &Arc<str> {
        &self.keyid
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What it does, by the configuration.
    #[must_use]
    pub fn state(&self) -> KeyState {
        self.state
    }

    /// PEM, leaf first; empty when none is configured.
    #[must_use]
    pub fn certificate_chain(&self) -> &[String] {
        &self.certificate_chain
    }

    /// What the device says about the private half; `None` until it was seen.
    #[must_use]
    pub fn attributes(&self) -> Option<KeyAttributes> {
        self.health.attributes.load().as_deref().copied()
    }

    /// One line for people about its custody.
    #[must_use]
    pub fn custody(&self) -> &'static str {
        self.attributes().map_or("not seen in the token yet", |attributes| attributes.summary())
    }

    /// Is `signature` (raw r ‖ s) over this SHA-256 digest by this key?
    #[must_use]
    pub fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        dsse::Signature::from_raw(signature)
            .is_ok_and(|signature| dsse::verify_digest(&self.verifier, digest, &signature).is_ok())
    }

    /// The public half, ready to verify signatures that came from elsewhere.
    #[must_use]
    pub fn verifier(&self) -> &dsse::PublicKey {
        &self.verifier
    }
}

/// What is known about a key at this moment; shared by everyone who holds the key.
#[derive(Debug, Default)]
pub(super) struct Health {
    trouble: ArcSwapOption<OutOfService>,
    attributes: ArcSwapOption<KeyAttributes>,
}

impl Health {
    pub(super) fn trouble(&self) -> Option<OutOfService> {
        self.trouble.load().as_deref().cloned()
    }

    /// Says it in the log when it is news. A bad signature outlives everything said later.
    pub(super) fn take_out(&self, key: &str, why: OutOfService) {
        let why = Arc::new(why);
        let before = self.trouble.rcu(|before| match before {
            Some(lasting) if **lasting == OutOfService::BadSignature => Some(Arc::clone(lasting)),
            _ => Some(Arc::clone(&why)),
        });
        if before.as_deref().is_none_or(|before| *before != *why && *before != OutOfService::BadSignature) {
            tracing::error!(key, "key out of service: {why}");
        }
    }

    fn restore(&self, key: &str) {
        let before = self.trouble.rcu(|before| match before {
            Some(lasting) if **lasting == OutOfService::BadSignature => Some(Arc::clone(lasting)),
            _ => None,
        });
        if before.as_deref().is_some_and(|why| *why != OutOfService::BadSignature) {
            tracing::info!(key, "key in service again");
        }
    }
}

/// A key as configured, and what became of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) index: usize,
    /// Its token's place among the links.
    pub(super) link: usize,
    pub(super) name: Arc<str>,
    pub(super) token: Arc<str>,
    pub(super) uri: String,
    pub(super) state: KeyState,
    pub(super) not_before: Option<Timestamp>,
    pub(super) not_after: Option<Timestamp>,
    pub(super) certificate_chain: Arc<[String]>,
    pub(super) health: Arc<Health>,
    pub(super) pinned: OnceLock<Arc<SigningKey>>,
}

impl Entry {
    /// Pins the public key, if none is pinned yet. Returns the one that is.
    pub(super) fn pin(&self, public_key: PublicKey) -> Result<&Arc<SigningKey>, super::PublicKeyError> {
        let verifier = public_key.verifier()?;
        Ok(self.pinned.get_or_init(|| {
            Arc::new(SigningKey {
                index: self.index,
                link: self.link,
                health: Arc::clone(&self.health),
                name: Arc::clone(&self.name),
                token: Arc::clone(&self.token),
                state: self.state,
                public_key,
                keyid: verifier.keyid().into(),
                verifier,
                certificate_chain: Arc::clone(&self.certificate_chain),
            })
        }))
    }

    /// Compares what the token has with what is pinned, and takes the key out of service or back in.
    pub(super) fn judge(&self, opened: &OpenedKey) -> Result<(), OutOfService> {
        let why = match self.pin(opened.public_key) {
            Err(error) => Some(OutOfService::Refused(error.to_string().into())),
            Ok(pinned) if pinned.public_key != opened.public_key => {
                Some(OutOfService::Mismatch { pinned: pinned.keyid.to_string(), found: opened.public_key.keyid() })
            }
            // The worker has looked already; that it says so is not enough.
            Ok(_) => opened.attributes.objection().map(|objection| OutOfService::Refused(objection.into())),
        };
        match why {
            Some(why) => {
                self.health.take_out(&self.name, why.clone());
                Err(why)
            }
            None => {
                self.health.attributes.store(Some(Arc::new(opened.attributes)));
                self.health.restore(&self.name);
                Ok(())
            }
        }
    }
}

/// All keys, and who may use which.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) entries: Vec<Entry>,
    pub(super) tenants: HashMap<String, Vec<usize>>,
}

impl Registry {
    /// The one key that signs for the tenant at `now`.
    pub(super) fn resolve(
        &self,
        tenant: &str,
        mode: SigningMode,
        now: Timestamp,
    ) -> Result<&Arc<SigningKey>, ResolveError> {
        let keys = self.tenants.get(tenant).ok_or_else(|| ResolveError::UnknownTenant(tenant.to_owned()))?;
        if mode == SigningMode::Keyless {
            return Err(ResolveError::ModeUnavailable);
        }
        let active = || keys.iter().map(|index| &self.entries[*index]).filter(|key| key.state == KeyState::Active);
        let begun = |key: &Entry| key.not_before.is_none_or(|from| from <= now);
        let ended = |key: &Entry| key.not_after.is_some_and(|until| until <= now);
        let mut signing = active().filter(|key| begun(key) && !ended(key));
        match (signing.next(), signing.next()) {
            (Some(key), None) => in_service(key),
            (Some(_), Some(_)) => {
                let names = active().filter(|key| begun(key) && !ended(key)).map(|key| &*key.name);
                let keys = names.collect::<Vec<_>>().join(", ");
                Err(ResolveError::SeveralKeys { tenant: tenant.to_owned(), keys })
            }
            (None, _) => Err(outside_windows(active(), now, tenant)),
        }
    }

    /// Every key whose public half is known, whatever its state: each may have signed what is verified now.
    pub(super) fn pinned(&self) -> impl Iterator<Item = &Arc<SigningKey>> {
        self.entries.iter().filter_map(|entry| entry.pinned.get())
    }
}

fn in_service(key: &Entry) -> Result<&Arc<SigningKey>, ResolveError> {
    if let Some(why) = key.health.trouble() {
        return Err(ResolveError::KeyOutOfService { key: Arc::clone(&key.name), why });
    }
    key.pinned
        .get()
        .ok_or_else(|| ResolveError::KeyNotSeen { key: Arc::clone(&key.name), token: Arc::clone(&key.token) })
}

/// Of the keys that do not sign now, the one that an operator wants to hear of: the next to begin, else the last to
/// have ended.
fn outside_windows<'a>(active: impl Iterator<Item = &'a Entry> + Clone, now: Timestamp, tenant: &str) -> ResolveError {
    let next =
        active.clone().filter(|key| key.not_before.is_some_and(|from| from > now)).min_by_key(|key| key.not_before);
    if let Some((key, from)) = next.and_then(|key| Some((key, key.not_before?))) {
        return ResolveError::KeyNotYetValid { key: Arc::clone(&key.name), from };
    }
    match active.max_by_key(|key| key.not_after).and_then(|key| Some((key, key.not_after?))) {
        Some((key, until)) => ResolveError::KeyExpired { key: Arc::clone(&key.name), until },
        None => ResolveError::NoActiveKey(tenant.to_owned()),
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
