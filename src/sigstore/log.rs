//! Entries of a Rekor transparency log, as a source of time: the log's signed promise to include an entry states when it
//! took it (Rekor v1, "signed entry timestamp").
//!
//! Only that promise counts here. An inclusion proof says that an entry is in the log and not since when, and logs of
//! Rekor v2 state no time at all: their users add an RFC 3161 timestamp, which counts by itself. So inclusion proofs are
//! not looked at, and logs are never asked.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;

use aws_lc_rs::digest::{SHA256, digest};

use super::trusted_root::{TrustedRootError, ValidFor};
use super::x509::VerifyingKey;
use crate::clock::UnixTime;
use crate::hex::hex;

/// The transparency logs that somebody pinned: `tlogs` of a trusted root.
#[derive(Clone, Debug, Default)]
pub struct TransparencyLogs(Vec<Log>);

#[derive(Clone, Debug)]
struct Log {
    id: [u8; 32],
    key: VerifyingKey,
    valid_for: ValidFor,
}

/// An entry as it comes along with a signature. Nothing in it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Which log: SHA-256 of its public key.
    pub log_id: Vec<u8>,
    /// Where in the log.
    pub index: u64,
    /// When the log took it, in seconds since 1970.
    pub integrated: i64,
    /// What was logged: canonical JSON.
    pub body: Vec<u8>,
    /// The log's signature over all that.
    pub promise: Vec<u8>,
}

/// What an entry must be about.
#[derive(Clone, Copy, Debug)]
pub struct Logged<'a> {
    /// The signature, as it is in the envelope or annotation, decoded.
    pub signature: &'a [u8],
    /// SHA-256 of what was signed: of a DSSE envelope its payload, else the bytes themselves.
    pub content_sha256: &'a [u8; 32],
    /// DER of the certificate or of the public key that verifies it.
    pub verifier: &'a [u8],
}

/// Why an entry proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No pinned log.
    #[error("no pinned transparency log has this entry")]
    UnknownLog,
    /// The promise is not the log's over this entry.
    #[error("the promise is not the one of the pinned transparency log over this entry")]
    Promise,
    /// The entry is about something else.
    #[error("the log entry is about another signature: {0}")]
    Other(&'static str),
    /// Not an entry that can be read.
    #[error("the log entry cannot be read")]
    Malformed,
    /// Outside of what the log is trusted for.
    #[error("the log entry says {}, when the pinned log does not count", .0.rfc3339())]
    Time(UnixTime),
}

impl TransparencyLogs {
    /// Reads `tlogs` of a `trusted_root.json`. A log whose id is not the SHA-256 of its key, as those of Rekor v2, makes
    /// no promises with a time and is left out.
    ///
    /// # Errors
    /// [`TrustedRootError`].
    pub fn load(path: &Path) -> Result<Self, TrustedRootError> {
        let json = std::fs::read(path).map_err(|source| TrustedRootError::Read { path: path.to_owned(), source })?;
        Self::from_json(&json)
    }

    /// As [`load`](Self::load).
    ///
    /// # Errors
    /// [`TrustedRootError`].
    pub fn from_json(json: &[u8]) -> Result<Self, TrustedRootError> {
        let file: File = serde_json::from_slice(json).map_err(|error| TrustedRootError::Json(error.to_string()))?;
        let mut logs = Vec::new();
        for (index, read) in file.tlogs.into_iter().enumerate() {
            let wrong = |member: &str, why: &str| TrustedRootError::Value {
                place: format!("tlogs[{index}].{member}"),
                why: why.to_owned(),
            };
            let decode = |member: &str, text: &str| {
                BASE64_STANDARD.decode(text).map_err(|_| wrong(member, "is not padded standard base64"))
            };
            let spki = decode("publicKey.rawBytes", &read.public_key.raw_bytes)?;
            let id = decode("logId.keyId", &read.log_id.key_id)?;
            let own: [u8; 32] = digest(&SHA256, &spki).as_ref().try_into().expect("SHA-256 has 32 bytes");
            if id != own {
                continue;
            }
            let Some(key) = VerifyingKey::from_spki(&spki) else { continue };
            let moment = |text: &str| {
                let right = "has a time that is not RFC 3339, as in 2026-01-01T00:00:00Z";
                let moment: Timestamp = text.parse().map_err(|_| wrong("publicKey.validFor", right))?;
                Ok::<_, TrustedRootError>(UnixTime(moment.as_second()))
            };
            let valid_for = ValidFor {
                start: moment(&read.public_key.valid_for.start)?,
                end: read.public_key.valid_for.end.as_deref().map(moment).transpose()?,
            };
            logs.push(Log { id: own, key, valid_for });
        }
        Ok(Self(logs))
    }

