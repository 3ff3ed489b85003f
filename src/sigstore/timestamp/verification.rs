//! Whether a timestamp holds.

use std::time::Duration;

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512, digest};
use rustls_pki_types::CertificateDer;

use super::request::Request;
use super::response::{self, TstInfo};
use super::signed_data::{self, Identifier, SignerInfo, TST_INFO};
use super::{Timestamp, TimestampError};
use crate::clock::UnixTime;
use crate::sigstore::der::{self, NotDer, Reader};
use crate::sigstore::path::{self, PathError};
use crate::sigstore::trusted_root::{Authority, TrustedRoot};
use crate::sigstore::x509::{self, Certificate};

/// Verifies the answer to `request`: as [`verify`], its nonce, and that no other verifier of Sigstore bundles refuses it:
/// it is granted without modifications, and the first certificate in it, if any, is the signer's.
///
/// # Errors
/// [`TimestampError`].
pub fn verify_answer(
    response: &[u8],
    request: &Request,
    root: &TrustedRoot,
    now: UnixTime,
) -> Result<Timestamp, TimestampError> {
    judge(response, Expected::Answer(request), root, now)
}

/// Verifies a whole `TimeStampResp` over `message`, for a bundle the raw DER of its signature. `now` only bounds the
/// time that it states from above; its certificates are judged by that time.
///
/// # Errors
/// [`TimestampError`].
pub fn verify(response: &[u8], message: &[u8], root: &TrustedRoot, now: UnixTime) -> Result<Timestamp, TimestampError> {
    judge(response, Expected::Message(message), root, now)
}

/// As [`verify`], of a `TimeStampToken` alone. Certificates that came along in it may lead to a pinned one, as the Notary
/// Project has it: its trust stores hold roots.
///
/// # Errors
/// [`TimestampError`].
pub(crate) fn verify_token(
    token: &[u8],
    message: &[u8],
    root: &TrustedRoot,
    now: UnixTime,
) -> Result<Timestamp, TimestampError> {
    judge_token(token, Expected::Message(message), Between::TokensToo, root, now)
}

/// Which certificates may stand between a signer and its pinned root.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    /// Pinned ones.
    PinsOnly,
    /// Those in the token as well.
    TokensToo,
}

/// What a timestamp must be over.
#[derive(Clone, Copy)]
enum Expected<'a> {
    /// What was asked for, with the nonce that was sent.
    Answer(&'a Request),
    /// These bytes, hashed with any SHA-2 of 256 bits and more: others may have asked with another one.
    Message(&'a [u8]),
}

impl Expected<'_> {
    fn check(self, stated: &TstInfo<'_>) -> Result<(), TimestampError> {
        let over_it = match self {
            Self::Answer(request) => stated.hash == SHA256_OID && stated.imprint == request.imprint(),
            Self::Message(message) => {
                hash(stated.hash).is_some_and(|algorithm| digest(algorithm, message).as_ref() == stated.imprint)
            }
        };
        match self {
            _ if !over_it => Err(TimestampError::Imprint),
            Self::Answer(request) if stated.nonce != Some(request.nonce()) => Err(TimestampError::Nonce),
            _ => Ok(()),
        }
    }
}

fn judge(
    response: &[u8],
    expected: Expected<'_>,
    root: &TrustedRoot,
    now: UnixTime,
) -> Result<Timestamp, TimestampError> {
    if response.len() > MAX_RESPONSE {
        return Err(TimestampError::TooLarge(MAX_RESPONSE));
    }
    let token = response::token(response, matches!(expected, Expected::Message(_)))?;
    judge_token(token, expected, Between::PinsOnly, root, now)
}

