//! What the caller's licence entitles them to: Proof of Entitlement, online or offline.
//!
//! A PoE is proven in two steps. First, what does the Licensing Service say: by its signature on a JWT and a signed
//! revocation list ([offline]), or by its answer to a question ([online]). That depends on the token alone and is
//! remembered as a [`Grant`](grant::Grant). Second, does it say so for this caller, now, and for this scanner: that
//! is asked anew on every request.

#![forbid(unsafe_code)]

mod claims;
mod error;
mod grant;
mod journal;
mod json;
mod offline;
mod online;
mod pinned;
mod revocation;
mod version;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use crate::auth::Caller;
use crate::clock::UnixTime;
use crate::config;
use crate::jose::JoseError;
use crate::outbound::Outbound;
pub use claims::{Claim, Fault};
pub use error::{PoeError, Unavailable};
use grant::Rules;
use journal::Journal;
pub use json::JsonFault;
use offline::Offline;
use online::Online;
pub use pinned::PinnedError;
pub use revocation::{Refreshed, RevocationListError};

/// Proves PoEs. Shared by all threads of one process.
#[derive(Debug)]
pub struct Entitlements {
    rules: Arc<Rules>,
    offline: Option<Offline>,
    online: Option<Arc<Online>>,
}

/// A proven entitlement. Only this module makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Entitlement {
    pub(crate) license_id: Arc<str>,
    pub(crate) customer_id: Arc<str>,
    pub(crate) plan: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) expires_at: UnixTime,
}

/// Limits in force: the PoE's own where it names them, the configured plan's otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sustained signatures per second.
    pub qps: u32,
    /// Signatures that may come at once after a pause.
    pub burst: u32,
    /// Signatures in progress at once.
    pub concurrency: u32,
    /// Largest request body, in bytes.
    pub max_artifact_bytes: u64,
}

/// A PoE as a request carries it.
#[derive(Clone, Copy)]
pub struct PresentedPoe<'a> {
    /// What it says it is.
    pub format: PoeFormat,
    /// The token.
    pub value: &'a str,
}

/// The two formats of a PoE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoeFormat {
    /// A JWT of the Licensing Service: proven offline where that is configured, by introspection otherwise.
    Jwt,
    /// A handle that only the Licensing Service understands: proven by introspection.
    Opaque,
}

/// Why PoEs cannot be proven with this configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntitlementSetupError {
    /// Neither way of proof is configured.
    #[error("no PoE can be proven; configure [licensing.offline], [licensing.online] or both")]
    NoWay,
    /// Introspection is configured and there is no connection to do it with.
    #[error("[licensing.online] needs an outbound connection with its own TLS identity")]
    NoOutbound,
    /// The file of pinned keys cannot be read.
    #[error("cannot read the licensing keys {path}: {source}")]
    KeysUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of pinned keys is not a JWK set.
    #[error("the licensing keys {path} are not a JWK set: {source}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: JoseError,
    },
    /// The file of pinned keys holds none that can be used.
    #[error("none of the licensing keys in {path} fits licensing.offline.algorithms")]
    NoKeys {
        /// The file.
        path: PathBuf,
    },
    /// There is no revocation list to begin with.
    #[error(transparent)]
    RevocationList {
        /// What is wrong with it.
        source: RevocationListError,
    },
}

/// The revocation list in force, for readiness and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationListStatus {
    /// Its sequence number.
    pub sequence: u64,
    /// From this moment on it proves nothing, give or take the clock skew.
    pub fresh_until: UnixTime,
    /// The key that signed it is no longer pinned: `fresh_until` is then the epoch.
    pub disowned: bool,
}

impl Entitlements {
    /// Reads the pinned keys and the revocation list. `outbound` must carry the TLS identity of `[licensing.online]`
    /// and is needed only for that.
    ///
    /// # Errors
    /// [`EntitlementSetupError`].
    pub fn new(
        config: &config::Licensing,
        plans: BTreeMap<String, config::Plan>,
        outbound: Option<Outbound>,
    ) -> Result<Self, EntitlementSetupError> {
        let rules = Arc::new(Rules { clock_skew: config.clock_skew.get(), require_cnf: config.require_cnf, plans });
        let offline = match &config.offline {
            Some(offline) => Some(Offline::new(offline, Arc::clone(&rules), UnixTime::now())?),
            None => None,
        };
        let online = match (&config.online, outbound) {
            (Some(online), Some(outbound)) => Some(Arc::new(Online::new(online, outbound, Arc::clone(&rules)))),
            (Some(_), None) => return Err(EntitlementSetupError::NoOutbound),
            (None, _) => None,
        };
        if offline.is_none() && online.is_none() {
            return Err(EntitlementSetupError::NoWay);
        }
        Ok(Self { rules, offline, online })
    }

    /// Proves `poe` for `caller`, who wants evidence of the scanner `stellaops_version` signed.
    ///
    /// # Errors
    /// [`PoeError`].
    pub async fn entitle(
        &self,
        poe: PresentedPoe<'_>,
        caller: &Caller,
        stellaops_version: Option<&str>,
    ) -> Result<Arc<Entitlement>, PoeError> {
        self.entitle_at(UnixTime::now(), poe, caller, stellaops_version).await
    }

