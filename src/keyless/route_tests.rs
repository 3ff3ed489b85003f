//! The way to Fulcio, with and without a proxy.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use super::*;
use crate::config::{Span, testing::minimal};

fn route(url: &str, more: &str) -> Route {
    let text = format!(
        "[keyless]\nfulcio_url = '{url}'\ntrusted_root = '/r'\n{more}\n[tenants.acme]\npredicate_types = ['*']\n\
         default_mode = 'keyless'\nkeyless = {{ identity = 'i', san = 'a://b' }}\n\
         [keyless.identity.i]\nissuer = 'https://i.example'\nsource = {{ file = '/t' }}\n"
    );
    Route::new(minimal(&text).keyless.as_ref().unwrap()).unwrap()
}

/// A Fulcio behind a proxy: one with TLS.
fn proxied(address: SocketAddr, more: &str) -> Route {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&ca, own.cert.pem()).unwrap();
    route("https://localhost:5555", &format!("ca = '{}'\nproxy = 'http://{address}'\n{more}", ca.display()))
}

async fn connect(route: &Route) -> Result<OwnedFd, RouteError> {
    route.connect(Instant::now() + Duration::from_secs(10)).await
}

/// Takes one connection, reads a request's head, and answers.
fn once(listener: TcpListener, answer: &'static [u8]) -> JoinHandle<(String, TcpStream)> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(answer).unwrap();
        (String::from_utf8(head).unwrap(), stream)
    })
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn the_socket_that_is_passed_on_blocks_and_has_its_time_outs() {
    let (listener, address) = listener();
    let route = route(&format!("http://{address}"), "step_timeout = '3s'");
    let stream = TcpStream::from(connect(&route).await.unwrap());
    let flags = nix::fcntl::fcntl(&stream, nix::fcntl::FcntlArg::F_GETFL).unwrap();
    assert_eq!(flags & libc::O_NONBLOCK, 0);
    assert!(stream.nodelay().unwrap());
    assert_eq!(stream.read_timeout().unwrap(), Some(Span::seconds(3).get()));
    assert_eq!(stream.write_timeout().unwrap(), Some(Span::seconds(3).get()));
    assert!(matches!(route.transport(), Transport::PlainLoopback));
    drop(listener);
}

#[tokio::test]
async fn a_proxy_is_asked_for_fulcio_and_for_nothing_else() {
    let (listener, address) = listener();
    let proxy = once(listener, b"HTTP/1.1 200 Connection established\r\n\r\nTLS");
    let route = proxied(address, "");
    let mut stream = TcpStream::from(connect(&route).await.unwrap());
    let (head, _open) = proxy.join().unwrap();
    assert_eq!(head, "CONNECT localhost:5555 HTTP/1.1\r\nHost: localhost:5555\r\n\r\n");
    let mut after = [0; 3];
    stream.read_exact(&mut after).unwrap();
    assert_eq!(&after, b"TLS", "what follows the proxy's answer is the helper's");
}

#[tokio::test]
async fn a_proxy_that_refuses_or_babbles_is_named() {
    for (answer, why) in [
        (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], "it answered 407"),
        (b"220 smtp.example\r\n\r\n", "its answer is no HTTP"),
    ] {
        let (listener, address) = listener();
        let proxy = once(listener, answer);
        let route = proxied(address, "");
        let error = connect(&route).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        proxy.join().unwrap();
    }
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_given_up_in_time() {
    let (listener, address) = listener();
    // A proxy that takes the connection and says nothing.
    let route = proxied(address, "connect_timeout = '100ms'");
    let begun = Instant::now();
    assert!(matches!(connect(&route).await, Err(RouteError::Late { .. })));
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(listener);
}

#[tokio::test]
async fn a_request_that_comes_late_says_nothing_about_fulcio() {
    let (listener, address) = listener();
    let route = proxied(address, "connect_timeout = '10s'");
    let error = route.connect(Instant::now() + Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, RouteError::OutOfTime { .. }), "{error}");
    drop(listener);
}

#[test]
fn plain_http_stays_on_this_machine() {
    assert!(loopback("127.0.0.1:80".parse().unwrap()).is_ok());
    assert!(loopback("[::1]:80".parse().unwrap()).is_ok());
    assert!(matches!(loopback("192.0.2.1:80".parse().unwrap()), Err(RouteError::NotLoopback { .. })));
}
