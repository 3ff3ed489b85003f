//! Whether a request may run now: rate, concurrency and size, per licence and tenant.
//!
//! [`Quotas::admit`] takes the limits from the entitlement of the very request, so that a licence that changes takes
//! effect with the next one. What it remembers is small: for each tenant and licence a [meter](meter::Meter) and a
//! count of signatures in progress. An account is forgotten only when forgetting changes nothing: its meter is empty
//! and nothing is in progress.

#![forbid(unsafe_code)]

mod meter;
mod rate_limit;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::entitlement::{Entitlement, Limits};
use meter::Meter;
pub use rate_limit::{RateLimit, retry_after};

/// The accounts of all tenants and licences that signed lately. Shared by all threads of one process.
pub struct Quotas {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

/// The right to run one request. Dropping it gives its concurrency slot back.
#[derive(Debug)]
pub struct Permit {
    rate_limit: RateLimit,
    in_progress: Arc<AtomicU32>,
}

/// Why a request may not run now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refused {
    /// Which limit.
    pub kind: Kind,
    /// When to try again; zero when trying again is of no use.
    pub retry_after: Duration,
    /// The limits in force.
    pub limits: Limits,
    /// The account's standing; absent when it was not looked at.
    pub rate_limit: Option<RateLimit>,
}

/// Which limit refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The body is larger than the plan allows.
    TooLarge,
    /// Too many requests per second.
    Throttled,
    /// Too many requests in progress.
    Concurrency,
    /// More tenants and licences are active than this process keeps accounts for.
    Overloaded,
}

impl Quotas {
    /// No account yet.
    #[must_use]
    pub fn new() -> Self {
        Self::sized(SHARDS, ACCOUNTS_PER_SHARD)
    }

    /// Admits or refuses one request of `body_bytes` bytes at `now`. A refused request costs nothing.
    ///
    /// # Errors
    /// [`Refused`], with the time after which the same request will be admitted if nobody else asks.
    pub fn admit(
        &self,
        tenant: &Arc<str>,
        entitlement: &Entitlement,
        body_bytes: u64,
        now: Instant,
    ) -> Result<Permit, Refused> {
        let account = AccountKey { tenant: Arc::clone(tenant), license: Some(Arc::clone(&entitlement.license_id)) };
        self.admit_to(account, entitlement.limits, body_bytes, now)
    }

