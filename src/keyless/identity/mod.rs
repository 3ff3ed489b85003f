//! As whom the appliance asks Fulcio for a certificate: identity tokens, each from one source, fetched once for all who
//! wait, held no longer than they live.
//!
//! A token comes from a file that something else keeps fresh, from a credential of the unit, or from the Authority by
//! client credentials. Between two fetches it lies in one place of memory, which is wiped when the last flow that uses it
//! is over; see [`token`].

#![forbid(unsafe_code)]

mod assertion;
mod endpoint;
mod error;
mod file;
mod token;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::clock::UnixTime;
use crate::config::{self, IdentitySource};
use crate::custody::Custody;

use endpoint::Endpoint;
use file::TokenFile;
use token::Expected;

pub(super) use assertion::AssertionEvents;
pub use assertion::AssertionSigned;
pub use error::IdentityError;
pub(super) use token::IdentityToken;

/// One identity of the configuration and the token that proves it.
#[derive(Debug)]
pub(super) struct Identity {
    name: Arc<str>,
    source: Source,
    expected: Expected,
    refresh_before: Duration,
    max_age: Duration,
    kept: ArcSwapOption<Kept>,
    /// Held while a token is fetched, so that all who need it wait for one fetch.
    fetching: tokio::sync::Mutex<()>,
    failed: Mutex<Option<Failed>>,
}

#[derive(Debug)]
enum Source {
    File(TokenFile),
    Endpoint(Box<Endpoint>),
}

/// A token in use.
#[derive(Debug)]
struct Kept {
    token: Arc<IdentityToken>,
    /// From here on a new one is fetched, if it can be had.
    refresh_at: UnixTime,
    /// From here on it is not used.
    ends: UnixTime,
    /// Of the file it came from.
    stamp: Option<file::Stamp>,
}

/// The last fetch, when it failed.
#[derive(Clone, Debug)]
struct Failed {
    at: Instant,
    /// How long nothing is fetched after it.
    pause: Duration,
    error: IdentityError,
}

/// How an identity is, for `/readyz` and metrics.
#[derive(Clone, Debug)]
pub struct IdentityStatus {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// When the token that is held ends, in Unix time; `None` when none is held.
    pub expires: Option<i64>,
    /// Why the last fetch failed; `None` when it did not.
    pub trouble: Option<String>,
}

