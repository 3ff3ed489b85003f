//! Finding what may be a signature of an image in one repository, in as few round trips as it takes and no more than it may.
//!
//! Signatures of cosign's and of notation's are found alike. Three ways lead to one: referrers (the API of OCI 1.1, or the tag that stands in for it), cosign's tag
//! `sha256-<hex>.sig`, and manifests of cosign's old OCI 1.1 mode, which are referrers as well. The list and the tag are
//! asked for at once, then manifests, then blobs, several at a time: three round trips where nothing is in the way. What
//! descriptors say of themselves decides the order at most; whoever can push could write anything there.

mod found;

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::claim::Form;
use super::digest::Digest;
use super::notary;
use super::registry::annotation::PREDICATE_TYPE;
use super::registry::{
    Descriptor, Index, MAX_BLOB, MAX_ENTRIES, MAX_REFERRER, Manifest, Page, Registry, RegistryError, Target,
};
use super::rejection::{Rejection, SIGN_PREDICATE};

pub use found::{Found, Via};

/// What a search comes across.
#[derive(Debug)]
pub enum Event {
    /// A candidate to be judged.
    Found(Found),
    /// Something that is none, or cannot be had.
    Unusable {
        /// Its manifest, where that is known.
        manifest: Option<Digest>,
        /// How it was found.
        via: Via,
        /// Why.
        why: Rejection,
    },
    /// A remark for whoever wants to know every step.
    Note(String),
}

/// How a search ended.
#[derive(Debug, Default)]
pub struct Searched {
    /// Something did not come that may have been a good signature: the first reason.
    pub ambiguous: Option<(&'static str, String)>,
    /// A bound ended it before everything was looked at: which.
    pub bound: Option<&'static str>,
    /// Requests that were made, those for tokens and redirects not counted.
    pub requests: u32,
    /// Whether the judge wanted no more.
    pub stopped: bool,
}

/// Looks for signatures of `image`, for those of the Notary Project only where `notary` says that one could count. `judge`
/// gets everything as it comes and may break off.
pub async fn search(
    registry: &Arc<Registry>,
    image: Digest,
    notary: bool,
    judge: impl FnMut(Event) -> ControlFlow<()>,
) -> Searched {
    let mut search = Search {
        registry,
        image,
        notary,
        target: Arc::default(),
        judge,
        queue: BTreeMap::new(),
        running: JoinSet::new(),
        known: HashSet::new(),
        sequence: 0,
        pages: 0,
        manifests: 0,
        blobs: 0,
        bytes: 0,
        outcome: Searched::default(),
    };
    search.start(Task::Page(None));
    search.start(Task::SignatureTag);
    search.run().await;
    search.outcome
}

struct Search<'r, J> {
    registry: &'r Arc<Registry>,
    image: Digest,
    notary: bool,
    /// Fetched once, when the first signature of the Notary Project is.
    target: Arc<OnceCell<Target>>,
    judge: J,
    /// By rank, then blobs before manifests, so that what was begun is finished, then in the order of the lists.
    queue: BTreeMap<(u8, u8, u32), Task>,
    running: JoinSet<Done>,
    /// What was listed before. All of a descriptor, so that one with a wrong size hides no right one.
    known: HashSet<(Digest, u64, String)>,
    sequence: u32,
    pages: u32,
    manifests: u32,
    blobs: u32,
    bytes: usize,
    outcome: Searched,
}

enum Task {
    Page(Option<String>),
    FallbackList,
    SignatureTag,
    Manifest(Via, Descriptor),
    Blob(Via, Arc<Manifest>, usize),
}

impl Task {
    /// Bytes that it may read: no more than the descriptor says, whatever comes of it. What is too large is not asked for.
    fn cost(&self) -> usize {
        let (size, limit) = match self {
            Self::Manifest(_, descriptor) => (descriptor.size, MAX_REFERRER),
            Self::Blob(_, manifest, layer) => (manifest.layers[*layer].size, MAX_BLOB),
            // Each is asked for once or has a bound in pages.
            Self::Page(_) | Self::FallbackList | Self::SignatureTag => (0, 0),
        };
        usize::try_from(size).ok().filter(|size| *size <= limit).unwrap_or_default()
    }
}

