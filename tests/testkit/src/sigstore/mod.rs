//! A Fulcio, a CT log and a timestamp authority made at test time, each part of what they sign replaceable.
//!
//! Everything is put together byte by byte: no library writes a certificate with two names, a wrong purpose or a false
//! promise of a log on request.

#![forbid(unsafe_code)]

pub mod ct;
pub mod der;
pub mod fulcio;
pub mod tsa;
pub mod x509;

use serde_json::{Value, json};

pub use ct::CtLog;
pub use fulcio::Fulcio;
pub use tsa::Tsa;

use crate::base64;

/// The `trusted_root.json` that pins these, valid for a year around `now`.
#[must_use]
pub fn trusted_root(fulcio: Option<&Fulcio>, logs: &[&CtLog], tsas: &[&Tsa], now: i64) -> Value {
    let window = json!({ "start": der::rfc3339(now - YEAR), "end": der::rfc3339(now + YEAR) });
    let authority = |uri: &str, chain: Vec<Vec<u8>>| {
        let certificates: Vec<Value> = chain.iter().map(|der| json!({ "rawBytes": base64(der) })).collect();
        json!({ "uri": uri, "certChain": { "certificates": certificates }, "validFor": window })
    };
    let log = |log: &&CtLog| {
        json!({
            "baseUrl": "https://ct.example",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": base64(log.key.spki()), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": window,
            },
            "logId": { "keyId": base64(log.id()) },
        })
    };
    json!({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [],
        "certificateAuthorities":
            fulcio.map(|fulcio| authority("https://fulcio.example", fulcio.chain())).into_iter().collect::<Vec<_>>(),
        "ctlogs": logs.iter().map(log).collect::<Vec<_>>(),
        "timestampAuthorities":
            tsas.iter().map(|tsa| authority(&tsa.uri, tsa.chain())).collect::<Vec<_>>(),
    })
}

/// Seconds.
const YEAR: i64 = 365 * 86_400;
