//! Signing with an ephemeral key and a certificate of Fulcio: the parent's side.
//!
//! [`Keyless::sign`] is one flow: an identity token ([`identity`]), a place among the flows in progress ([`places`]), a
//! sealed helper ([`launcher`]) started while the way to Fulcio is made ([`route`], [`resolver`]), a job
//! ([`conversation`]), and then nothing of what comes back is believed before it was judged ([`issued`]). The helper owns
//! the key; it is another program, in `sealed/`. Where the operator allows it, a helper waits for more to sign under its
//! certificate ([`kept`]). When Fulcio does not answer it is left alone for a while ([`circuit`]).

#![forbid(unsafe_code)]

mod circuit;
mod conversation;
mod error;
mod flow;
mod https;
mod identity;
mod issued;
mod kept;
mod launcher;
mod places;
mod program;
mod resolver;
mod route;
mod tap;
#[cfg(test)]
mod testing;

use std::collections::HashMap;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use signer_keyless::wire::{Layer, Layers};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::{self, Config, SandboxException};
use crate::custody::Custody;
use crate::dsse::DerSignature;
use crate::sigstore::{self, TrustedRoot};
use crate::telemetry::{KeylessMetrics, alert};

use circuit::Circuit;
use identity::{AssertionEvents, Identity};
use issued::Pins;
use kept::KeptHelpers;
use launcher::Launcher;
use places::Places;
use program::Program;
use route::Route;

pub use circuit::CircuitState;
pub use error::{FlowStep, KeylessError, KeylessSetupError, Refuted};
pub use identity::{AssertionSigned, IdentityError, IdentityStatus};
pub use issued::Issued;
pub use program::ProgramError;
pub use route::{RouteError, RouteSetupError};

/// Everything that keyless signing needs, for all tenants that may.
#[derive(Debug)]
pub struct Keyless {
    launcher: Launcher,
    route: Route,
    pins: Pins,
    circuit: Circuit,
    identities: Vec<Arc<Identity>>,
    tenants: HashMap<Arc<str>, Arc<TenantIdentity>>,
    places: Places,
    kept: KeptHelpers,
    excepted: Layers,
    /// As the last helper told it.
    landlock_abi: AtomicU8,
    exceptions: Vec<SandboxException>,
    limits: Limits,
    metrics: KeylessMetrics,
    assertions: Mutex<Option<mpsc::UnboundedReceiver<AssertionSigned>>>,
}

/// As whom a tenant signs: what [`Keyless::sign`] takes. Only [`Keyless::resolve`] gives one.
#[derive(Debug)]
pub struct TenantIdentity {
    tenant: Arc<str>,
    identity: Arc<Identity>,
    expected: sigstore::Identity,
    /// Flows that it may have in progress at once.
    places: Places,
}

/// A signature that verifies, and the certificate of its key.
#[derive(Clone, Debug)]
pub struct KeylessSigned {
    /// Over the digest that was asked for.
    pub signature: DerSignature,
    /// Checked in every respect.
    pub issued: Arc<Issued>,
    /// Whether the key had signed before.
    pub reused: bool,
}

/// How keyless signing is, for `/readyz` and metrics.
#[derive(Clone, Debug)]
pub struct KeylessStatus {
    /// The circuit to Fulcio.
    pub circuit: CircuitState,
    /// The identities, in the order of their names.
    pub identities: Vec<IdentityStatus>,
}

#[derive(Debug)]
struct Limits {
    silence: Duration,
    sign_timeout: Duration,
    attempts: u32,
    /// What one who tries whether Fulcio answers again must have left.
    enough_to_try: Duration,
    reuse: config::Reuse,
}

