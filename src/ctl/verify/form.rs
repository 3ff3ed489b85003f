//! The three forms an envelope comes in, told apart strictly: bare, in the Signer API's answer, in a Sigstore bundle.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Fault;
use crate::statement::json::{Document, JsonLimits};

/// A DSSE envelope as its JSON has it. The payload stays where it was read.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Envelope<'a> {
    #[serde(borrow)]
    pub(crate) payload_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) payload: Cow<'a, str>,
    pub(crate) signatures: Vec<EnvelopeSignature>,
}

/// One of an envelope's signatures.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvelopeSignature {
    #[serde(default)]
    pub(crate) keyid: String,
    pub(crate) sig: String,
}

/// A Sigstore bundle with an envelope in it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SigstoreBundle<'a> {
    pub(crate) media_type: String,
    pub(crate) verification_material: Value,
    #[serde(borrow)]
    pub(crate) dsse_envelope: Envelope<'a>,
}

/// `bundle` of the Signer API's answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiBundle<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) dsse: Option<Envelope<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) sigstore: Option<SigstoreBundle<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_chain: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signing_identity: Option<Value>,
}

/// The Signer API's answer to `POST /sign/dsse`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiAnswer<'a> {
    #[serde(borrow)]
    pub(crate) bundle: ApiBundle<'a>,
    #[serde(default)]
    pub(crate) policy: Value,
    #[serde(default)]
    pub(crate) audit_id: Option<String>,
}

/// What a file was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// An envelope by itself.
    Envelope,
    /// The Signer API's answer, or the `bundle` in it.
    Answer,
    /// A Sigstore bundle.
    Sigstore,
}

/// A file that holds one envelope.
#[derive(Debug)]
pub(crate) enum Holder<'a> {
    Envelope(Envelope<'a>),
    Answer(ApiBundle<'a>),
    Sigstore(SigstoreBundle<'a>),
}

/// An envelope, and what stands around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) form: Form,
    pub(crate) envelope: &'a Envelope<'a>,
    /// `verificationMaterial`, where the envelope is in a Sigstore bundle.
    pub(crate) material: Option<&'a Value>,
    /// `certificateChain`, PEM, leaf first, where an answer has one.
    pub(crate) certificate_chain: &'a [String],
}

/// Tells by its members what `json` is, and reads it as that.
pub(crate) fn read(json: &[u8]) -> Result<Holder<'_>, Fault> {
    // The bounded reader goes first: what follows keeps some members as they come, however many they are.
    Document::parse(Bytes::copy_from_slice(json), &JsonLimits::default())
        .map_err(|error| Fault::NotAnEnvelope(format!("it is no strict JSON: {error}")))?;
    let members: Members = parse(json, "JSON object")?;
    let present = [
        members.payload_type.is_some(),
        members.bundle.is_some(),
        members.dsse.is_some() || members.sigstore.is_some(),
        members.media_type.is_some(),
    ];
    match present {
        [true, false, false, false] => Ok(Holder::Envelope(parse(json, "DSSE envelope")?)),
        [false, true, false, false] => {
            let answer: ApiAnswer<'_> = parse(json, "answer of the Signer API")?;
            Ok(Holder::Answer(answer.bundle))
        }
        [false, false, true, false] => Ok(Holder::Answer(parse(json, "bundle of the Signer API")?)),
        [false, false, false, true] => Ok(Holder::Sigstore(parse(json, "Sigstore bundle with a DSSE envelope")?)),
        [false, false, false, false] => Err(Fault::NotAnEnvelope(
            "it has none of `payloadType` (DSSE), `bundle` (Signer API), `mediaType` (Sigstore)".to_owned(),
        )),
        _ => Err(Fault::Ambiguous),
    }
}

impl Holder<'_> {
    /// The one envelope in it.
    pub(crate) fn found(&self) -> Result<Found<'_>, Fault> {
        match self {
            Self::Envelope(envelope) => Ok(Found::bare(Form::Envelope, envelope)),
            Self::Answer(bundle) => bundle.found(),
            Self::Sigstore(bundle) => bundle.found(Form::Sigstore),
        }
    }
}

impl ApiBundle<'_> {
    /// The one envelope in it.
    pub(crate) fn found(&self) -> Result<Found<'_>, Fault> {
        let found = match (&self.dsse, &self.sigstore) {
            (Some(envelope), None) => Ok(Found::bare(Form::Answer, envelope)),
            (None, Some(bundle)) => bundle.found(Form::Answer),
            (None, None) => Err(Fault::NotAnEnvelope("its `bundle` has neither `dsse` nor `sigstore`".to_owned())),
            // Both may be there, with the same envelope in them.
            (Some(envelope), Some(bundle)) if *envelope == bundle.dsse_envelope => bundle.found(Form::Answer),
            (Some(_), Some(_)) => Err(Fault::Ambiguous),
        }?;
        Ok(Found { certificate_chain: self.certificate_chain.as_deref().unwrap_or_default(), ..found })
    }
}

impl<'a> Found<'a> {
    fn bare(form: Form, envelope: &'a Envelope<'a>) -> Self {
        Self { form, envelope, material: None, certificate_chain: &[] }
    }
}

impl SigstoreBundle<'_> {
    fn found(&self, form: Form) -> Result<Found<'_>, Fault> {
        if self.media_type != SIGSTORE_MEDIA_TYPE {
            return Err(Fault::MediaType(self.media_type.clone()));
        }
        Ok(Found { material: Some(&self.verification_material), ..Found::bare(form, &self.dsse_envelope) })
    }
}

/// Decodes base64 with padding; the standard alphabet is what is written, DSSE lets readers take the URL-safe one too.
pub(crate) fn decode(text: &str, part: &'static str) -> Result<Vec<u8>, Fault> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|_| Fault::Base64(part))
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T, Fault> {
    serde_json::from_slice(json).map_err(|error| Fault::NotAnEnvelope(format!("it is no {what}: {error}")))
}

/// The members that tell the forms apart; a member twice is an error here already.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    payload_type: Option<IgnoredAny>,
    bundle: Option<IgnoredAny>,
    dsse: Option<IgnoredAny>,
    sigstore: Option<IgnoredAny>,
    media_type: Option<IgnoredAny>,
}

pub(crate) use crate::sigstore::bundle::MEDIA_TYPE as SIGSTORE_MEDIA_TYPE;
