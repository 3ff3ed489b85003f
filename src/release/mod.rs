//! Whether the evidence was made by a scanner that somebody released.
//!
//! [`TrustedReleases::check`] asks, in this order, and the first that is certain decides:
//!
//! | who | where |
//! |---|---|
//! | the operator, who revokes an image or vouches for it by hand | `operator_list` |
//! | the verdict of a look-up not long ago, or one that is under way | `verdicts` |
//! | a snapshot of release signatures, at a site without a registry | [`snapshot`] |
//! | the repositories, in their order ([`registry`] speaks to one, [`search`] finds what may be a signature in it) | `lookup` |
//!
//! What is found is read into one form (`claim`) and judged by the release identities (`policy`): the signature first, then
//! when it was made, then whether it is about this image and a release at all. One signature that counts suffices; a
//! hundred that do not hurt nobody, and each says why ([`rejection`]).
//!
//! Signatures of the Notary Project, which notation makes, have rules of their own (`notary`).

#![forbid(unsafe_code)]

mod claim;
mod digest;
mod lookup;
mod notary;
mod operator_list;
mod policy;
pub mod registry;
pub mod rejection;
pub mod search;
mod setup;
pub mod snapshot;
mod verdict;
mod verdicts;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::clock::{Now, UnixTime};
use crate::config;
use crate::telemetry::ReleaseMetrics;

use lookup::{Collected, Sources};
use operator_list::OperatorList;
use verdicts::{LookUp, Turn, Verdict, Verdicts};

pub use claim::Form;
pub use digest::{Digest, NotADigest};
pub use notary::NotaryError;
pub use policy::ProvenTime;
pub use setup::ReleaseSetupError;
pub(crate) use setup::{
    check_credentials, check_public_key, check_snapshot_key, check_trust_store, check_trusted_identities,
    check_trusted_root, check_tsa,
};
pub use verdict::{Evidence, Mark, ReleaseError, Step, TrustedRelease};

/// Everything that can vouch for a scanner image. Cheap to clone; clones share what was looked up.
#[derive(Clone, Debug)]
pub struct TrustedReleases {
    operator: Arc<OperatorList>,
    sources: Arc<Sources>,
    verdicts: Arc<Verdicts>,
    runtime: Handle,
    metrics: ReleaseMetrics,
}

impl TrustedReleases {
    /// Reads what the configuration names: keys, trusted roots, credentials. Look-ups run on `runtime`, whoever asks.
    ///
    /// # Errors
    /// A [`ReleaseSetupError`] that names the first unusable entry.
    pub fn new(config: &config::Release, runtime: &Handle, metrics: ReleaseMetrics) -> Result<Self, ReleaseSetupError> {
        Ok(Self {
            operator: Arc::new(OperatorList::new(config)?),
            sources: Arc::new(setup::sources(config, runtime)?),
            verdicts: Arc::new(Verdicts::new(config.trusted_ttl.get(), config.untrusted_ttl.get())),
            runtime: runtime.clone(),
            metrics,
        })
    }

    /// Asks every source of trust about `digest`, on behalf of a tenant.
    ///
    /// # Errors
    /// [`ReleaseError`]: none vouches for it, or nobody can say now.
    pub async fn check(&self, digest: &str, tenant: &Arc<str>) -> Result<TrustedRelease, ReleaseError> {
        let image: Digest = digest.parse().map_err(|NotADigest| ReleaseError::Malformed)?;
        if let Some(certain) = self.operator.find(image) {
            return certain;
        }
        if self.sources.is_empty() {
            return self.sources.look_up(image).await.0.verdict;
        }
        if let Some((verdict, due)) = self.verdicts.get(image, Now::read()) {
            self.metrics.at_hand();
            if due {
                self.refresh(image, tenant);
            }
            return verdict;
        }
        match self.verdicts.turn(image, tenant, false)? {
            Turn::Decided(verdict) => verdict,
            Turn::Wait(outcome) => waited(outcome, image).await,
            Turn::LookUp(look_up, outcome) => {
                self.start(look_up, image);
                waited(outcome, image).await
            }
        }
    }

