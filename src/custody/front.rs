//! Custody as the front sees it: a key for a tenant, a signature that has been verified, and how the tokens are.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::client::{Channel, LinkError};
use super::error::{CustodyError, CustodySetupError, OutOfService, ResolveError};
use super::registry::{Entry, Registry, SigningKey};
use super::setup::{self, Configured};
use super::wire::{FailureCode, KeyHandle, StatusReport, WorkerState};
use super::{KeyAttributes, PublicKey};
use crate::config::{Config, KeyState, SigningMode};

/// Every token and every key of the configuration.
#[derive(Debug)]
pub struct Custody {
    registry: Registry,
    tokens: Vec<TokenSeen>,
}

#[derive(Debug)]
struct TokenSeen {
    configured: Configured,
    seen: Mutex<Option<Result<StatusReport, LinkError>>>,
    bad_signatures: AtomicU64,
    /// Somebody could not reach the worker: it is time to look.
    doubted: Notify,
}

/// One token, for `/readyz` and metrics.
#[derive(Clone, Debug)]
pub struct TokenStatus {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Can it sign, and has every key in it that the configuration calls active been seen?
    pub ready: bool,
    /// `ready`, `starting`, `token_unavailable`, `pin_refused`, `stopping`, `worker_unreachable` or `not_asked_yet`.
    pub state: &'static str,
    /// Why it is not ready, in plain words for the operator; empty when it is.
    pub detail: String,
    /// The worker's last account of itself; `None` when it could not be asked.
    pub report: Option<StatusReport>,
    /// Signatures that did not verify, since the front started.
    pub bad_signatures: u64,
}

/// One key, for `GET /keys`.
#[derive(Clone, Debug)]
pub struct KeyListing {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The token that holds it.
    pub token: Arc<str>,
    /// What it does, by the configuration.
    pub state: KeyState,
    /// Signs from this moment on.
    pub not_before: Option<Timestamp>,
    /// Signs up to this moment.
    pub not_after: Option<Timestamp>,
    /// The public half and its `keyid`; `None` until it is known.
    pub public: Option<(PublicKey, Arc<str>)>,
    /// What the device says about the private half; `None` until it was seen.
    pub attributes: Option<KeyAttributes>,
    /// Why it does not sign although it should.
    pub out_of_service: Option<OutOfService>,
}

impl Custody {
    /// Reads what the configuration names. Connects to no worker: the front starts whether they run or not.
    ///
    /// # Errors
    /// When the configuration names users, files, tokens or keys that do not exist or do not parse.
    pub fn new(config: &Config) -> Result<Self, CustodySetupError> {
        let (links, registry) = setup::build(config)?;
        let tokens = links
            .into_iter()
            .map(|configured| TokenSeen {
                configured,
                seen: Mutex::default(),
                bad_signatures: AtomicU64::new(0),
                doubted: Notify::new(),
            })
            .collect();
        Ok(Self { registry, tokens })
    }

    /// The one key that signs for the tenant now.
    ///
    /// # Errors
    /// When there is none, several, or the one is out of service.
    pub fn resolve(&self, tenant: &str, mode: SigningMode) -> Result<Arc<SigningKey>, ResolveError> {
        self.registry.resolve(tenant, mode, Timestamp::now()).map(Arc::clone)
    }

    /// Has the token sign the digest, and verifies what came back: raw r ‖ s, 32 bytes each.
    ///
    /// # Errors
    /// When no signature was made in time, or the one that was made does not verify. The key is out of service then.
    pub async fn sign(&self, key: &SigningKey, digest: &[u8; 32], deadline: Instant) -> Result<[u8; 64], CustodyError> {
        let out_of_service = |why| CustodyError::OutOfService { key: Arc::clone(key.name()), why };
        if let Some(why) = key.health.trouble() {
            return Err(out_of_service(why));
        }
        let token = &self.tokens[key.link];
        let deadline = deadline.min(Instant::now() + token.configured.sign_timeout);
        let entry = &self.registry.entries[key.index];
        let signed = match token.signature(entry, digest, deadline).await {
            // Nothing was signed and nobody saw the request: once more, over a fresh connection or a fresh handle.
            Err(NotSigned::Surely) => token.signature(entry, digest, deadline).await,
            signed => signed,
        };
        let failed = |source: LinkError| {
            token.doubt(&source);
            CustodyError::Token { token: Arc::clone(key.token()), source: source.into() }
        };
        let signature = signed.map_err(|not_signed| match not_signed {
            NotSigned::Surely => failed(LinkError::Lost("it ended twice before the request was sent".into())),
            NotSigned::Failed(error) => failed(error),
            NotSigned::OutOfService(why) => {
                // What takes a key out may pass; it is looked at again soon, not when all was calm.
                token.doubted.notify_one();
                out_of_service(why)
            }
        })?;
        if key.verifies(digest, &signature) {
            return Ok(signature);
        }
        token.bad_signatures.fetch_add(1, Relaxed);
        key.health.take_out(key.name(), OutOfService::BadSignature);
        Err(out_of_service(OutOfService::BadSignature))
    }

