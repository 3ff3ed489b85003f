//! Signatures of the Notary Project, as notation makes them (notaryproject/specifications, `signature-specification.md`).
//!
//! | module | what it answers |
//! |---|---|
//! | `jws`, `cose` (on `cbor`) | what does an envelope claim, in either of its encodings |
//! | [`attributes`] | what do its signed attributes say, and is every critical one understood |
//! | [`certificates`] | is its chain one that may sign code, and which algorithm is its key for |
//! | [`subject`] | is the certificate's subject one that the operator named |
//! | [`trust`] | does it count: the trust stores, the times, revoked certificates |
//!
//! Every check is one of `trust-store-trust-policy.md` at its level `strict`. Where this is stricter than the specification,
//! the place says so. Nothing is asked of any network: no OCSP responder and no CRL, so that what is revoked is what the
//! operator lists.

pub(super) mod attributes;
mod cbor;
pub(super) mod certificates;
mod cose;
mod jws;
pub(super) mod subject;
pub(super) mod trust;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;

use super::claim::{Form, shown};
use super::digest::Digest;
use super::registry::Target;
use super::rejection::Rejection;
use crate::clock::UnixTime;
use crate::sigstore::TimestampError;
use crate::statement::json::{Document, Field, FieldError, JsonLimits};

use attributes::Attributes;

/// An envelope, taken apart. Nothing in it is verified.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) form: Form,
    pub(super) payload: Bytes,
    pub(super) attributes: Attributes,
    /// The bytes that the signature covers.
    pub(super) signed: Vec<u8>,
    pub(super) signature: Vec<u8>,
    /// Leaf first, root last.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// A `TimeStampToken` over the signature.
    pub(super) timestamp: Option<Vec<u8>>,
}

/// Why a Notary signature does not count.
#[derive(Debug, thiserror::Error)]
pub enum NotaryError {
    /// It cannot be read.
    #[error("the Notary signature cannot be read: {0}")]
    Malformed(String),
    /// Something that must be understood is not, or is not marked as such.
    #[error("a critical attribute of the Notary signature is missing or not understood: {0}")]
    Critical(String),
    /// No certificate of its chain is in the trust store.
    #[error("no certificate of its chain is in the trust store for signatures of the scheme `{0}`")]
    Untrusted(&'static str),
    /// The operator has withdrawn a certificate.
    #[error("the key {0} of a certificate behind it is listed as revoked")]
    Revoked(Digest),
    /// The chain is none that may sign.
    #[error("its certificates may not make this signature: {0}")]
    Certificates(String),
    /// Another algorithm than the key is for.
    #[error("its algorithm is `{found}`, and its key is for {expected}")]
    Algorithm {
        /// What it says.
        found: String,
        /// What the key demands.
        expected: &'static str,
    },
    /// The signature is not over these bytes by this key.
    #[error("the signature is not by the key of its certificate over these bytes")]
    Signature,
    /// Somebody else's certificate.
    #[error("the subject of its certificate is none of the trusted identities: {0}")]
    Subject(String),
    /// A certificate was, or is, not valid.
    #[error("a certificate of its chain is not valid at {}, {why}", .at.rfc3339())]
    NotValid {
        /// When.
        at: UnixTime,
        /// Why that moment.
        why: &'static str,
    },
    /// Past the time that its maker set.
    #[error("its maker let it expire at {}", .0.rfc3339())]
    Expired(UnixTime),
    /// It states a time that has not come.
    #[error("it says that it was made at {}, which is still to come", .0.rfc3339())]
    Future(UnixTime),
    /// The time stamp is false.
    #[error(transparent)]
    Timestamp(TimestampError),
    /// What was signed is not the image as it is in the registry.
    #[error("{0}")]
    Target(String),
}

impl NotaryError {
    /// A stable word for audit records and metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "release_signature_malformed",
            Self::Critical(_) => "release_critical_attribute",
            Self::Untrusted(_) => "release_certificate_untrusted",
            Self::Revoked(_) => "release_certificate_revoked",
            Self::Certificates(_) => "release_certificate",
            Self::Algorithm { .. } => "release_signature_algorithm",
            Self::Signature => "release_signature_invalid",
            Self::Subject(_) => "release_identity_mismatch",
            Self::NotValid { .. } => "release_certificate_expired",
            Self::Expired(_) => "release_signature_expired",
            Self::Future(_) | Self::Timestamp(_) => "release_timestamp",
            Self::Target(_) => "release_target",
        }
    }

    /// How far it came, as [`Rejection::rank`] counts.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Malformed(_) | Self::Critical(_) => 3,
            Self::Untrusted(_) => 4,
            Self::Certificates(_) | Self::Algorithm { .. } | Self::Signature => 5,
            Self::Subject(_) | Self::Revoked(_) => 6,
            Self::NotValid { .. } | Self::Expired(_) | Self::Future(_) | Self::Timestamp(_) => 7,
            Self::Target(_) => 9,
        }
    }
}

