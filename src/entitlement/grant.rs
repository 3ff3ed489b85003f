//! A proven PoE, and what is asked of it on every request.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq as _;

use super::claims::{Claim, Claims, Confirmation, Fault, require};
use super::version::Version;
use super::{Entitlement, Limits, PoeError};
use crate::auth::{Caller, SenderKey};
use crate::clock::UnixTime;
use crate::config;

/// What holds for every PoE, however it is proven.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) clock_skew: Duration,
    pub(super) require_cnf: bool,
    pub(super) plans: BTreeMap<String, config::Plan>,
}

/// What a PoE says, once it is proven that the Licensing Service says it. It depends on the token alone and is
/// therefore what the caches keep; what depends on caller, request and time is asked of it each time.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) entitlement: Arc<Entitlement>,
    pub(super) token_id: Option<Arc<str>>,
    tenant: Arc<str>,
    confirmation: Option<Confirmation>,
    issued_at: Option<UnixTime>,
    not_before: Option<UnixTime>,
    valid_release_year: Option<u32>,
    max_version: Option<Version>,
}

impl Rules {
    /// Makes a grant of the claims that both ways of proof need; limits that the PoE does not name are the plan's.
    ///
    /// # Errors
    /// [`PoeError::Claim`] for a claim that is missing or not for us, [`PoeError::PlanUnknown`].
    pub(super) fn grant(&self, claims: Claims) -> Result<Grant, PoeError> {
        if claims.audience.as_ref().is_some_and(|audience| !audience.names(AUDIENCE)) {
            return Err(PoeError::Claim { claim: Claim::Aud, fault: Fault::Mismatch });
        }
        let expires_at = require(Claim::Exp, claims.expires_at)?;
        let tenant = require(Claim::Tid, claims.tenant)?;
        let license_id = require(Claim::LicenseId, claims.license_id)?;
        let customer_id = require(Claim::CustomerId, claims.customer_id)?;
        let plan = require(Claim::Plan, claims.plan)?;
        if self.require_cnf {
            require(Claim::Cnf, claims.confirmation)?;
        }

        let configured = self.plans.get(&*plan.0);
        let missing = |missing| PoeError::PlanUnknown { missing };
        let (named, default) = (claims.limits, configured);
        let qps = named.qps.or(default.map(|plan| plan.qps)).ok_or_else(|| missing("limits.qps"))?;
        let limits = Limits {
            qps: qps.get(),
            burst: named.burst.or(default.and_then(|plan| plan.burst)).unwrap_or(qps).get(),
            concurrency: named
                .concurrency
                .or(default.map(|plan| plan.concurrency))
                .ok_or_else(|| missing("limits.concurrency"))?
                .get(),
            max_artifact_bytes: named
                .max_artifact_bytes
                .map(std::num::NonZero::get)
                .or(default.map(|plan| plan.max_artifact_bytes.get()))
                .ok_or_else(|| missing("limits.max_artifact_bytes"))?,
        };
        let entitlement =
            Entitlement { license_id: license_id.0, customer_id: customer_id.0, plan: plan.0, limits, expires_at };
        Ok(Grant {
            entitlement: Arc::new(entitlement),
            token_id: claims.token_id.map(|id| id.0),
            tenant: tenant.0,
            confirmation: claims.confirmation,
            issued_at: claims.issued_at,
            not_before: claims.not_before,
            valid_release_year: claims.valid_release_year,
            max_version: claims.max_version,
        })
    }
}

impl Grant {
    /// Is it the caller's own?
    ///
    /// # Errors
    /// [`PoeError::Claim`] for `tid` or `cnf`, [`PoeError::BindingKind`].
    pub(super) fn check_binding(&self, caller: &Caller) -> Result<(), PoeError> {
        if self.tenant != caller.tenant {
            return Err(PoeError::Claim { claim: Claim::Tid, fault: Fault::Mismatch });
        }
        let same = match (self.confirmation, caller.sender) {
            // Whether that is allowed was decided when the grant was made.
            (None, _) => return Ok(()),
            (Some(Confirmation::Dpop(bound)), SenderKey::Dpop(proven))
            | (Some(Confirmation::Certificate(bound)), SenderKey::Certificate(proven)) => bound.ct_eq(&proven),
            _ => return Err(PoeError::BindingKind),
        };
        if same.into() { Ok(()) } else { Err(PoeError::Claim { claim: Claim::Cnf, fault: Fault::Mismatch }) }
    }

    /// Is `now` its time, give or take `skew`?
    ///
    /// # Errors
    /// [`PoeError::Expired`], [`PoeError::NotYetValid`], [`PoeError::IssuedInFuture`].
    pub(super) fn check_time(&self, now: UnixTime, skew: Duration) -> Result<(), PoeError> {
        if now >= self.entitlement.expires_at.plus(skew) {
            return Err(PoeError::Expired);
        }
        if self.not_before.is_some_and(|at| now.plus(skew) < at) {
            return Err(PoeError::NotYetValid);
        }
        if self.issued_at.is_some_and(|at| now.plus(skew) < at) {
            return Err(PoeError::IssuedInFuture);
        }
        Ok(())
    }

    /// Does the licence cover the scanner's version?
    ///
    /// A licence that names a release year or a version refuses what is newer, and what cannot be read or compared.
    /// A request without a version passes: many predicates have none, and who wants to hide a version can leave the
    /// member out of any of them.
    ///
    /// # Errors
    /// [`PoeError::ReleaseYear`], [`PoeError::NewerVersion`], [`PoeError::VersionUnreadable`],
    /// [`PoeError::VersionScheme`].
    pub(super) fn check_version(&self, stellaops_version: Option<&str>) -> Result<(), PoeError> {
        let Some(version) = stellaops_version else { return Ok(()) };
        if self.valid_release_year.is_none() && self.max_version.is_none() {
            return Ok(());
        }
        let version: Version = version.parse().map_err(|_| PoeError::VersionUnreadable)?;
        if let Some(licensed) = self.valid_release_year {
            let year = version.year().ok_or(PoeError::VersionScheme)?;
            if year > licensed {
                return Err(PoeError::ReleaseYear { year, licensed });
            }
        }
        match self.max_version.as_ref().map(|licensed| version.compare(licensed)) {
            Some(None) => Err(PoeError::VersionScheme),
            Some(Some(Ordering::Greater)) => Err(PoeError::NewerVersion),
            _ => Ok(()),
        }
    }
}

/// The audience that a PoE must name if it names any (RFC 7519, section 4.1.3).
const AUDIENCE: &str = "signer";