fn judge_token(
    token: &[u8],
    expected: Expected<'_>,
    between: Between,
    root: &TrustedRoot,
    now: UnixTime,
) -> Result<Timestamp, TimestampError> {
    if token.len() > MAX_RESPONSE {
        return Err(TimestampError::TooLarge(MAX_RESPONSE));
    }
    let token = signed_data::read(token)?;
    let stated = response::tst_info(token.content).map_err(|NotDer| TimestampError::Malformed("TSTInfo"))?;
    let signer = signer_certificate(&token.signer.identifier, &token.certificates, root)?;
    let certificate = Certificate::parse(signer).map_err(|NotDer| TimestampError::Malformed("certificate"))?;
    // First of all whose it claims to be: what is wrong with a stranger's timestamp is the stranger's business.
    let loose: Vec<CertificateDer<'_>> = match between {
        Between::PinsOnly => Vec::new(),
        Between::TokensToo => token.certificates.iter().map(|der| CertificateDer::from(*der)).collect(),
    };
    let authority = pinned_authority(&CertificateDer::from(signer), &loose, &stated, root);
    if matches!(authority, Err(TimestampError::Untrusted)) {
        return Err(TimestampError::Untrusted);
    }
    expected.check(&stated)?;
    // cosign and sigstore-go take the first certificate for the signer's.
    if matches!(expected, Expected::Answer(_)) && token.certificates.first().is_some_and(|first| *first != signer) {
        return Err(TimestampError::SignerNotFirst);
    }
    check_attributes(&token.signer, token.content)?;
    check_binding(&token.signer, signer, &certificate)?;
    check_signature(&token.signer, &certificate)?;
    check_purpose(&certificate)?;
    let (authority, issuers) = authority?;
    if stated.time > now.plus(SKEW) {
        return Err(TimestampError::Future(stated.time));
    }
    Ok(Timestamp {
        time: stated.time,
        latest: stated.latest,
        accuracy: stated.accuracy,
        authority: authority.uri.clone(),
        signer: CertificateDer::from(signer.to_vec()),
        issuers,
        serial: stated.serial.to_vec(),
    })
}

/// `content-type` and `message-digest` (RFC 5652, sections 11.1 and 11.2).
fn check_attributes(signer: &SignerInfo<'_>, content: &[u8]) -> Result<(), TimestampError> {
    let one = |oid: &[u8], tag: u8, name: &'static str| {
        let values = signed_data::attribute(signer.attributes, oid).ok().flatten();
        values
            .and_then(|values| der::whole(values, tag).ok())
            .map(|element| element.value)
            .ok_or(TimestampError::Attribute(name))
    };
    if one(CONTENT_TYPE, der::OID, "content-type")? != TST_INFO {
        return Err(TimestampError::Attribute("content-type"));
    }
    let algorithm = hash(signer.digest).ok_or(TimestampError::Algorithm)?;
    if one(MESSAGE_DIGEST, der::OCTET_STRING, "message-digest")? != digest(algorithm, content).as_ref() {
        return Err(TimestampError::MessageDigest);
    }
    Ok(())
}

/// The certificate that the signer names, from the token or, where it carries none, from the pins.
fn signer_certificate<'t>(
    identifier: &Identifier<'_>,
    in_token: &[&'t [u8]],
    root: &'t TrustedRoot,
) -> Result<&'t [u8], TimestampError> {
    let pinned = root.timestamp_authorities.iter().filter_map(|authority| authority.chain.first().map(|der| &**der));
    let named = |der: &&[u8]| {
        Certificate::parse(der).is_ok_and(|certificate| match identifier {
            Identifier::IssuerAndSerial(issuer, serial) => {
                certificate.issuer == *issuer && certificate.serial == *serial
            }
            Identifier::KeyIdentifier(id) => certificate
                .extension(KEY_IDENTIFIER)
                .is_some_and(|one| der::whole(one.value, der::OCTET_STRING).is_ok_and(|known| known.value == *id)),
        })
    };
    in_token.iter().copied().chain(pinned).find(named).ok_or(TimestampError::NoCertificate)
}

