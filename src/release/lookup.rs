//! The way to a verdict that is not at hand: snapshot, then repositories in their order, until one signature counts.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::claim::shown;
use super::digest::Digest;
use super::policy::{Accepted, Policy};
use super::registry::Registry;
use super::rejection::Rejection;
use super::search::{self, Event, Found, Via};
use super::snapshot::SnapshotFile;
use super::verdict::{Evidence, Mark, ReleaseError, Step, TrustedRelease};
use crate::clock::UnixTime;

/// Where release signatures come from, and which of them count.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) policy: Policy,
    pub(super) snapshot: Option<Arc<SnapshotFile>>,
    pub(super) registries: Vec<Arc<Registry>>,
    /// For each repository.
    pub(super) timeout: Duration,
}

/// A verdict and how long its grounds last at most.
pub(super) struct Judged {
    pub(super) verdict: Result<TrustedRelease, ReleaseError>,
    pub(super) until: Option<UnixTime>,
}

/// A signature that counts, with all that it takes to verify it again elsewhere.
pub(super) struct Collected {
    pub(super) found: Found,
    pub(super) found_in: Arc<str>,
    /// For whom it counts.
    pub(super) identity: Arc<str>,
}

/// Everything that is learnt on the way.
struct Way<'a> {
    policy: &'a Policy,
    image: Digest,
    now: UnixTime,
    steps: Vec<Step>,
    /// Of the candidates that do not count, the one that came furthest.
    best: Option<(u8, &'static str, String)>,
    ambiguous: Option<(&'static str, String)>,
    bound: Option<&'static str>,
    accepted: Option<(Accepted, Found, Arc<str>)>,
    /// Go on after the first that counts, to collect them.
    all: Option<Vec<Collected>>,
}

impl Sources {
    /// Whether there is anything to look into.
    pub(super) fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.registries.is_empty()
    }

    /// Looks `image` up, and says step by step how.
    pub(super) async fn look_up(&self, image: Digest) -> (Judged, Vec<Step>) {
        let mut way = self.way(image, None);
        self.go(&mut way).await;
        let steps = std::mem::take(&mut way.steps);
        (way.judged(self.is_empty()), steps)
    }

    /// Every signature of `image` in the repositories that counts, for a snapshot.
    pub(super) async fn collect(&self, image: Digest) -> (Judged, Vec<Collected>) {
        let mut way = self.way(image, Some(Vec::new()));
        for registry in &self.registries {
            self.ask(registry, &mut way).await;
        }
        let collected = way.all.take().unwrap_or_default();
        (way.judged(self.registries.is_empty()), collected)
    }

    fn way(&self, image: Digest, all: Option<Vec<Collected>>) -> Way<'_> {
        Way {
            policy: &self.policy,
            image,
            now: UnixTime::now(),
            steps: Vec::new(),
            best: None,
            ambiguous: None,
            bound: None,
            accepted: None,
            all,
        }
    }

    async fn go(&self, way: &mut Way<'_>) {
        if let Some(snapshot) = &self.snapshot {
            consult(snapshot, way).await;
        }
        for registry in &self.registries {
            if way.accepted.is_some() {
                return;
            }
            self.ask(registry, way).await;
        }
    }

    async fn ask(&self, registry: &Arc<Registry>, way: &mut Way<'_>) {
        way.step(Mark::Note, format!("asking {}", registry.name()));
        let name = Arc::clone(registry.name());
        let searching = search::search(registry, way.image, way.policy.has_notary(), |event| way.take(event, &name));
        match tokio::time::timeout(self.timeout, searching).await {
            Ok(searched) => {
                way.step(Mark::Note, format!("{} requests to {}", searched.requests, registry.name()));
                if let Some((reason, detail)) = searched.ambiguous {
                    way.in_the_way(reason, detail);
                }
                if let Some(bound) = searched.bound {
                    way.step(Mark::Bad, format!("{}: {bound}", registry.name()));
                    way.bound.get_or_insert(bound);
                }
            }
            Err(_) => {
                let detail = format!("{}: nothing certain within {:?}", registry.name(), self.timeout);
                way.in_the_way("release_registry_timeout", detail);
            }
        }
    }
}

