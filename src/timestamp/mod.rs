//! Asking timestamp authorities (RFC 3161, section 3.4): one or several, in order, each bounded and left alone while it
//! is down. What comes back is verified before anyone sees it.

#![forbid(unsafe_code)]

mod circuit;
mod error;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, StatusCode};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::clock::UnixTime;
use crate::outbound::{Outbound, OutboundError, OutboundLimits, OutboundTls};
use crate::sigstore::{Timestamp, TrustedRoot, timestamp};

use circuit::Circuit;
pub use error::{Attempt, AuthorityError, StampError};

/// Which authorities are asked, and how.
#[derive(Debug)]
pub struct TimestampSettings {
    /// In this order.
    pub authorities: Vec<AuthoritySettings>,
    /// How many of them must answer.
    pub policy: TimestampPolicy,
    /// The whole of one call.
    pub timeout: Duration,
    /// Failures in a row after which an authority is left alone.
    pub failures: u32,
    /// For how long, the first time; doubled each time after that, up to [`LONGEST_PAUSE`].
    pub pause: Duration,
}

/// One authority.
#[derive(Debug)]
pub struct AuthoritySettings {
    /// What it is called in errors, logs and metrics.
    pub name: String,
    /// Where queries are posted.
    pub url: String,
    /// Whom it must be, and who this is.
    pub tls: OutboundTls,
}

/// How many authorities must answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampPolicy {
    /// The first that answers rightly.
    #[default]
    One,
    /// Every one, and each by another signer; they are asked at once.
    All,
}

/// The configured authorities. Cheap to clone; clones share what is known of them.
#[derive(Clone, Debug)]
pub struct Timestamps {
    authorities: Arc<[Arc<Authority>]>,
    policy: TimestampPolicy,
    root: Arc<TrustedRoot>,
}

/// A timestamp that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampedDer {
    /// The whole `TimeStampResp`: what a bundle carries.
    pub der: Vec<u8>,
    /// What it states.
    pub time: UnixTime,
    /// SHA-256 of the certificate that signed it.
    pub signer_sha256: [u8; 32],
    /// The name of the authority in the settings.
    pub authority: String,
}

/// The timestamps that the policy wants.
#[derive(Debug)]
pub struct Stamped {
    /// At least one.
    pub stamps: Vec<StampedDer>,
    /// Authorities that were asked before one that answered rightly ([`TimestampPolicy::One`]).
    pub failed: Vec<Attempt>,
}

/// In which seconds a timestamp must lie: the validity of the certificate that signed. Both ends are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first.
    pub not_before: UnixTime,
    /// The last.
    pub not_after: UnixTime,
}

/// How an authority is, for readiness and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityHealth {
    /// Its name.
    pub name: String,
    /// Failures since it last answered rightly.
    pub failures: u32,
    /// How much longer it is left alone.
    pub paused: Option<Duration>,
}

/// A right answer, whether or not it serves.
struct Answered {
    der: Vec<u8>,
    stated: Timestamp,
}

#[derive(Debug)]
struct Authority {
    name: String,
    url: String,
    outbound: Outbound,
    timeout: Duration,
    circuit: Circuit,
}

impl Timestamps {
    /// Authorities whose answers must lead to a timestamp authority of `root`. Calls are made on `runtime`.
    ///
    /// # Errors
    /// As [`Outbound::new`].
    pub fn new(settings: TimestampSettings, root: Arc<TrustedRoot>, runtime: &Handle) -> Result<Self, OutboundError> {
        let limits = OutboundLimits { timeout: settings.timeout, max_body_bytes: MAX_RESPONSE };
        let one = |authority: AuthoritySettings| {
            Ok(Arc::new(Authority {
                name: authority.name,
                url: authority.url,
                outbound: Outbound::new(authority.tls, limits, runtime.clone())?,
                timeout: settings.timeout,
                circuit: Circuit::new(settings.failures, settings.pause),
            }))
        };
        let authorities: Vec<Arc<Authority>> = settings.authorities.into_iter().map(one).collect::<Result<_, _>>()?;
        Ok(Self { authorities: authorities.into(), policy: settings.policy, root })
    }

    /// Has `signature`, the raw DER of an envelope's signature, stamped as the policy says, within `window` where there is
    /// one; over by `deadline` in any case. Given up, it leaves nothing behind.
    ///
    /// # Errors
    /// [`StampError`]: with [`TimestampPolicy::One`] no authority stamped it, with [`TimestampPolicy::All`] one did not.
    pub async fn stamp(
        &self,
        signature: &[u8],
        window: Option<Window>,
        deadline: Instant,
    ) -> Result<Stamped, StampError> {
        let work = async {
            match self.policy {
                TimestampPolicy::One => self.first(signature, window).await,
                TimestampPolicy::All => {
                    self.all(signature, window).await.map(|stamps| Stamped { stamps, failed: Vec::new() })
                }
            }
        };
        let patience = deadline.saturating_duration_since(Instant::now());
        tokio::time::timeout(patience, work).await.unwrap_or(Err(StampError::Deadline))
    }

    /// How each authority is.
    #[must_use]
    pub fn health(&self) -> Vec<AuthorityHealth> {
        let one = |authority: &Arc<Authority>| {
            let (failures, paused) = authority.circuit.state(Instant::now());
            AuthorityHealth { name: authority.name.clone(), failures, paused }
        };
        self.authorities.iter().map(one).collect()
    }

