//! Manifests and indexes (OCI image specification v1.1), as far as signatures need them.
//!
//! Unknown members are allowed, as the specification demands. The JSON is read strictly all the same: a manifest that
//! two readers could read in two ways is not one that anything is believed of.
//!
//! Of what stands in a list only that is read which is used, and an entry that cannot be read is left out: many write into
//! one list, and none of them is to hide what the others wrote.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::annotation;
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
    /// Its layers, in order, but for those that cannot be read.
    pub layers: Vec<Descriptor>,
    /// How many of them were left out.
    pub skipped: usize,
    /// Whether it has more layers than are read.
    pub more: bool,
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
    /// More about the content, as far as it is used here. On a layer of a signature, the signature itself.
    pub annotations: BTreeMap<String, String>,
}

/// An index: a list of manifests.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// The manifests, in order, but for those that cannot be read or whose digest is not SHA-256.
    pub manifests: Vec<Descriptor>,
    /// How many of them were left out.
    pub skipped: usize,
    /// Whether there are more than are read.
    pub more: bool,
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
            let subject = root.member("subject").map(|subject| descriptor(&subject, &[])).transpose()?.flatten();
            let config = root.member("config").and_then(|config| config.member("mediaType"));
            let artifact_type = match root.member("artifactType").or(config) {
                Some(field) => Some(field.text(MAX_NAME, "a media type")?.into_owned()).filter(|text| !text.is_empty()),
                None => None,
            };
            let layers = match root.member("layers") {
                Some(layers) => list(&layers, MAX_LAYERS, &annotation::OF_LAYERS)?,
                None => List::default(),
            };
            let subject = subject.map(|subject| subject.digest);
            let List { read: layers, skipped, more } = layers;
            Ok(Self { digest, bytes, subject, artifact_type, layers, skipped, more })
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
        let read = || -> Result<List, FieldError> {
            let entries = root.member("manifests").ok_or_else(|| root.wrong("must have `manifests`"))?;
            // A list without entries is `null` to some.
            if entries.node().is_null() {
                return Ok(List::default());
            }
            list(&entries, MAX_ENTRIES, &annotation::OF_MANIFESTS)
        };
        let List { read: manifests, skipped, more } = read().map_err(|error| RegistryError::field(what, &error))?;
        Ok(Self { manifests, skipped, more })
    }
}

/// Descriptors of a list.
#[derive(Default)]
struct List {
    read: Vec<Descriptor>,
    /// Those among the first that cannot be read.
    skipped: usize,
    /// There are others after the first.
    more: bool,
}

/// The first `most` of a list. Whatever is no object makes it no list of descriptors.
fn list(field: &Field<'_>, most: usize, annotations: &[&str]) -> Result<List, FieldError> {
    let mut list = List::default();
    for (at, entry) in field.elements(0..=usize::MAX, "descriptors")?.enumerate() {
        if at == most {
            list.more = true;
            break;
        }
        if !entry.node().is_object() {
            return Err(entry.wrong("must be a descriptor"));
        }
        match descriptor(&entry, annotations) {
            Ok(Some(descriptor)) => list.read.push(descriptor),
            Ok(None) | Err(_) => list.skipped += 1,
        }
    }
    Ok(list)
}