    /// Looks `digest` up anew, whatever is at hand, and tells every step.
    ///
    /// # Errors
    /// As [`check`](Self::check), beside the steps.
    pub async fn explain(&self, digest: &str) -> (Result<TrustedRelease, ReleaseError>, Vec<Step>) {
        let Ok(image) = digest.parse::<Digest>() else { return (Err(ReleaseError::Malformed), Vec::new()) };
        if let Some(certain) = self.operator.find(image) {
            let (mark, text) = match &certain {
                Ok(_) => (Mark::Good, "the operator vouches for it by hand, under [[release.trusted]]"),
                Err(_) => (Mark::Bad, "the operator has revoked it, under [[release.revoked]]"),
            };
            return (certain, vec![Step { mark, text: text.to_owned() }]);
        }
        let (judged, steps) = self.sources.look_up(image).await;
        (judged.verdict, steps)
    }

    /// A snapshot with signatures in the repositories that count, a few of each of these images: the file's content, signed
    /// with the key in `key_pem`, and how many signatures there are.
    ///
    /// # Errors
    /// The image that cannot be taken along, or why nothing can be written.
    pub async fn snapshot(
        &self,
        images: &[Digest],
        lasts: Duration,
        key_pem: &[u8],
    ) -> Result<(String, usize), TakeError> {
        let mut signatures: Vec<(Digest, Collected)> = Vec::new();
        for image in images {
            if let Some(Err(error)) = self.operator.find(*image) {
                return Err(TakeError::Image(error));
            }
            let (judged, collected) = self.sources.collect(*image).await;
            judged.verdict.map_err(TakeError::Image)?;
            signatures.extend(snapshot::worth_taking(collected).into_iter().map(|collected| (*image, collected)));
        }
        let now = UnixTime::now();
        let text = snapshot::Snapshot::write(&signatures, now, now.plus(lasts), key_pem)?;
        Ok((text, signatures.len()))
    }

    /// Starts a look-up beside, for whoever asks next.
    fn refresh(&self, image: Digest, tenant: &Arc<str>) {
        // With no place free it is tried again by the next request.
        if let Ok(Turn::LookUp(look_up, _)) = self.verdicts.turn(image, tenant, true) {
            self.metrics.refreshed();
            self.start(look_up, image);
        }
    }

    /// In a task of its own, so that a caller who goes away takes nobody's verdict along.
    fn start(&self, look_up: LookUp, image: Digest) {
        let (sources, metrics) = (Arc::clone(&self.sources), self.metrics.clone());
        self.runtime.spawn(async move {
            let asked = Now::read();
            let (judged, _) = sources.look_up(image).await;
            metrics.looked_up(outcome_of(&judged.verdict), asked.elapsed());
            if let Err(error) = &judged.verdict {
                tracing::info!(%image, reason = error.reason(), "a scanner image was looked up: {error}");
            }
            let lasts = judged.until.map(|until| until.since(UnixTime::now()));
            look_up.finish(judged.verdict, lasts, asked);
        });
    }
}

/// Why no snapshot was made.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// An image without a signature that counts.
    #[error(transparent)]
    Image(ReleaseError),
    /// The file cannot be made.
    #[error(transparent)]
    Snapshot(#[from] snapshot::SnapshotError),
}

async fn waited(mut outcome: watch::Receiver<Option<Verdict>>, image: Digest) -> Verdict {
    let aborted = || {
        let detail = "the look-up was broken off".into();
        Err(ReleaseError::Unavailable { digest: image, reason: "release_internal", detail })
    };
    match outcome.wait_for(Option::is_some).await {
        Ok(verdict) => verdict.clone().unwrap_or_else(aborted),
        Err(_) => aborted(),
    }
}

fn outcome_of(verdict: &Verdict) -> &'static str {
    match verdict {
        Ok(_) => "trusted",
        Err(ReleaseError::Unavailable { .. } | ReleaseError::Busy { .. }) => "unavailable",
        Err(_) => "untrusted",
    }
}
