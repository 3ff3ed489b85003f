//! The JSON of a trusted root (protobuf's JSON mapping, lowerCamelCase).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{Authority, CtLog, MEDIA_TYPE, TrustedRoot, TrustedRootError, ValidFor};
use crate::clock::UnixTime;
use crate::sigstore::x509::KeyKind;

pub(super) fn read(json: &[u8]) -> Result<TrustedRoot, TrustedRootError> {
    let file: Reading = serde_json::from_slice(json).map_err(|error| TrustedRootError::Json(error.to_string()))?;
    if file.media_type != MEDIA_TYPE {
        return Err(TrustedRootError::MediaType(file.media_type));
    }
    Ok(TrustedRoot {
        certificate_authorities: authorities("certificateAuthorities", file.certificate_authorities)?,
        timestamp_authorities: authorities("timestampAuthorities", file.timestamp_authorities)?,
        ct_logs: logs(file.ctlogs)?,
    })
}

pub(super) fn write(root: &TrustedRoot) -> String {
    let authorities = |list: &[Authority]| list.iter().map(WrittenAuthority::of).collect();
    let file = Written {
        media_type: MEDIA_TYPE,
        tlogs: [],
        certificate_authorities: authorities(&root.certificate_authorities),
        ctlogs: root.ct_logs.iter().map(WrittenLog::of).collect(),
        timestamp_authorities: authorities(&root.timestamp_authorities),
    };
    let mut text = serde_json::to_string_pretty(&file).expect("text, numbers and lists serialize");
    text.push('\n');
    text
}

fn authorities(list: &str, read: Vec<ReadAuthority>) -> Result<Vec<Authority>, TrustedRootError> {
    let one = |(index, authority): (usize, ReadAuthority)| {
        let place = |member: &str| format!("{list}[{index}].{member}");
        let wrong = |member: &str, why: String| TrustedRootError::Value { place: place(member), why };
        let chain = authority
            .cert_chain
            .certificates
            .iter()
            .map(|certificate| decode(&certificate.raw_bytes).map(CertificateDer::from))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| wrong("certChain", why))?;
        let valid_for = window(&authority.valid_for).map_err(|why| wrong("validFor", why))?;
        Authority::new(authority.uri, chain, valid_for).map_err(|why| wrong("certChain", why))
    };
    read.into_iter().enumerate().map(one).collect()
}

fn logs(read: Vec<ReadLog>) -> Result<Vec<CtLog>, TrustedRootError> {
    let one = |(index, log): (usize, ReadLog)| {
        let wrong =
            |member: &str, why: String| TrustedRootError::Value { place: format!("ctlogs[{index}].{member}"), why };
        if log.hash_algorithm != HASH {
            return Err(wrong("hashAlgorithm", format!("must be {HASH}")));
        }
        let spki = decode(&log.public_key.raw_bytes).map_err(|why| wrong("publicKey.rawBytes", why))?;
        let valid_for = window(&log.public_key.valid_for).map_err(|why| wrong("publicKey.validFor", why))?;
        let made = CtLog::new(log.base_url, &spki, valid_for).map_err(|why| wrong("publicKey.rawBytes", why))?;
        let expected = key_details(&made);
        if log.public_key.key_details != expected {
            return Err(wrong("publicKey.keyDetails", format!("must be {expected}, as the key is one")));
        }
        let claimed = decode(&log.log_id.key_id).map_err(|why| wrong("logId.keyId", why))?;
        if claimed != made.log_id {
            let right = BASE64_STANDARD.encode(made.log_id);
            return Err(wrong("logId.keyId", format!("must be {right}, the SHA-256 of the public key")));
        }
        Ok(made)
    };
    read.into_iter().enumerate().map(one).collect()
}

fn window(read: &ReadWindow) -> Result<ValidFor, String> {
    let moment = |text: &str| {
        let moment: Timestamp =
            text.parse().map_err(|_| "has a time that is not RFC 3339, as in 2026-01-01T00:00:00Z".to_owned())?;
        Ok::<_, String>(UnixTime(moment.as_second()))
    };
    let valid_for = ValidFor { start: moment(&read.start)?, end: read.end.as_deref().map(moment).transpose()? };
    match valid_for.end {
        Some(end) if end < valid_for.start => Err("ends before it starts".to_owned()),
        _ => Ok(valid_for),
    }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    BASE64_STANDARD.decode(text).map_err(|_| "is not padded standard base64".to_owned())
}