    async fn entitle_at(
        &self,
        now: UnixTime,
        poe: PresentedPoe<'_>,
        caller: &Caller,
        stellaops_version: Option<&str>,
    ) -> Result<Arc<Entitlement>, PoeError> {
        let token = poe.value;
        if token.is_empty() {
            return Err(PoeError::Missing);
        }
        if token.len() > MAX_POE_BYTES {
            return Err(PoeError::TooLarge { bytes: token.len(), limit: MAX_POE_BYTES });
        }
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(PoeError::Characters);
        }

        let hash = hash(token);
        let grant = match (poe.format, &self.offline, &self.online) {
            (PoeFormat::Jwt, Some(offline), _) => offline.prove(hash, token, now)?,
            (_, _, Some(online)) => online.prove(hash, token, &caller.tenant, now).await?,
            (format, _, None) => return Err(PoeError::FormatNotAccepted { format }),
        };
        // Binding first: whoever presents somebody else's PoE learns nothing more about it.
        grant.check_binding(caller)?;
        grant.check_time(now, self.rules.clock_skew)?;
        // What the list revokes is revoked, whatever the Licensing Service still answers.
        if let Some(offline) = &self.offline {
            offline.check_revoked(&grant)?;
        }
        grant.check_version(stellaops_version)?;
        Ok(Arc::clone(&grant.entitlement))
    }

    /// Looks whether the file of licensing keys has changed, and takes valid new keys into force; whether it did. Reads a
    /// file.
    ///
    /// A list signed by a key that is gone lets no PoE pass, as a restart would not come up with it: add a new key
    /// first, have the list signed by it, then remove the old one.
    ///
    /// # Errors
    /// [`EntitlementSetupError`]; the keys in force stay.
    pub fn refresh_keys(&self) -> Result<bool, EntitlementSetupError> {
        self.offline.as_ref().map_or(Ok(false), Offline::refresh_keys)
    }

    /// Looks whether the revocation list's file has changed, and takes a valid new list into force. Reads a file.
    ///
    /// # Errors
    /// [`RevocationListError`]; the list in force stays.
    pub fn refresh(&self) -> Result<Refreshed, RevocationListError> {
        self.offline.as_ref().map_or(Ok(Refreshed::Unchanged), |offline| offline.refresh_list(UnixTime::now()))
    }

    /// Calls [`refresh_keys`](Self::refresh_keys) and [`refresh`](Self::refresh) every second, for ever, and logs what
    /// comes of it. `tell` hears the RFC 7638 thumbprints of the licensing keys in force, at the start and whenever they are
    /// replaced, and why others were not taken. Returns at once when there is nothing to watch.
    pub async fn watch(self: Arc<Self>, tell: impl Fn(Result<&[[u8; 32]], &str>)) {
        let Some(offline) = &self.offline else { return };
        tell(Ok(&offline.thumbprints()));
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut journal = Journal::default();
        loop {
            ticks.tick().await;
            let this = Arc::clone(&self);
            // The keys first: whoever replaces both may have signed the list with a new one.
            if let Ok((keys, list)) = tokio::task::spawn_blocking(move || (this.refresh_keys(), this.refresh())).await {
                match journal.note_keys(keys) {
                    None => {}
                    Some(Ok(())) => tell(Ok(&offline.thumbprints())),
                    Some(Err(why)) => tell(Err(&why)),
                }
                journal.note(&list);
            }
            if let Some(status) = self.revocation_list() {
                journal.note_age(status, UnixTime::now());
            }
        }
    }

    /// The revocation list in force; `None` without offline proof.
    #[must_use]
    pub fn revocation_list(&self) -> Option<RevocationListStatus> {
        self.offline.as_ref().map(Offline::list_status)
    }
}

impl<'a> PresentedPoe<'a> {
    /// A PoE from the `X-PoE` header, which does not say its format: three parts of base64url separated by dots are a
    /// JWT, anything else is opaque.
    #[must_use]
    pub fn from_header(value: &'a str) -> Self {
        let is_base64url =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let is_jwt = value.split('.').count() == 3 && value.split('.').all(is_base64url);
        Self { format: if is_jwt { PoeFormat::Jwt } else { PoeFormat::Opaque }, value }
    }
}

// A PoE is a credential.
impl fmt::Debug for PresentedPoe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedPoe({:?}, {} bytes)", self.format, self.value.len())
    }
}

impl PoeFormat {
    /// As the request spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Opaque => "opaque",
        }
    }

    /// The format that a request spells so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "jwt" => Some(Self::Jwt),
            "opaque" => Some(Self::Opaque),
            _ => None,
        }
    }
}

/// SHA-256 of a token: caches know tokens by it, so that they keep no credential.
type TokenHash = [u8; 32];

fn hash(token: &str) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// Four times what a PoE with every claim and an RSA signature of 8,192 bits needs.
const MAX_POE_BYTES: usize = 16 * 1024;

/// How often the files of keys and revocations are looked at, and so how long a revocation may take. A look is one
/// `stat` each.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
