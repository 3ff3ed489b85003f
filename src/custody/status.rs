//! How tokens and keys are: for `/readyz`, metrics, `GET /keys` and custody reports.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;

use super::error::OutOfService;
use super::evidence::KeyCustody;
use super::front::Custody;
use super::health::KeyHealth;
use super::registry::{Entry, NOT_SEEN, SigningKey};
use super::replica::Replica;
use super::seen::{Grade, shortfall};
use super::wire::StatusReport;
use super::{PublicKey, client::LinkError};
use crate::config::{CustodyException, KeyState, SigningMode};

/// One token, for `/readyz` and metrics.
#[derive(Clone, Debug)]
pub struct TokenStatus {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Can it sign, and does every key in it that the configuration calls active sign there?
    pub ready: bool,
    /// `ready`, `degraded`, `drained`, `starting`, `token_unavailable`, `pin_refused`, `stopping`,
    /// `worker_unreachable` or `not_asked_yet`.
    pub state: &'static str,
    /// Why it is not ready, in plain words for the operator; empty when it is.
    pub detail: String,
    /// The worker's last account of itself; `None` when it could not be asked.
    pub report: Option<StatusReport>,
    /// Signatures that did not verify, since the front started.
    pub bad_signatures: u64,
    /// Requests under way.
    pub outstanding: usize,
    /// Requests that it signed after another token could not, since the front started.
    pub taken_over: u64,
}

/// One key, for `GET /keys`.
#[derive(Clone, Debug)]
pub struct KeyListing {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The tokens that hold it, with commas between them.
    pub tokens: Arc<str>,
    /// What it does, by the configuration.
    pub state: KeyState,
    /// Signs from this moment on.
    pub not_before: Option<Timestamp>,
    /// Signs up to this moment.
    pub not_after: Option<Timestamp>,
    /// The public half and its `keyid`; `None` until it is known.
    pub public: Option<(PublicKey, Arc<str>)>,
    /// How it is in each of its tokens.
    pub custody: Vec<KeyCustody>,
    /// Why it is not live, for each of these; empty where it is. May name sockets and paths: for the operator alone.
    pub details: Vec<String>,
    /// What the configuration lets pass at the custody gate.
    pub exceptions: Vec<CustodyException>,
    /// Why no token signs with it although it should.
    pub out_of_service: Option<OutOfService>,
}

/// One key in one token, for metrics.
#[derive(Clone, Debug)]
pub struct KeyFigures {
    /// The key's name.
    pub key: Arc<str>,
    /// The token's name.
    pub token: Arc<str>,
    /// How it is there.
    pub state: KeyHealth,
    /// How long the last good test signature took.
    pub canary: Option<Duration>,
    /// Test signatures that failed, since the front started.
    pub canary_failures: u64,
}

impl Custody {
    /// The tokens as they were when last asked; see [`Self::watch`].
    #[must_use]
    pub fn status(&self) -> Vec<TokenStatus> {
        (0..self.tokens.len()).map(|index| self.token_status(index)).collect()
    }

    /// The keys, or those of one tenant, in the order of their names.
    #[must_use]
    pub fn keys(&self, tenant: Option<&str>) -> Vec<KeyListing> {
        let of_tenant = tenant.map(|tid| self.registry.tenants.get(tid).map_or(&[][..], |tenant| &tenant.keys));
        let wanted = |entry: &&Entry| of_tenant.is_none_or(|keys| keys.contains(&entry.index));
        self.registry.entries.iter().filter(wanted).map(|entry| self.listing(entry)).collect()
    }

    /// Every key in every token, for metrics.
    #[must_use]
    pub fn figures(&self) -> Vec<KeyFigures> {
        let pairs = self.registry.entries.iter().flat_map(|entry| entry.replicas.iter().map(move |at| (entry, at)));
        let figures = pairs.map(|(entry, replica)| {
            let (state, _) = self.standing(replica);
            let canaries = replica.health.canaries();
            KeyFigures {
                key: Arc::clone(&entry.name),
                token: Arc::clone(&replica.token),
                state,
                canary: canaries.good.map(|(took, _)| took),
                canary_failures: canaries.failures,
            }
        });
        figures.collect()
    }

    /// Can something be signed for the tenant now: is its key live, or at least degraded, in a token that is there?
    #[must_use]
    pub fn can_sign(&self, tenant: &str) -> bool {
        self.resolve(tenant, SigningMode::Kms).is_ok_and(|key| key.replicas.iter().any(|at| self.is_usable(at)))
    }

    /// How one key is.
    pub(super) fn listing_of(&self, key: &SigningKey) -> KeyListing {
        self.listing(&self.registry.entries[key.index])
    }