    async fn first(&self, signature: &[u8], window: Option<Window>) -> Result<Stamped, StampError> {
        let mut failed = Vec::new();
        for authority in &*self.authorities {
            match authority.stamp(signature, window, &self.root).await {
                Ok(stamp) => return Ok(Stamped { stamps: vec![stamp], failed }),
                Err(error) => failed.push(Attempt { authority: authority.name.clone(), error }),
            }
        }
        Err(StampError::Failed(failed))
    }

    async fn all(&self, signature: &[u8], window: Option<Window>) -> Result<Vec<StampedDer>, StampError> {
        let mut calls = JoinSet::new();
        for (index, authority) in self.authorities.iter().cloned().enumerate() {
            let (root, signature) = (self.root.clone(), signature.to_vec());
            let runtime = authority.outbound.runtime().clone();
            calls.spawn_on(async move { (index, authority.stamp(&signature, window, &root).await) }, &runtime);
        }
        let mut stamps: Vec<Option<StampedDer>> = vec![None; self.authorities.len()];
        while let Some(done) = calls.join_next().await {
            match done {
                Ok((index, Ok(stamp))) => stamps[index] = Some(stamp),
                Ok((index, Err(error))) => {
                    let authority = self.authorities[index].name.clone();
                    return Err(StampError::Failed(vec![Attempt { authority, error }]));
                }
                Err(_) => return Err(StampError::Stopping),
            }
        }
        let stamps: Vec<StampedDer> = stamps.into_iter().flatten().collect();
        // No authority at all: nothing was stamped, which must not look like success.
        if stamps.is_empty() {
            return Err(StampError::Failed(Vec::new()));
        }
        distinct(&stamps)?;
        Ok(stamps)
    }
}

/// Where several must stamp, they are several: two names for one signer are one witness.
fn distinct(stamps: &[StampedDer]) -> Result<(), StampError> {
    for (index, stamp) in stamps.iter().enumerate() {
        if let Some(first) = stamps[..index].iter().find(|one| one.signer_sha256 == stamp.signer_sha256) {
            let error = AuthorityError::NotDistinct { other: first.authority.clone() };
            tracing::warn!(authority = stamp.authority, reason = error.reason(), "no timestamp: {error}");
            return Err(StampError::Failed(vec![Attempt { authority: stamp.authority.clone(), error }]));
        }
    }
    Ok(())
}

impl Authority {
    async fn stamp(
        &self,
        signature: &[u8],
        window: Option<Window>,
        root: &TrustedRoot,
    ) -> Result<StampedDer, AuthorityError> {
        let pass = self.circuit.pass(Instant::now(), self.timeout).map_err(AuthorityError::Paused)?;
        let stamp = match self.ask(signature, root).await {
            Ok(stamp) => stamp,
            Err(error) => {
                let failures = pass.failed(Instant::now());
                tracing::warn!(authority = self.name, reason = error.reason(), failures, "no timestamp: {error}");
                return Err(error);
            }
        };
        pass.succeeded();
        // No failure for the circuit: the wrong clock may be Fulcio's, and what a key has signed needs no window.
        let outside = |window: &Window| stamp.stated.time < window.not_before || stamp.stated.latest > window.not_after;
        if let Some(window) = window.filter(outside) {
            let error = AuthorityError::OutsideCertificate { stated: stamp.stated.time, window };
            tracing::warn!(authority = self.name, reason = error.reason(), "no timestamp: {error}");
            return Err(error);
        }
        Ok(StampedDer {
            time: stamp.stated.time,
            signer_sha256: digest(&SHA256, &stamp.stated.signer).as_ref().try_into().unwrap_or_default(),
            authority: self.name.clone(),
            der: stamp.der,
        })
    }

    async fn ask(&self, signature: &[u8], root: &TrustedRoot) -> Result<Answered, AuthorityError> {
        let query = timestamp::Request::new(signature).map_err(AuthorityError::Refused)?;
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/timestamp-query")
            .header(ACCEPT, "application/timestamp-reply")
            .body(Bytes::copy_from_slice(query.der()))
            .map_err(|_| AuthorityError::Url)?;
        let asked = UnixTime::now();
        let answer = self.outbound.request(request).await.map_err(AuthorityError::Outbound)?;
        // Sigstore's own authority answers 201. The media type is not looked at: the bytes speak for themselves.
        if !matches!(answer.status, StatusCode::OK | StatusCode::CREATED) {
            return Err(AuthorityError::Status(answer.status));
        }
        let now = UnixTime::now();
        let stated = timestamp::verify_answer(&answer.body, &query, root, now).map_err(AuthorityError::Refused)?;
        // Of two clocks that disagree one is wrong, and a certificate lives for ten minutes only.
        if stated.time < asked.minus(CLOCKS_APART) {
            return Err(AuthorityError::Clock { stated: stated.time, now });
        }
        Ok(Answered { der: answer.body.to_vec(), stated })
    }
}

/// The longest that an authority is left alone before it is tried again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Bytes; one with its whole chain has three to six thousand.
const MAX_RESPONSE: usize = 64 * 1024;

/// How far an authority's clock may be behind; how far ahead is the verification's to say.
const CLOCKS_APART: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
