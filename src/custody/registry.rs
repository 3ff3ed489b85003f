//! The keys by name and by tenant, and which one signs at a given moment.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

use super::error::{OutOfService, ResolveError};
use super::event::{CustodyEvent, Events};
use super::evidence::{Device, Evidence};
use super::replica::Replica;
use super::told::Told;
use super::wire::OpenedKey;
use super::{GateAttributes, KeyAttributes, Lane, PublicKey};
use crate::config::{CustodyException, KeyState, SigningMode};
use crate::dsse;
use crate::telemetry::alert;

/// A key whose public half is known: from the configuration, or from a token at first sight. It stays the same for
/// the life of the process.
#[derive(Debug)]
pub struct SigningKey {
    pub(super) index: usize,
    pub(super) replicas: Arc<[Replica]>,
    name: Arc<str>,
    tokens: Arc<str>,
    state: KeyState,
    public_key: PublicKey,
    keyid: Arc<str>,
    verifier: dsse::PublicKey,
    certificate_chain: Arc<[String]>,
}

/// A key on behalf of a tenant: what [`super::Custody::sign`] takes. Only [`super::Custody::resolve`] makes one.
#[derive(Clone, Debug)]
pub struct TenantKey {
    pub(super) key: Arc<SigningKey>,
    pub(super) lane: Lane,
}

impl TenantKey {
    /// The key itself.
    #[must_use]
    pub fn key(&self) -> &Arc<SigningKey> {
        &self.key
    }
}

impl Deref for TenantKey {
    type Target = SigningKey;

    fn deref(&self) -> &SigningKey {
        &self.key
    }
}

impl SigningKey {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The tokens that hold it, by their names in the configuration, with commas between them.
    #[must_use]
    pub fn tokens(&self) -> &Arc<str> {
        &self.tokens
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

    /// What the first of its tokens that has shown it says about the private half; `None` until one has.
    #[must_use]
    pub fn attributes(&self) -> Option<KeyAttributes> {
        self.replicas.iter().find_map(Replica::attributes)
    }

    /// One line for people about its custody.
    #[must_use]
    pub fn custody(&self) -> &'static str {
        self.attributes().map_or(NOT_SEEN, |attributes| attributes.summary())
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

/// A key as configured, and what became of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) index: usize,
    pub(super) name: Arc<str>,
    pub(super) tokens: Arc<str>,
    pub(super) state: KeyState,
    pub(super) not_before: Option<Timestamp>,
    pub(super) not_after: Option<Timestamp>,
    pub(super) certificate_chain: Arc<[String]>,
    pub(super) exceptions: Vec<CustodyException>,
    /// In the order of the configuration; at least one.
    pub(super) replicas: Arc<[Replica]>,
    pub(super) pinned: OnceLock<Arc<SigningKey>>,
    /// What the key history has last under this name. Where the configuration states no public key, the first sight
    /// after a start must show this one.
    pub(super) remembered: Option<PublicKey>,
    pub(super) events: Arc<Events>,
}

impl Entry {
    /// Pins the public key, if none is pinned yet. Returns the one that is.
    pub(super) fn pin(&self, public_key: PublicKey) -> Result<&Arc<SigningKey>, super::PublicKeyError> {
        let verifier = public_key.verifier()?;
        Ok(self.pinned.get_or_init(|| {
            Arc::new(SigningKey {
                index: self.index,
                replicas: Arc::clone(&self.replicas),
                name: Arc::clone(&self.name),
                tokens: Arc::clone(&self.tokens),
                state: self.state,
                public_key,
                keyid: verifier.keyid().into(),
                verifier,
                certificate_chain: Arc::clone(&self.certificate_chain),
            })
        }))
    }

    fn begun(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|from| from <= now)
    }

