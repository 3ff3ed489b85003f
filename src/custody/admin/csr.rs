//! Certificate signing requests (PKCS#10, RFC 2986) that are signed inside the token.

use std::cell::RefCell;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};

use crate::custody::PublicKey;
use crate::custody::token::admin::{AdminError, AdminSession};
use crate::custody::uri::KeyUri;
use crate::dsse::Signature;

/// Why a text names nobody that a certificate could be for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Not `NAME=value`, or a value is empty.
    #[error("`{0}` is not NAME=value; write the subject like \"CN=Release signing,O=Example,C=DE\"")]
    Form(String),
    /// A name that is not known here.
    #[error("`{0}` is none of CN, O, OU, L, ST, C")]
    Name(String),
    /// One name twice.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// A country that is none.
    #[error("C is a country of two capital letters (ISO 3166), not `{0}`")]
    Country(String),
    /// An alternative name that is none.
    #[error("`{0}` is no alternative name; write DNS:signer.example, URI:https://…, email:a@b.example or IP:192.0.2.1")]
    Alternative(String),
}

/// A distinguished name as RFC 4514 writes it (the most specific part first, `\` before a comma in a value), with the
/// attributes that certificates of organisations have.
///
/// # Errors
/// When it is none.
pub(crate) fn subject(text: &str) -> Result<DistinguishedName, SubjectError> {
    let mut parts = Vec::new();
    for part in split(text) {
        let form = || SubjectError::Form(part.clone());
        let (name, value) = part.split_once('=').ok_or_else(form)?;
        let (name, value) = (name.trim().to_ascii_uppercase(), value.trim());
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(form());
        }
        let kind = match name.as_str() {
            "CN" => DnType::CommonName,
            "O" => DnType::OrganizationName,
            "OU" => DnType::OrganizationalUnitName,
            "L" => DnType::LocalityName,
            "ST" => DnType::StateOrProvinceName,
            "C" => DnType::CountryName,
            _ => return Err(SubjectError::Name(name)),
        };
        if kind == DnType::CountryName && !(value.len() == 2 && value.bytes().all(|b| b.is_ascii_uppercase())) {
            return Err(SubjectError::Country(value.to_owned()));
        }
        if parts.iter().any(|(other, _)| *other == kind) {
            return Err(SubjectError::Twice(name));
        }
        parts.push((kind, value.to_owned()));
    }
    let mut distinguished = DistinguishedName::new();
    // In a certificate the most general part comes first (RFC 4514, section 2.1).
    for (kind, value) in parts.into_iter().rev() {
        distinguished.push(kind, value);
    }
    Ok(distinguished)
}

/// A subject alternative name as OpenSSL writes it.
///
/// # Errors
/// When it is none.
pub(crate) fn alternative_name(text: &str) -> Result<SanType, SubjectError> {
    let wrong = || SubjectError::Alternative(text.to_owned());
    let (kind, value) = text.split_once(':').ok_or_else(wrong)?;
    if value.is_empty() || value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(wrong());
    }
    match kind.to_ascii_uppercase().as_str() {
        "DNS" => value.try_into().map(SanType::DnsName).map_err(|_| wrong()),
        "URI" => value.try_into().map(SanType::URI).map_err(|_| wrong()),
        "EMAIL" => value.try_into().map(SanType::Rfc822Name).map_err(|_| wrong()),
        "IP" => value.parse().map(SanType::IpAddress).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// A request for a code signing certificate, PEM, signed with ECDSA-SHA256 by the key in the token.
pub(super) fn request(
    session: &dyn AdminSession,
    uri: &KeyUri,
    public_key: PublicKey,
    subject: DistinguishedName,
    alternative_names: Vec<SanType>,
) -> Result<String, AdminError> {
    let key = TokenKey { session, uri, public_key, failure: RefCell::default() };
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.subject_alt_names = alternative_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    match params.serialize_request(&key).and_then(|request| request.pem()) {
        Ok(pem) => Ok(pem),
        Err(_) => Err(key.failure.into_inner().unwrap_or(AdminError::BadSignature { destroyed: None })),
    }
}

struct TokenKey<'a> {
    session: &'a dyn AdminSession,
    uri: &'a KeyUri,
    public_key: PublicKey,
    /// What the device said; the interface in between has no room for it.
    failure: RefCell<Option<AdminError>>,
}

impl PublicKeyData for TokenKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public_key.sec1()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for TokenKey<'_> {
    /// Verified before it is used, as every signature here.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, message).as_ref());
        let refused = |error| {
            *self.failure.borrow_mut() = Some(error);
            rcgen::Error::RemoteKeyError
        };
        let raw = self.session.sign(self.uri, &hash).map_err(refused)?;
        let bad = || refused(AdminError::BadSignature { destroyed: None });
        let signature = Signature::from_raw(&raw).map_err(|_| bad())?;
        let verifier = self.public_key.verifier().map_err(|_| bad())?;
        crate::dsse::verify_digest(&verifier, &hash, &signature).map_err(|_| bad())?;
        Ok(signature.to_der().to_vec())
    }
}

/// At commas that no `\` stands before.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' => parts.push(String::new()),
            c => parts.last_mut().map_or((), |part| part.push(if c == '\\' { chars.next().unwrap_or(c) } else { c })),
        }
    }
    parts
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rcgen::DnValue;

    #[test]
    fn a_subject_is_read_as_people_write_it_and_stored_as_certificates_have_it() {
        let name = subject("CN=Release signing, O=Example\\, Inc.,C=DE").unwrap();
        let parts: Vec<_> = name.iter().map(|(kind, value)| (kind.clone(), value.clone())).collect();
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        assert_eq!(
            parts,
            [
                (DnType::CountryName, utf8("DE")),
                (DnType::OrganizationName, utf8("Example, Inc.")),
                (DnType::CommonName, utf8("Release signing")),
            ]
        );
        for (wrong, why) in [
            ("", SubjectError::Form(String::new())),
            ("release", SubjectError::Form("release".into())),
            ("CN=", SubjectError::Form("CN=".into())),
            ("CN=a\u{1b}b", SubjectError::Form("CN=a\u{1b}b".into())),
            ("CN=a,XX=b", SubjectError::Name("XX".into())),
            ("CN=a,CN=b", SubjectError::Twice("CN".into())),
            ("CN=a,C=Germany", SubjectError::Country("Germany".into())),
        ] {
            assert_eq!(subject(wrong).err(), Some(why), "{wrong}");
        }
    }

    #[test]
    fn alternative_names_say_what_they_are() {
        for right in ["DNS:signer.example", "URI:https://signer.example/x", "email:a@b.example", "IP:2001:db8::1"] {
            assert!(alternative_name(right).is_ok(), "{right}");
        }
        for wrong in ["signer.example", "DNS:", "DNS:a b", "IP:300.1.1.1", "DNS:ä.example", "X:y"] {
            assert!(alternative_name(wrong).is_err(), "{wrong}");
        }
    }
}
