//! Proof by introspection at the Licensing Service (RFC 7662).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{ACCEPT, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use moka::Expiry;
use serde::Deserialize;

use super::claims::Claims;
use super::grant::{Grant, Rules};
use super::{PoeError, TokenHash, Unavailable, json};
use crate::clock::UnixTime;
use crate::config::OnlineLicensing;
use crate::outbound::Outbound;

/// Everything that introspection needs.
///
/// One look-up is in progress for one token, however many requests carry it. It runs in a task of its own, so that a
/// caller who goes away takes nobody's answer along.
#[derive(Debug)]
pub(super) struct Online {
    rules: Arc<Rules>,
    url: String,
    outbound: Outbound,
    cache_ttl: Duration,
    negative_cache_ttl: Duration,
    granted: moka::future::Cache<TokenHash, Kept<Arc<Grant>>>,
    /// Apart from `granted`, so that tokens made up by one caller displace nobody's valid ones.
    refused: moka::sync::Cache<TokenHash, Kept<PoeError>>,
    look_ups: Arc<LookUps>,
}

/// Who is asking the Licensing Service now. One tenant can take a share of the places only, so that its made-up tokens
/// leave the others their turn.
#[derive(Debug, Default)]
struct LookUps(Mutex<HashMap<Arc<str>, usize>>);

impl LookUps {
    fn begin(self: &Arc<Self>, tenant: &Arc<str>) -> Result<LookUp, PoeError> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |limit| Err(PoeError::Unavailable(Unavailable::Busy { limit }));
        if running.values().sum::<usize>() >= MAX_LOOK_UPS {
            return busy(MAX_LOOK_UPS);
        }
        let of_tenant = running.entry(Arc::clone(tenant)).or_default();
        if *of_tenant >= MAX_LOOK_UPS_OF_TENANT {
            return busy(MAX_LOOK_UPS_OF_TENANT);
        }
        *of_tenant += 1;
        Ok(LookUp { all: Arc::clone(self), tenant: Arc::clone(tenant) })
    }
}

/// One place among the [`LookUps`], given back on drop.
struct LookUp {
    all: Arc<LookUps>,
    tenant: Arc<str>,
}

impl Drop for LookUp {
    fn drop(&mut self) {
        let mut running = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.tenant);
            }
        }
    }
}

impl Online {
    pub(super) fn new(config: &OnlineLicensing, outbound: Outbound, rules: Arc<Rules>) -> Self {
        let entries = u64::from(config.max_cache_entries.get());
        Self {
            rules,
            url: config.introspection_url.clone(),
            outbound,
            cache_ttl: config.cache_ttl.get(),
            negative_cache_ttl: config.negative_cache_ttl.get(),
            granted: moka::future::Cache::builder().max_capacity(entries).expire_after(AsLongAsKept).build(),
            refused: moka::sync::Cache::builder().max_capacity(entries).expire_after(AsLongAsKept).build(),
            look_ups: Arc::default(),
        }
    }

    /// What the Licensing Service says of `token`, from the cache while that is allowed.
    ///
    /// # Errors
    /// [`PoeError`].
    pub(super) async fn prove(
        self: &Arc<Self>,
        hash: TokenHash,
        token: &str,
        tenant: &Arc<str>,
        now: UnixTime,
    ) -> Result<Arc<Grant>, PoeError> {
        if let Some(granted) = self.granted.get(&hash).await {
            return Ok(granted.value);
        }
        if let Some(refused) = self.refused.get(&hash) {
            return Err(refused.value);
        }
        let (online, token, tenant) = (Arc::clone(self), token.to_owned(), Arc::clone(tenant));
        let look_up = self.outbound.runtime().spawn(async move { online.look_up(hash, &token, &tenant, now).await });
        look_up.await.unwrap_or(Err(PoeError::Unavailable(Unavailable::Aborted)))
    }

    async fn look_up(
        &self,
        hash: TokenHash,
        token: &str,
        tenant: &Arc<str>,
        now: UnixTime,
    ) -> Result<Arc<Grant>, PoeError> {
        let ask = async {
            // Somebody may have been refused between the caller's look into the cache and now.
            if let Some(refused) = self.refused.get(&hash) {
                return Err(refused.value);
            }
            match self.ask(token, tenant).await {
                Ok(grant) => Ok(Kept { keep: self.keep_grant(&grant, now), value: Arc::new(grant) }),
                // Says nothing about the token, only about this moment.
                Err(busy @ PoeError::Unavailable(Unavailable::Busy { .. })) => Err(busy),
                Err(error) => {
                    self.refused.insert(hash, Kept { keep: self.keep_refusal(&error), value: error.clone() });
                    Err(error)
                }
            }
        };
        self.granted.try_get_with(hash, ask).await.map(|kept| kept.value).map_err(|error| PoeError::clone(&error))
    }

    async fn ask(&self, token: &str, tenant: &Arc<str>) -> Result<Grant, PoeError> {
        let unavailable = PoeError::Unavailable;
        let _place = self.look_ups.begin(tenant)?;
        let form = [("token", token), ("token_type_hint", TOKEN_TYPE)];
        let fetched = self
            .outbound
            .post_form(&self.url, &form, &[(ACCEPT, HeaderValue::from_static("application/json"))])
            .await
            .map_err(|source| unavailable(Unavailable::Unreachable { source: Arc::new(source) }))?;
        if fetched.status != StatusCode::OK {
            let retry_after = retry_after(&fetched.headers);
            return Err(unavailable(Unavailable::Status { status: fetched.status, retry_after }));
        }
        let Answer { active } =
            json::parse(&fetched.body).map_err(|source| unavailable(Unavailable::Answer { source }))?;
        if !active {
            return Err(PoeError::Inactive);
        }
        self.rules.grant(Claims::parse(&fetched.body)?)
    }

    fn keep_grant(&self, grant: &Grant, now: UnixTime) -> Duration {
        self.cache_ttl.min(grant.entitlement.expires_at.since(now))
    }

    fn keep_refusal(&self, error: &PoeError) -> Duration {
        match error {
            PoeError::Unavailable(_) => self.negative_cache_ttl.min(ERROR_TTL),
            _ => self.negative_cache_ttl,
        }
    }
}

/// The member that every introspection response has (RFC 7662, section 2.2).
#[derive(Deserialize)]
struct Answer {
    active: bool,
}

/// A value and how long it may be used.
#[derive(Clone, Debug)]
struct Kept<T> {
    value: T,
    keep: Duration,
}

struct AsLongAsKept;

impl<T> Expiry<TokenHash, Kept<T>> for AsLongAsKept {
    fn expire_after_create(&self, _: &TokenHash, kept: &Kept<T>, _: Instant) -> Option<Duration> {
        Some(kept.keep)
    }

    fn expire_after_update(&self, _: &TokenHash, kept: &Kept<T>, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(kept.keep)
    }
}

/// `Retry-After` in seconds; its other form, a date, is not worth a calendar here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.clamp(1, 60)))
}

/// `token_type_hint` (RFC 7662, section 2.1; a value of our own, which a service may ignore).
const TOKEN_TYPE: &str = "poe";

/// How long a failure is remembered: enough that a service that is down is not asked by every request, too little to
/// keep a service out that is back.
const ERROR_TTL: Duration = Duration::from_secs(1);

/// Look-ups in progress at once, for all tokens.
const MAX_LOOK_UPS: usize = 64;
const MAX_LOOK_UPS_OF_TENANT: usize = 16;

#[cfg(test)]
mod tests;