    /// The keys, or those of one tenant, in the order of their names.
    #[must_use]
    pub fn keys(&self, tenant: Option<&str>) -> Vec<KeyListing> {
        let of_tenant = tenant.map(|tid| self.registry.tenants.get(tid).map_or(&[][..], Vec::as_slice));
        let wanted = |entry: &&Entry| of_tenant.is_none_or(|keys| keys.contains(&entry.index));
        self.registry.entries.iter().filter(wanted).map(listing).collect()
    }

    /// Every key whose public half is known, of whatever state: what a signature may be verified with.
    #[must_use]
    pub fn verification_keys(&self) -> Vec<Arc<SigningKey>> {
        self.registry.pinned().cloned().collect()
    }

    /// The key with this `keyid`.
    #[must_use]
    pub fn key_by_keyid(&self, keyid: &str) -> Option<Arc<SigningKey>> {
        self.registry.pinned().find(|key| **key.keyid() == *keyid).cloned()
    }

    /// The tokens as they were when last asked; see [`Self::watch`].
    #[must_use]
    pub fn status(&self) -> Vec<TokenStatus> {
        (0..self.tokens.len()).map(|index| self.token_status(index)).collect()
    }

    /// Asks every worker how it is, and opens the keys that are not open: once.
    pub async fn refresh(self: &Arc<Self>) {
        let mut tokens = JoinSet::new();
        for index in 0..self.tokens.len() {
            let custody = Arc::clone(self);
            tokens.spawn(async move { custody.look_at(index).await });
        }
        tokens.join_all().await;
    }

    /// Does so for ever: every 250 ms while something is not ready, every five seconds otherwise, and at once when a signature failed. Runs on the runtime
    /// that polls it, over connections of its own.
    pub async fn watch(self: Arc<Self>) {
        let mut tokens = JoinSet::new();
        for index in 0..self.tokens.len() {
            let custody = Arc::clone(&self);
            tokens.spawn(async move {
                loop {
                    custody.look_at(index).await;
                    let ready = custody.token_status(index).ready;
                    let pause = if ready { CALM } else { EAGER };
                    // A failed signature is news, though not more often than this.
                    tokio::time::sleep(BRIEF).await;
                    let _ = tokio::time::timeout(pause, custody.tokens[index].doubted.notified()).await;
                }
            });
        }
        tokens.join_all().await;
    }

    async fn look_at(&self, index: usize) {
        let token = &self.tokens[index];
        let before = self.token_status(index).state;
        let deadline = Instant::now() + LOOK_TIMEOUT;
        let asked = match token.configured.link.channel(deadline).await {
            Ok(channel) => {
                let report = channel.status(deadline).await;
                if report.as_ref().is_ok_and(|report| report.state == WorkerState::Ready) {
                    for entry in self.registry.entries.iter().filter(|entry| entry.link == index) {
                        // What is wrong with a key is written down with the key.
                        let _ = token.handle(entry, &channel, deadline).await;
                    }
                }
                report
            }
            Err(error) => Err(error),
        };
        *token.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
        let now = self.token_status(index);
        if now.state != before {
            tracing::info!(token = %now.name, state = now.state, detail = now.detail, "token state");
        }
    }

