//! Manifests, indexes and descriptors as text.

use serde_json::{Value, json};

use crate::{hex, sha256};

/// A descriptor, to be changed at will.
#[derive(Clone, Debug)]
pub struct Descriptor(pub Value);

impl Descriptor {
    /// `sha256:…`, as it says.
    ///
    /// # Panics
    /// When it says nothing.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.0["digest"].as_str().expect("a descriptor has a digest")
    }

    /// With another member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0[name] = value.into();
        self
    }

    /// With another annotation.
    #[must_use]
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.0["annotations"][name] = value.into();
        self
    }
}

/// Of these bytes.
#[must_use]
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    let digest = format!("sha256:{}", hex(sha256(bytes)));
    Descriptor(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

/// A manifest with these layers, attached to `subject` (`sha256:…`) where there is one.
#[must_use]
pub fn manifest(artifact_type: &str, subject: Option<&str>, layers: &[Descriptor]) -> Value {
    let empty = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    let layers: Vec<&Value> = layers.iter().map(|layer| &layer.0).collect();
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type, "config": empty.0, "layers": layers,
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!({ "mediaType": MANIFEST, "digest": subject, "size": 7 });
    }
    manifest
}

/// An index of these manifests.
#[must_use]
pub fn index(manifests: &[Descriptor]) -> String {
    let manifests: Vec<&Value> = manifests.iter().map(|descriptor| &descriptor.0).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string()
}

/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type and artifact type of a Sigstore bundle.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Media type of a layer in cosign's older ways.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
