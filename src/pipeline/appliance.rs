//! Everything that the steps of the pipeline work with.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Refusal;
use super::part::Part;
use super::report::Reports;
use crate::api::{BodyBudget, CustodyReadiness, KeylessReadiness, LiveTls, Readiness, TimestampReadiness};
use crate::audit::{AuditLog, Record};
use crate::auth::{Authenticator, Caller, PeerCertificate};
use crate::clock::UnixTime;
use crate::config::{Config, SigningMode};
use crate::custody::{Custody, TokenStatus};
use crate::entitlement::{Entitlements, Limits};
use crate::keyless::Keyless;
use crate::quota::{Permit, Quotas};
use crate::release::TrustedReleases;
use crate::statement::catalog::{Allowed, PredicateType};
use crate::telemetry::{Metrics, TokenFigures};
use crate::timestamp::Timestamps;

/// The front, without its listeners, as one configuration wants it.
pub(crate) struct Appliance {
    pub(crate) config: Config,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) authenticator: Part<Authenticator>,
    pub(crate) entitlements: Part<Entitlements>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) releases: Part<TrustedReleases>,
    pub(crate) custody: Part<Custody>,
    /// Absent where the configuration has no Fulcio.
    pub(super) keyless: Part<Option<Keyless>>,
    /// Absent where the configuration has no timestamp authority.
    pub(super) timestamps: Part<Option<Timestamps>>,
    pub(crate) tls: Part<LiveTls>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) bodies: Arc<BodyBudget>,
    pub(super) reports: Reports,
    pub(super) tenants: HashMap<Arc<str>, TenantPolicy>,
}

/// What a tenant may have signed, and how.
pub(crate) struct TenantPolicy {
    pub(super) allowed: Allowed,
    pub(crate) default_mode: SigningMode,
    /// It has no key that signs, so that it is ready when keyless signing is.
    pub(super) only_keyless: bool,
}

impl Appliance {
    /// Can something be signed for the tenant now? Whoever has a key is ready by that; Fulcio matters to those alone who
    /// have nothing else.
    fn can_sign(&self, tenant: &str, policy: &TenantPolicy) -> bool {
        if policy.only_keyless {
            self.keyless.as_ref().is_some_and(|keyless| keyless.can_sign(tenant))
        } else {
            self.custody.can_sign(tenant)
        }
    }

    /// What worked with `before` and would not now, in words; `None` where nothing was lost.
    pub(super) fn shortfall(&self, before: &Self) -> Option<String> {
        if before.authenticator.key_status().usable && !self.authenticator.key_status().usable {
            return Some("the Authority's keys cannot be had".to_owned());
        }
        let lost = |tenant: &Arc<str>, policy: &TenantPolicy| {
            let could = before.tenants.get(tenant).is_some_and(|earlier| before.can_sign(tenant, earlier));
            could && !self.can_sign(tenant, policy)
        };
        let lost: Vec<&str> =
            self.tenants.iter().filter(|(tenant, policy)| lost(tenant, policy)).map(|(tenant, _)| &**tenant).collect();
        (!lost.is_empty()).then(|| format!("nothing could be signed for {}", lost.join(", ")))
    }

    /// The caller's tenant. Authentication has refused tenants that the configuration does not know.
    pub(super) fn tenant(&self, caller: &Caller) -> Result<&TenantPolicy, Refusal> {
        self.tenants.get(&caller.tenant).ok_or_else(|| Refusal::lost(&"an authenticated tenant is not configured"))
    }

    /// Admits a request that signs nothing, within the tenant's rate for those.
    pub(crate) fn admit_read(&self, tenant: &Arc<str>) -> Result<Permit, Refusal> {
        let rate = self.config.server.limits.reads_per_second.get();
        let limits = Limits { qps: rate, burst: rate, concurrency: MAX_READS_AT_ONCE, max_artifact_bytes: u64::MAX };
        Ok(self.quotas.admit_read(tenant, limits, 0, Instant::now())?)
    }