/// `ESSCertIDv2` (RFC 5816) or `ESSCertID` (RFC 3161, section 2.4.1): the signature names its certificate, so that it
/// cannot be shown with another one of the same key. At least one must be there, and none may name another certificate.
fn check_binding(signer: &SignerInfo<'_>, der: &[u8], certificate: &Certificate<'_>) -> Result<(), TimestampError> {
    let mut bound = false;
    for (oid, default) in [(SIGNING_CERTIFICATE_V2, Some(&SHA256)), (SIGNING_CERTIFICATE, None)] {
        let values = signed_data::attribute(signer.attributes, oid)
            .map_err(|NotDer| TimestampError::Attribute("signing-certificate"))?;
        let Some(values) = values else { continue };
        match names(values, default, der, certificate) {
            Ok(true) => bound = true,
            Ok(false) => return Err(TimestampError::SigningCertificate),
            Err(NotDer) => return Err(TimestampError::Attribute("signing-certificate")),
        }
    }
    if bound { Ok(()) } else { Err(TimestampError::Attribute("signing-certificate")) }
}

/// Whether the first certificate in the attribute is this one. `default` is the hash of version 2; version 1 has SHA-1
/// and no field for it.
fn names(
    values: &[u8],
    default: Option<&'static digest::Algorithm>,
    der: &[u8],
    certificate: &Certificate<'_>,
) -> Result<bool, NotDer> {
    let mut attribute = Reader::new(der::whole(values, der::SEQUENCE)?.value);
    let mut list = attribute.enter(der::SEQUENCE)?;
    let mut first = list.enter(der::SEQUENCE)?;
    let algorithm = match default {
        None => &SHA1_FOR_LEGACY_USE_ONLY,
        Some(default) => match first.optional(der::SEQUENCE)? {
            None => default,
            Some(algorithm) => hash(Reader::new(algorithm.value).oid()?).ok_or(NotDer)?,
        },
    };
    if first.expect(der::OCTET_STRING)?.value != digest(algorithm, der).as_ref() {
        return Ok(false);
    }
    let Some(issuer_serial) = first.optional(der::SEQUENCE)? else { return first.end().map(|()| true) };
    first.end()?;
    let mut pair = Reader::new(issuer_serial.value);
    let mut issuer_names = pair.enter(der::SEQUENCE)?;
    let directory_name = issuer_names.expect(der::context(4))?.value;
    issuer_names.end()?;
    let serial = pair.expect(der::INTEGER)?.value;
    pair.end()?;
    Ok(directory_name == certificate.issuer && serial == certificate.serial)
}

/// Over the attributes, as the SET that they are and not as the `[0]` that they are written as (RFC 5652, section 5.4).
fn check_signature(signer: &SignerInfo<'_>, certificate: &Certificate<'_>) -> Result<(), TimestampError> {
    let algorithm = SIGNATURES
        .iter()
        .find(|known| known.oid == signer.algorithm && known.with.is_none_or(|with| with == signer.digest))
        .ok_or(TimestampError::Algorithm)?;
    let signed = der::wrap(der::SET, &[signer.attributes]);
    if x509::verify(certificate.spki, algorithm.identifier, &signed, signer.signature) {
        Ok(())
    } else {
        Err(TimestampError::Signature)
    }
}

fn check_purpose(certificate: &Certificate<'_>) -> Result<(), TimestampError> {
    let malformed = |NotDer| TimestampError::Malformed("certificate");
    let critical = certificate.extension(x509::EXTENDED_KEY_USAGE).is_some_and(|extension| extension.critical);
    let purposes = certificate.extended_key_usage().map_err(malformed)?;
    if !critical || purposes.as_deref() != Some(&[x509::TIME_STAMPING]) {
        return Err(TimestampError::ExtendedKeyUsage);
    }
    match certificate.key_usage().map_err(malformed)? {
        Some(bits) if bits & (x509::DIGITAL_SIGNATURE | x509::CONTENT_COMMITMENT) == 0 => {
            Err(TimestampError::Path("its key usage has neither digitalSignature nor nonRepudiation".to_owned()))
        }
        _ => Ok(()),
    }
}

