//! What a search finds: something that has the form of a signature, whole, and where it was.

use std::sync::Arc;

use bytes::Bytes;

use crate::release::claim::Form;
use crate::release::registry::{Manifest, Target};

/// A layer that has the media type of a signature. Its digest and that of its manifest hold; nothing else is verified.
#[derive(Clone, Debug)]
pub struct Found {
    /// How it was found.
    pub via: Via,
    /// The manifest, whose digest is the signature's name.
    pub manifest: Arc<Manifest>,
    /// Which of its layers.
    pub layer: usize,
    /// The layer's content.
    pub blob: Bytes,
    /// The image itself, which a signature of the Notary Project is compared with; of others it is not fetched.
    pub target: Option<Target>,
}

impl Found {
    /// The form that it has.
    pub(in crate::release) fn form(&self) -> Option<Form> {
        Form::of_layer(&self.manifest, self.manifest.layers.get(self.layer)?)
    }
}

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// By the referrers API.
    Referrers,
    /// By the tag that stands in for it.
    FallbackTag,
    /// By cosign's tag.
    SignatureTag,
}

impl Via {
    /// For reports and snapshots.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Referrers => "referrers",
            Self::FallbackTag => "fallback_tag",
            Self::SignatureTag => "signature_tag",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Referrers, Self::FallbackTag, Self::SignatureTag].into_iter().find(|via| via.name() == name)
    }
}
