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
use crate::api::{BodyBudget, CustodyReadiness, KeylessReadiness, Readiness, TimestampReadiness};
use crate::audit::{AuditLog, Detail, Record};
use crate::auth::{Authenticator, Caller, PeerCertificate};
use crate::clock::UnixTime;
use crate::config::{self, Config, KeyState, SigningMode};
use crate::custody::{Custody, TokenStatus};
use crate::entitlement::{Entitlements, Limits};
use crate::keyless::Keyless;
use crate::outbound::{Outbound, OutboundLimits, OutboundTls};
use crate::quota::{Permit, Quotas};
use crate::release::TrustedReleases;
use crate::sigstore::TrustedRoot;
use crate::statement::catalog::{Allowed, PredicateType};
use crate::telemetry::{Metrics, TokenFigures};
use crate::timestamp::{AuthoritySettings, TimestampPolicy, TimestampSettings, Timestamps};

/// The front, without its listeners.
pub(crate) struct Appliance {
    pub(crate) config: Config,
    pub(crate) audit: AuditLog,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) entitlements: Arc<Entitlements>,
    pub(crate) quotas: Quotas,
    pub(crate) releases: TrustedReleases,
    pub(crate) custody: Arc<Custody>,
    /// Absent where the configuration has no Fulcio.
    pub(super) keyless: Option<Arc<Keyless>>,
    /// Absent where the configuration has no timestamp authority.
    pub(super) timestamps: Option<Timestamps>,
    pub(crate) metrics: Metrics,
    pub(crate) bodies: Arc<BodyBudget>,
    pub(super) reports: Reports,
    tenants: HashMap<Arc<str>, TenantPolicy>,
}

/// What a tenant may have signed, and how.
pub(crate) struct TenantPolicy {
    allowed: Allowed,
    pub(crate) default_mode: SigningMode,
    /// It has no key that signs, so that it is ready when keyless signing is.
    only_keyless: bool,
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
        let metrics = Metrics::new();
        let licensing = match &config.licensing.online {
            None => None,
            Some(online) => {
                let tls = OutboundTls::load(Some(&online.ca), Some((&online.certificate, &online.private_key)))?;
                if let Some(expires) = tls.identity_expires() {
                    metrics.certificate_expiry("licensing_client", expires);
                }
                let limits = OutboundLimits { timeout: online.timeout.get(), max_body_bytes: MAX_INTROSPECTION_BYTES };
                Some(Outbound::new(tls, limits, background.clone())?)
            }
        };
        let tenants = config.tenants.keys().map(String::as_str);
        let authenticator = Authenticator::new(&config.authority, &config.server.public_url, tenants, authority)?;
        let entitlements = Entitlements::new(&config.licensing, config.plans.clone(), licensing)?;
        audit.observe(metrics.audit());
        let tenants = config
            .tenants
            .iter()
            .map(|(name, tenant)| {
                let allowed = Allowed::new(&tenant.predicate_types)?;
                let signs = |key: &String| config.keys.get(key).is_some_and(|key| key.state == KeyState::Active);
                let only_keyless = tenant.keyless.is_some() && !tenant.keys.iter().any(signs);
                let policy = TenantPolicy { allowed, default_mode: tenant.default_mode, only_keyless };
                Ok((name.as_str().into(), policy))
            })
            .collect::<Result<_, Box<dyn Error + Send + Sync>>>()?;
        let custody = Arc::new(Custody::new(&config)?);
        let keyless = Keyless::new(&config, &custody, &metrics.keyless)?.map(Arc::new);
        let timestamps = config.timestamps.as_ref().map(|stamps| timestamps(stamps, background)).transpose()?;
        Ok(Self {
            authenticator: Arc::new(authenticator),
            entitlements: Arc::new(entitlements),
            quotas: Quotas::new(),
            releases: TrustedReleases::new(&config.release, background, metrics.release.clone())?,
            custody,
            keyless,
            timestamps,
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
                self.keep_keyless(),
                self.write_down_assertions(),
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

    async fn keep_keyless(&self) {
        if let Some(keyless) = &self.keyless {
            Arc::clone(keyless).upkeep().await;
        }
    }

    /// What the sandbox of helpers may lack, and each client assertion before a key signs it, into the audit log.
    async fn write_down_assertions(&self) {
        let Some(keyless) = &self.keyless else { return };
        for exception in keyless.sandbox_exceptions() {
            let details = [("layer", Detail::Text(&exception.layer)), ("reason", Detail::Text(&exception.reason))];
            let written = self.audit.append(&Record::Event { event: "sandbox_exception", details: &details }).await;
            if let Err(error) = written {
                tracing::error!(%error, "an exception from the sandbox could not be recorded");
            }
        }
        let Some(mut assertions) = keyless.assertions() else { return };
        while let Some(assertion) = assertions.recv().await {
            let written = assertion.as_record(|record| self.audit.append(record)).await;
            assertion.recorded(written.is_ok());
        }
    }

    /// Can something be signed for the tenant now? Whoever has a key is ready by that; Fulcio matters to those alone who
    /// have nothing else.
    fn can_sign(&self, tenant: &str, policy: &TenantPolicy) -> bool {
        if policy.only_keyless {
            self.keyless.as_ref().is_some_and(|keyless| keyless.can_sign(tenant))
        } else {
            self.custody.can_sign(tenant)
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
        if let Some(keyless) = &self.keyless {
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

fn timestamps(config: &config::Timestamps, background: &Handle) -> Result<Timestamps, Box<dyn Error + Send + Sync>> {
    let root = TrustedRoot::load(&config.trusted_root)?;
    if root.timestamp_authorities.is_empty() {
        return Err("timestamps.trusted_root names no timestamp authority, so no timestamp could be trusted".into());
    }
    let authorities = config
        .authority
        .iter()
        .map(|(name, authority)| {
            let tls = if authority.url.starts_with("http:") {
                OutboundTls::default()
            } else {
                OutboundTls::load(authority.ca.as_deref(), None)?
            };
            Ok(AuthoritySettings { name: name.clone(), url: authority.url.clone(), tls })
        })
        .collect::<Result<_, Box<dyn Error + Send + Sync>>>()?;
    let settings = TimestampSettings {
        authorities,
        policy: match config.policy {
            config::TimestampPolicy::One => TimestampPolicy::One,
            config::TimestampPolicy::All => TimestampPolicy::All,
        },
        timeout: config.timeout.get(),
        failures: STAMP_FAILURES,
        pause: STAMP_PAUSE,
    };
    Ok(Timestamps::new(settings, Arc::new(root), background)?)
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
/// After so many failures in a row a timestamp authority is left alone.
const STAMP_FAILURES: u32 = 3;
const STAMP_PAUSE: Duration = Duration::from_secs(1);
const AUTHORITY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_JWKS_BYTES: usize = 1 << 20;
const MAX_INTROSPECTION_BYTES: usize = 64 << 10;
