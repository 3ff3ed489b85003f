//! The COSE encoding of a Notary signature (`signature-envelope-cose.md`): a tagged `COSE_Sign1` (RFC 9052, section 4.2).

use bytes::Bytes;
use rustls_pki_types::CertificateDer;

use super::attributes::{AUTHENTIC_SIGNING_TIME, EXPIRY, MAX_CRITICAL, PLUGIN, Raw, SCHEME, SIGNING_TIME, TIMESTAMP};
use super::cbor::{Label, NotCbor, Reader, sig_structure};
use super::certificates::Algorithm;
use super::{Envelope, MAX_CHAIN, MAX_TOKEN, NotaryError};
use crate::clock::UnixTime;
use crate::release::claim::Form;

/// Reads an envelope.
pub(super) fn read(blob: &Bytes) -> Result<Envelope, NotaryError> {
    let parts = parts(blob).map_err(malformed)?;
    let mut labels = Vec::new();
    let (raw, signed_chain) = protected(parts.protected, &mut labels).map_err(malformed)?;
    let attributes = raw.check()?;
    let unprotected = unprotected(parts.unprotected, &mut labels).map_err(malformed)?;
    // Allowed in either place (signature-envelope-cose.md, "Unprotected Headers"); a label is in one place only.
    let chain = signed_chain.or(unprotected.chain);
    let chain = chain.ok_or_else(|| NotaryError::Malformed("it has no certificates".to_owned()))?;
    Ok(Envelope {
        form: Form::NotaryCose,
        payload: blob.slice_ref(parts.payload),
        attributes,
        signed: sig_structure(parts.protected, parts.payload),
        signature: parts.signature.to_vec(),
        chain,
        timestamp: unprotected.timestamp,
    })
}

struct Parts<'a> {
    protected: &'a [u8],
    /// Where the map begins.
    unprotected: Reader<'a>,
    payload: &'a [u8],
    signature: &'a [u8],
}

fn parts(blob: &[u8]) -> Result<Parts<'_>, NotCbor> {
    let mut reader = Reader::new(blob);
    reader.tag(COSE_SIGN1)?;
    if reader.array(4)? != 4 {
        return Err(NotCbor("it has not the four parts of a COSE_Sign1"));
    }
    let protected = reader.bytes()?;
    let unprotected = reader.clone();
    reader.skip()?;
    let (payload, signature) = (reader.bytes()?, reader.bytes()?);
    reader.end()?;
    Ok(Parts { protected, unprotected, payload, signature })
}

type Chain = Vec<CertificateDer<'static>>;

fn protected<'a>(bytes: &'a [u8], labels: &mut Vec<Label<'a>>) -> Result<(Raw, Option<Chain>), NotCbor> {
    let mut reader = Reader::new(bytes);
    let (mut raw, mut chain) = (Raw::default(), None);
    for _ in 0..reader.map(MAX_HEADERS)? {
        match once(&mut reader, labels)? {
            Label::Number(ALG) => {
                let number = reader.number()?;
                raw.algorithm = Algorithm::of_cose(number);
                raw.unknown_algorithm = raw.algorithm.is_none().then(|| number.to_string());
            }
            Label::Number(CRIT) => raw.critical = critical(&mut reader)?,
            Label::Number(CONTENT_TYPE) => raw.content_type = Some(reader.text()?.to_owned()),
            Label::Number(X5CHAIN) => chain = Some(certificates(&mut reader)?),
            Label::Text(SCHEME) => raw.scheme = Some(reader.text()?.to_owned()),
            Label::Text(SIGNING_TIME) => raw.signing_time = Some(time(&mut reader)?),
            Label::Text(AUTHENTIC_SIGNING_TIME) => raw.authentic_signing_time = Some(time(&mut reader)?),
            Label::Text(EXPIRY) => raw.expiry = Some(time(&mut reader)?),
            Label::Text(name) => {
                raw.plugin |= name.starts_with(PLUGIN);
                reader.skip()?;
            }
            Label::Number(_) => reader.skip()?,
        }
    }
    reader.end()?;
    Ok((raw, chain))
}

/// The names; numbers below 9 are of headers that everybody knows, and must not be listed.
fn critical(reader: &mut Reader<'_>) -> Result<Vec<String>, NotCbor> {
    let count = reader.array(MAX_CRITICAL)?;
    (0..count)
        .map(|_| match reader.label()? {
            Label::Text(name) => Ok(name.to_owned()),
            Label::Number(number) => Ok(format!("label {number}")),
        })
        .collect()
}

/// Epoch-based (RFC 8949, section 3.4.2); fractions, which should not be used, are not read.
fn time(reader: &mut Reader<'_>) -> Result<UnixTime, NotCbor> {
    reader.tag(EPOCH)?;
    reader.number().map(UnixTime).map_err(|_| NotCbor("a time is no whole number of seconds"))
}

#[derive(Default)]
struct Unprotected {
    chain: Option<Chain>,
    timestamp: Option<Vec<u8>>,
}

fn unprotected<'a>(mut reader: Reader<'a>, labels: &mut Vec<Label<'a>>) -> Result<Unprotected, NotCbor> {
    let mut found = Unprotected::default();
    for _ in 0..reader.map(MAX_HEADERS)? {
        match once(&mut reader, labels)? {
            Label::Number(X5CHAIN) => found.chain = Some(certificates(&mut reader)?),
            Label::Text(TIMESTAMP) => {
                let token = reader.bytes()?;
                if token.len() > MAX_TOKEN {
                    return Err(NotCbor("its time stamp is larger than any"));
                }
                found.timestamp = Some(token.to_vec()).filter(|token| !token.is_empty());
            }
            _ => reader.skip()?,
        }
    }
    Ok(found)
}

/// `x5chain` (RFC 9360, section 2). The specification has it an array even of one certificate.
fn certificates(reader: &mut Reader<'_>) -> Result<Chain, NotCbor> {
    let count = reader.array(MAX_CHAIN)?;
    if count == 0 {
        return Err(NotCbor("its chain of certificates is empty"));
    }
    (0..count).map(|_| reader.bytes().map(|der| CertificateDer::from(der.to_vec()))).collect()
}

/// A label that was not there before, in this map or the other one (RFC 9052, section 3).
fn once<'a>(reader: &mut Reader<'a>, labels: &mut Vec<Label<'a>>) -> Result<Label<'a>, NotCbor> {
    let label = reader.label()?;
    if labels.contains(&label) {
        return Err(NotCbor("a header is there twice"));
    }
    labels.push(label);
    Ok(label)
}

fn malformed(NotCbor(why): NotCbor) -> NotaryError {
    NotaryError::Malformed(why.to_owned())
}

/// Tags (RFC 9052, section 2, and RFC 8949, section 3.4.2).
const COSE_SIGN1: u64 = 18;
const EPOCH: u64 = 1;

/// Labels (RFC 9052, section 3.1, and RFC 9360, section 2).
const ALG: i64 = 1;
const CRIT: i64 = 2;
const CONTENT_TYPE: i64 = 3;
const X5CHAIN: i64 = 33;

/// Of one map.
const MAX_HEADERS: usize = 32;