/// With these of its annotations. `None` when its digest is of another algorithm.
fn descriptor(field: &Field<'_>, annotations: &[&str]) -> Result<Option<Descriptor>, FieldError> {
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
    let known = field.member("annotations").filter(|known| known.node().is_object());
    let wanted =
        known.iter().flat_map(|known| annotations.iter().filter_map(|name| Some((*name, known.member(name)?))));
    let annotations = wanted
        .map(|(name, value)| Ok((name.to_owned(), value.text(MAX_ANNOTATION, "a string")?.into_owned())))
        .collect::<Result<_, FieldError>>()?;
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
pub(in crate::release) const MAX_ENTRIES: usize = 20_000;

/// Bytes; a certificate chain or a log entry has a few thousand.
const MAX_ANNOTATION: usize = 64 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(number: usize) -> Value {
        let digest = Digest::of(&number.to_le_bytes()).to_string();
        json!({ "mediaType": MANIFEST_TYPES[0], "digest": digest, "size": 7 })
    }

    fn with(name: &str, value: impl Into<Value>) -> Value {
        let mut entry = entry(0);
        entry[name] = value.into();
        entry
    }

    fn index(manifests: &[Value]) -> Result<Index, RegistryError> {
        Index::parse("the list", json!({ "manifests": manifests }).to_string().into())
    }

    fn manifest(layers: &[Value]) -> Result<Manifest, RegistryError> {
        Manifest::parse(json!({ "schemaVersion": 2, "layers": layers }).to_string().into())
    }

    /// Entries that say too much, or something else than belongs there.
    fn odd() -> Vec<Value> {
        let mut odd = vec![json!({}), with("digest", "sha256:00"), with("digest", 7), with("size", "7")];
        odd.extend([with("digest", format!("sha512:{}", "0".repeat(128))), with("mediaType", "x".repeat(257))]);
        odd.extend([with("artifactType", "x".repeat(257)), with("artifactType", 7)]);
        odd
    }

    #[test]
    fn an_odd_entry_hides_no_other() {
        for odd in odd() {
            let index = index(&[odd.clone(), entry(1)]).unwrap();
            assert_eq!((index.manifests.len(), index.skipped, index.more), (1, 1, false), "{odd}");
            let manifest = manifest(&[odd.clone(), entry(1)]).unwrap();
            assert_eq!((manifest.layers.len(), manifest.skipped, manifest.more), (1, 1, false), "{odd}");
            assert_eq!(index.manifests, manifest.layers);
        }
        let long = with("annotations", json!({ (annotation::SIGNATURE): "x".repeat(MAX_ANNOTATION + 1) }));
        let manifest = manifest(&[long, with("annotations", json!({ (annotation::SIGNATURE): "x" }))]).unwrap();
        assert_eq!((manifest.layers.len(), manifest.skipped), (1, 1));
        assert_eq!(manifest.layers[0].annotation(annotation::SIGNATURE), Some("x"));
        // What is no descriptor at all is in no list of them.
        for wrong in [json!(7), json!([]), json!("x"), Value::Null] {
            assert!(index(&[wrong.clone(), entry(1)]).is_err(), "{wrong}");
            assert!(self::manifest(&[wrong.clone(), entry(1)]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_used_is_not_read() {
        let many: serde_json::Map<_, _> = (0..1000).map(|n| (format!("a{n}"), json!([n]))).collect();
        for annotations in [json!(many), json!({ "a": "x".repeat(1 << 20) }), json!({ "a": 7 }), json!(7), Value::Null]
        {
            let index = index(&[with("annotations", annotations.clone())]).unwrap();
            assert_eq!((index.manifests.len(), index.skipped), (1, 0));
            assert!(index.manifests[0].annotations.is_empty());
            assert_eq!(manifest(&[with("annotations", annotations)]).unwrap().layers, index.manifests);
        }
        let said = index(&[with("annotations", json!({ (annotation::PREDICATE_TYPE): "x", "a": 7 }))]).unwrap();
        assert_eq!(said.manifests[0].annotation(annotation::PREDICATE_TYPE), Some("x"));
    }

    #[test]
    fn of_more_entries_than_are_read_the_first_are() {
        let many: Vec<_> = (0..=MAX_ENTRIES).map(entry).collect();
        let all = index(&many[1..]).unwrap();
        assert_eq!((all.manifests.len(), all.more), (MAX_ENTRIES, false));
        let first = index(&many).unwrap();
        assert_eq!((first.manifests.len(), first.more), (MAX_ENTRIES, true));
        let first = manifest(&many[..=MAX_LAYERS]).unwrap();
        assert_eq!((first.layers.len(), first.more), (MAX_LAYERS, true));
    }
}