    /// Whether none is pinned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When a pinned log took an entry about exactly this signature, this content and this verifier.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn verify(&self, entry: &LogEntry, logged: &Logged<'_>) -> Result<UnixTime, LogError> {
        let log = self.0.iter().find(|log| log.id[..] == entry.log_id).ok_or(LogError::UnknownLog)?;
        if !log.key.verifies(entry.promised().as_bytes(), &entry.promise) {
            return Err(LogError::Promise);
        }
        about(&entry.body, logged)?;
        let time = UnixTime(entry.integrated);
        if log.valid_for.contains(time) { Ok(time) } else { Err(LogError::Time(time)) }
    }
}

impl LogEntry {
    /// What the promise signs: canonical JSON (RFC 8785) of four members, in their order.
    fn promised(&self) -> String {
        let id = hex(&self.log_id);
        let body = BASE64_STANDARD.encode(&self.body);
        let (time, index) = (self.integrated, self.index);
        format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"{id}","logIndex":{index}}}"#)
    }
}

/// Whether the body names this signature, content and verifier.
fn about(body: &[u8], logged: &Logged<'_>) -> Result<(), LogError> {
    let body: Body = serde_json::from_slice(body).map_err(|_| LogError::Malformed)?;
    let (hash, signature, verifier) = match (body.kind.as_str(), body.api_version.as_str()) {
        ("hashedrekord", "0.0.1") => {
            let spec: HashedRekord = serde_json::from_value(body.spec).map_err(|_| LogError::Malformed)?;
            (spec.data.hash, spec.signature.content, spec.signature.public_key.content)
        }
        ("dsse", "0.0.1") => {
            let spec: Dsse = serde_json::from_value(body.spec).map_err(|_| LogError::Malformed)?;
            let [one] = <[DsseSignature; 1]>::try_from(spec.signatures).map_err(|_| LogError::Malformed)?;
            (spec.payload_hash, one.signature, one.verifier)
        }
        _ => return Err(LogError::Other("it is of a kind that is not known here")),
    };
    if hash.algorithm != "sha256" || hash.value != hex(logged.content_sha256) {
        return Err(LogError::Other("its content has another digest"));
    }
    if BASE64_STANDARD.decode(signature).ok().as_deref() != Some(logged.signature) {
        return Err(LogError::Other("its signature is another one"));
    }
    let pem = BASE64_STANDARD.decode(verifier).map_err(|_| LogError::Malformed)?;
    let same = CertificateDer::from_pem_slice(&pem).is_ok_and(|der| *der == *logged.verifier)
        || SubjectPublicKeyInfoDer::from_pem_slice(&pem).is_ok_and(|der| *der == *logged.verifier);
    if same { Ok(()) } else { Err(LogError::Other("its certificate or key is another one")) }
}