    pub(super) fn token_status(&self, index: usize) -> TokenStatus {
        let token = &self.tokens[index];
        let (mut state, mut detail, report) = match token.last_seen() {
            None => ("not_asked_yet", "the worker was not asked yet".to_owned(), None),
            Some(Err(error)) => ("worker_unreachable", super::token::explain(&error), None),
            Some(Ok(report)) => (report.state.name(), report.detail.clone(), Some(report)),
        };
        let active = self.keys_in(index).filter(|(entry, _)| entry.state == KeyState::Active);
        let mut missing = active
            .filter_map(|(entry, replica)| {
                let why = match replica.barred() {
                    Some(OutOfService::Drained(_)) => return None,
                    Some(why) => format!("is out of service: {why}"),
                    None if replica.attributes().is_none() => "was not seen yet".to_owned(),
                    None if replica.health.canaries().grade.is_none() => "has made no test signature yet".to_owned(),
                    None => return None,
                };
                Some(format!("key `{}` {why}", entry.name))
            })
            .peekable();
        let ready = state == "ready" && missing.peek().is_none() && !token.is_drained();
        if token.is_drained() {
            state = "drained";
            detail = "an operator has taken it off; `signerctl token undrain` takes it back".to_owned();
        } else if state == "ready" && !ready {
            let named: Vec<String> = missing.by_ref().take(NAMED).collect();
            detail = named.join("; ");
            match missing.count() {
                0 => {}
                more => detail.push_str(&format!("; and {more} more")),
            }
        } else if ready
            && token.grade() == Grade::Degraded
            && let Some(short) = report.as_ref().and_then(shortfall)
        {
            (state, detail) = ("degraded", short);
        }
        TokenStatus {
            name: Arc::clone(token.name()),
            ready,
            state,
            detail,
            report,
            bad_signatures: token.bad_signatures.load(Relaxed),
            outstanding: token.load.outstanding(),
            taken_over: token.taken_over.load(Relaxed),
        }
    }

    /// How a key is in a token, all considered, and why it is not live.
    fn standing(&self, replica: &Replica) -> (KeyHealth, String) {
        let token = &self.tokens[replica.link];
        if token.is_drained() {
            return (KeyHealth::Drained, OutOfService::Drained(Arc::clone(&replica.token)).to_string());
        }
        let (key, why) = replica.health.of_key();
        if key == KeyHealth::OutOfService {
            return (key, why);
        }
        if token.grade() == Grade::Doubtful {
            let status = token.last_seen();
            let why = match status {
                Some(Ok(report)) => format!("the token is {}: {}", report.state.name(), report.detail),
                Some(Err(error)) => unreachable(&error),
                None => "the worker was not asked yet".to_owned(),
            };
            return (KeyHealth::OutOfService, why);
        }
        if replica.attributes().is_none() {
            return (KeyHealth::OutOfService, NOT_SEEN.to_owned());
        }
        if key == KeyHealth::Degraded {
            return (key, why);
        }
        // Three turns of the timer: one may be missed while a token is busy.
        if !replica.checked_within(self.timing.check_interval.get() * 3 + PATIENCE) {
            return (KeyHealth::Degraded, "its attributes could not be read from the device for a while".to_owned());
        }
        if token.grade() == Grade::Degraded
            && let Some(Ok(report)) = token.last_seen()
        {
            return (KeyHealth::Degraded, shortfall(&report).unwrap_or_default());
        }
        (KeyHealth::Live, String::new())
    }

    fn is_usable(&self, replica: &Replica) -> bool {
        self.standing(replica).0 <= KeyHealth::Degraded && replica.health.canaries().grade.is_some()
    }

    fn listing(&self, entry: &Entry) -> KeyListing {
        KeyListing {
            name: Arc::clone(&entry.name),
            tokens: Arc::clone(&entry.tokens),
            state: entry.state,
            not_before: entry.not_before,
            not_after: entry.not_after,
            public: entry.pinned.get().map(|key| (*key.public_key(), Arc::clone(key.keyid()))),
            custody: entry.replicas.iter().map(|replica| self.custody_in(replica)).collect(),
            details: entry.replicas.iter().map(|replica| self.standing(replica).1).collect(),
            exceptions: entry.exceptions.clone(),
            out_of_service: entry.out_of_service(),
        }
    }

    fn custody_in(&self, replica: &Replica) -> KeyCustody {
        let (state, _) = self.standing(replica);
        let evidence = replica.health.evidence.load_full();
        let evidence = evidence.as_deref();
        KeyCustody {
            token: replica.token.to_string(),
            state,
            device: evidence.map(|evidence| evidence.device.clone()),
            attributes: evidence.map(|evidence| evidence.attributes),
            attestation: evidence.map_or_else(Vec::new, |evidence| {
                evidence.attestation.iter().map(|der| BASE64_STANDARD.encode(der)).collect()
            }),
            first_seen_at: evidence.map(|evidence| evidence.first_seen),
            checked_at: evidence.map(|evidence| evidence.checked),
            tested_at: replica.health.canaries().good.map(|(_, at)| at),
        }
    }
}

/// Keys that are named one by one where many are missing; `GET /keys` has them all.
const NAMED: usize = 8;

/// What a look at a token with many keys may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn unreachable(error: &LinkError) -> String {
    format!("its worker cannot be reached: {}", super::token::explain(error))
}
