//! From a configuration to an appliance: each part is made, or taken over from the appliance before.

use std::error::Error;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::appliance::{Appliance, TenantPolicy};
use super::part::Part;
use super::report::Reports;
use crate::api::{BodyBudget, LiveTls};
use crate::audit::{AuditLog, Detail, Record};
use crate::auth::Authenticator;
use crate::config::{self, Config, JwksSource, KeyState, Loaded, Print};
use crate::custody::Custody;
use crate::custody::history::{self, History};
use crate::entitlement::Entitlements;
use crate::jose::base64url;
use crate::keyless::Keyless;
use crate::outbound::{Outbound, OutboundLimits, OutboundTls};
use crate::quota::Quotas;
use crate::release::TrustedReleases;
use crate::sigstore::TrustedRoot;
use crate::statement::catalog::Allowed;
use crate::telemetry::Metrics;
use crate::timestamp::{AuthoritySettings, TimestampPolicy, TimestampSettings, Timestamps};

/// What outlives every configuration: the log, what is counted, and the runtime that look-ups run on.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) bodies: Arc<BodyBudget>,
    pub(crate) background: Handle,
}

type Failure = Box<dyn Error + Send + Sync>;
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Standing {
    /// Everything at its beginning.
    pub(crate) fn new(audit: AuditLog, config: &Config, background: &Handle) -> Self {
        let metrics = Arc::new(Metrics::new());
        audit.observe(metrics.audit());
        Self {
            audit: Arc::new(audit),
            metrics,
            quotas: Arc::new(Quotas::new()),
            bodies: Arc::new(BodyBudget::new(config.server.limits.max_body_bytes_in_flight.get())),
            background: background.clone(),
        }
    }
}

impl Appliance {
    /// Makes every part, or takes it over from `old`. Nothing of `old` is changed, and nothing begins to work: that is
    /// [`tend`](Self::tend).
    ///
    /// # Errors
    /// What is wrong with the configuration or with a file that it names.
    pub(crate) fn assemble(loaded: Loaded, standing: &Standing, old: Option<&Self>) -> Result<Self, Failure> {
        let config = &loaded.config;
        let custody = {
            let print = Print::default()
                .values(&loaded, &["tokens"])
                .files(&loaded, &["keys"])
                .values(&loaded, &["tenants"])
                .values(&loaded, &["custody"]);
            Part::keep_or(old.map(|old| &old.custody), print, || {
                let custody = Custody::new(config)?;
                if let Some(old) = old {
                    custody.succeed(&old.custody);
                }
                Ok::<_, Failure>(custody)
            })?
        };
        // Its client assertions are signed by keys of custody.
        let same_custody = old.filter(|old| old.custody.is(&custody));
        let keyless = {
            let print = Print::default().files(&loaded, &["keyless"]);
            let make = || Ok::<_, Failure>(Keyless::new(config, custody.share(), &standing.metrics.keyless)?);
            Part::keep_or(same_custody.map(|old| &old.keyless), print, make)?
        };
        let authenticator = {
            let print = Print::default()
                .files(&loaded, &["authority"])
                .values(&loaded, &["server", "public_url"])
                .values(&loaded, &["tenants"]);
            Part::keep_or(old.map(|old| &old.authenticator), print, || authenticator(config, standing, old))?
        };
        let entitlements = {
            let print = Print::default().files(&loaded, &["licensing"]).values(&loaded, &["plans"]);
            Part::keep_or(old.map(|old| &old.entitlements), print, || entitlements(config, standing))?
        };
        let releases = {
            let print = Print::default().files(&loaded, &["release"]);
            let (runtime, metrics) = (&standing.background, &standing.metrics);
            let make = || Ok::<_, Failure>(TrustedReleases::new(&config.release, runtime, metrics.release.clone())?);
            Part::keep_or(old.map(|old| &old.releases), print, make)?
        };
        let timestamps = {
            let print = Print::default().files(&loaded, &["timestamps"]);
            let make = || config.timestamps.as_ref().map(|stamps| timestamps(stamps, &standing.background)).transpose();
            Part::keep_or(old.map(|old| &old.timestamps), print, make)?
        };
        let tls = {
            // Looks after its files itself.
            let print = Print::default().values(&loaded, &["server", "tls"]);
            let make = || Ok::<_, Failure>(LiveTls::open(&config.server.tls)?);
            Part::keep_or(old.map(|old| &old.tls), print, make)?
        };
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
            .collect::<Result<_, Failure>>()?;
        Ok(Self {
            custody,
            keyless,
            authenticator,
            entitlements,
            releases,
            timestamps,
            tls,
            tenants,
            reports: Reports::default(),
            audit: Arc::clone(&standing.audit),
            metrics: Arc::clone(&standing.metrics),
            quotas: Arc::clone(&standing.quotas),
            bodies: Arc::clone(&standing.bodies),
            config: loaded.config,
        })
    }

