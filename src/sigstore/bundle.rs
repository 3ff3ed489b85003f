//! Sigstore bundles v0.3 (sigstore/protobuf-specs, `sigstore_bundle.proto`), read strictly: what one claims.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use rustls_pki_types::CertificateDer;

use crate::dsse::Envelope;
use crate::statement::json::{Document, Field, FieldError, JsonError, JsonLimits};

/// A bundle around a DSSE envelope with one signature. Nothing in it is verified.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// What goes with the signature.
    pub material: Material,
    /// What was signed, and the signature.
    pub envelope: Envelope,
}

/// `verificationMaterial`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// Who signed.
    pub signer: Signer,
    /// Whole RFC 3161 responses, DER.
    pub timestamps: Vec<Vec<u8>>,
    /// How many entries of transparency logs there are; they are not looked at.
    pub log_entries: usize,
}

/// Who a bundle says has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The holder of a key: `publicKey.hint`, which must be the envelope's keyid.
    Key(String),
    /// The owner of a certificate: the leaf alone, DER.
    Certificate(CertificateDer<'static>),
}

/// Why a file is no bundle of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not strict JSON.
    #[error("the bundle is not strict JSON: {0}")]
    Json(#[from] JsonError),
    /// Another version or kind.
    #[error("the bundle's mediaType is `{0}`; it must be {MEDIA_TYPE}")]
    MediaType(String),
    /// Something in it is not what belongs there.
    #[error("{0}")]
    Field(#[from] FieldError),
}

impl Bundle {
    /// Reads a bundle by itself.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn from_json(json: Bytes) -> Result<Self, BundleError> {
        let document = Document::parse(json, &JsonLimits::default())?;
        Self::read(&Field::root(document.root()))
    }

    /// Reads a bundle that is a member of something else.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn read(field: &Field<'_>) -> Result<Self, BundleError> {
        // First, because another version may well have other members.
        match field.member("mediaType").map(|one| one.text(MAX_NAME, "a media type").map(std::borrow::Cow::into_owned))
        {
            Some(Ok(media_type)) if media_type == MEDIA_TYPE => {}
            Some(Ok(media_type)) => return Err(BundleError::MediaType(media_type)),
            Some(Err(error)) => return Err(error.into()),
            None => return Err(field.wrong("must be a Sigstore bundle with a mediaType").into()),
        }
        let fields = field.object(&["mediaType", "verificationMaterial", "dsseEnvelope"])?;
        let material = Material::read(&fields.required("verificationMaterial", "an object")?)?;
        let envelope = Envelope::read(&fields.required("dsseEnvelope", "a DSSE envelope")?)?;
        Ok(Self { material, envelope })
    }
}

impl Material {
    /// Reads `verificationMaterial`.
    ///
    /// # Errors
    /// The first place that is wrong, and what would be right.
    pub fn read(field: &Field<'_>) -> Result<Self, FieldError> {
        let fields = field.object(&["publicKey", "certificate", "tlogEntries", "timestampVerificationData"])?;
        let signer = match (fields.optional("publicKey"), fields.optional("certificate")) {
            (Some(key), None) => {
                let key = key.object(&["hint"])?;
                Signer::Key(key.required("hint", "a keyid")?.text(MAX_NAME, "a keyid")?.into_owned())
            }
            (None, Some(certificate)) => {
                let certificate = certificate.object(&["rawBytes"])?;
                let der = decode(&certificate.required("rawBytes", RIGHT_BASE64)?, MAX_CERTIFICATE)?;
                Signer::Certificate(der.into())
            }
            _ => return Err(field.wrong("must have `publicKey` or `certificate`, and not both")),
        };
        let log_entries = match fields.optional("tlogEntries") {
            Some(entries) => entries.elements(0..=MAX_ENTRIES, "log entries")?.count(),
            None => 0,
        };
        let timestamps = match fields.optional("timestampVerificationData") {
            Some(data) => timestamps(&data)?,
            None => Vec::new(),
        };
        Ok(Self { signer, timestamps, log_entries })
    }
}

fn timestamps(data: &Field<'_>) -> Result<Vec<Vec<u8>>, FieldError> {
    let fields = data.object(&["rfc3161Timestamps"])?;
    let Some(list) = fields.optional("rfc3161Timestamps") else { return Ok(Vec::new()) };
    let list = list.elements(0..=MAX_ENTRIES, "timestamps")?;
    let one = |stamp: Field<'_>| {
        let fields = stamp.object(&["signedTimestamp"])?;
        decode(&fields.required("signedTimestamp", RIGHT_BASE64)?, MAX_TIMESTAMP)
    };
    list.map(one).collect()
}

fn decode(field: &Field<'_>, max: usize) -> Result<Vec<u8>, FieldError> {
    let text = field.text(max, RIGHT_BASE64)?;
    BASE64_STANDARD.decode(text.as_bytes()).map_err(|_| field.wrong(format!("must be {RIGHT_BASE64}")))
}

/// The one version that is written and read.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

const RIGHT_BASE64: &str = "padded standard base64";

/// Characters.
const MAX_NAME: usize = 1024;
const MAX_CERTIFICATE: usize = 64 * 1024;
const MAX_TIMESTAMP: usize = 96 * 1024;

/// sigstore-go takes 32 of each.
const MAX_ENTRIES: usize = 32;
