//! Who a certificate of Fulcio says its owner is (`docs/oid-info.md` of Fulcio).

use super::{CertificateError, San};
use crate::sigstore::der::{self, NotDer, Reader};
use crate::sigstore::x509::{Certificate, SUBJECT_ALT_NAME};

/// The one subject alternative name.
pub(super) fn san(certificate: &Certificate<'_>) -> Result<San, CertificateError> {
    let extension = certificate.extension(SUBJECT_ALT_NAME).ok_or(CertificateError::SanCount(0))?;
    let names = names(extension.value).map_err(|_| CertificateError::Malformed)?;
    let [name] = names.as_slice() else { return Err(CertificateError::SanCount(names.len())) };
    // With an empty subject the extension must be critical (RFC 5280, section 4.1.2.6).
    if !extension.critical {
        return Err(CertificateError::SanForm);
    }
    let ia5 = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err(CertificateError::SanForm),
    };
    match name.tag {
        EMAIL => ia5(name.value).map(San::Email),
        URI => ia5(name.value).map(San::Uri),
        OTHER_NAME => username(name.value).map(San::Username).map_err(|_| CertificateError::SanForm),
        _ => Err(CertificateError::SanForm),
    }
}

/// The issuer of the identity token. The deprecated extension `.1.1` has the same text without DER around it; it is never
/// a substitute, because every Fulcio since 2022 writes `.1.8`, but it must not contradict: of two readers, each might
/// take another one.
pub(super) fn issuer(certificate: &Certificate<'_>) -> Result<String, CertificateError> {
    let extension = certificate.extension(OIDC_ISSUER).ok_or(CertificateError::OidcIssuerMissing)?;
    let value = der::whole(extension.value, der::UTF8_STRING).map_err(|_| CertificateError::OidcIssuerForm)?.value;
    if certificate.extension(OIDC_ISSUER_RAW).is_some_and(|raw| raw.value != value) {
        return Err(CertificateError::OidcIssuerForm);
    }
    match std::str::from_utf8(value) {
        Ok(text) if is_printable(text) => Ok(text.to_owned()),
        _ => Err(CertificateError::OidcIssuerForm),
    }
}

fn names(value: &[u8]) -> Result<Vec<der::Element<'_>>, NotDer> {
    let mut list = Reader::new(der::whole(value, der::SEQUENCE)?.value);
    let mut names = Vec::new();
    while !list.is_empty() {
        names.push(list.any()?);
    }
    Ok(names)
}

/// `OtherName`, implicitly tagged: type-id and `[0] EXPLICIT` value.
fn username(other_name: &[u8]) -> Result<String, NotDer> {
    let mut fields = Reader::new(other_name);
    if fields.oid()? != FULCIO_USERNAME {
        return Err(NotDer);
    }
    let wrapped = fields.expect(der::context(0))?.value;
    fields.end()?;
    let text = der::whole(wrapped, der::UTF8_STRING)?.value;
    match std::str::from_utf8(text) {
        Ok(text) if is_printable(text) => Ok(text.to_owned()),
        _ => Err(NotDer),
    }
}

/// It is shown to people and written to logs.
fn is_printable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// GeneralName (RFC 5280, section 4.2.1.6).
const OTHER_NAME: u8 = der::context(0);
const EMAIL: u8 = der::context_primitive(1);
const URI: u8 = der::context_primitive(6);

/// 1.3.6.1.4.1.57264.1.8.
const OIDC_ISSUER: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x08];
/// 1.3.6.1.4.1.57264.1.1.
const OIDC_ISSUER_RAW: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x01];
/// 1.3.6.1.4.1.57264.1.7.
const FULCIO_USERNAME: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x07];