    /// Has every part kept fresh that is not yet: keys, lists, tokens. A part's tasks end with it.
    pub(crate) fn tend(&self, runtime: &Handle) {
        self.authenticator.tend(runtime, |authenticator| {
            let authenticator = Arc::clone(authenticator);
            vec![async move { authenticator.maintain().await }]
        });
        self.entitlements.tend(runtime, |entitlements| {
            let (entitlements, audit) = (Arc::clone(entitlements), Arc::clone(&self.audit));
            vec![async move { entitlements.watch(|keys| write_down_licensing_keys(&audit, keys)).await }]
        });
        self.custody.tend(runtime, |custody| {
            let (history, audit) = (History::of(&self.config), Arc::clone(&self.audit));
            let watch: Task = Box::pin(Arc::clone(custody).watch());
            let history: Task = Box::pin(history::keep(Arc::clone(custody), history));
            vec![watch, history, Box::pin(write_down_custody_events(Arc::clone(custody), audit))]
        });
        self.keyless.tend(runtime, |keyless| {
            let Some(keyless) = keyless.as_ref().as_ref().map(|_| Arc::clone(keyless)) else {
                return vec![Box::pin(ready(())) as Task];
            };
            let upkeep: Task = Box::pin(keep_keyless(Arc::clone(&keyless)));
            vec![upkeep, Box::pin(write_down_assertions(keyless, Arc::clone(&self.audit)))]
        });
        self.tls.tend(runtime, |tls| {
            let (tls, metrics, audit) = (Arc::clone(tls), Arc::clone(&self.metrics), Arc::clone(&self.audit));
            vec![async move { tls.watch(&metrics, &audit).await }]
        });
    }

    /// Ends what [`tend`](Self::tend) began: the process stops, and its log has its last record soon.
    pub(crate) fn leave_alone(&self) {
        self.authenticator.leave_alone();
        self.entitlements.leave_alone();
        self.custody.leave_alone();
        self.keyless.leave_alone();
        self.tls.leave_alone();
    }
}

fn authenticator(config: &Config, standing: &Standing, old: Option<&Appliance>) -> Result<Authenticator, Failure> {
    // Keys in a file are asked of nobody, and a system may have no CAs.
    let tls = match &config.authority.jwks {
        JwksSource::File(_) => OutboundTls::default(),
        JwksSource::Discovery(_) | JwksSource::Url(_) => OutboundTls::load(config.authority.ca.as_deref(), None)?,
    };
    let outbound = Outbound::new(
        tls,
        OutboundLimits { timeout: AUTHORITY_TIMEOUT, max_body_bytes: MAX_JWKS_BYTES },
        standing.background.clone(),
    )?;
    let (authority, url) = (&config.authority, &config.server.public_url);
    let tenants = config.tenants.keys().map(String::as_str);
    Ok(match old {
        None => Authenticator::new(authority, url, tenants, outbound)?,
        Some(old) => Authenticator::succeeding(&old.authenticator, authority, url, tenants, outbound)?,
    })
}

fn entitlements(config: &Config, standing: &Standing) -> Result<Entitlements, Failure> {
    let licensing = match &config.licensing.online {
        None => None,
        Some(online) => {
            let tls = OutboundTls::load(Some(&online.ca), Some((&online.certificate, &online.private_key)))?;
            if let Some(expires) = tls.identity_expires() {
                standing.metrics.certificate_expiry("licensing_client", expires);
            }
            let limits = OutboundLimits { timeout: online.timeout.get(), max_body_bytes: MAX_INTROSPECTION_BYTES };
            Some(Outbound::new(tls, limits, standing.background.clone())?)
        }
    };
    Ok(Entitlements::new(&config.licensing, config.plans.clone(), licensing)?)
}

fn timestamps(config: &config::Timestamps, background: &Handle) -> Result<Timestamps, Failure> {
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
        .collect::<Result<_, Failure>>()?;
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

/// What happens to tokens and keys, into the audit log, for ever.
async fn write_down_custody_events(custody: Arc<Custody>, audit: Arc<AuditLog>) {
    let Some(mut events) = custody.events() else { return };
    while let Some(event) = events.recv().await {
        let written = event.as_record(|record| audit.append(record)).await;
        if let Err(error) = written {
            // The log says for itself that it fails, and nothing is signed while it does.
            tracing::error!(%error, ?event, "an event of custody could not be recorded");
        }
    }
}

/// By which keys the Licensing Service is believed from now on, or why not by those that somebody wrote.
fn write_down_licensing_keys(audit: &AuditLog, keys: Result<&[[u8; 32]], &str>) {
    let thumbprints: Vec<String>;
    let (event, details) = match keys {
        Ok(keys) => {
            thumbprints = keys.iter().map(|key| base64url(key)).collect();
            let count = Detail::Number(keys.len() as u64);
            ("licensing_keys_in_force", vec![("keys", count), ("thumbprints", Detail::List(&thumbprints))])
        }
        Err(why) => ("licensing_keys_refused", vec![("detail", Detail::Text(why))]),
    };
    // Nobody waits for it: the log says for itself that it fails, and nothing is signed while it does.
    audit.append(&Record::Event { event, details: &details }).forget();
}

async fn keep_keyless(keyless: Arc<Option<Keyless>>) {
    if let Some(keyless) = &*keyless {
        keyless.upkeep().await;
    }
}

/// What the sandbox of helpers may lack, and each client assertion before a key signs it, into the audit log.
async fn write_down_assertions(keyless: Arc<Option<Keyless>>, audit: Arc<AuditLog>) {
    let Some(keyless) = &*keyless else { return };
    for exception in keyless.sandbox_exceptions() {
        let details = [("layer", Detail::Text(&exception.layer)), ("reason", Detail::Text(&exception.reason))];
        let written = audit.append(&Record::Event { event: "sandbox_exception", details: &details }).await;
        if let Err(error) = written {
            tracing::error!(%error, "an exception from the sandbox could not be recorded");
        }
    }
    let Some(mut assertions) = keyless.assertions() else { return };
    while let Some(assertion) = assertions.recv().await {
        let written = assertion.as_record(|record| audit.append(record)).await;
        assertion.recorded(written.is_ok());
    }
}

/// After so many failures in a row a timestamp authority is left alone.
const STAMP_FAILURES: u32 = 3;
const STAMP_PAUSE: Duration = Duration::from_secs(1);
const AUTHORITY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_JWKS_BYTES: usize = 1 << 20;
const MAX_INTROSPECTION_BYTES: usize = 64 << 10;
