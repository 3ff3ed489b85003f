//! Proof without a network: a JWT signed by a pinned licensing key, and a revocation list.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use super::claims::{Claim, Claims, Fault, require};
use super::grant::{Grant, Rules};
use super::pinned::{KeyFile, Opened, PinnedKeys};
use super::revocation::{Refreshed, RevocationList, RevocationListError, Source};
use super::{EntitlementSetupError, PoeError, RevocationListStatus, TokenHash, Unavailable};
use crate::clock::UnixTime;
use crate::config::OfflineLicensing;

/// Everything that offline proof needs.
#[derive(Debug)]
pub(super) struct Offline {
    rules: Arc<Rules>,
    keys: Arc<KeyFile>,
    issuer: String,
    revocations: RevocationList,
    /// Tokens whose signature was checked. Everything that can change is asked of the grant on every request, so an
    /// entry may be kept for as long as its token lives.
    proven: Cache<TokenHash, Proven>,
}

impl Offline {
    pub(super) fn new(
        config: &OfflineLicensing,
        rules: Arc<Rules>,
        now: UnixTime,
    ) -> Result<Self, EntitlementSetupError> {
        let keys = Arc::new(KeyFile::open(config)?);
        let source = Source {
            path: config.revocation_list.clone(),
            keys: Arc::clone(&keys),
            issuer: config.issuer.clone(),
            max_age: config.revocation_max_age.get(),
            clock_skew: rules.clock_skew,
        };
        let revocations = RevocationList::open(source, now)?;
        let proven = Cache::builder().max_capacity(MAX_PROVEN).expire_after(UntilExpiry).build();
        Ok(Self { rules, keys, issuer: config.issuer.clone(), revocations, proven })
    }

    /// Proves that the Licensing Service signed `token` and that the revocation list is fresh enough to say more.
    ///
    /// # Errors
    /// [`PoeError`].
    pub(super) fn prove(&self, hash: TokenHash, token: &str, now: UnixTime) -> Result<Arc<Grant>, PoeError> {
        let (keys, list) = (self.keys.in_force(), self.revocations.in_force());
        if !keys.pin(list.signed_by()) {
            return Err(PoeError::Unavailable(Unavailable::RevocationListDisowned { sequence: list.sequence() }));
        }
        if now >= list.fresh_until().plus(self.rules.clock_skew) {
            return Err(PoeError::Unavailable(Unavailable::RevocationListStale { sequence: list.sequence() }));
        }
        // What was proven by a key that is no longer pinned is proven no longer.
        if let Some(proven) = self.proven.get(&hash).filter(|proven| proven.keys == keys.generation()) {
            return Ok(proven.grant);
        }
        let grant = Arc::new(self.verify(&keys, token)?);
        let keep = grant.entitlement.expires_at.plus(self.rules.clock_skew).since(now);
        self.proven.insert(hash, Proven { grant: Arc::clone(&grant), keep, keys: keys.generation() });
        Ok(grant)
    }

    /// Looks whether the file of keys has changed, and takes valid new keys into force; whether it did.
    ///
    /// # Errors
    /// [`EntitlementSetupError`]; the keys in force stay.
    pub(super) fn refresh_keys(&self) -> Result<bool, EntitlementSetupError> {
        let taken = self.keys.refresh()?;
        if taken {
            self.revocations.keys_changed();
        }
        Ok(taken)
    }

    /// The RFC 7638 thumbprints of the keys in force.
    pub(super) fn thumbprints(&self) -> Vec<[u8; 32]> {
        self.keys.in_force().thumbprints()
    }

    /// As [`RevocationList::refresh`].
    ///
    /// # Errors
    /// [`RevocationListError`]; the list in force stays.
    pub(super) fn refresh_list(&self, now: UnixTime) -> Result<Refreshed, RevocationListError> {
        self.revocations.refresh(now)
    }

    /// The list in force. One whose key is no longer pinned proves nothing from the beginning of time.
    pub(super) fn list_status(&self) -> RevocationListStatus {
        let list = self.revocations.in_force();
        let disowned = !self.keys.in_force().pin(list.signed_by());
        let fresh_until = if disowned { UnixTime(0) } else { list.fresh_until() };
        RevocationListStatus { sequence: list.sequence(), fresh_until, disowned }
    }

    /// Is it on the revocation list in force?
    ///
    /// # Errors
    /// [`PoeError::LicenseRevoked`], [`PoeError::TokenRevoked`].
    pub(super) fn check_revoked(&self, grant: &Grant) -> Result<(), PoeError> {
        let list = self.revocations.in_force();
        if list.revokes_license(&grant.entitlement.license_id) {
            return Err(PoeError::LicenseRevoked);
        }
        if grant.token_id.as_deref().is_some_and(|id| list.revokes_token(id)) {
            return Err(PoeError::TokenRevoked);
        }
        Ok(())
    }

    fn verify(&self, keys: &PinnedKeys, token: &str) -> Result<Grant, PoeError> {
        let Opened { payload, .. } =
            keys.open(token, token.len(), POE_TYPE).map_err(|source| PoeError::Token { source: Arc::new(source) })?;
        let claims = Claims::parse(&payload)?;
        if *require(Claim::Iss, claims.issuer.as_ref())?.0 != *self.issuer {
            return Err(PoeError::Claim { claim: Claim::Iss, fault: Fault::Mismatch });
        }
        require(Claim::Sub, claims.subject.as_ref())?;
        require(Claim::Iat, claims.issued_at)?;
        require(Claim::Jti, claims.token_id.as_ref())?;
        self.rules.grant(claims)
    }
}

impl From<RevocationListError> for EntitlementSetupError {
    fn from(source: RevocationListError) -> Self {
        Self::RevocationList { source }
    }
}

#[derive(Clone, Debug)]
struct Proven {
    grant: Arc<Grant>,
    keep: Duration,
    /// Generation of the keys that it was proven by.
    keys: u64,
}

struct UntilExpiry;

impl Expiry<TokenHash, Proven> for UntilExpiry {
    fn expire_after_create(&self, _: &TokenHash, proven: &Proven, _: Instant) -> Option<Duration> {
        Some(proven.keep)
    }
}

/// The `typ` that a PoE may have instead of `JWT`.
const POE_TYPE: &str = "poe+jwt";

/// Tokens remembered, about 1 KB each.
const MAX_PROVEN: u64 = 10_000;
