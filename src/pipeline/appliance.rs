//! Everything that the steps of the pipeline work with, made once from the configuration.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Refusal;
use super::report::Reports;
use crate::api::{BodyBudget, CustodyReadiness, Readiness};
use crate::audit::{AuditLog, Record};
use crate::auth::{Authenticator, Caller, PeerCertificate};
use crate::clock::UnixTime;
use crate::config::{Config, SigningMode};
use crate::custody::{Custody, TokenStatus};
use crate::entitlement::{Entitlements, Limits};
use crate::outbound::{Outbound, OutboundLimits, OutboundTls};
use crate::quota::{Permit, Quotas};
use crate::release::TrustedReleases;
use crate::statement::catalog::{Allowed, PredicateType};
use crate::telemetry::{Metrics, TokenFigures};

/// The front, without its listeners.
pub(crate) struct Appliance {
    pub(crate) config: Config,
    pub(crate) audit: AuditLog,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) entitlements: Arc<Entitlements>,
    pub(crate) quotas: Quotas,
    pub(crate) releases: TrustedReleases,
    pub(crate) custody: Arc<Custody>,
    pub(crate) metrics: Metrics,
    pub(crate) bodies: Arc<BodyBudget>,
    pub(super) reports: Reports,
    tenants: HashMap<Arc<str>, TenantPolicy>,
}

/// What a tenant may have signed, and how.
pub(crate) struct TenantPolicy {
    allowed: Allowed,
    pub(crate) default_mode: SigningMode,
}

impl Appliance {
    /// Makes every part. Look-ups run on `background`.
    ///
    /// # Errors
    /// What is wrong with the configuration or with a file that it names.
    pub(crate) fn new(
        config: Config,
        audit: AuditLog,
        background: &Handle,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let authority = Outbound::new(
            OutboundTls::load(config.authority.ca.as_deref(), None)?,
            OutboundLimits { timeout: AUTHORITY_TIMEOUT, max_body_bytes: MAX_JWKS_BYTES },
            background.clone(),
        )?;
        let licensing = match &config.licensing.online {
            None => None,
            Some(online) => Some(Outbound::new(
                OutboundTls::load(Some(&online.ca), Some((&online.certificate, &online.private_key)))?,
                OutboundLimits { timeout: online.timeout.get(), max_body_bytes: MAX_INTROSPECTION_BYTES },
                background.clone(),
            )?),
        };
        let tenants = config.tenants.keys().map(String::as_str);
        let authenticator = Authenticator::new(&config.authority, &config.server.public_url, tenants, authority)?;
        let entitlements = Entitlements::new(&config.licensing, config.plans.clone(), licensing)?;
        let metrics = Metrics::new();
        audit.observe(metrics.audit());
        let tenants = config
            .tenants
            .iter()
            .map(|(name, tenant)| {
                let allowed = Allowed::new(&tenant.predicate_types)?;
                Ok((name.as_str().into(), TenantPolicy { allowed, default_mode: tenant.default_mode }))
            })
            .collect::<Result<_, Box<dyn Error + Send + Sync>>>()?;
        Ok(Self {
            authenticator: Arc::new(authenticator),
            entitlements: Arc::new(entitlements),
            quotas: Quotas::new(),
            releases: TrustedReleases::new(&config.release, background, metrics.release.clone())?,
            custody: Arc::new(Custody::new(&config)?),
            bodies: Arc::new(BodyBudget::new(config.server.limits.max_body_bytes_in_flight.get())),
            reports: Reports::default(),
            tenants,
            metrics,
            audit,
            config,
        })
    }

    /// Keeps keys, lists and tokens fresh until `stop` turns true.
    pub(crate) async fn upkeep(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let work = async {
            tokio::join!(
                self.authenticator.maintain(),
                Arc::clone(&self.entitlements).watch(),
                Arc::clone(&self.custody).watch(),
                self.write_down_custody_events(),
            )
        };
        tokio::select! {
            _ = work => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// What happens to tokens and keys, into the audit log, for ever.
    async fn write_down_custody_events(&self) {
        let Some(mut events) = self.custody.events() else { return };
        while let Some(event) = events.recv().await {
            let written = event.as_record(|record| self.audit.append(record)).await;
            if let Err(error) = written {
                // The log says for itself that it fails, and nothing is signed while it does.
                tracing::error!(%error, ?event, "an event of custody could not be recorded");
            }
        }
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
                && self.config.tenants.keys().all(|tenant| self.custody.can_sign(tenant)),
            audit: now(audit, "failed"),
            authority: now(authority, "unavailable"),
            revocations: now(revocations, "stale"),
            tokens: self.custody.status().into_iter().map(Into::into).collect(),
            custody: keys.iter().flat_map(CustodyReadiness::of).collect(),
            keys: keys.into_iter().map(Into::into).collect(),
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
const AUTHORITY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_JWKS_BYTES: usize = 1 << 20;
const MAX_INTROSPECTION_BYTES: usize = 64 << 10;