impl LogError {
    /// A stable word for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownLog => "log_unknown",
            Self::Promise => "log_promise",
            Self::Other(_) => "log_entry_other",
            Self::Malformed => "log_entry_malformed",
            Self::Time(_) => "log_time",
        }
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    tlogs: Vec<ReadLog>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadLog {
    public_key: ReadKey,
    log_id: ReadId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadKey {
    raw_bytes: String,
    valid_for: ReadWindow,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadId {
    key_id: String,
}

#[derive(Deserialize)]
struct ReadWindow {
    start: String,
    #[serde(default)]
    end: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    api_version: String,
    kind: String,
    spec: serde_json::Value,
}

#[derive(Deserialize)]
struct HashedRekord {
    data: Data,
    signature: HashedSignature,
}

#[derive(Deserialize)]
struct Data {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HashedSignature {
    content: String,
    public_key: HashedKey,
}

#[derive(Deserialize)]
struct HashedKey {
    content: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse {
    payload_hash: Hash,
    signatures: Vec<DsseSignature>,
}

#[derive(Deserialize)]
struct DsseSignature {
    signature: String,
    verifier: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    struct TestLog(EcdsaKeyPair, Vec<u8>);

    impl TestLog {
        fn new() -> Self {
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref()).unwrap();
            let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
            let mut spki: Vec<u8> =
                (0..prefix.len()).step_by(2).map(|at| u8::from_str_radix(&prefix[at..at + 2], 16).unwrap()).collect();
            spki.extend_from_slice(pair.public_key().as_ref());
            Self(pair, spki)
        }

        fn pinned(&self, end: Option<&str>) -> TransparencyLogs {
            let id = BASE64_STANDARD.encode(digest(&SHA256, &self.1));
            let mut valid_for = json!({ "start": "2020-01-01T00:00:00Z" });
            if let Some(end) = end {
                valid_for["end"] = end.into();
            }
            let root = json!({ "mediaType": "x", "tlogs": [{
                "baseUrl": "https://rekor.example", "hashAlgorithm": "SHA2_256", "logId": { "keyId": id },
                "publicKey": { "rawBytes": BASE64_STANDARD.encode(&self.1), "keyDetails": "x", "validFor": valid_for },
            }, {
                // A log of Rekor v2, whose id is made otherwise.
                "logId": { "keyId": "AAAA" },
                "publicKey": { "rawBytes": BASE64_STANDARD.encode(&self.1), "validFor": { "start": "2020-01-01T00:00:00Z" } },
            }] });
            let logs = TransparencyLogs::from_json(root.to_string().as_bytes()).unwrap();
            assert_eq!(logs.0.len(), 1);
            logs
        }

        fn entry(&self, body: &serde_json::Value) -> LogEntry {
            let mut entry = LogEntry {
                log_id: digest(&SHA256, &self.1).as_ref().to_vec(),
                index: 7,
                integrated: 1_700_000_000,
                body: body.to_string().into_bytes(),
                promise: Vec::new(),
            };
            let signature = self.0.sign(&SystemRandom::new(), entry.promised().as_bytes()).unwrap();
            entry.promise = signature.as_ref().to_vec();
            entry
        }
    }

    fn pem(der: &[u8]) -> String {
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64_STANDARD.encode(der));
        BASE64_STANDARD.encode(pem)
    }

    fn hashed(content: &str, signature: &[u8], verifier: &[u8]) -> serde_json::Value {
        json!({ "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
            "data": { "hash": { "algorithm": "sha256", "value": content } },
            "signature": { "content": BASE64_STANDARD.encode(signature), "publicKey": { "content": pem(verifier) } },
        } })
    }

    #[test]
    fn a_promise_counts_for_exactly_what_it_is_about() {
        let log = TestLog::new();
        let (content, signature) = ([7_u8; 32], b"signature".to_vec());
        let verifier = log.1.clone();
        let logged = Logged { signature: &signature, content_sha256: &content, verifier: &verifier };
        let hex = "07".repeat(32);
        let good = hashed(&hex, &signature, &verifier);
        let verify = |entry: &LogEntry| log.pinned(None).verify(entry, &logged);
        assert_eq!(verify(&log.entry(&good)), Ok(UnixTime(1_700_000_000)));
        let dsse = json!({ "apiVersion": "0.0.1", "kind": "dsse", "spec": {
            "envelopeHash": { "algorithm": "sha256", "value": "00" },
            "payloadHash": { "algorithm": "sha256", "value": hex },
            "signatures": [{ "signature": BASE64_STANDARD.encode(&signature), "verifier": pem(&verifier) }],
        } });
        assert_eq!(verify(&log.entry(&dsse)), Ok(UnixTime(1_700_000_000)));

        for (body, why) in [
            (hashed(&"08".repeat(32), &signature, &verifier), "its content has another digest"),
            (hashed(&hex, b"other", &verifier), "its signature is another one"),
            (hashed(&hex, &signature, &TestLog::new().1), "its certificate or key is another one"),
            (json!({ "apiVersion": "0.0.2", "kind": "dsse", "spec": {} }), "it is of a kind that is not known here"),
        ] {
            assert_eq!(verify(&log.entry(&body)), Err(LogError::Other(why)));
        }
        assert_eq!(verify(&log.entry(&json!({ "kind": "x" }))), Err(LogError::Malformed));
    }

    #[test]
    fn a_promise_of_another_log_or_over_other_values_is_none() {
        let log = TestLog::new();
        let (content, signature) = ([7_u8; 32], b"signature".to_vec());
        let verifier = log.1.clone();
        let logged = Logged { signature: &signature, content_sha256: &content, verifier: &verifier };
        let good = log.entry(&hashed(&"07".repeat(32), &signature, &verifier));
        let changes: [fn(&mut LogEntry); 4] = [
            |entry| entry.integrated += 1,
            |entry| entry.index += 1,
            |entry| entry.body.push(b' '),
            |entry| entry.promise[10] ^= 1,
        ];
        for change in changes {
            let mut changed = good.clone();
            change(&mut changed);
            assert_eq!(log.pinned(None).verify(&changed, &logged), Err(LogError::Promise));
        }
        assert_eq!(TestLog::new().pinned(None).verify(&good, &logged), Err(LogError::UnknownLog));
        let ended = log.pinned(Some("2021-01-01T00:00:00Z"));
        assert_eq!(ended.verify(&good, &logged), Err(LogError::Time(UnixTime(1_700_000_000))));
    }
}
