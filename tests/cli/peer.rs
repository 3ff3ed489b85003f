//! A TLS server that answers as a test tells it, and the client's side of the PKI for it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData as _};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use stellaops_signer::jose::{Jws, VerifyingKey, base64url};
use tempfile::TempDir;

/// A directory with everything a client needs: `ca.pem`, `cert.pem`, `key.pem`, `dpop.pem`, `poe.jwt`, `sbom.json`.
pub(crate) struct Pki {
    directory: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    /// `x5t#S256` of `cert.pem`.
    pub(crate) certificate_thumbprint: String,
    /// Thumbprint of `dpop.pem`.
    pub(crate) dpop_thumbprint: String,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two CAs of one name would be taken for each other until a signature fails.
        params.distinguished_name.push(DnType::CommonName, format!("CA of {}", directory.path().display()));
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["client.example".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let dpop = KeyPair::generate().unwrap();
        let write = |name: &str, content: &str| std::fs::write(directory.path().join(name), content).unwrap();
        write("ca.pem", &ca.pem());
        write("cert.pem", &certificate.pem());
        write("key.pem", &key.serialize_pem());
        write("dpop.pem", &dpop.serialize_pem());
        write("poe.jwt", "poe.of.client\n");
        write("sbom.json", "{\"bomFormat\": \"CycloneDX\", \"components\": [1, 2.5e1]}\n");
        Self {
            certificate_thumbprint: base64url(digest(&SHA256, certificate.der()).as_ref()),
            dpop_thumbprint: thumbprint(dpop.der_bytes()),
            directory,
            ca,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes an OpTok with these claims beside the usual ones; nobody here checks its signature.
    pub(crate) fn write_token(&self, claims: &Value) -> PathBuf {
        let path = self.path().join("optok.jwt");
        std::fs::write(&path, token(claims)).unwrap();
        path
    }
}

/// A JWT with these claims and no real signature.
pub(crate) fn token(claims: &Value) -> String {
    let mut all = json!({ "iss": "https://as.example", "aud": "signer", "exp": 4_102_444_800_i64 });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode("{\"alg\":\"ES256\"}"), URL_SAFE_NO_PAD.encode(all.to_string()))
}

/// RFC 7638, section 3, for P-256.
fn thumbprint(point: &[u8]) -> String {
    let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    base64url(digest(&SHA256, members.as_bytes()).as_ref())
}

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The claims of the DPoP proof, once it has verified under its own key, and that key's thumbprint.
    pub(crate) fn proof(&self) -> (Value, String) {
        let jws = Jws::parse(self.header("dpop"), 16 * 1024).unwrap();
        assert_eq!(jws.header().typ.as_deref(), Some("dpop+jwt"));
        let jwk = jws.header().jwk.as_ref().unwrap();
        let claims = jws.verify(&VerifyingKey::from_jwk(jwk).unwrap()).unwrap();
        (serde_json::from_slice(&claims).unwrap(), base64url(&jwk.thumbprint()))
    }
}

/// What the server answers.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn ok(body: Value) -> Self {
        Self { status: 200, headers: vec![("content-type", "application/json".to_owned())], body }
    }

    pub(crate) fn problem(status: u16, body: Value) -> Self {
        Self { status, headers: vec![("content-type", "application/problem+json".to_owned())], body }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// A running server. It ends with the test's process.
pub(crate) struct Peer {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Peer {
    /// Serves on loopback; `answer` gets each request and how many came before it.
    pub(crate) fn serve(pki: &Pki, answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (config, seen, answer) = (server_config(pki), Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let peer = Self { url, seen: Arc::clone(&seen) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, seen, answer) = (Arc::clone(&config), Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                    converse(stream, |request| {
                        let before = {
                            let mut seen = seen.lock().unwrap();
                            seen.push(request.clone());
                            seen.len() - 1
                        };
                        answer(request, before)
                    });
                });
            }
        });
        peer
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn server_config(pki: &Pki) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &pki.ca).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pki.ca.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    Arc::new(config)
}

/// HTTP/1.1 until the client goes away, or ends the TLS handshake.
fn converse(stream: StreamOwned<ServerConnection, TcpStream>, answer: impl Fn(&Seen) -> Reply) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream) {
        let reply = answer(&request);
        let body = if reply.body.is_null() { String::new() } else { reply.body.to_string() };
        let mut text = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n", reply.status, body.len());
        for (name, value) in &reply.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(&body);
        if stream.get_mut().write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut BufReader<StreamOwned<ServerConnection, TcpStream>>) -> Option<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Seen { method, path, headers, body })
}
