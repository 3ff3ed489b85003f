//! `TimeStampResp` and `TSTInfo` (RFC 3161, section 2.4.2).

use super::TimestampError;
use crate::clock::UnixTime;
use crate::sigstore::der::{self, NotDer, Reader};

/// What the authority states.
#[derive(Debug)]
pub(super) struct TstInfo<'a> {
    /// Contents of the hash algorithm's OBJECT IDENTIFIER.
    pub(super) hash: &'a [u8],
    pub(super) imprint: &'a [u8],
    /// Contents of its INTEGER.
    pub(super) serial: &'a [u8],
    pub(super) time: UnixTime,
    /// Contents of its INTEGER.
    pub(super) nonce: Option<&'a [u8]>,
}

/// The token in a response that grants one: a `ContentInfo`, raw.
pub(super) fn token(response: &[u8]) -> Result<&[u8], TimestampError> {
    let (status, text, token) = parts(response).map_err(|NotDer| TimestampError::Malformed("response"))?;
    match (status, token) {
        // granted, grantedWithMods
        (0 | 1, Some(token)) => Ok(token),
        (0 | 1, None) => Err(TimestampError::Malformed("token")),
        (status, _) => Err(TimestampError::NotGranted { status, text }),
    }
}

fn parts(response: &[u8]) -> Result<(u8, Option<String>, Option<&[u8]>), NotDer> {
    let mut fields = Reader::new(der::whole(response, der::SEQUENCE)?.value);
    let mut info = fields.enter(der::SEQUENCE)?;
    let status = info.small()?;
    let text = match info.optional(der::SEQUENCE)? {
        Some(free_text) => Reader::new(free_text.value).expect(der::UTF8_STRING).ok().map(|text| shown(text.value)),
        None => None,
    };
    info.optional(der::BIT_STRING)?;
    info.end()?;
    let token = fields.optional(der::SEQUENCE)?.map(|token| token.raw);
    fields.end()?;
    Ok((status, text, token))
}

/// What another party wrote, short enough for a log line.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

/// Reads the content that was signed.
pub(super) fn tst_info(content: &[u8]) -> Result<TstInfo<'_>, NotDer> {
    let mut fields = Reader::new(der::whole(content, der::SEQUENCE)?.value);
    if fields.small()? != 1 {
        return Err(NotDer);
    }
    fields.oid()?;
    let mut imprint = fields.enter(der::SEQUENCE)?;
    let mut algorithm = imprint.enter(der::SEQUENCE)?;
    let hash = algorithm.oid()?;
    algorithm.optional(der::NULL)?;
    algorithm.end()?;
    let hashed = imprint.expect(der::OCTET_STRING)?.value;
    imprint.end()?;
    let serial = fields.integer()?;
    let time = generalized_time(fields.expect(der::GENERALIZED_TIME)?.value)?;
    // Accuracy: not used. A timestamp counts by its time, as everywhere in Sigstore.
    fields.optional(der::SEQUENCE)?;
    fields.default_false()?;
    let nonce = if fields.peek() == Some(der::INTEGER) { Some(fields.integer()?) } else { None };
    fields.optional(der::context(0))?;
    if let Some(extensions) = fields.optional(der::context(1))? {
        no_critical(extensions.value)?;
    }
    fields.end()?;
    Ok(TstInfo { hash, imprint: hashed, serial, time, nonce })
}

/// `YYYYMMDDhhmmss[.s…]Z` (RFC 3161, section 2.4.2); the fraction is checked and cut off.
fn generalized_time(value: &[u8]) -> Result<UnixTime, NotDer> {
    let text = std::str::from_utf8(value).map_err(|_| NotDer)?;
    let Some((seconds, fraction)) = text.split_once('.') else { return der::moment(text) };
    let digits = fraction.strip_suffix('Z').ok_or(NotDer)?;
    // No fraction ends in a zero, and an empty one has no point.
    let minimal = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() && !digits.ends_with('0');
    if minimal { der::moment(&format!("{seconds}Z")) } else { Err(NotDer) }
}

fn no_critical(extensions: &[u8]) -> Result<(), NotDer> {
    let mut list = Reader::new(extensions);
    while !list.is_empty() {
        let mut extension = list.enter(der::SEQUENCE)?;
        extension.oid()?;
        if extension.default_false()? {
            return Err(NotDer);
        }
        extension.expect(der::OCTET_STRING)?;
        extension.end()?;
    }
    Ok(())
}

const MAX_TEXT: usize = 200;
