//! A certificate transparency log (RFC 6962) that takes certificates in, vouches for them and forgets them.

#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::https::{Asked, Clients, ModeSwitch, Reply, Server};
use crate::pki::Pki;
use crate::{Context, Result, base64, der, from_base64, pem, sha256};

/// A log's key: what its SCTs are signed with.
pub struct LogKey(EcdsaKeyPair);

/// What a log says of a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Scts {
    /// The truth.
    #[default]
    True,
    /// A signature over another certificate.
    False,
    /// A true signature of a key that nobody pinned, under that key's own name.
    OfAnotherLog,
}

/// The log, on loopback until dropped.
pub struct CtLog {
    /// Its key.
    pub key: Arc<LogKey>,
    server: Server,
    scts: Arc<AtomicU8>,
}

impl LogKey {
    /// A new one: P-256.
    #[must_use]
    pub fn generate() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("randomness is there"))
    }

    /// `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().expect("a P-256 key has an X.509 form");
        der.as_ref().to_vec()
    }

    /// The log's name: SHA-256 of its key.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        sha256(self.public_key())
    }

    /// Signs for a certificate, given as its `TBSCertificate` without poison and SCTs, and its issuer's
    /// `SubjectPublicKeyInfo` (RFC 6962, section 3.2). Returns the time in milliseconds and the signature.
    #[must_use]
    pub fn sign(&self, tbs: &[u8], issuer_key: &[u8]) -> (u64, Vec<u8>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        let time = u64::try_from(since.as_millis()).expect("the clock is before the year 500 million");
        let length = u32::try_from(tbs.len()).expect("certificates are short").to_be_bytes();
        let signed = [
            &[V1, CERTIFICATE_TIMESTAMP],
            &time.to_be_bytes()[..],
            &PRECERT_ENTRY,
            &sha256(issuer_key),
            &length[1..],
            tbs,
            &NO_EXTENSIONS,
        ]
        .concat();
        let signature = self.0.sign(&SystemRandom::new(), &signed).expect("a P-256 key signs anything");
        (time, digitally_signed(signature.as_ref()))
    }

    /// The extension that carries one SCT: its content is an OCTET STRING around the list (RFC 6962, section 3.3).
    #[must_use]
    pub fn sct_list(&self, tbs: &[u8], issuer_key: &[u8]) -> Vec<u8> {
        let (time, signature) = self.sign(tbs, issuer_key);
        let sct = [&[V1], &self.id()[..], &time.to_be_bytes(), &NO_EXTENSIONS, &signature].concat();
        der::write(der::OCTET_STRING, &counted(&counted(&sct)))
    }
}

impl CtLog {
    /// Starts it.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(pki: &Pki) -> Result<Self> {
        let (key, scts) = (Arc::new(LogKey::generate()), Arc::new(AtomicU8::new(Scts::True as u8)));
        let (log, mode) = (key.clone(), scts.clone());
        let server = Server::start(&pki.services, Clients::Any, move |asked| {
            add_pre_chain(asked, &log, mode.load(Ordering::Relaxed))
                .unwrap_or_else(|error| Reply::json(400, &json!({"error_message": error.0, "success": false})))
        })?;
        Ok(Self { key, server, scts })
    }

    /// What Fulcio calls its URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What it says from now on.
    pub fn answer_with(&self, scts: Scts) {
        self.scts.store(scts as u8, Ordering::Relaxed);
    }

    /// Its failures.
    #[must_use]
    pub fn mode(&self) -> &ModeSwitch {
        &self.server.mode
    }

    /// Certificates it was asked to vouch for.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.server.calls(ADD_PRE_CHAIN)
    }

    /// Writes its public key, PEM.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_public_key(&self, path: &Path) -> Result<()> {
        std::fs::write(path, pem("PUBLIC KEY", &self.key.public_key())).context(format!("write {}", path.display()))
    }
}

/// RFC 6962, section 4.2.
fn add_pre_chain(asked: &Asked, key: &LogKey, scts: u8) -> Result<Reply> {
    if asked.path != ADD_PRE_CHAIN {
        return Ok(Reply::empty(404));
    }
    let body: Value = serde_json::from_slice(&asked.body).context("read the chain")?;
    let link = |at: usize| from_base64(body["chain"][at].as_str().context("find a certificate of the chain")?);
    let (precertificate, issuer) = (link(0)?, link(1)?);
    let mut tbs = der::without_extension(der::tbs(&precertificate)?, POISON)?;
    if scts == Scts::False as u8 {
        tbs.reverse();
    }
    let stranger = LogKey::generate();
    let key = if scts == Scts::OfAnotherLog as u8 { &stranger } else { key };
    let (time, signature) = key.sign(&tbs, der::public_key(&issuer)?);
    Ok(Reply::json(
        200,
        &json!({
            "sct_version": V1,
            "id": base64(key.id()),
            "timestamp": time,
            "extensions": "",
            "signature": base64(signature),
        }),
    ))
}

/// `digitally-signed` with ECDSA and SHA-256 (RFC 5246, section 4.7).
fn digitally_signed(signature: &[u8]) -> Vec<u8> {
    [&[SHA256, ECDSA][..], &counted(signature)].concat()
}

/// With its length in two bytes before it.
fn counted(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("SCTs are short").to_be_bytes()[..], bytes].concat()
}

/// 1.3.6.1.4.1.11129.2.4.2: where a certificate carries its SCTs.
pub const SCT_LIST: &[u64] = &[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2];

// 1.3.6.1.4.1.11129.2.4.3.
const POISON: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x03];
const ADD_PRE_CHAIN: &str = "/ct/v1/add-pre-chain";
const V1: u8 = 0;
const CERTIFICATE_TIMESTAMP: u8 = 0;
const PRECERT_ENTRY: [u8; 2] = [0, 1];
const NO_EXTENSIONS: [u8; 2] = [0, 0];
const SHA256: u8 = 4;
const ECDSA: u8 = 3;
