//! `TimeStampResp` and `TSTInfo` (RFC 3161, section 2.4.2).

use std::time::Duration;

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
    /// As [`Timestamp::latest`](super::Timestamp::latest).
    pub(super) latest: UnixTime,
    /// As [`Timestamp::accuracy`](super::Timestamp::accuracy).
    pub(super) accuracy: Duration,
    /// Contents of its INTEGER.
    pub(super) nonce: Option<&'a [u8]>,
}

/// The token in a response that grants one: a `ContentInfo`, raw. Of a response that does so `with_mods` cosign and
/// sigstore-go take none, so an answer that is to go into a bundle must not.
pub(super) fn token(response: &[u8], with_mods: bool) -> Result<&[u8], TimestampError> {
    let Parts { status, text, token } = parts(response).map_err(|NotDer| TimestampError::Malformed("response"))?;
    match (status, token) {
        // granted, grantedWithMods
        (0, Some(token)) => Ok(token),
        (1, Some(token)) if with_mods => Ok(token),
        (0, None) => Err(TimestampError::Malformed("token")),
        (status, _) => Err(TimestampError::NotGranted { status, text }),
    }
}

/// `PKIStatus`, `statusString`, and the token, raw.
struct Parts<'a> {
    status: u8,
    text: Option<String>,
    token: Option<&'a [u8]>,
}

fn parts(response: &[u8]) -> Result<Parts<'_>, NotDer> {
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
    Ok(Parts { status, text, token })
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
    let policy = fields.oid()?;
    let mut imprint = fields.enter(der::SEQUENCE)?;
    let mut algorithm = imprint.enter(der::SEQUENCE)?;
    let hash = algorithm.oid()?;
    algorithm.optional(der::NULL)?;
    algorithm.end()?;
    let hashed = imprint.expect(der::OCTET_STRING)?.value;
    imprint.end()?;
    let serial = fields.integer()?;
    let (time, latest) = generalized_time(fields.expect(der::GENERALIZED_TIME)?.value)?;
    let accuracy = match fields.optional(der::SEQUENCE)? {
        Some(stated) => accuracy(stated.value)?,
        // RFC 3628, section 5.2: what the baseline policy promises where nothing is stated.
        None => Duration::from_secs(u64::from(policy == BASELINE_POLICY)),
    };
    fields.default_false()?;
    let nonce = if fields.peek() == Some(der::INTEGER) { Some(fields.integer()?) } else { None };
    fields.optional(der::context(0))?;
    if let Some(extensions) = fields.optional(der::context(1))? {
        no_critical(extensions.value)?;
    }
    fields.end()?;
    Ok(TstInfo { hash, imprint: hashed, serial, time, latest, accuracy, nonce })
}

/// `YYYYMMDDhhmmss[.s…]Z` (RFC 3161, section 2.4.2): the second, and the first one that is not before it.
fn generalized_time(value: &[u8]) -> Result<(UnixTime, UnixTime), NotDer> {
    let text = std::str::from_utf8(value).map_err(|_| NotDer)?;
    let Some((seconds, fraction)) = text.split_once('.') else {
        return der::moment(text).map(|time| (time, time));
    };
    let digits = fraction.strip_suffix('Z').ok_or(NotDer)?;
    // No fraction ends in a zero, and an empty one has no point.
    let minimal = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() && !digits.ends_with('0');
    if !minimal {
        return Err(NotDer);
    }
    der::moment(&format!("{seconds}Z")).map(|time| (time, time.plus(Duration::from_secs(1))))
}

/// `Accuracy` (RFC 3161, section 2.4.2), rounded up to whole seconds.
fn accuracy(fields: &[u8]) -> Result<Duration, NotDer> {
    let mut fields = Reader::new(fields);
    let mut seconds = 0;
    if fields.peek() == Some(der::INTEGER) {
        let octets = fields.integer()?;
        // Nobody states more than 136 years, and nobody less than none.
        if octets.len() > 4 || octets[0] >= 0x80 {
            return Err(NotDer);
        }
        seconds = octets.iter().fold(0_u64, |seconds, octet| seconds << 8 | u64::from(*octet));
    }
    let millis = fields.optional(der::context_primitive(0))?.is_some();
    let micros = fields.optional(der::context_primitive(1))?.is_some();
    fields.end()?;
    Ok(Duration::from_secs(seconds + u64::from(millis || micros)))
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

/// 0.4.0.2023.1.1.
const BASELINE_POLICY: &[u8] = &[0x04, 0x00, 0x8f, 0x67, 0x01, 0x01];