/// The pinned authority that the signer belongs to at the time that it states, and the certificates that lead there.
fn pinned_authority<'r>(
    signer: &CertificateDer<'_>,
    loose: &[CertificateDer<'_>],
    stated: &TstInfo<'_>,
    root: &'r TrustedRoot,
) -> Result<(&'r Authority, Vec<CertificateDer<'static>>), TimestampError> {
    let mut reason = TimestampError::Untrusted;
    for authority in &root.timestamp_authorities {
        if !is_signer_of(signer, authority) {
            continue;
        }
        let path = path::to_anchor(signer, authority, loose, stated.time, x509::TIME_STAMPING);
        let path = path.and_then(|path| match stated.latest == stated.time {
            true => Ok(path),
            false => path::to_anchor(signer, authority, loose, stated.latest, x509::TIME_STAMPING),
        });
        let counts = |at| authority.valid_for.contains(at);
        match path {
            Ok(issuers) if counts(stated.time) && counts(stated.latest) => return Ok((authority, issuers)),
            Ok(_) | Err(PathError::NotValid) => reason = TimestampError::NotValid(stated.time),
            Err(PathError::Unknown) => {}
            Err(other) => reason = TimestampError::Path(other.to_string()),
        }
    }
    Err(reason)
}

/// Where a chain begins with a signer's own certificate, only that one signs for the authority; as in sigstore-go.
fn is_signer_of(signer: &[u8], authority: &Authority) -> bool {
    let Some(first) = authority.chain.first() else { return false };
    let is_ca = Certificate::parse(first).and_then(|first| first.basic_constraints()).is_ok_and(|known| known.ca);
    is_ca || **first == *signer
}

fn hash(oid: &[u8]) -> Option<&'static digest::Algorithm> {
    [(SHA256_OID, &SHA256), (SHA384_OID, &SHA384), (SHA512_OID, &SHA512)]
        .into_iter()
        .find_map(|(known, algorithm)| (known == oid).then_some(algorithm))
}

/// A `signatureAlgorithm` of CMS, and the AlgorithmIdentifier that X.509 has for it.
struct SignatureAlgorithm {
    oid: &'static [u8],
    /// The digest that must go with it, where it names none itself.
    with: Option<&'static [u8]>,
    identifier: &'static [u8],
}

macro_rules! identifier {
    (ecdsa $last:literal) => {
        &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, $last]
    };
    (rsa $last:literal) => {
        &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, $last, 0x05, 0x00]
    };
}

/// ECDSA (RFC 5754, section 3.3), RSA PKCS#1 under its own name and under that of its key (RFC 3370, section 3.2).
const SIGNATURES: &[SignatureAlgorithm] = &[
    SignatureAlgorithm {
        oid: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
        with: None,
        identifier: identifier!(ecdsa 0x02),
    },
    SignatureAlgorithm {
        oid: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
        with: None,
        identifier: identifier!(ecdsa 0x03),
    },
    SignatureAlgorithm {
        oid: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
        with: None,
        identifier: identifier!(ecdsa 0x04),
    },
    SignatureAlgorithm {
        oid: &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
        with: None,
        identifier: identifier!(rsa 0x0b),
    },
    SignatureAlgorithm {
        oid: &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c],
        with: None,
        identifier: identifier!(rsa 0x0c),
    },
    SignatureAlgorithm {
        oid: &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d],
        with: None,
        identifier: identifier!(rsa 0x0d),
    },
    SignatureAlgorithm { oid: RSA_ENCRYPTION, with: Some(SHA256_OID), identifier: identifier!(rsa 0x0b) },
    SignatureAlgorithm { oid: RSA_ENCRYPTION, with: Some(SHA384_OID), identifier: identifier!(rsa 0x0c) },
    SignatureAlgorithm { oid: RSA_ENCRYPTION, with: Some(SHA512_OID), identifier: identifier!(rsa 0x0d) },
];

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const SHA256_OID: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const SHA384_OID: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
const SHA512_OID: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03];

/// 1.2.840.113549.1.9.3 and .4.
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
/// 1.2.840.113549.1.9.16.2.12 and .47.
const SIGNING_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x02, 0x0c];
const SIGNING_CERTIFICATE_V2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x02, 0x2f];
/// Subject key identifier, 2.5.29.14.
const KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x0e];

/// One with its whole chain has three to six kilobytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// By how much an authority's clock may be ahead.
const SKEW: Duration = Duration::from_secs(60);