impl Envelope {
    /// Reads an envelope of this form.
    pub(super) fn read(form: Form, blob: &Bytes) -> Result<Self, NotaryError> {
        match form {
            Form::NotaryCose => cose::read(blob),
            _ => jws::read(blob),
        }
    }

    /// Whether what was signed is this image, as it is in the registry. Asked only after the signature was verified.
    pub(super) fn is_about(&self, image: Digest, target: Option<&Target>) -> Result<(), Rejection> {
        let signed = target_artifact(&self.payload).map_err(|error| Rejection::Payload(error.to_string()))?;
        if signed.digest.parse() != Ok(image) {
            return Err(Rejection::Image(shown(&signed.digest)));
        }
        let wrong = |why: String| Err(Rejection::Notary(NotaryError::Target(why)));
        match target {
            None => wrong("the image itself was not fetched, so what was signed cannot be compared with it".to_owned()),
            Some(target) if target.size != signed.size => {
                wrong(format!("an image of {} bytes was signed, and this one has {}", signed.size, target.size))
            }
            Some(target) if target.media_type != signed.media_type => wrong(format!(
                "what was signed is of type `{}`, and the image of type `{}`",
                shown(&signed.media_type),
                shown(&target.media_type)
            )),
            Some(_) => Ok(()),
        }
    }
}

/// `targetArtifact` of a payload.
struct TargetArtifact {
    digest: String,
    size: u64,
    media_type: String,
}

/// `application/vnd.cncf.notary.payload.v1+json` (`signature-specification.md`, "Payload"). Annotations and what else may
/// be in it decide nothing here.
fn target_artifact(payload: &Bytes) -> Result<TargetArtifact, FieldError> {
    let document = Document::parse(payload.clone(), &LIMITS)
        .map_err(|error| FieldError { path: "the payload".to_owned(), problem: error.to_string().into() })?;
    let root = Field::root(document.root());
    let target = root.member("targetArtifact").ok_or_else(|| root.wrong("must have `targetArtifact`"))?;
    let text = |name: &str, right| -> Result<String, FieldError> {
        let field = target.member(name).ok_or_else(|| target.wrong(format!("must have `{name}`")))?;
        Ok(field.text(MAX_TEXT, right)?.into_owned())
    };
    let (digest, media_type) = (text("digest", "a digest")?, text("mediaType", "a media type")?);
    let size = target.member("size").ok_or_else(|| target.wrong("must have `size`"))?;
    let size = size.node().as_u64().ok_or_else(|| size.wrong("must be a number of bytes"))?;
    Ok(TargetArtifact { digest, size, media_type })
}

/// The artifact type of a Notary signature's manifest.
pub(super) const ARTIFACT: &str = "application/vnd.cncf.notary.signature";
/// Media types of its one layer.
pub(super) const JWS: &str = "application/jose+json";
/// As [`JWS`].
pub(super) const COSE: &str = "application/cose";

/// What is signed.
const PAYLOAD: &str = "application/vnd.cncf.notary.payload.v1+json";

const LIMITS: JsonLimits = JsonLimits { max_depth: 16, max_values: 1 << 14 };
const MAX_TEXT: usize = 256;

/// Certificates of a chain: a leaf, a root, and what no PKI has more of between.
const MAX_CHAIN: usize = 8;

/// Bytes of a token, as many as are read of one.
const MAX_TOKEN: usize = 64 * 1024;
