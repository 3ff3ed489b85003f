//! As much DER (ITU-T X.690) as it takes to sign for certificates and to take them apart.

#![forbid(unsafe_code)]

use crate::{Error, Result};

/// One element: tag, content, and all its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    /// The identifier octet.
    pub tag: u8,
    /// What it holds.
    pub content: &'a [u8],
    /// Identifier, length and content.
    pub whole: &'a [u8],
}

/// Splits the first element off.
///
/// # Errors
/// When it is cut short or longer than four bytes of length can say.
pub fn first(bytes: &[u8]) -> Result<(Element<'_>, &[u8])> {
    let cut_short = || Error::new("cannot read DER: it is cut short");
    let (&tag, &length) = bytes.first().zip(bytes.get(1)).ok_or_else(cut_short)?;
    let (head, length) = match length {
        short @ ..=0x7f => (2, usize::from(short)),
        long @ 0x81..=0x84 => {
            let count = usize::from(long & 0x7f);
            let digits = bytes.get(2..2 + count).ok_or_else(cut_short)?;
            (2 + count, digits.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)))
        }
        _ => return Err(Error::new("cannot read DER: a length that is none")),
    };
    let content = bytes.get(head..head + length).ok_or_else(cut_short)?;
    Ok((Element { tag, content, whole: &bytes[..head + length] }, &bytes[head + length..]))
}

/// All elements, one after the other.
///
/// # Errors
/// As [`first`].
pub fn all(mut bytes: &[u8]) -> Result<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    while !bytes.is_empty() {
        let (element, rest) = first(bytes)?;
        elements.push(element);
        bytes = rest;
    }
    Ok(elements)
}

/// Writes an element.
#[must_use]
pub fn write(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().position(|&byte| byte != 0).unwrap_or(length.len() - 1)..];
    let mut bytes = vec![tag];
    if content.len() >= 0x80 {
        bytes.push(0x80 | u8::try_from(digits.len()).expect("lengths have eight bytes at most"));
    }
    bytes.extend(digits);
    bytes.extend(content);
    bytes
}

/// The `TBSCertificate` of a certificate (RFC 5280, section 4.1).
///
/// # Errors
/// When it is no certificate.
pub fn tbs(certificate: &[u8]) -> Result<&[u8]> {
    let (certificate, _) = first(certificate)?;
    Ok(first(certificate.content)?.0.whole)
}

/// The `SubjectPublicKeyInfo` of a certificate.
///
/// # Errors
/// When it is no certificate.
pub fn public_key(certificate: &[u8]) -> Result<&[u8]> {
    let tbs = first(tbs(certificate)?)?.0;
    // version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo.
    let fields = all(tbs.content)?;
    fields.get(6).map(|field| field.whole).ok_or_else(|| Error::new("cannot find a certificate's public key"))
}

/// A `TBSCertificate` without one of its extensions.
///
/// # Errors
/// When it is none.
pub fn without_extension(tbs: &[u8], oid: &[u8]) -> Result<Vec<u8>> {
    let mut fields = Vec::new();
    for field in all(first(tbs)?.0.content)? {
        if field.tag != EXTENSIONS {
            fields.extend(field.whole);
            continue;
        }
        let mut kept = Vec::new();
        for extension in all(first(field.content)?.0.content)? {
            if first(extension.content)?.0.content != oid {
                kept.extend(extension.whole);
            }
        }
        fields.extend(write(EXTENSIONS, &write(SEQUENCE, &kept)));
    }
    Ok(write(SEQUENCE, &fields))
}

/// `SEQUENCE`.
pub const SEQUENCE: u8 = 0x30;
/// `OCTET STRING`.
pub const OCTET_STRING: u8 = 0x04;
/// `UTF8String`.
pub const UTF8_STRING: u8 = 0x0c;
/// `OBJECT IDENTIFIER`.
pub const OID: u8 = 0x06;

const EXTENSIONS: u8 = 0xa3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_whatever_its_length() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let written = write(SEQUENCE, &content);
            let (element, rest) = first(&written).unwrap();
            assert_eq!((element.tag, element.content, element.whole), (SEQUENCE, &content[..], &written[..]));
            assert!(rest.is_empty());
            assert!(first(&written[..written.len() - 1]).is_err());
        }
    }
}