enum Done {
    Page(Result<Option<Page>, RegistryError>),
    FallbackList(Result<Option<Index>, RegistryError>),
    SignatureTag(Result<Option<Manifest>, RegistryError>),
    Manifest(Via, Descriptor, Result<Manifest, RegistryError>),
    Blob(Via, Arc<Manifest>, usize, Result<(Bytes, Option<Target>), RegistryError>),
}

impl<J: FnMut(Event) -> ControlFlow<()>> Search<'_, J> {
    async fn run(&mut self) {
        while let Some(done) = self.running.join_next().await {
            let flow = match done {
                Ok(done) => self.take(done),
                Err(error) => {
                    self.ambiguous("release_internal", &error);
                    ControlFlow::Continue(())
                }
            };
            if flow.is_break() {
                self.outcome.stopped = true;
                break;
            }
            self.start_more();
        }
        // What still runs is of no use any more.
        self.running.abort_all();
    }

    fn take(&mut self, done: Done) -> ControlFlow<()> {
        match done {
            Done::Page(Ok(Some(page))) => {
                self.note(format!(
                    "the referrers API lists {}",
                    count(page.index.manifests.len() + page.index.skipped)
                ))?;
                self.list(Via::Referrers, page.index)?;
                if let Some(next) = page.next {
                    self.pages += 1;
                    if self.pages >= MAX_PAGES {
                        self.bound("the list of referrers has more pages than are read");
                    } else if self.known.len() >= MAX_KNOWN {
                        self.bound(TOO_MANY);
                    } else {
                        self.start(Task::Page(Some(next)));
                    }
                }
                ControlFlow::Continue(())
            }
            Done::Page(Ok(None)) => {
                self.note("the registry has no referrers API; its stand-in is asked for".to_owned())?;
                self.start(Task::FallbackList);
                ControlFlow::Continue(())
            }
            Done::FallbackList(Ok(Some(index))) => {
                self.note(format!(
                    "the tag sha256-{}… lists {}",
                    &self.image.hex()[..8],
                    count(index.manifests.len() + index.skipped)
                ))?;
                self.list(Via::FallbackTag, index)
            }
            Done::FallbackList(Ok(None)) => {
                self.note("there is no tag that stands in for the referrers API".to_owned())
            }
            Done::SignatureTag(Ok(Some(manifest))) => {
                self.note(format!("cosign's tag names {}", count(manifest.layers.len() + manifest.skipped)))?;
                self.layers(Via::SignatureTag, manifest)
            }
            Done::SignatureTag(Ok(None)) => self.note("there is no signature under cosign's tag".to_owned()),
            Done::Page(Err(error)) | Done::FallbackList(Err(error)) | Done::SignatureTag(Err(error)) => {
                // Without a list nobody knows what would have been on it, whatever the reason.
                self.ambiguous(error.reason(), &error);
                ControlFlow::Continue(())
            }
            Done::Manifest(via, _, Ok(manifest)) => {
                if manifest.subject != Some(self.image) {
                    let why = Rejection::ManifestSubject(manifest.subject);
                    return self.unusable(Some(manifest.digest), via, why);
                }
                self.layers(via, manifest)
            }
            Done::Manifest(via, descriptor, Err(error)) => self.lost(via, descriptor.digest, error),
            Done::Blob(via, manifest, layer, Ok((blob, target))) => {
                (self.judge)(Event::Found(Found { via, manifest, layer, blob, target }))
            }
            Done::Blob(via, manifest, _, Err(error)) => self.lost(via, manifest.digest, error),
        }
    }

    /// Queues the manifests of a list.
    fn list(&mut self, via: Via, index: Index) -> ControlFlow<()> {
        if index.skipped > 0 {
            self.note(format!(
                "{} of them cannot be read, or have no SHA-256 digest, and are left out",
                index.skipped
            ))?;
        }
        if index.more {
            self.bound(TOO_MANY);
        }
        for descriptor in index.manifests {
            if self.known.len() >= MAX_KNOWN {
                self.bound(TOO_MANY);
                break;
            }
            if !self.known.insert((descriptor.digest, descriptor.size, descriptor.media_type.clone())) {
                continue;
            }
            // Only where the registry itself copied the type from the manifest; elsewhere some clients write a wrong one.
            // Some registries copy that of the `config` even where the manifest has a type of its own, and then it is the
            // one that says nothing.
            let kind = descriptor.artifact_type.as_deref().filter(|kind| *kind != EMPTY);
            let other = kind.filter(|kind| !SIGNATURE_ARTIFACTS.contains(kind));
            if let (Via::Referrers, Some(kind)) = (via, other) {
                let why = Rejection::NotASignature(format!("an artifact of type `{}`", super::claim::shown(kind)));
                self.unusable(Some(descriptor.digest), via, why)?;
                continue;
            }
            if via == Via::Referrers && !self.notary && descriptor.artifact_type.as_deref() == Some(notary::ARTIFACT) {
                self.unwanted(descriptor.digest, via)?;
                continue;
            }
            let rank = rank(&descriptor);
            self.queue(rank, MANIFEST, Task::Manifest(via, descriptor));
        }
        ControlFlow::Continue(())
    }

    /// Queues the layers of a manifest that have the form of a signature.
    fn layers(&mut self, via: Via, manifest: Manifest) -> ControlFlow<()> {
        if manifest.skipped > 0 {
            self.note(format!("{} layers of {} cannot be read and are left out", manifest.skipped, manifest.digest))?;
        }
        if manifest.more {
            self.bound("a manifest has more layers than are read");
        }
        let manifest = Arc::new(manifest);
        let mut any = false;
        for (at, layer) in manifest.layers.iter().enumerate() {
            match Form::of_layer(&manifest, layer) {
                Some(form) if form.is_notary() && !self.notary => return self.unwanted(manifest.digest, via),
                Some(_) => {
                    any = true;
                    self.queue(0, BLOB, Task::Blob(via, Arc::clone(&manifest), at));
                }
                None => {}
            }
        }
        if any {
            return ControlFlow::Continue(());
        }
        let kind = manifest.artifact_type.as_deref().unwrap_or("unknown");
        let why = Rejection::NotASignature(format!("an artifact of type `{}`", super::claim::shown(kind)));
        self.unusable(Some(manifest.digest), via, why)
    }

    /// A signature of the Notary Project where no identity signs so: it is called what it is, and not fetched.
    fn unwanted(&mut self, manifest: Digest, via: Via) -> ControlFlow<()> {
        let why = "it is one of the Notary Project, and no identity has `notation`".to_owned();
        self.unusable(Some(manifest), via, Rejection::Signer(why))
    }

    fn lost(&mut self, via: Via, manifest: Digest, error: RegistryError) -> ControlFlow<()> {
        if error.is_ambiguous() {
            self.ambiguous(error.reason(), &error);
        }
        self.unusable(Some(manifest), via, Rejection::Registry(error))
    }

    fn queue(&mut self, rank: u8, stage: u8, task: Task) {
        self.sequence += 1;
        self.queue.insert((rank, stage, self.sequence), task);
        // Of a list of ten thousand the first by rank are kept.
        if self.queue.len() > MAX_QUEUE {
            self.queue.pop_last();
            self.bound(TOO_MANY);
        }
    }

    fn start_more(&mut self) {
        while self.running.len() < AT_ONCE {
            let Some((_, task)) = self.queue.pop_first() else { return };
            let cost = task.cost();
            let counter = match task {
                Task::Blob(..) => &mut self.blobs,
                _ => &mut self.manifests,
            };
            if *counter >= MAX_OF_EACH || self.bytes + cost > MAX_BYTES {
                self.bound(TOO_MANY);
                continue;
            }
            *counter += 1;
            self.bytes += cost;
            self.start(task);
        }
    }

    fn start(&mut self, task: Task) {
        self.outcome.requests += 1;
        let (registry, image, target) = (Arc::clone(self.registry), self.image, Arc::clone(&self.target));
        self.running.spawn(async move {
            match task {
                Task::Page(next) => Done::Page(registry.referrers(image, next.as_deref()).await),
                Task::FallbackList => Done::FallbackList(registry.fallback_list(image).await),
                Task::SignatureTag => Done::SignatureTag(registry.signature_tag(image).await),
                Task::Manifest(via, descriptor) => {
                    let manifest = registry.manifest(&descriptor).await;
                    Done::Manifest(via, descriptor, manifest)
                }
                Task::Blob(via, manifest, layer) => {
                    let form = Form::of_layer(&manifest, &manifest.layers[layer]);
                    let target = async {
                        let wanted = form.is_some_and(Form::is_notary);
                        if !wanted {
                            return Ok(None);
                        }
                        target.get_or_try_init(|| registry.target(image)).await.cloned().map(Some)
                    };
                    let fetched = tokio::try_join!(registry.blob(&manifest.layers[layer]), target);
                    Done::Blob(via, manifest, layer, fetched)
                }
            }
        });
    }

    fn bound(&mut self, which: &'static str) {
        self.outcome.bound.get_or_insert(which);
    }

    fn ambiguous(&mut self, reason: &'static str, error: &dyn std::fmt::Display) {
        let registry = self.registry.name();
        self.outcome.ambiguous.get_or_insert_with(|| (reason, format!("{registry}: {error}")));
    }

    fn unusable(&mut self, manifest: Option<Digest>, via: Via, why: Rejection) -> ControlFlow<()> {
        (self.judge)(Event::Unusable { manifest, via, why })
    }

    fn note(&mut self, text: String) -> ControlFlow<()> {
        (self.judge)(Event::Note(text))
    }
}

