#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn limits() -> OutboundLimits {
    OutboundLimits { timeout: Duration::from_secs(5), max_body_bytes: 64 }
}

fn plain(limits: OutboundLimits) -> Outbound {
    Outbound::new(OutboundTls::default(), limits, Handle::current()).unwrap()
}

/// A server that takes one connection, reads one request to the end of its headers (and of a form body ending in
/// `END`), and answers with `answer`. `None` never answers.
async fn serve(answer: Option<&'static str>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") && !seen.ends_with(b"END") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "the client closed early");
        }
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
            None => std::future::pending().await,
        }
        String::from_utf8(seen).unwrap()
    });
    (address, task)
}

#[tokio::test]
async fn a_get_returns_status_headers_and_body() {
    let (address, server) = serve(Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\n{}")).await;
    let url = format!("http://{address}/jwks");
    let fetched = plain(limits()).get(&url, "application/json").await.unwrap();
    assert_eq!((fetched.status, fetched.headers["x-a"].as_bytes()), (StatusCode::OK, &b"b"[..]));
    assert_eq!(fetched.into_ok_body(&url).unwrap(), "{}");
    let request = server.await.unwrap();
    assert!(request.starts_with("GET /jwks HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("accept: application/json\r\n"), "{request}");
}

#[tokio::test]
async fn a_form_is_encoded_and_its_headers_sent() {
    let (address, server) = serve(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let form = [("token", "a.b-c_d~e f&g=h+ü"), ("end", "END")];
    let header = (HeaderName::from_static("x-request"), HeaderValue::from_static("1"));
    plain(limits()).post_form(&format!("http://{address}/introspect"), &form, &[header]).await.unwrap();
    let request = server.await.unwrap();
    assert!(request.starts_with("POST /introspect HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
    assert!(request.contains("x-request: 1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\ntoken=a.b-c_d%7Ee+f%26g%3Dh%2B%C3%BC&end=END"), "{request}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let (address, _server) = serve(Some(answer)).await;
    let url = format!("http://{address}/");
    let fetched = plain(limits()).get(&url, "*/*").await.unwrap();
    assert_eq!(fetched.status, StatusCode::FOUND);
    assert!(matches!(fetched.into_ok_body(&url), Err(OutboundError::Status { status: StatusCode::FOUND, .. })));
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_refused_announced_or_not() {
    let announced: &'static str = "HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n";
    let chunked: &'static str = Box::leak(
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n41\r\n{}\r\n0\r\n\r\n", "x".repeat(65)).into(),
    );
    for answer in [announced, chunked] {
        let (address, _server) = serve(Some(answer)).await;
        let error = plain(limits()).get(&format!("http://{address}/"), "*/*").await.unwrap_err();
        assert!(matches!(error, OutboundError::TooLarge { limit: 64, .. }), "{error}");
    }
}

#[tokio::test]
async fn of_a_refusal_that_is_not_read_the_status_is_known() {
    let announced: &'static str = "HTTP/1.1 503 Away\r\ncontent-length: 9\r\n\r\n";
    let endless: &'static str = "HTTP/1.1 503 Away\r\ntransfer-encoding: chunked\r\n\r\n9\r\nxxxxxxxxx\r\n";
    let short: &'static str = "HTTP/1.1 503 Away\r\ncontent-length: 8\r\n\r\nxxxxxxxx";
    let whole: &'static str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nxxxxxxxxx";
    for (answer, status, bytes) in [(announced, 503, 0), (endless, 503, 0), (short, 503, 8), (whole, 200, 9)] {
        let (address, _server) = serve(Some(answer)).await;
        let outbound = plain(limits()).refusals_up_to(8);
        let fetched = outbound.get(&format!("http://{address}/"), "*/*").await.unwrap();
        assert_eq!((fetched.status.as_u16(), fetched.body.len()), (status, bytes), "{answer}");
    }
}

#[tokio::test]
async fn a_silent_service_costs_no_more_than_the_timeout() {
    let (address, server) = serve(None).await;
    let limits = OutboundLimits { timeout: Duration::from_millis(50), ..limits() };
    let error = plain(limits).get(&format!("http://{address}/a?secret=1"), "*/*").await.unwrap_err();
    assert!(matches!(error, OutboundError::Timeout { .. }), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    server.abort();
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = plain(limits()).get(&format!("http://{address}/"), "*/*").await.unwrap_err();
    assert!(matches!(error, OutboundError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn only_https_and_loopback_http_are_called() {
    let forbidden = [
        "http://authority.example/jwks",
        "http://10.0.0.1/jwks",
        "http://localhost.example/",
        "http://127.0.0.1.example/",
        "https://user:pass@authority.example/",
        "ftp://127.0.0.1/",
        "/jwks",
    ];
    for url in forbidden {
        let error = plain(limits()).get(url, "*/*").await.unwrap_err();
        assert!(matches!(error, OutboundError::Forbidden { .. }), "{url}: {error}");
        assert!(!error.to_string().contains("pass@"), "{error}");
    }
    assert!(matches!(plain(limits()).get("https://[", "*/*").await, Err(OutboundError::Url { .. })));
    for url in ["http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost:1/", "https://authority.example/"] {
        assert!(admitted(&parse(url).unwrap()).is_ok(), "{url}");
    }
}

#[test]
fn calls_are_made_on_the_background_runtime_whoever_asks() {
    let background = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (address, _server) = background.block_on(serve(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")));
    let outbound = Outbound::new(OutboundTls::default(), limits(), background.handle().clone()).unwrap();
    // A runtime without an I/O or time driver: anything done on it would panic.
    let caller = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let fetched = caller.block_on(outbound.get(&format!("http://{address}/"), "*/*")).unwrap();
    assert_eq!(fetched.status, StatusCode::OK);
}

mod over_tls {
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig};
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn ca() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn issue(
        ca: &CertifiedIssuer<'static, KeyPair>,
        name: &str,
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, ca).unwrap();
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    async fn serve(ca: &CertifiedIssuer<'static, KeyPair>, name: &str) -> SocketAddr {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let (chain, key) = issue(ca, name);
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {}
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        });
        address
    }

    #[tokio::test]
    async fn both_sides_prove_who_they_are() {
        let (ours, theirs) = (ca(), ca());
        let roots = |ca: &CertifiedIssuer<'static, KeyPair>| vec![ca.der().clone()];
        let cases = [
            ("localhost", OutboundTls { roots: roots(&ours), identity: Some(issue(&ours, "signer")) }, true),
            ("elsewhere", OutboundTls { roots: roots(&ours), identity: Some(issue(&ours, "signer")) }, false),
            ("localhost", OutboundTls { roots: roots(&theirs), identity: Some(issue(&ours, "signer")) }, false),
            ("localhost", OutboundTls { roots: roots(&ours), identity: Some(issue(&theirs, "signer")) }, false),
            ("localhost", OutboundTls { roots: roots(&ours), identity: None }, false),
            ("localhost", OutboundTls { roots: vec![], identity: None }, false),
        ];
        for (index, (name, tls, succeeds)) in cases.into_iter().enumerate() {
            let address = serve(&ours, name).await;
            let outbound = Outbound::new(tls, limits(), Handle::current()).unwrap();
            let result = outbound.get(&format!("https://localhost:{}/", address.port()), "*/*").await;
            assert_eq!(result.is_ok(), succeeds, "case {index}: {result:?}");
        }
    }
}

#[test]
fn a_pem_error_names_its_file_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for path in [&empty, &folder.path().join("absent.pem")] {
        let error = OutboundTls::load(Some(path), None).unwrap_err();
        assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
        let error = OutboundTls::load(Some(path), Some((path, path))).unwrap_err();
        assert!(matches!(error, OutboundError::Pem { .. }), "{error}");
    }
}
