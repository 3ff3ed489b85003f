//! Manifests and indexes (OCI image specification v1.1), as far as signatures need them.
//!
//! Unknown members are allowed, as the specification demands. The JSON is read strictly all the same: a manifest that
//! two readers could read in two ways is not one that anything is believed of.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::error::RegistryError;
use crate::release::digest::Digest;
use crate::statement::json::{Document, Field, FieldError, JsonLimits};

/// A manifest whose bytes have the digest that it is known by.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it is attached to.
    pub subject: Option<Digest>,
    /// `artifactType`, or the media type of its `config`.
    pub artifact_type: Option<String>,
    /// Its layers, in order.
    pub layers: Vec<Descriptor>,
}

/// A descriptor: what points at content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Of the content.
    pub digest: Digest,
    /// Bytes of the content.
    pub size: u64,
    /// What the content is.
    pub media_type: String,
    /// Of a manifest: what kind of artifact it describes. Somebody wrote it; it decides nothing.
    pub artifact_type: Option<String>,
    /// More about the content. On a layer of a signature, the signature itself.
    pub annotations: BTreeMap<String, String>,
}

/// An index: a list of manifests.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// The manifests, in order; those whose digest is not SHA-256 are left out.
    pub manifests: Vec<Descriptor>,
    /// How many were left out.
    pub skipped: usize,
}

impl Manifest {
    /// Reads the bytes of an image manifest. Their digest is computed, whatever anybody says it is.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`], or [`RegistryError::MediaType`] where it is an index or something else.
    pub fn parse(bytes: Bytes) -> Result<Self, RegistryError> {
        let digest = Digest::of(&bytes);
        let what = format!("the manifest {digest}");
        let document = Document::parse(bytes.clone(), &LIMITS).map_err(|error| RegistryError::json(&what, &error))?;
        let root = Field::root(document.root());
        let read = || -> Result<Self, FieldError> {
            let subject = root.member("subject").map(|subject| descriptor(&subject)).transpose()?.flatten();
            let config = root.member("config").and_then(|config| config.member("mediaType"));
            let artifact_type = match root.member("artifactType").or(config) {
                Some(field) => Some(field.text(MAX_NAME, "a media type")?.into_owned()).filter(|text| !text.is_empty()),
                None => None,
            };
            let layers = match root.member("layers") {
                Some(layers) => layers
                    .elements(0..=MAX_LAYERS, "layers")?
                    .map(|layer| descriptor(&layer)?.ok_or_else(|| layer.wrong("must have a SHA-256 digest")))
                    .collect::<Result<_, _>>()?,
                None => Vec::new(),
            };
            let subject = subject.map(|subject| subject.digest);
            Ok(Self { digest, bytes, subject, artifact_type, layers })
        };
        // Absent, it is an image manifest by its content type. What calls itself an index may have layers, too: two
        // readers would see two things.
        if let Some(media_type) = root.member("mediaType").and_then(|field| field.node().as_str())
            && !MANIFEST_TYPES.contains(&&*media_type)
        {
            return Err(RegistryError::MediaType { what, found: super::shown(&media_type) });
        }
        if root.member("manifests").is_some() {
            let why = "it has `manifests`, as an index has".to_owned();
            return Err(RegistryError::Malformed { what, why });
        }
        let manifest = read().map_err(|error| RegistryError::field(&what, &error))?;
        let version = root.member("schemaVersion").and_then(|field| field.node().as_u64());
        if version != Some(2) {
            let why = "its schemaVersion is not 2".to_owned();
            return Err(RegistryError::Malformed { what, why });
        }
        Ok(manifest)
    }
}

impl Index {
    /// Reads an image index.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`] or [`RegistryError::MediaType`].
    pub fn parse(what: &str, bytes: Bytes) -> Result<Self, RegistryError> {
        let document = Document::parse(bytes, &LIMITS).map_err(|error| RegistryError::json(what, &error))?;
        let root = Field::root(document.root());
        if let Some(media_type) = root.member("mediaType").and_then(|field| field.node().as_str())
            && media_type != INDEX_TYPE
        {
            return Err(RegistryError::MediaType { what: what.to_owned(), found: super::shown(&media_type) });
        }
        let mut index = Self::default();
        let mut read = || -> Result<(), FieldError> {
            let list = root.member("manifests").ok_or_else(|| root.wrong("must have `manifests`"))?;
            // A list without entries is `null` to some.
            if list.node().is_null() {
                return Ok(());
            }
            for entry in list.elements(0..=MAX_ENTRIES, "descriptors")? {
                match descriptor(&entry)? {
                    Some(descriptor) => index.manifests.push(descriptor),
                    None => index.skipped += 1,
                }
            }
            Ok(())
        };
        read().map_err(|error| RegistryError::field(what, &error))?;
        Ok(index)
    }
}

/// `None` when its digest is of another algorithm.
fn descriptor(field: &Field<'_>) -> Result<Option<Descriptor>, FieldError> {
    if !field.node().is_object() {
        return Err(field.wrong("must be a descriptor"));
    }
    let required = |name: &str| field.member(name).ok_or_else(|| field.wrong(format!("must have `{name}`")));
    let text = |name: &str, max: usize| -> Result<Option<String>, FieldError> {
        match field.member(name) {
            Some(value) if value.node().is_null() => Ok(None),
            Some(value) => Ok(Some(value.text(max, "a string")?.into_owned())),
            None => Ok(None),
        }
    };
    let digest = required("digest")?;
    let size = required("size")?;
    let size = size.node().as_u64().ok_or_else(|| size.wrong("must be a number of bytes"))?;
    let media_type = required("mediaType")?.text(MAX_NAME, "a media type")?.into_owned();
    let artifact_type = text("artifactType", MAX_NAME)?.filter(|text| !text.is_empty());
    let mut annotations = BTreeMap::new();
    if let Some(list) = field.member("annotations").filter(|list| !list.node().is_null()) {
        for (key, value) in list.members(0..=MAX_ANNOTATIONS, "annotations")? {
            annotations.insert(key.into_owned(), value.text(MAX_ANNOTATION, "a string")?.into_owned());
        }
    }
    let text = digest.text(MAX_NAME, "a digest")?;
    match text.parse() {
        Ok(digest) => Ok(Some(Descriptor { digest, size, media_type, artifact_type, annotations })),
        Err(_) if text.contains(':') && !text.starts_with("sha256:") => Ok(None),
        Err(_) => Err(digest.wrong("must be `sha256:` and 64 lowercase hex digits")),
    }
}

impl Descriptor {
    /// One annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }
}

/// The media type of an image index.
pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The media type of an index from before there were any.
pub(super) const LIST_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Media types of a manifest that can carry a signature.
pub(super) const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

const LIMITS: JsonLimits = JsonLimits { max_depth: 32, max_values: 1 << 20 };
const MAX_NAME: usize = 256;
const MAX_LAYERS: usize = 1024;

/// Of one index. Four megabytes of JSON hold about as many.
const MAX_ENTRIES: usize = 20_000;
const MAX_ANNOTATIONS: usize = 64;

/// Bytes; a certificate chain or a log entry has a few thousand.
const MAX_ANNOTATION: usize = 64 * 1024;
