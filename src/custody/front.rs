//! Custody as the front sees it: a key for a tenant, and a signature that has been verified, whichever token made it.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::drain::DrainedTokens;
use super::error::{CustodyError, CustodySetupError, OutOfService, ResolveError};
use super::event::{CustodyEvent, Events};
use super::health::KeyHealth;
use super::registry::{Entry, NOT_SEEN, Registry, SigningKey, TenantKey};
use super::replica::Replica;
use super::seen::{Grade, NotSigned, TokenSeen};
use super::setup::{self, Built};
use crate::config::{self, Config, SigningMode};
use crate::telemetry::alert;

/// Every token and every key of the configuration.
#[derive(Debug)]
pub struct Custody {
    pub(super) registry: Registry,
    pub(super) tokens: Vec<TokenSeen>,
    pub(super) timing: config::Custody,
    pub(super) drained: DrainedTokens,
    pub(super) events: Arc<Events>,
}

/// A signature that verifies, and where it was made.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Raw r ‖ s, 32 bytes each.
    pub signature: [u8; 64],
    /// The token, by its name in the configuration.
    pub token: Arc<str>,
    /// One line for people about the key's custody there.
    pub custody: &'static str,
}

impl Custody {
    /// Reads what the configuration names. Connects to no worker: the front starts whether they run or not.
    ///
    /// # Errors
    /// When the configuration names users, files, tokens or keys that do not exist or do not parse.
    pub fn new(config: &Config) -> Result<Self, CustodySetupError> {
        let Built { links, registry, events } = setup::build(config)?;
        let mut keys = vec![Vec::new(); links.len()];
        for entry in &registry.entries {
            for (at, replica) in entry.replicas.iter().enumerate() {
                keys[replica.link].push((entry.index, at));
            }
        }
        let tokens = links.into_iter().zip(keys).map(|(link, keys)| TokenSeen::new(link, keys)).collect();
        let custody =
            Self { registry, tokens, timing: config.custody.clone(), drained: DrainedTokens::of(config), events };
        custody.recall_drained()?;
        for entry in &custody.registry.entries {
            for exception in &entry.exceptions {
                let (key, attribute) = (Arc::clone(&entry.name), exception.attribute);
                let reason: Arc<str> = exception.reason.as_str().into();
                tracing::warn!(name: alert::CUSTODY_EXCEPTION, key = &*key, attribute = attribute.name(), reason = &*reason, "custody exception");
                custody.events.tell(CustodyEvent::Exception { key, attribute, reason });
            }
        }
        Ok(custody)
    }

    /// Takes over what `earlier` knows and the devices do not say: a key that returned a bad signature stays out of service
    /// until the front is started anew, whatever else is configured.
    pub fn succeed(&self, earlier: &Self) {
        for token in &self.tokens {
            if let Some(before) = earlier.tokens.iter().find(|before| before.name() == token.name()) {
                token.bad_signatures.store(before.bad_signatures.load(Relaxed), Relaxed);
                token.taken_over.store(before.taken_over.load(Relaxed), Relaxed);
            }
        }
        let condemned = earlier.registry.entries.iter().flat_map(|entry| entry.replicas.iter());
        let condemned: Vec<&Replica> =
            condemned.filter(|replica| replica.health.trouble() == Some(OutOfService::BadSignature)).collect();
        for entry in &self.registry.entries {
            for replica in entry.replicas.iter() {
                if condemned.iter().any(|bad| bad.token == replica.token && bad.uri == replica.uri) {
                    entry.take_out(replica, OutOfService::BadSignature);
                }
            }
        }
    }

    /// What an auditor must hear, from now on and since the start; `None` when somebody listens already.
    pub fn events(&self) -> Option<mpsc::UnboundedReceiver<CustodyEvent>> {
        self.events.take()
    }

    /// The one key that signs for the tenant now.
    ///
    /// # Errors
    /// When there is none, several, or the one is out of service in every token.
    pub fn resolve(&self, tenant: &str, mode: SigningMode) -> Result<TenantKey, ResolveError> {
        self.registry.resolve(tenant, mode, Timestamp::now())
    }

    /// The key of this name, if it signs now: for a custody report. `tenant` must own it; `None` is the appliance's
    /// operator.
    ///
    /// # Errors
    /// When there is no such key, it does not sign now, or it is out of service in every token.
    pub fn named_key(&self, tenant: Option<&str>, name: &str) -> Result<TenantKey, ResolveError> {
        self.registry.named(tenant, name, Timestamp::now())
    }