    /// As [`admit`](Self::admit), for a request that signs nothing and so shows no licence: `limits` hold for the tenant.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn admit_read(
        &self,
        tenant: &Arc<str>,
        limits: Limits,
        body_bytes: u64,
        now: Instant,
    ) -> Result<Permit, Refused> {
        self.admit_to(AccountKey { tenant: Arc::clone(tenant), license: None }, limits, body_bytes, now)
    }

    fn admit_to(&self, key: AccountKey, limits: Limits, body_bytes: u64, now: Instant) -> Result<Permit, Refused> {
        let refuse = |kind, retry_after, rate_limit| Err(Refused { kind, retry_after, limits, rate_limit });
        if body_bytes > limits.max_artifact_bytes {
            return refuse(Kind::TooLarge, Duration::ZERO, None);
        }

        let mut shard = self.shard(&key).lock().unwrap_or_else(PoisonError::into_inner);
        let Some(account) = shard.account(key, limits, now) else {
            return refuse(Kind::Overloaded, OVERLOADED_RETRY, None);
        };
        account.meter.advance(limits.qps, now);

        let wait = account.meter.wait(limits.burst);
        if !wait.is_zero() {
            return refuse(Kind::Throttled, wait, Some(RateLimit::new(&limits, &account.meter)));
        }
        if account.in_progress.load(Ordering::Acquire) >= limits.concurrency {
            return refuse(Kind::Concurrency, CONCURRENCY_RETRY, Some(RateLimit::new(&limits, &account.meter)));
        }
        account.meter.charge();
        // Counted up under the shard's lock alone, so two requests cannot both take the last slot.
        account.in_progress.fetch_add(1, Ordering::AcqRel);
        Ok(Permit {
            rate_limit: RateLimit::new(&limits, &account.meter),
            in_progress: Arc::clone(&account.in_progress),
        })
    }

    fn sized(shards: usize, accounts_per_shard: usize) -> Self {
        let shard = || Mutex::new(Shard { accounts: HashMap::new(), sweep_at: FIRST_SWEEP, limit: accounts_per_shard });
        Self { hasher: RandomState::new(), shards: std::iter::repeat_with(shard).take(shards).collect() }
    }

    fn shard(&self, key: &AccountKey) -> &Mutex<Shard> {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0);
        &self.shards[hash % self.shards.len()]
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Permit {
    /// The account's standing after this request: what the `RateLimit` headers say.
    #[must_use]
    pub fn rate_limit(&self) -> &RateLimit {
        &self.rate_limit
    }

    /// Requests that may still come at once.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.rate_limit.remaining()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_progress.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Refused {
    /// The error code on the wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.kind {
            Kind::TooLarge => "artifact_too_large",
            Kind::Throttled | Kind::Concurrency => "plan_throttled",
            Kind::Overloaded => "overloaded",
        }
    }

    /// Which limit, for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.kind {
            Kind::TooLarge => "artifact_bytes_exceeded",
            Kind::Throttled => "qps_exceeded",
            Kind::Concurrency => "concurrency_exceeded",
            Kind::Overloaded => "quota_accounts_full",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { qps, burst, concurrency, max_artifact_bytes } = self.limits;
        match self.kind {
            Kind::TooLarge => write!(f, "the plan allows requests of at most {max_artifact_bytes} bytes"),
            Kind::Throttled => write!(f, "the tenant may send {qps} requests per second and {burst} at once"),
            Kind::Concurrency => write!(f, "the tenant may have {concurrency} requests in progress at once"),
            Kind::Overloaded => f.write_str("too many tenants and licences are active at once"),
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct AccountKey {
    tenant: Arc<str>,
    /// `None` for what needs no licence.
    license: Option<Arc<str>>,
}

struct Account {
    meter: Meter,
    in_progress: Arc<AtomicU32>,
}

struct Shard {
    accounts: HashMap<AccountKey, Account>,
    /// The number of accounts at which idle ones are looked for. Twice what the last sweep left, so that sweeping
    /// costs each new account a constant share.
    sweep_at: usize,
    limit: usize,
}

impl Shard {
    /// The account of `key`, opened if need be; `None` when the shard is full of accounts that are in use.
    fn account(&mut self, key: AccountKey, limits: Limits, now: Instant) -> Option<&mut Account> {
        if self.accounts.len() >= self.sweep_at.min(self.limit) && !self.accounts.contains_key(&key) {
            self.accounts.retain(|_, account| !account.is_idle(now));
            self.sweep_at = (self.accounts.len() * 2).max(FIRST_SWEEP);
            if self.accounts.len() >= self.limit {
                return None;
            }
        }
        Some(self.accounts.entry(key).or_insert_with(|| Account {
            meter: Meter::new(limits.qps, now),
            in_progress: Arc::new(AtomicU32::new(0)),
        }))
    }
}

impl Account {
    /// Would a new account in its place behave the same?
    fn is_idle(&self, now: Instant) -> bool {
        self.meter.is_empty(now) && self.in_progress.load(Ordering::Acquire) == 0
    }
}

/// Few enough to cost nothing, many enough that two event loops rarely meet.
const SHARDS: usize = 16;

/// 65,536 accounts in all, about 10 MB.
const ACCOUNTS_PER_SHARD: usize = 4096;

const FIRST_SWEEP: usize = 64;

/// Nobody knows when a slot frees up; a signature takes milliseconds.
const CONCURRENCY_RETRY: Duration = Duration::from_secs(1);

const OVERLOADED_RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