impl Identity {
    pub(super) fn new(
        name: &str,
        config: &config::Identity,
        custody: &Arc<Custody>,
        events: &AssertionEvents,
    ) -> Result<Self, IdentityError> {
        let source = match &config.source {
            IdentitySource::File(path) => Source::File(TokenFile::at(path.clone())),
            IdentitySource::Credential(credential) => Source::File(TokenFile::credential(credential)?),
            IdentitySource::ClientCredentials(client) => {
                Source::Endpoint(Box::new(Endpoint::new(name, client, custody, events)?))
            }
        };
        Ok(Self {
            name: name.into(),
            source,
            expected: Expected { issuer: config.issuer.clone(), audience: config.audience.clone() },
            refresh_before: config.refresh_before.get(),
            max_age: config.max_age.get(),
            kept: ArcSwapOption::empty(),
            fetching: tokio::sync::Mutex::default(),
            failed: Mutex::default(),
        })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A token that is good for a flow from now on.
    ///
    /// # Errors
    /// When none is held and none can be had by `deadline`.
    pub(super) async fn token(&self, deadline: Instant) -> Result<Arc<IdentityToken>, IdentityError> {
        if let Some(token) = self.held(UnixTime::now()) {
            return Ok(token);
        }
        let fetch = async {
            let _turn = self.fetching.lock().await;
            // Whoever had the turn before may have fetched it, or just found that it cannot be had.
            if let Some(token) = self.held(UnixTime::now()) {
                return Ok(token);
            }
            if let Some(failed) = self.failed_lately() {
                return Err(failed);
            }
            self.fetch().await
        };
        match tokio::time::timeout_at(deadline.into(), fetch).await {
            // A file that is just being written is no reason to give up a token that is good.
            Ok(Err(error @ (IdentityError::Unreadable { .. } | IdentityError::Malformed { .. }))) => {
                let kept = self.kept.load();
                let good = kept.as_deref().filter(|kept| UnixTime::now() < kept.ends);
                good.map(|kept| Arc::clone(&kept.token)).ok_or(error)
            }
            Ok(fetched) => fetched,
            Err(_) => Err(IdentityError::Late),
        }
    }

    /// Keeps the token fresh, and lets go of one that has ended, for ever.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        loop {
            if let Source::Endpoint(endpoint) = &self.source {
                endpoint.refresh_addresses();
            }
            if self.is_stale(UnixTime::now()) {
                let _turn = self.fetching.lock().await;
                if self.failed_lately().is_none() {
                    // What is wrong is kept for `/readyz`, and logged where it is new.
                    let _ = self.fetch().await;
                }
            }
            if self.kept.load().as_deref().is_some_and(|kept| UnixTime::now() >= kept.ends) {
                self.kept.store(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) fn status(&self) -> IdentityStatus {
        let kept = self.kept.load();
        let now = UnixTime::now();
        let kept = kept.as_deref().filter(|kept| now < kept.ends);
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        IdentityStatus {
            name: Arc::clone(&self.name),
            expires: kept.map(|kept| kept.token.expires().0),
            trouble: failed.as_ref().map(|failed| failed.error.to_string()),
        }
    }

    fn held(&self, now: UnixTime) -> Option<Arc<IdentityToken>> {
        let kept = self.kept.load();
        let kept = kept.as_deref().filter(|kept| now < kept.ends && !self.has_changed(kept))?;
        Some(Arc::clone(&kept.token))
    }

    /// Whether a new token is to be fetched. Lets go of what it looks at: whoever held it on would keep a token in memory
    /// that has been replaced.
    fn is_stale(&self, now: UnixTime) -> bool {
        self.kept.load().as_deref().is_none_or(|kept| now >= kept.refresh_at || self.has_changed(kept))
    }

    fn has_changed(&self, kept: &Kept) -> bool {
        matches!(&self.source, Source::File(file) if file.stamp().is_some_and(|stamp| Some(stamp) != kept.stamp))
    }

    async fn fetch(&self) -> Result<Arc<IdentityToken>, IdentityError> {
        let now = UnixTime::now();
        let fetched = match &self.source {
            Source::File(file) => file.read().and_then(|(text, stamp)| {
                IdentityToken::read(&text, &self.expected, now).map(|token| (token, Some(stamp)))
            }),
            Source::Endpoint(endpoint) => {
                let answer = endpoint.fetch().await;
                answer.and_then(|answer| answer.token(&self.expected, now)).map(|token| (token, None))
            }
        };
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match fetched {
            Ok((token, stamp)) => {
                if failed.take().is_some() {
                    tracing::info!(identity = &*self.name, "an identity token can be had again");
                }
                let ends = token.expires().minus(MARGIN).min(now.plus(self.max_age));
                let life = ends.since(now);
                let refresh_at = ends.minus(self.refresh_before.min(life / 2));
                let token = Arc::new(token);
                self.kept.store(Some(Arc::new(Kept { token: Arc::clone(&token), refresh_at, ends, stamp })));
                Ok(token)
            }
            Err(error) => {
                if failed.as_ref().is_none_or(|before| before.error.to_string() != error.to_string()) {
                    tracing::error!(identity = &*self.name, %error, "no identity token can be had");
                }
                // Each attempt at the Authority may cost a signature in the HSM and a record; one at a file costs nothing.
                let pause = match (&self.source, &*failed) {
                    // At the start the key's token is not known for a moment.
                    (Source::Endpoint(_), Some(before)) if !matches!(error, IdentityError::Assertion { .. }) => {
                        (before.pause * 2).min(LONGEST_PAUSE)
                    }
                    _ => PAUSE,
                };
                *failed = Some(Failed { at: Instant::now(), pause, error: error.clone() });
                Err(error)
            }
        }
    }

    /// What went wrong so short a time ago that it would again.
    fn failed_lately(&self) -> Option<IdentityError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().filter(|failed| failed.at.elapsed() < failed.pause).map(|failed| failed.error.clone())
    }
}

/// How often the clock and the file are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// After a fetch failed, nothing is fetched for so long; from the Authority twice as long after each further failure.
const PAUSE: Duration = Duration::from_millis(900);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// So long before its `exp` a token is not used any more: a flow must reach Fulcio with it.
const MARGIN: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(super) use token::tests::jwt;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