    fn token_status(&self, index: usize) -> TokenStatus {
        let token = &self.tokens[index];
        let seen = token.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (state, mut detail, report) = match seen {
            None => ("not_asked_yet", "the worker was not asked yet".to_owned(), None),
            Some(Err(error)) => ("worker_unreachable", super::token::explain(&error), None),
            Some(Ok(report)) => (state_name(report.state), report.detail.clone(), Some(report)),
        };
        let missing = self.registry.entries.iter().filter(|key| key.link == index && key.state == KeyState::Active);
        let missing = missing.filter_map(|key| match (key.health.trouble(), &key.pinned.get()) {
            (Some(why), _) => Some(format!("key `{}` is out of service: {why}", key.name)),
            (None, None) => Some(format!("key `{}` was not seen yet", key.name)),
            (None, Some(_)) => None,
        });
        let missing = missing.collect::<Vec<_>>();
        let ready = state == "ready" && missing.is_empty();
        if state == "ready" && !missing.is_empty() {
            detail = missing.join("; ");
        }
        TokenStatus {
            name: Arc::clone(&token.configured.link.name),
            ready,
            state,
            detail,
            report,
            bad_signatures: token.bad_signatures.load(Relaxed),
        }
    }
}

enum NotSigned {
    /// The request was not seen by anybody who could have signed.
    Surely,
    Failed(LinkError),
    OutOfService(OutOfService),
}

impl From<LinkError> for NotSigned {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Unsent(_) => Self::Surely,
            other => Self::Failed(other),
        }
    }
}

impl TokenSeen {
    /// Notes that the worker could not be reached, so that `/readyz` says so at once, and has it looked at.
    fn doubt(&self, error: &LinkError) {
        // A worker that is slow or busy is there; only one that is gone must not count as ready.
        if matches!(error, LinkError::Refused(_) | LinkError::Timeout | LinkError::Overloaded) {
            return;
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Err(error.clone()));
        self.doubted.notify_one();
    }

    async fn signature(&self, entry: &Entry, digest: &[u8; 32], deadline: Instant) -> Result<[u8; 64], NotSigned> {
        let channel = self.configured.link.channel(deadline).await?;
        let handle = self.handle(entry, &channel, deadline).await?;
        match channel.sign(handle, digest, deadline).await {
            Err(LinkError::Refused(failure)) if failure.code == FailureCode::UnknownKey => {
                // The token has something else under the URI now; opening it again says what.
                channel.set_handle(entry.index, None);
                Err(NotSigned::Surely)
            }
            signed => Ok(signed?),
        }
    }

    /// The key's handle on this connection. The first use of a connection opens the key and compares it with what is
    /// pinned: another worker process may have another token.
    async fn handle(&self, entry: &Entry, channel: &Channel, deadline: Instant) -> Result<KeyHandle, NotSigned> {
        if let Some(handle) = channel.handle(entry.index)
            && entry.health.trouble().is_none()
        {
            return Ok(handle);
        }
        match channel.open_key(&entry.uri, deadline).await {
            Ok(opened) => {
                entry.judge(&opened).map_err(NotSigned::OutOfService)?;
                channel.set_handle(entry.index, Some(opened.handle));
                Ok(opened.handle)
            }
            Err(LinkError::Refused(failure))
                if matches!(failure.code, FailureCode::UnknownKey | FailureCode::KeyUnsuitable) =>
            {
                let why = OutOfService::Refused(failure.detail.into());
                entry.health.take_out(&entry.name, why.clone());
                Err(NotSigned::OutOfService(why))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn listing(entry: &Entry) -> KeyListing {
    let pinned = entry.pinned.get();
    KeyListing {
        name: Arc::clone(&entry.name),
        token: Arc::clone(&entry.token),
        state: entry.state,
        not_before: entry.not_before,
        not_after: entry.not_after,
        public: pinned.map(|key| (*key.public_key(), Arc::clone(key.keyid()))),
        attributes: pinned.and_then(|key| key.attributes()),
        out_of_service: entry.health.trouble(),
    }
}

fn state_name(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Starting => "starting",
        WorkerState::Ready => "ready",
        WorkerState::TokenUnavailable => "token_unavailable",
        WorkerState::PinRefused => "pin_refused",
        WorkerState::Stopping => "stopping",
    }
}

const BRIEF: Duration = Duration::from_millis(100);
const EAGER: Duration = Duration::from_millis(250);
const CALM: Duration = Duration::from_secs(5);
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