    /// Has a token sign the digest, and verifies what came back.
    ///
    /// Of several tokens that hold the key, live ones come before degraded ones, and of these the one with the least
    /// to do. When a token fails before anything can have been signed, the next one is asked. When no token signs and the
    /// worker of one was there a moment ago, it is waited for, as long as a signature may take: who restarts a worker
    /// refuses nobody.
    ///
    /// # Errors
    /// When no signature was made in time, or the one that was made does not verify: the key is out of service in
    /// that token then.
    pub async fn sign(&self, key: &TenantKey, digest: &[u8; 32], deadline: Instant) -> Result<Signed, CustodyError> {
        let entry = &self.registry.entries[key.index];
        let out_of_service = |why| CustodyError::OutOfService { key: Arc::clone(&entry.name), why };
        let mut tried = 0;
        let mut failed: Option<CustodyError> = None;
        let mut failed_in = None;
        let began = Instant::now();
        let mut awaited = None;
        loop {
            let Some(at) = self.best(entry, tried) else {
                // Everything that can be asked was.
                match awaited.take() {
                    Some(until) if Instant::now() + MOMENT < until => {
                        tokio::time::sleep(MOMENT).await;
                        tried = 0;
                        continue;
                    }
                    _ => break,
                }
            };
            tried |= 1 << at;
            let replica = &entry.replicas[at];
            let token = &self.tokens[replica.link];
            let because =
                |source| CustodyError::Token { token: Arc::clone(token.name()), source, backlog: token.load.backlog() };
            match token.signature(entry, replica, key.lane, digest, deadline).await {
                Ok((signature, _)) if key.verifies(digest, &signature) => {
                    if failed_in.is_some_and(|link| link != replica.link) {
                        token.taken_over.fetch_add(1, Relaxed);
                    }
                    let custody = replica.attributes().map_or(NOT_SEEN, |attributes| attributes.summary());
                    return Ok(Signed { signature, token: Arc::clone(token.name()), custody });
                }
                Ok(_) | Err(NotSigned::BadSignature) => {
                    self.bad_signature(entry, replica);
                    return Err(out_of_service(OutOfService::BadSignature));
                }
                // A second signature might be made beside a first one that nobody has seen.
                Err(NotSigned::Unclear(error)) => return Err(because(error.into())),
                Err(NotSigned::Refused(error)) => failed = Some(because(error.into())),
                Err(NotSigned::Away(error)) => {
                    failed = Some(because(error.into()));
                    if token.configured.link.may_be_restarting() {
                        let longest = deadline.min(began + token.configured.sign_timeout);
                        awaited = awaited.max(Some(longest));
                    }
                }
                // That another token is busy or gone says more about when to ask again.
                Err(NotSigned::OutOfService(why)) => failed = failed.or_else(|| Some(out_of_service(why))),
                Err(NotSigned::Unseen) => {}
            }
            failed_in = Some(replica.link);
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(failed.unwrap_or_else(|| out_of_service(entry.out_of_service().unwrap_or_else(not_seen))))
    }

    /// The alarm: a token returned a signature that does not verify, or something that is none. It stays out of service for this key.
    pub(super) fn bad_signature(&self, entry: &Entry, replica: &Replica) {
        let token = &self.tokens[replica.link];
        token.bad_signatures.fetch_add(1, Relaxed);
        let (key, of) = (&*entry.name, &**token.name());
        tracing::error!(name: alert::BAD_SIGNATURE, key, token = of, "what the token returned is no signature of the key");
        entry.take_out(replica, OutOfService::BadSignature);
        token.doubted.notify_one();
    }

    /// Which of the key's tokens to ask next, of those not tried yet.
    fn best(&self, entry: &Entry, tried: u32) -> Option<usize> {
        let now = Instant::now();
        let ranked = entry.replicas.iter().enumerate().filter(|(at, _)| tried & (1 << at) == 0);
        let ranked = ranked.filter_map(|(at, replica)| {
            let token = &self.tokens[replica.link];
            self.rank(replica).map(|grade| (grade, token.load.cost(now), at))
        });
        ranked.min().map(|(_, _, at)| at)
    }

    /// How good it is to ask this token for the key; `None` when it must not be asked.
    pub(super) fn rank(&self, replica: &Replica) -> Option<Grade> {
        if replica.drained.load(Relaxed) || replica.health.in_trouble() {
            return None;
        }
        let key = match replica.health.canaries().grade {
            Some(KeyHealth::OutOfService | KeyHealth::Drained) => return None,
            Some(KeyHealth::Degraded) => Grade::Degraded,
            Some(KeyHealth::Live) | None => Grade::Good,
        };
        let token = self.tokens[replica.link].grade();
        // Not compared with the pinned key yet: the first use does it, if no better token is there.
        let unseen = if replica.attributes().is_none() { Grade::Doubtful } else { Grade::Good };
        Some(key.max(token).max(unseen))
    }

    /// Every key whose public half is known, of whatever state: what a signature may be verified with.
    #[must_use]
    pub fn verification_keys(&self) -> Vec<Arc<SigningKey>> {
        self.registry.pinned().cloned().collect()
    }

    /// How many keys are configured.
    pub(super) fn key_count(&self) -> usize {
        self.registry.entries.len()
    }

    /// The key with this `keyid`.
    #[must_use]
    pub fn key_by_keyid(&self, keyid: &str) -> Option<Arc<SigningKey>> {
        self.registry.pinned().find(|key| **key.keyid() == *keyid).cloned()
    }
}

/// Between two looks for a worker that is being restarted.
const MOMENT: Duration = Duration::from_millis(20);

/// A key that no token may be asked for has a reason; this one is for a race with its coming back.
fn not_seen() -> OutOfService {
    OutOfService::Refused(NOT_SEEN.into())
}

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
