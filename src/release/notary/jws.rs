//! The JWS encoding of a Notary signature (`signature-envelope-jws.md`): the flattened JSON serialization (RFC 7515,
//! section 7.2.2).

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use rustls_pki_types::CertificateDer;

use super::attributes::{AUTHENTIC_SIGNING_TIME, EXPIRY, MAX_CRITICAL, PLUGIN, Raw, SCHEME, SIGNING_TIME, TIMESTAMP};
use super::certificates::Algorithm;
use super::{Envelope, LIMITS, MAX_CHAIN, MAX_TEXT, MAX_TOKEN, NotaryError};
use crate::clock::UnixTime;
use crate::release::claim::Form;
use crate::sigstore::x509;
use crate::statement::json::{Document, Field, FieldError};

/// Reads an envelope.
pub(super) fn read(blob: &Bytes) -> Result<Envelope, NotaryError> {
    let document = Document::parse(blob.clone(), &LIMITS).map_err(|error| malformed(&error))?;
    let Parts { protected, payload, signature, header } = parts(&document).map_err(|error| malformed(&error))?;
    let inner = Document::parse(protected.bytes.clone(), &LIMITS).map_err(|error| malformed(&error))?;
    let inner = Field::root(inner.root());
    let attributes = attributes(&inner).map_err(|error| malformed(&error))?.check()?;
    let header = unprotected(&header, &inner).map_err(|error| malformed(&error))?;
    Ok(Envelope {
        form: Form::NotaryJws,
        signed: [protected.text.as_bytes(), b".", payload.text.as_bytes()].concat(),
        payload: payload.bytes,
        attributes,
        signature: signature.bytes.to_vec(),
        chain: header.chain,
        timestamp: header.timestamp,
    })
}

struct Parts<'d> {
    protected: Encoded,
    payload: Encoded,
    signature: Encoded,
    header: Field<'d>,
}

/// A member as it is written, which is what a signature covers, and what it stands for.
struct Encoded {
    text: String,
    bytes: Bytes,
}

fn parts(document: &Document) -> Result<Parts<'_>, FieldError> {
    let root = Field::root(document.root());
    // "No additional top level fields are supported."
    let fields = root.object(&["payload", "protected", "header", "signature"])?;
    let encoded = |name: &'static str| -> Result<Encoded, FieldError> {
        let field = fields.required(name, "base64url without padding")?;
        let text = field.text(MAX_PART, "base64url without padding")?.into_owned();
        let bytes =
            BASE64_URL_SAFE_NO_PAD.decode(&text).map_err(|_| field.wrong("must be base64url without padding"))?;
        Ok(Encoded { text, bytes: bytes.into() })
    };
    Ok(Parts {
        protected: encoded("protected")?,
        payload: encoded("payload")?,
        signature: encoded("signature")?,
        header: fields.required("header", "an object")?,
    })
}

fn attributes(protected: &Field<'_>) -> Result<Raw, FieldError> {
    let mut raw = Raw::default();
    for (name, field) in protected.members(0..=MAX_HEADERS, "headers")? {
        let text = || Ok::<_, FieldError>(field.text(MAX_TEXT, "a string")?.into_owned());
        match &*name {
            "alg" => {
                let name = text()?;
                raw.algorithm = Algorithm::of_jws(&name);
                raw.unknown_algorithm = raw.algorithm.is_none().then_some(name);
            }
            "cty" => raw.content_type = Some(text()?),
            "crit" => {
                for critical in field.elements(0..=MAX_CRITICAL, "names")? {
                    raw.critical.push(critical.text(MAX_TEXT, "a name")?.into_owned());
                }
            }
            SCHEME => raw.scheme = Some(text()?),
            SIGNING_TIME => raw.signing_time = Some(time(&field)?),
            AUTHENTIC_SIGNING_TIME => raw.authentic_signing_time = Some(time(&field)?),
            EXPIRY => raw.expiry = Some(time(&field)?),
            other => raw.plugin |= other.starts_with(PLUGIN),
        }
    }
    Ok(raw)
}

/// RFC 3339; fractions, which should not be used, are not read.
fn time(field: &Field<'_>) -> Result<UnixTime, FieldError> {
    let text = field.text(MAX_TEXT, "a moment")?;
    let moment: Option<jiff::Timestamp> = text.parse().ok();
    let whole = moment.filter(|moment| moment.subsec_nanosecond() == 0);
    whole.map(|moment| UnixTime(moment.as_second())).ok_or_else(|| field.wrong("must be RFC 3339 in whole seconds"))
}

struct Header {
    chain: Vec<CertificateDer<'static>>,
    timestamp: Option<Vec<u8>>,
}

fn unprotected(header: &Field<'_>, protected: &Field<'_>) -> Result<Header, FieldError> {
    let (mut chain, mut timestamp) = (None, None);
    for (name, field) in header.members(0..=MAX_HEADERS, "headers")? {
        // RFC 7515, section 7.2.1: the names in both places are disjoint.
        if protected.member(&name).is_some() {
            return Err(field.wrong("is also among the protected headers"));
        }
        let decode = |field: &Field<'_>, most: usize| -> Result<Vec<u8>, FieldError> {
            let text = field.text(most / 3 * 4 + 4, "padded standard base64")?;
            let decoded = BASE64_STANDARD.decode(text.as_bytes()).ok().filter(|bytes| bytes.len() <= most);
            decoded.ok_or_else(|| field.wrong(format!("must be padded standard base64 of at most {most} bytes")))
        };
        match &*name {
            "x5c" => {
                let certificates = field.elements(1..=MAX_CHAIN, "certificates")?;
                let read = certificates.map(|one| decode(&one, x509::MAX_BYTES).map(CertificateDer::from));
                chain = Some(read.collect::<Result<_, _>>()?);
            }
            TIMESTAMP => timestamp = Some(decode(&field, MAX_TOKEN)?).filter(|token| !token.is_empty()),
            _ => {}
        }
    }
    let chain = chain.ok_or_else(|| header.wrong("must have `x5c`"))?;
    Ok(Header { chain, timestamp })
}

fn malformed(error: &dyn std::fmt::Display) -> NotaryError {
    NotaryError::Malformed(error.to_string())
}

const MAX_HEADERS: usize = 32;

/// Characters of one part: a payload with a hundred annotations has some ten thousand.
const MAX_PART: usize = 256 * 1024;
