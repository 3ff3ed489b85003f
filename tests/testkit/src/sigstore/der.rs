//! DER, put together piece by piece and taken apart, on [`crate::der`].

/// One element.
#[must_use]
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    crate::der::write(tag, &parts.concat())
}

/// SEQUENCE.
#[must_use]
pub fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

/// SET.
#[must_use]
pub fn set(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x31, parts)
}

/// INTEGER of contents octets.
#[must_use]
pub fn integer(contents: &[u8]) -> Vec<u8> {
    tlv(0x02, &[contents])
}

/// OCTET STRING.
#[must_use]
pub fn octets(bytes: &[u8]) -> Vec<u8> {
    tlv(0x04, &[bytes])
}

/// BIT STRING of whole octets.
#[must_use]
pub fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes])
}

/// OBJECT IDENTIFIER from its dotted form.
#[must_use]
pub fn oid(dotted: &str) -> Vec<u8> {
    let arcs: Vec<u64> = dotted.split('.').map(|arc| arc.parse().expect("an OID has numbers")).collect();
    let mut contents = Vec::new();
    for arc in std::iter::once(arcs[0] * 40 + arcs[1]).chain(arcs[2..].iter().copied()) {
        let mut groups = vec![(arc & 0x7f) as u8];
        let mut rest = arc >> 7;
        while rest > 0 {
            groups.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        contents.extend(groups.iter().rev());
    }
    tlv(0x06, &[&contents])
}

/// UTF8String.
#[must_use]
pub fn utf8(text: &str) -> Vec<u8> {
    tlv(0x0c, &[text.as_bytes()])
}

/// BOOLEAN TRUE.
#[must_use]
pub fn yes() -> Vec<u8> {
    vec![0x01, 0x01, 0xff]
}

/// GeneralizedTime of seconds since 1970.
#[must_use]
pub fn generalized_time(at: i64) -> Vec<u8> {
    tlv(0x18, &[moment(at, "%Y%m%d%H%M%SZ").as_bytes()])
}

/// UTCTime of seconds since 1970.
#[must_use]
pub fn utc_time(at: i64) -> Vec<u8> {
    tlv(0x17, &[moment(at, "%y%m%d%H%M%SZ").as_bytes()])
}

/// RFC 3339 of seconds since 1970.
#[must_use]
pub fn rfc3339(at: i64) -> String {
    moment(at, "%Y-%m-%dT%H:%M:%SZ")
}

/// A Name with a common name alone; an empty one for no text.
#[must_use]
pub fn name(common_name: &str) -> Vec<u8> {
    if common_name.is_empty() {
        return seq(&[]);
    }
    seq(&[&set(&[&seq(&[&oid("2.5.4.3"), &utf8(common_name)])])])
}

/// The elements in the contents of another: tag, contents, and raw bytes of each. Panics on anything but DER.
#[must_use]
pub fn children(contents: &[u8]) -> Vec<(u8, &[u8], &[u8])> {
    let elements = crate::der::all(contents).expect("test values are DER");
    elements.into_iter().map(|element| (element.tag, element.content, element.whole)).collect()
}

fn moment(at: i64, format: &str) -> String {
    let at = jiff::Timestamp::from_second(at).expect("a time of this era");
    at.to_zoned(jiff::tz::TimeZone::UTC).strftime(format).to_string()
}