async fn consult(file: &Arc<SnapshotFile>, way: &mut Way<'_>) {
    let reader = Arc::clone(file);
    let now = way.now;
    let read = tokio::task::spawn_blocking(move || reader.current(now)).await;
    let (snapshot, ends) = match read {
        Ok(Ok(current)) => current,
        Ok(Err(error)) => return way.in_the_way(error.reason(), error.to_string()),
        Err(error) => return way.in_the_way("release_internal", error.to_string()),
    };
    let found = snapshot.of(way.image);
    way.step(Mark::Note, format!("the snapshot of {} holds {} of it", snapshot.created.rfc3339(), found.len()));
    let name: Arc<str> = "snapshot".into();
    for found in found {
        if way.take(Event::Found(found.clone()), &name).is_break() {
            if let Some((accepted, ..)) = &mut way.accepted {
                // What the snapshot proves ends with it.
                accepted.until = Some(accepted.until.map_or(ends, |until| until.min(ends)));
            }
            return;
        }
    }
}

impl Way<'_> {
    fn take(&mut self, event: Event, found_in: &Arc<str>) -> ControlFlow<()> {
        match event {
            Event::Note(text) => self.step(Mark::Note, text),
            Event::Unusable { manifest, via, why } => self.reject(manifest, via, &why),
            Event::Found(found) => match self.policy.judge(&found, self.image, self.now) {
                Err(why) => self.reject(Some(found.manifest.digest), found.via, &why),
                Ok(accepted) => {
                    self.step(Mark::Good, described(&accepted, &found));
                    if let Some(all) = &mut self.all {
                        let (found_in, identity) = (Arc::clone(found_in), Arc::clone(&accepted.identity));
                        all.push(Collected { found: found.clone(), found_in, identity });
                    }
                    self.accepted.get_or_insert((accepted, found, Arc::clone(found_in)));
                    if self.all.is_none() {
                        return ControlFlow::Break(());
                    }
                }
            },
        }
        ControlFlow::Continue(())
    }

    fn reject(&mut self, manifest: Option<Digest>, via: Via, why: &Rejection) {
        let name = manifest.map_or_else(|| "unknown".to_owned(), |digest| digest.to_string());
        let text = format!("{name} ({}): {}", via.name(), shown(&why.to_string()));
        if self.best.as_ref().is_none_or(|(rank, ..)| why.rank() > *rank) {
            self.best = Some((why.rank(), why.reason(), text.clone()));
        }
        self.step(Mark::Bad, text);
    }

    fn in_the_way(&mut self, reason: &'static str, detail: String) {
        self.step(Mark::Bad, detail.clone());
        self.ambiguous.get_or_insert((reason, detail));
    }

    /// A hostile list is not to fill the memory with the story of its rejection.
    fn step(&mut self, mark: Mark, text: String) {
        if self.steps.len() < MAX_STEPS || mark == Mark::Good {
            self.steps.push(Step { mark, text });
        }
    }

    fn judged(self, no_sources: bool) -> Judged {
        let digest = self.image;
        if let Some((accepted, found, found_in)) = self.accepted {
            let release = TrustedRelease {
                digest: digest.to_string().into(),
                signed_by: accepted.identity,
                evidence: Evidence::Signature {
                    form: accepted.form,
                    digest: found.manifest.digest.to_string().into(),
                    sha256: accepted.signature.hex().into(),
                    found_in,
                    time: accepted.time,
                },
            };
            return Judged { verdict: Ok(release), until: accepted.until };
        }
        let untrusted = |reason, detail: String| ReleaseError::Untrusted { digest, reason, detail: detail.into() };
        let error = match (self.ambiguous, self.bound, self.best) {
            (Some((reason, detail)), ..) => ReleaseError::Unavailable { digest, reason, detail: detail.into() },
            (None, Some(bound), _) => untrusted("release_too_many_referrers", bound.to_owned()),
            (None, None, Some((_, reason, detail))) => untrusted(reason, detail),
            (None, None, None) if no_sources => {
                untrusted("release_not_listed", "the operator can, under [[release.trusted]]".to_owned())
            }
            (None, None, None) => untrusted("release_not_signed", "it has no signature".to_owned()),
        };
        Judged { verdict: Err(error), until: None }
    }
}

fn described(accepted: &Accepted, found: &Found) -> String {
    let time = match accepted.time {
        Some(time) => format!("signed before {} by a {}", time.at.rfc3339(), time.by.replace('_', " ")),
        None => "without a proven time".to_owned(),
    };
    let Accepted { identity, form, .. } = accepted;
    let digest = found.manifest.digest;
    format!("{digest} ({}): a {} of `{identity}`, {time}", found.via.name(), form.name().replace('_', " "))
}

const MAX_STEPS: usize = 400;
