//! A plain client of Fulcio and of a timestamp authority: what the signer does, without any of its care.
//!
//! It is the control of an experiment: verifiers that refuse its bundles would refuse anybody's, and its round trip is
//! what the signer's time is compared with.

#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Version};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SigningKey as _};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::client::Answer;
use crate::{Context, Error, Result, base64, der, random_id, sha256};

/// An HTTPS server on loopback, and how to speak TLS to it. Sessions are not resumed.
#[derive(Clone)]
pub struct Target {
    addr: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// A key and a request to have it certified.
pub struct Applicant {
    /// The key: P-256.
    pub key: KeyPair,
    /// The certificate signing request, PEM.
    pub csr: String,
}

impl Target {
    /// The server of a URL such as `https://127.0.0.1:PORT/…`.
    ///
    /// # Errors
    /// When the URL is another kind.
    pub fn new(url: &str, roots: Arc<RootCertStore>) -> Result<Self> {
        let host = url.strip_prefix("https://").and_then(|rest| rest.split('/').next());
        let addr = host.and_then(|host| host.parse().ok()).context(format!("find an address in {url}"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let mut config = config.context("choose TLS versions")?.with_root_certificates(roots).with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { addr, tls: Arc::new(config) })
    }

    /// Connects, posts, reads the answer to its end, hangs up.
    ///
    /// # Errors
    /// When it does not come to an answer.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let tcp = TcpStream::connect(self.addr).context("connect")?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::from(self.addr.ip());
        let tls = ClientConnection::new(self.tls.clone(), name).context("begin TLS")?;
        let mut stream = StreamOwned::new(tls, tcp);
        // Of HTTP/1.0, the answer's body is what comes until the end.
        let head = format!(
            "POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            self.addr,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut bytes = Vec::new();
        // Not every server says goodbye in TLS before it closes.
        match stream.read_to_end(&mut bytes) {
            Err(error) if bytes.is_empty() => Err(error.into()),
            _ => read_answer(&bytes).context("find an answer"),
        }
    }

    /// Has a key certified. Returns the chain, leaf first.
    ///
    /// # Errors
    /// When Fulcio refuses.
    pub fn certify(&self, token: &str, csr: &str) -> Result<Vec<CertificateDer<'static>>> {
        let body = json!({
            "credentials": {"oidcIdentityToken": token},
            "certificateSigningRequest": base64(csr),
        });
        let answer = self.post("/api/v2/signingCert", "application/json", body.to_string().as_bytes())?;
        if !matches!(answer.status, 200 | 201) {
            return Err(Error(format!("Fulcio refuses: {answer}")));
        }
        // A server that hangs up amid its answer is refused here, not a test's mistake.
        let document: Value = serde_json::from_slice(&answer.body).context("read Fulcio's answer as JSON")?;
        let chain = &document["signedCertificateEmbeddedSct"]["chain"]["certificates"];
        let chain = chain.as_array().context(format!("find a chain in {document}"))?;
        let pems = chain.iter().map(|link| link.as_str().unwrap_or_default());
        pems.map(|link| CertificateDer::from_pem_slice(link.as_bytes()).context("read a certificate")).collect()
    }

    /// Has a signature timestamped at `/api/v1/timestamp`. Returns the response as it came (RFC 3161, section 2.4.2).
    ///
    /// # Errors
    /// When the authority refuses.
    pub fn timestamp(&self, signature: &[u8]) -> Result<Vec<u8>> {
        let answer = self.post("/api/v1/timestamp", "application/timestamp-query", &timestamp_query(signature))?;
        if matches!(answer.status, 200 | 201) {
            return Ok(answer.body.to_vec());
        }
        Err(Error(format!("the timestamp authority refuses: {answer}")))
    }
}

impl Applicant {
    /// With a new key.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate().context("make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).context("write a CSR")?.pem().context("write a CSR")?;
        Ok(Self { key, csr })
    }

    /// Signs: ASN.1 DER.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.key.sign(message).context("sign")
    }
}

/// A Sigstore bundle (v0.3) of an in-toto statement and a signature over its PAE, by a certificate's key.
#[must_use]
pub fn bundle(statement: &[u8], signature: &[u8], leaf: &CertificateDer<'_>, timestamp: &[u8]) -> Value {
    json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "certificate": {"rawBytes": base64(leaf)},
            "tlogEntries": [],
            "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": base64(timestamp)}]},
        },
        "dsseEnvelope": {
            "payloadType": "application/vnd.in-toto+json",
            "payload": base64(statement),
            "signatures": [{"sig": base64(signature), "keyid": ""}],
        },
    })
}

fn read_answer(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let status = std::str::from_utf8(&bytes[..end]).ok()?.split(' ').nth(1)?.parse().ok()?;
    let (headers, body) = (HeaderMap::new(), Bytes::copy_from_slice(&bytes[end + 4..]));
    Some(Answer { status, version: Version::HTTP_10, headers, body })
}

/// RFC 3161, section 2.4.1: version 1, SHA-256 of the signature, a nonce, and the certificate please.
fn timestamp_query(signature: &[u8]) -> Vec<u8> {
    let sha256_identifier = der::write(der::SEQUENCE, &der::write(der::OID, SHA256));
    let imprint = [sha256_identifier, der::write(der::OCTET_STRING, &sha256(signature))].concat();
    let mut nonce = sha256(random_id())[..16].to_vec();
    nonce[0] = nonce[0] & 0x7f | 0x40;
    let fields = [
        der::write(INTEGER, &[1]),
        der::write(der::SEQUENCE, &imprint),
        der::write(INTEGER, &nonce),
        der::write(BOOLEAN, &[0xff]),
    ];
    der::write(der::SEQUENCE, &fields.concat())
}

const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
// 2.16.840.1.101.3.4.2.1.
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const PATIENCE: Duration = Duration::from_secs(20);
