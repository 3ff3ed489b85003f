//! The annotations that are read; whatever else somebody noted is passed over unread.

/// Of a layer: cosign's signature over it.
pub(in crate::release) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// Of a layer: the certificate of the key that made it, in PEM.
pub(in crate::release) const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";

/// Of a layer: a time stamp of that signature (RFC 3161).
pub(in crate::release) const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";

/// Of a layer: the entry of a transparency log.
pub(in crate::release) const LOG_ENTRY: &str = "dev.sigstore.cosign/bundle";

/// Of a manifest in a list: what cosign 3 notes of the statement in a bundle.
pub(in crate::release) const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";

pub(super) const OF_LAYERS: [&str; 4] = [SIGNATURE, CERTIFICATE, TIMESTAMP, LOG_ENTRY];
pub(super) const OF_MANIFESTS: [&str; 1] = [PREDICATE_TYPE];
