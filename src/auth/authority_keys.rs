//! The Authority's keys, as fresh as they can be had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::key_source::{FileStamp, KeySource, KeySourceError, Reading};
use super::token_cache::TokenCache;
use super::{AuthError, Reason};
use crate::jose::{Algorithm, JwkSet, VerifyingKey};

/// The keys of the Authority, refreshed in the background and, with a limit, when a token names an unknown one.
pub(super) struct AuthorityKeys {
    source: KeySource,
    refresh: Duration,
    max_stale: Duration,
    state: ArcSwap<State>,
    /// When the source was last asked out of turn. Whoever holds the lock is asking: one look-up at a time.
    asked: Mutex<Option<Instant>>,
    /// What must forget the tokens of a key that is gone.
    tokens: Arc<TokenCache>,
}

/// How the Authority's keys stand, for readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// Keys that tokens may be signed with.
    pub keys: usize,
    /// Time since the key set was last known to be the current one. None: it has never been read.
    pub age: Option<Duration>,
    /// Is that within the bound up to which it is used? If not, every request is answered 503.
    pub usable: bool,
}

#[derive(Default)]
struct State {
    set: JwkSet,
    confirmed: Option<Instant>,
    stamp: Option<FileStamp>,
}

impl AuthorityKeys {
    /// Keys in a file are read here; others when they are first needed, or by [`maintain`](Self::maintain).
    pub(super) fn new(
        source: KeySource,
        refresh: Duration,
        max_stale: Duration,
        tokens: Arc<TokenCache>,
        now: Instant,
    ) -> Result<Self, KeySourceError> {
        let state = match source.read_now().transpose()? {
            Some(Reading::Keys(set, stamp)) => State { set, confirmed: Some(now), stamp },
            Some(Reading::Unchanged) | None => State::default(),
        };
        let refresh = source.refresh_interval(refresh);
        Ok(Self { source, refresh, max_stale, state: ArcSwap::from_pointee(state), asked: Mutex::new(None), tokens })
    }

    pub(super) fn status(&self, now: Instant) -> KeyStatus {
        let state = self.state.load();
        let age = state.confirmed.map(|confirmed| now.saturating_duration_since(confirmed));
        let usable = age.is_some_and(|age| age <= self.max_stale);
        KeyStatus { keys: state.set.keys().len(), age, usable }
    }

    /// Makes sure that the key set is one that may be used.
    pub(super) async fn ensure_usable(self: &Arc<Self>, now: Instant) -> Result<(), AuthError> {
        if self.status(now).usable {
            return Ok(());
        }
        let failure = self.ask_for_newer(now).await.err();
        if self.status(now).usable {
            return Ok(());
        }
        let error = AuthError::new(Reason::AUTHORITY_KEYS_UNAVAILABLE).with_retry_after(MIN_INTERVAL);
        Err(match failure {
            Some(failure) => error.with_source(failure),
            None => error,
        })
    }

    /// The keys that a token with this header may be signed by: one, except where a set names several keys alike.
    pub(super) async fn candidates(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: Instant,
    ) -> Result<Vec<VerifyingKey>, AuthError> {
        self.ensure_usable(now).await?;
        let find = || -> Vec<_> { self.state.load().set.find(kid, algorithm).cloned().collect() };
        let mut found = find();
        if found.is_empty() {
            // The Authority may have a new key. That it cannot be asked just now is no news to this caller.
            let _ = self.ask_for_newer(now).await;
            found = find();
        }
        match found.len() {
            0 => Err(AuthError::new(Reason::OPTOK_KEY_UNKNOWN)),
            1 => Ok(found),
            _ if kid.is_some() => Ok(found),
            _ => Err(AuthError::new(Reason::OPTOK_KEY_AMBIGUOUS)),
        }
    }

    /// Is this key still published?
    pub(super) fn publishes(&self, thumbprint: &[u8; 32]) -> bool {
        self.state.load().set.keys().iter().any(|key| key.thumbprint() == thumbprint)
    }

    /// Keeps the keys fresh. Never returns; an error is logged, and tried again sooner than a success.
    pub(super) async fn maintain(&self) {
        let mut failures = 0u32;
        loop {
            let pause = match self.read_source(Instant::now(), None).await {
                Ok(()) => {
                    failures = 0;
                    self.refresh
                }
                Err(error) => {
                    let status = self.status(Instant::now());
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        keys = status.keys,
                        usable = status.usable,
                        "the Authority's keys were not refreshed"
                    );
                    failures = failures.saturating_add(1);
                    self.refresh.min(FIRST_RETRY * 2u32.pow(failures.min(4) - 1))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks the source out of turn, unless it was asked a moment ago.
    ///
    /// The look-up is a task of its own: a caller who goes away does not stop it for the others who wait.
    async fn ask_for_newer(self: &Arc<Self>, now: Instant) -> Result<(), Arc<KeySourceError>> {
        let keys = Arc::clone(self);
        let look_up = async move { keys.read_source(now, Some(MIN_INTERVAL)).await };
        // A look-up that the stopping process cancelled has brought nothing, which the caller sees for itself.
        self.source.outbound().runtime().spawn(look_up).await.unwrap_or(Ok(())).map_err(Arc::new)
    }

    async fn read_source(&self, now: Instant, min_interval: Option<Duration>) -> Result<(), KeySourceError> {
        let mut asked = self.asked.lock().await;
        if let Some(interval) = min_interval {
            let answered_meanwhile = self.state.load().confirmed.is_some_and(|confirmed| confirmed > now);
            let just_asked = asked.is_some_and(|last| now.saturating_duration_since(last) < interval);
            if answered_meanwhile || just_asked {
                return Ok(());
            }
            *asked = Some(now);
        }
        let before = self.state.load_full();
        match self.source.read(before.stamp).await? {
            Reading::Unchanged => {
                let state = State { set: before.set.clone(), confirmed: Some(now), stamp: before.stamp };
                self.state.store(Arc::new(state));
            }
            Reading::Keys(set, stamp) => {
                self.state.store(Arc::new(State { set, confirmed: Some(now), stamp }));
                self.drop_tokens_of_gone_keys(&before.set);
            }
        }
        Ok(())
    }

    fn drop_tokens_of_gone_keys(&self, before: &JwkSet) {
        let state = self.state.load();
        let changed = before.keys().len() != state.set.keys().len()
            || before.keys().iter().any(|key| !self.publishes(key.thumbprint()));
        if changed {
            let (keys, skipped) = (state.set.keys().len(), state.set.skipped());
            tracing::info!(keys, skipped, "the Authority's keys have changed");
            self.tokens.retain(|token| self.publishes(&token.signed_by));
        }
        if state.set.keys().is_empty() {
            tracing::warn!("the Authority publishes no key that is accepted here; every token will be refused");
        }
    }
}

/// Tokens with made-up key names must not turn into a load on the Authority.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_secs(5);
