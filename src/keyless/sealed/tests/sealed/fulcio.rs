//! A small Fulcio: TLS 1.3, one request a connection, and every way to answer it badly.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As a Fulcio does, with the SCT embedded.
    Issue,
    /// In chunks, as Go's server does beyond 2 KiB.
    Chunked,
    /// Without TLS.
    Plain,
    /// With the SCT beside.
    Detached,
    /// This status, and a message that repeats the token.
    Status(u16),
    /// Half an answer, then nothing: the connection ends.
    HangUp,
    /// Reads the request and says nothing.
    Silent,
    /// Never stops.
    Huge,
    /// Under a root that is not the job's.
    OtherRoot,
    /// Something else than HTTP.
    Noise,
}

pub(crate) struct Fulcio {
    pub(crate) address: SocketAddr,
    /// The root of its TLS certificate, DER.
    pub(crate) root: Vec<u8>,
    manner: Manner,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Fulcio {
    pub(crate) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tls = authority("the root of its TLS certificate");
        let config = Arc::new(server_config(if manner == Manner::OtherRoot { None } else { Some(&tls) }));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let service = Arc::new(Service { manner, issuer: authority("Fulcio"), seen: Arc::clone(&seen) });
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (service, config) = (Arc::clone(&service), Arc::clone(&config));
                // A helper that hangs up is not this server's trouble.
                thread::spawn(move || service.serve(socket, config).ok());
            }
        });
        Self { address, root: tls.der().to_vec(), manner, seen }
    }

    /// A socket as a parent passes it.
    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        socket
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.manner == Manner::Plain
    }

    /// The certificate signing requests that came, as PEM.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

struct Service {
    manner: Manner,
    issuer: CertifiedIssuer<'static, KeyPair>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn serve(&self, mut socket: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
        if self.manner == Manner::Plain {
            return self.answer(&mut socket);
        }
        let connection = ServerConnection::new(config).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        self.answer(&mut stream)?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    fn answer(&self, stream: &mut (impl Read + Write)) -> std::io::Result<()> {
        let request = read_request(stream)?;
        self.seen.lock().unwrap().push(requested(&request));
        let body = |status: &str, body: &Value| {
            let body = body.to_string();
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let text = match self.manner {
            Manner::Issue | Manner::Plain | Manner::OtherRoot | Manner::HangUp => {
                let chain = self.issue(&request);
                let whole = body("200 OK", &json!({ "signedCertificateEmbeddedSct": { "chain": chain } }));
                if self.manner == Manner::HangUp { whole[..whole.len() / 2].to_owned() } else { whole }
            }
            Manner::Detached => {
                let chain = self.issue(&request);
                let sct = Base64::encode_string(b"{\"sct_version\":0}");
                let detached = json!({ "chain": chain, "signedCertificateTimestamp": sct });
                body("201 Created", &json!({ "signedCertificateDetachedSct": detached }))
            }
            Manner::Chunked => {
                let answer = json!({ "signedCertificateEmbeddedSct": { "chain": self.issue(&request) } }).to_string();
                let mut text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
                for chunk in answer.as_bytes().chunks(700) {
                    text += &format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap());
                }
                text + "0\r\n\r\n"
            }
            Manner::Status(status) => {
                let token = request["credentials"]["oidcIdentityToken"].as_str().unwrap();
                body(&format!("{status} As Told"), &json!({ "code": 3, "message": format!("there is {token}\x1b[2J") }))
            }
            Manner::Silent => {
                // Until the other side is gone.
                stream.read_exact(&mut [0])?;
                return Ok(());
            }
            Manner::Huge => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                loop {
                    stream.write_all(format!("1000\r\n{}\r\n", " ".repeat(0x1000)).as_bytes())?;
                }
            }
            Manner::Noise => "220 mail.example ESMTP\r\n\r\n".to_owned(),
        };
        stream.write_all(text.as_bytes())?;
        stream.flush()
    }

    /// A certificate for the key in the request, and the authority's.
    fn issue(&self, request: &Value) -> Value {
        let request = CertificateSigningRequestParams::from_pem(&requested(request)).unwrap();
        let leaf = request.signed_by(&self.issuer).unwrap();
        json!({ "certificates": [leaf.pem(), self.issuer.pem()] })
    }
}

fn requested(request: &Value) -> String {
    let pem = Base64::decode_vec(request["certificateSigningRequest"].as_str().unwrap()).unwrap();
    String::from_utf8(pem).unwrap()
}

fn read_request(stream: &mut impl Read) -> std::io::Result<Value> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&part[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&bytes[..end]).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if bytes.len() == end + 4 + length.parse::<usize>().unwrap() {
            return Ok(serde_json::from_slice(&bytes[end + 4..]).unwrap());
        }
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn server_config(root: Option<&CertifiedIssuer<'static, KeyPair>>) -> ServerConfig {
    let other = authority("another root");
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["fulcio.test".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, root.unwrap_or(&other)).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}