    fn ended(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|until| until <= now)
    }

    /// What the configuration lets pass for this key.
    pub(super) fn excepted(&self) -> GateAttributes {
        self.exceptions.iter().map(|exception| exception.attribute).collect()
    }

    /// Compares what a token has with what is pinned, and takes the key out of service there, or back in.
    pub(super) fn judge(&self, replica: &Replica, opened: OpenedKey, device: Device) -> Result<(), OutOfService> {
        // A key that must not sign is not pinned either: it would outlast the mistake.
        // The worker has looked already; that it says so is not enough.
        let why = match opened.attributes.objection_with(self.excepted()) {
            _ if self.is_another_than_remembered(&opened.public_key) => Some(OutOfService::Exchanged {
                remembered: self.remembered.map(|key| key.keyid()).unwrap_or_default(),
                found: opened.public_key.keyid(),
            }),
            Some(objection) => Some(OutOfService::Refused(objection.into())),
            None => match self.pin(opened.public_key) {
                Err(error) => Some(OutOfService::Refused(error.to_string().into())),
                Ok(pinned) if pinned.public_key != opened.public_key => {
                    Some(OutOfService::Mismatch { pinned: pinned.keyid.to_string(), found: opened.public_key.keyid() })
                }
                Ok(_) => None,
            },
        };
        // Attributes of another key would be evidence for the wrong thing.
        if !matches!(why, Some(OutOfService::Mismatch { .. } | OutOfService::Exchanged { .. })) {
            self.keep(replica, opened, device);
        }
        match why {
            Some(why) => {
                self.take_out(replica, why.clone());
                Err(why)
            }
            None => {
                if replica.health.restore() {
                    tracing::info!(key = &*self.name, token = &*replica.token, "key in service again");
                }
                Ok(())
            }
        }
    }

    fn is_another_than_remembered(&self, found: &PublicKey) -> bool {
        self.pinned.get().is_none() && self.remembered.is_some_and(|remembered| remembered != *found)
    }

    /// Takes the key out of service in one token, and says so in the log when it is news.
    pub(super) fn take_out(&self, replica: &Replica, why: OutOfService) {
        let alarm = why.to_string();
        if replica.health.take_out(why) {
            tracing::error!(name: alert::KEY_OUT_OF_SERVICE, key = &*self.name, token = &*replica.token, "key out of service: {alarm}");
        }
    }

    /// Why no token may be asked for this key; `None` when one may.
    pub(super) fn out_of_service(&self) -> Option<OutOfService> {
        let mut reasons = self.replicas.iter().map(Replica::barred);
        let first = reasons.next().flatten()?;
        reasons.all(|barred| barred.is_some()).then_some(first)
    }

    fn keep(&self, replica: &Replica, opened: OpenedKey, device: Device) {
        let now = Timestamp::now();
        let before = replica.health.evidence.load_full();
        let news = {
            let mut told = replica.health.attributes_told.lock().unwrap_or_else(PoisonError::into_inner);
            // What it was at first sight is no change.
            if before.is_none() {
                *told = Told::starting_with(opened.attributes);
            }
            told.note(opened.attributes)
        };
        if let Some((before, untold)) = news.and_then(|news| Some((news.before?, news.untold))) {
            let (key, token) = (Arc::clone(&self.name), Arc::clone(&replica.token));
            tracing::error!(name: alert::KEY_ATTRIBUTES_CHANGED, key = &*key, token = &*token, "the device describes the key otherwise than before");
            self.events.tell(CustodyEvent::AttributesChanged { key, token, before, now: opened.attributes, untold });
        }
        let evidence = Evidence {
            attributes: opened.attributes,
            attestation: opened.attestation,
            device,
            first_seen: before.map_or(now, |before| before.first_seen),
            checked: now,
            read: Instant::now(),
        };
        replica.health.evidence.store(Some(Arc::new(evidence)));
    }
}

/// What a tenant may use.
#[derive(Debug)]
pub(super) struct TenantKeys {
    pub(super) lane: Lane,
    /// Places among the entries.
    pub(super) keys: Vec<usize>,
}

/// All keys, and who may use which.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) entries: Vec<Entry>,
    pub(super) tenants: HashMap<String, TenantKeys>,
}

impl Registry {
    /// The one key that signs for the tenant at `now`.
    pub(super) fn resolve(&self, tenant: &str, mode: SigningMode, now: Timestamp) -> Result<TenantKey, ResolveError> {
        let TenantKeys { lane, keys } =
            self.tenants.get(tenant).ok_or_else(|| ResolveError::UnknownTenant(tenant.to_owned()))?;
        if mode == SigningMode::Keyless || keys.is_empty() {
            return Err(ResolveError::ModeUnavailable(mode));
        }
        let active = || keys.iter().map(|index| &self.entries[*index]).filter(|key| key.state == KeyState::Active);
        let mut signing = active().filter(|key| key.begun(now) && !key.ended(now));
        match (signing.next(), signing.next()) {
            (Some(key), None) => in_service(key).map(|key| TenantKey { key: Arc::clone(key), lane: *lane }),
            (Some(_), Some(_)) => {
                let names = active().filter(|key| key.begun(now) && !key.ended(now)).map(|key| &*key.name);
                let keys = names.collect::<Vec<_>>().join(", ");
                Err(ResolveError::SeveralKeys { tenant: tenant.to_owned(), keys })
            }
            (None, _) => Err(outside_windows(active(), now, tenant)),
        }
    }

    /// The tenant's key of this name, or anybody's for the appliance itself, if it signs at `now`.
    pub(super) fn named(&self, tenant: Option<&str>, name: &str, now: Timestamp) -> Result<TenantKey, ResolveError> {
        let unknown = || ResolveError::UnknownKey(name.to_owned());
        let entry = self.entries.iter().find(|entry| *entry.name == *name).ok_or_else(unknown)?;
        let lane = match tenant.map(|tid| self.tenants.get(tid)) {
            None => Lane::APPLIANCE,
            Some(Some(tenant)) if tenant.keys.contains(&entry.index) => tenant.lane,
            // Another tenant's key is none of the caller's business, its existence included.
            Some(_) => return Err(unknown()),
        };
        if entry.state != KeyState::Active || !entry.begun(now) || entry.ended(now) {
            return Err(ResolveError::NotSigning { key: Arc::clone(&entry.name) });
        }
        in_service(entry).map(|key| TenantKey { key: Arc::clone(key), lane })
    }

    /// Every key whose public half is known, whatever its state: each may have signed what is verified now.
    pub(super) fn pinned(&self) -> impl Iterator<Item = &Arc<SigningKey>> {
        self.entries.iter().filter_map(|entry| entry.pinned.get())
    }
}

fn in_service(key: &Entry) -> Result<&Arc<SigningKey>, ResolveError> {
    if let Some(why) = key.out_of_service() {
        return Err(ResolveError::KeyOutOfService { key: Arc::clone(&key.name), why });
    }
    key.pinned
        .get()
        .ok_or_else(|| ResolveError::KeyNotSeen { key: Arc::clone(&key.name), tokens: Arc::clone(&key.tokens) })
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

pub(super) const NOT_SEEN: &str = "not seen in the token yet";

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