    /// Records, at a bounded rate, a connection or request that strangers can cause at will.
    pub(crate) fn refused_connection(
        &self,
        remote: SocketAddr,
        peer: Option<&PeerCertificate>,
        reason: &'static str,
        detail: &str,
    ) {
        let peer = peer.map(|peer| &*peer.subject);
        tracing::debug!(%remote, peer, reason, detail, "a connection was refused");
        self.audit.note(&Record::ConnectionRefused {
            remote,
            reason,
            detail: Some(detail).filter(|text| !text.is_empty()),
        });
    }

    /// Whether requests can be served now.
    pub(crate) fn readiness(&self) -> Readiness {
        let now = |works, otherwise| if works { "ok" } else { otherwise };
        let (audit, authority) = (self.audit.trouble().is_none(), self.authenticator.key_status().usable);
        let revocations = self.entitlements.revocation_list().is_none_or(|list| UnixTime::now() <= list.fresh_until);
        let keys = self.custody.keys(None);
        Readiness {
            ready: audit
                && authority
                && revocations
                && self.tenants.iter().all(|(tenant, policy)| self.can_sign(tenant, policy)),
            audit: now(audit, "failed"),
            authority: now(authority, "unavailable"),
            revocations: now(revocations, "stale"),
            tokens: self.custody.status().into_iter().map(Into::into).collect(),
            custody: keys.iter().flat_map(CustodyReadiness::of).collect(),
            keys: keys.into_iter().map(Into::into).collect(),
            keyless: self.keyless.as_ref().map(|keyless| KeylessReadiness::of(&keyless.status())),
            timestamps: self
                .timestamps
                .as_ref()
                .map(|timestamps| timestamps.health().iter().map(TimestampReadiness::of).collect()),
        }
    }

    /// `/metrics`, with what is known of the tokens now.
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub(crate) fn render_metrics(&self) -> Result<String, std::fmt::Error> {
        let mut bad_signatures = 0;
        for token in self.custody.status() {
            bad_signatures += token.bad_signatures;
            self.metrics.custody.token(&token.name, token.outstanding, token.taken_over);
            match figures(&token) {
                Some(figures) => self.metrics.token(&token.name, &figures),
                None => self.metrics.token_down(&token.name),
            }
        }
        for figures in self.custody.figures() {
            self.metrics.custody.key(&figures);
        }
        for (key, configured) in &self.config.keys {
            for exception in &configured.custody_exception {
                self.metrics.custody.exception(key, exception.attribute);
            }
        }
        if let Some(keyless) = &*self.keyless {
            keyless.observe();
        }
        self.metrics.body_bytes_held.set(self.bodies.held().cast_signed());
        if let Some(list) = self.entitlements.revocation_list() {
            self.metrics.revocation_list_fresh_until(list.fresh_until.0);
        }
        self.metrics.verify_after_sign_failures.inner().store(bad_signatures, Ordering::Relaxed);
        self.metrics.render()
    }
}

fn figures(token: &TokenStatus) -> Option<TokenFigures> {
    let report = token.report.as_ref()?;
    Some(TokenFigures {
        up: token.ready,
        queue_depth: report.queue_depth,
        sessions: report.sessions_open,
        sessions_configured: report.sessions_configured,
        sign_requests: report.counters.sign_requests,
        signatures: report.counters.signatures,
        logins: report.counters.logins,
        sessions_lost: report.counters.sessions_lost,
    })
}

impl TenantPolicy {
    /// Whether this tenant may have `predicate_type` signed.
    ///
    /// # Errors
    /// A refusal that names the type.
    pub(super) fn allows(&self, predicate_type: &'static PredicateType) -> Result<(), Refusal> {
        if self.allowed.contains(predicate_type) {
            Ok(())
        } else {
            Err(Refusal::predicate_not_allowed(predicate_type.uri))
        }
    }
}

/// Verifying a large envelope keeps a core busy for a while.
const MAX_READS_AT_ONCE: u32 = 16;