fn key_details(log: &CtLog) -> &'static str {
    match log.key.kind() {
        KeyKind::EcdsaP256 => "PKIX_ECDSA_P256_SHA_256",
        KeyKind::EcdsaP384 => "PKIX_ECDSA_P384_SHA_384",
        KeyKind::EcdsaP521 => "PKIX_ECDSA_P521_SHA_512",
        KeyKind::Ed25519 => "PKIX_ED25519",
        KeyKind::Rsa { bits: ..3072 } => "PKIX_RSA_PKCS1V15_2048_SHA256",
        KeyKind::Rsa { bits: 3072..4096 } => "PKIX_RSA_PKCS1V15_3072_SHA256",
        KeyKind::Rsa { .. } => "PKIX_RSA_PKCS1V15_4096_SHA256",
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reading {
    media_type: String,
    #[serde(default, rename = "tlogs")]
    _tlogs: IgnoredAny,
    #[serde(default)]
    certificate_authorities: Vec<ReadAuthority>,
    #[serde(default)]
    ctlogs: Vec<ReadLog>,
    #[serde(default)]
    timestamp_authorities: Vec<ReadAuthority>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReadAuthority {
    #[serde(default, rename = "subject")]
    _subject: IgnoredAny,
    #[serde(default)]
    uri: String,
    cert_chain: ReadChain,
    valid_for: ReadWindow,
    #[serde(default, rename = "operator")]
    _operator: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadChain {
    certificates: Vec<ReadBytes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReadBytes {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadWindow {
    start: String,
    #[serde(default)]
    end: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReadLog {
    #[serde(default)]
    base_url: String,
    hash_algorithm: String,
    public_key: ReadKey,
    log_id: ReadLogId,
    #[serde(default, rename = "checkpointKeyId")]
    _checkpoint_key_id: IgnoredAny,
    #[serde(default, rename = "operator")]
    _operator: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReadKey {
    raw_bytes: String,
    key_details: String,
    valid_for: ReadWindow,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReadLogId {
    key_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: &'static str,
    tlogs: [(); 0],
    certificate_authorities: Vec<WrittenAuthority>,
    ctlogs: Vec<WrittenLog>,
    timestamp_authorities: Vec<WrittenAuthority>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenAuthority {
    uri: String,
    cert_chain: WrittenChain,
    valid_for: WrittenWindow,
}

#[derive(Serialize)]
struct WrittenChain {
    certificates: Vec<WrittenBytes>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenBytes {
    raw_bytes: String,
}

#[derive(Serialize)]
struct WrittenWindow {
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenLog {
    base_url: String,
    hash_algorithm: &'static str,
    public_key: WrittenKey,
    log_id: WrittenLogId,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenKey {
    raw_bytes: String,
    key_details: &'static str,
    valid_for: WrittenWindow,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenLogId {
    key_id: String,
}

impl WrittenAuthority {
    fn of(authority: &Authority) -> Self {
        let raw = |der: &CertificateDer<'_>| WrittenBytes { raw_bytes: BASE64_STANDARD.encode(der) };
        Self {
            uri: authority.uri.clone(),
            cert_chain: WrittenChain { certificates: authority.chain.iter().map(raw).collect() },
            valid_for: WrittenWindow::of(authority.valid_for),
        }
    }
}

impl WrittenLog {
    fn of(log: &CtLog) -> Self {
        Self {
            base_url: log.base_url.clone(),
            hash_algorithm: HASH,
            public_key: WrittenKey {
                raw_bytes: BASE64_STANDARD.encode(log.spki()),
                key_details: key_details(log),
                valid_for: WrittenWindow::of(log.valid_for),
            },
            log_id: WrittenLogId { key_id: BASE64_STANDARD.encode(log.log_id) },
        }
    }
}

impl WrittenWindow {
    fn of(valid_for: ValidFor) -> Self {
        let text = |moment: UnixTime| {
            Timestamp::from_second(moment.0)
                .unwrap_or(if moment.0 < 0 { Timestamp::MIN } else { Timestamp::MAX })
                .to_string()
        };
        Self { start: text(valid_for.start), end: valid_for.end.map(text) }
    }
}

const HASH: &str = "SHA2_256";