/// What is looked at first. What the annotations promise is verified later or not at all.
fn rank(descriptor: &Descriptor) -> u8 {
    let kind = descriptor.artifact_type.as_deref();
    match (descriptor.annotation(PREDICATE_TYPE), kind) {
        (Some(SIGN_PREDICATE), _) => 0,
        (_, Some(OLD_ARTIFACT)) => 1,
        (None, Some(BUNDLE_ARTIFACT | notary::ARTIFACT)) => 2,
        (None, _) => 3,
        // An attestation, by its own word.
        (Some(_), _) => 4,
    }
}

fn count(entries: usize) -> String {
    format!("{entries} {}", if entries == 1 { "entry" } else { "entries" })
}

const BUNDLE_ARTIFACT: &str = crate::sigstore::bundle::MEDIA_TYPE;
/// The media type of a `config` without content (OCI image specification, "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// cosign 2 with its experimental OCI 1.1 mode.
const OLD_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const SIGNATURE_ARTIFACTS: [&str; 3] = [BUNDLE_ARTIFACT, OLD_ARTIFACT, notary::ARTIFACT];

const BLOB: u8 = 0;
const MANIFEST: u8 = 1;

/// Requests under way at once.
const AT_ONCE: usize = 8;

/// Pages of one list.
pub(crate) const MAX_PAGES: u32 = 16;

/// Manifests, and blobs, that are asked for in one search.
pub(crate) const MAX_OF_EACH: u32 = 256;

/// Kept for their turn.
const MAX_QUEUE: usize = 1024;

/// Descriptors that are told apart.
const MAX_KNOWN: usize = MAX_ENTRIES;
const TOO_MANY: &str = "more referrers than are looked at";

/// Bytes of manifests and blobs together, by what their descriptors say.
const MAX_BYTES: usize = 64 << 20;