impl Keyless {
    /// Reads what the configuration names and starts the two threads for helpers; connects to nobody. `None` when the
    /// configuration has no `[keyless]`.
    ///
    /// # Errors
    /// When the helper, the pinned roots or an identity cannot be used.
    pub fn new(
        config: &Config,
        custody: &Arc<Custody>,
        metrics: &KeylessMetrics,
    ) -> Result<Option<Self>, KeylessSetupError> {
        let Some(keyless) = &config.keyless else { return Ok(None) };
        let program = Program::find(keyless.helper.as_deref())?;
        let root = TrustedRoot::load(&keyless.trusted_root).map_err(KeylessSetupError::TrustedRoot)?;
        if root.certificate_authorities.is_empty() {
            return Err(KeylessSetupError::NoAuthority);
        }
        if root.ct_logs.is_empty() && keyless.sct == config::SctPolicy::Required {
            return Err(KeylessSetupError::NoCtLog);
        }
        let excepted: Layers =
            keyless.sandbox_exception.iter().filter_map(|exception| Layer::from_name(&exception.layer)).collect();
        for SandboxException { layer, reason } in &keyless.sandbox_exception {
            tracing::warn!(layer, reason, "keyless helpers run without a layer of their sandbox");
        }
        let (events, assertions) = mpsc::unbounded_channel();
        let events = AssertionEvents(events);
        let identities = keyless
            .identity
            .iter()
            .map(|(name, identity)| match Identity::new(name, identity, custody, &events) {
                Ok(identity) => Ok(Arc::new(identity)),
                Err(source) => Err(KeylessSetupError::Identity { name: name.clone(), source }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let tenants = tenants(config, keyless, &identities)?;
        Ok(Some(Self {
            launcher: Launcher::new(program, excepted).map_err(KeylessSetupError::Threads)?,
            route: Route::new(keyless)?,
            pins: Pins::new(root, keyless),
            circuit: Circuit::new(&keyless.circuit),
            identities,
            places: Places::new(keyless.max_flows.get(), keyless.max_waiting.get()),
            kept: KeptHelpers::new(&keyless.reuse, keyless.max_flows.get() as usize, metrics.helpers_kept.clone()),
            excepted,
            landlock_abi: AtomicU8::new(0),
            exceptions: keyless.sandbox_exception.clone(),
            limits: Limits {
                silence: keyless.step_timeout.get(),
                sign_timeout: keyless.sign_timeout.get(),
                attempts: keyless.attempts.get(),
                // All that Fulcio may take to connect and to be silent; but never more than requests can have.
                enough_to_try: (keyless.connect_timeout.get() + keyless.step_timeout.get())
                    .min(keyless.sign_timeout.get() / 2),
                reuse: keyless.reuse.clone(),
            },
            tenants,
            metrics: metrics.clone(),
            assertions: Mutex::new(Some(assertions)),
        }))
    }

    /// As whom the tenant signs; `None` when it does not sign keyless.
    #[must_use]
    pub fn resolve(&self, tenant: &str) -> Option<Arc<TenantIdentity>> {
        self.tenants.get(tenant).cloned()
    }

    /// Has a helper sign the digest under a certificate for this tenant, and verifies everything that came back.
    ///
    /// `wanted_life` is how long the certificate should still live; Fulcio decides how long one lives, so it only keeps
    /// a certificate that was used before from being used again too late.
    ///
    /// # Errors
    /// When no signature was made in time, or what was made is not what was asked for.
    pub async fn sign(
        &self,
        who: &TenantIdentity,
        digest: &[u8; 32],
        wanted_life: Option<Duration>,
        deadline: Instant,
    ) -> Result<KeylessSigned, KeylessError> {
        let deadline = deadline.min(Instant::now() + self.limits.sign_timeout);
        let signed = self.again_or_anew(who, digest, wanted_life.unwrap_or_default(), deadline).await;
        match &signed {
            Ok(_) => {
                self.metrics.signatures.inc();
            }
            Err(error) => {
                self.metrics.failure(error.reason());
                match error {
                    KeylessError::Refuted(refuted) => self.metrics.refuted(refuted.reason()),
                    error if error.is_the_helpers() => self.metrics.helper_failure(error.step().name()),
                    _ => {}
                }
            }
        }
        signed
    }

    /// Keeps identity tokens fresh and ends helpers that waited too long, for ever. At first it tries whether a
    /// helper can close its sandbox here; that one cannot is logged, and shows in no other way before a request needs one.
    pub async fn upkeep(&self) {
        let mut identities = JoinSet::new();
        for identity in &self.identities {
            identities.spawn(Arc::clone(identity).keep_fresh());
        }
        self.route.refresh();
        if let Err(error) = self.rehearse().await {
            tracing::error!(name: alert::KEYLESS_UNSEALED, %error, "keyless signing will fail: a helper that was started to try it did");
        }
        loop {
            self.kept.tend();
            self.route.refresh();
            tokio::time::sleep(TEND).await;
        }
    }

    /// Client assertions about to be signed, each of which waits for its record; `None` when somebody listens already.
    pub fn assertions(&self) -> Option<mpsc::UnboundedReceiver<AssertionSigned>> {
        self.assertions.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Layers of the sandbox that helpers may lack, for the audit log.
    #[must_use]
    pub fn sandbox_exceptions(&self) -> &[SandboxException] {
        &self.exceptions
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> KeylessStatus {
        KeylessStatus {
            circuit: self.circuit.state(Instant::now()),
            identities: self.identities.iter().map(|identity| identity.status()).collect(),
        }
    }

    /// Can something be signed for the tenant now, as far as is known: is a token held, and may Fulcio be asked? It may
    /// be once the circuit's while is up, before anybody has tried: whoever tries comes only if this says so.
    #[must_use]
    pub fn can_sign(&self, tenant: &str) -> bool {
        let held = |who: &Arc<TenantIdentity>| who.identity.status().expires.is_some();
        self.circuit.state(Instant::now()) != CircuitState::Open && self.tenants.get(tenant).is_some_and(held)
    }

    /// Writes what is known now into the metrics.
    pub fn observe(&self) {
        let KeylessStatus { circuit, identities } = self.status();
        self.metrics.circuit(circuit.name(), &CircuitState::ALL.map(CircuitState::name));
        for identity in identities {
            self.metrics.identity(&identity.name, identity.expires, identity.trouble.is_some());
        }
    }
}

impl TenantIdentity {
    /// The name that its certificates have.
    #[must_use]
    pub fn san(&self) -> &str {
        &self.expected.san
    }

    /// The issuer that its certificates name.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.expected.issuer
    }

    /// The identity's name in the configuration.
    #[must_use]
    pub fn identity(&self) -> &str {
        self.identity.name()
    }
}

/// Whether a layer of the helper's sandbox is called so.
pub(crate) fn judge_layer(name: &str) -> Result<(), String> {
    if Layer::from_name(name).is_some() {
        return Ok(());
    }
    let known = Layer::ALL.map(|layer| format!("`{}`", layer.name())).join(", ");
    Err(format!("`{name}` is no layer of the helper's sandbox; known: {known}"))
}

fn tenants(
    config: &Config,
    keyless: &config::Keyless,
    identities: &[Arc<Identity>],
) -> Result<HashMap<Arc<str>, Arc<TenantIdentity>>, KeylessSetupError> {
    let mut tenants = HashMap::new();
    let together = config.tenants.values().filter(|tenant| tenant.keyless.is_some()).count();
    for (tid, tenant) in &config.tenants {
        let Some(settings) = &tenant.keyless else { continue };
        let unknown = || KeylessSetupError::NoIdentity { tenant: tid.clone() };
        let identity =
            identities.iter().find(|identity| **identity.name() == *settings.identity).ok_or_else(unknown)?;
        let vouching = &keyless.identity.get(&settings.identity).ok_or_else(unknown)?.issuer;
        let issuer = settings.issuer.as_ref().unwrap_or(vouching).clone();
        let tenant: Arc<str> = tid.as_str().into();
        let who = TenantIdentity {
            tenant: Arc::clone(&tenant),
            identity: Arc::clone(identity),
            expected: sigstore::Identity { san: settings.san.clone(), issuer },
            places: Places::share(keyless.max_flows.get(), keyless.max_waiting.get(), together),
        };
        tenants.insert(tenant, Arc::new(who));
    }
    Ok(tenants)
}

const TEND: Duration = Duration::from_secs(1);
