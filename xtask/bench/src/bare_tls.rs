//! The yardstick for handshakes: rustls against rustls in memory, without sockets, HTTP or our code.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use testkit::pki::Pki;
use testkit::{Context, Result};

/// Mutual TLS 1.3 handshakes per second, both sides on each of `threads` threads, with the certificates of the fixture,
/// this client and every check of a plain rustls server.
pub(crate) fn handshakes(pki: &Pki, client: &Arc<ClientConfig>, threads: usize, time: Duration) -> Result<f64> {
    let server = Arc::new(server(pki)?);
    let counts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| count(client, &server, time))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic in a handshake"))
            .collect::<io::Result<Vec<_>>>()
    });
    let total: u32 = counts.context("shake hands in memory")?.into_iter().sum();
    Ok(f64::from(total) / time.as_secs_f64())
}

fn server(pki: &Pki) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(pki.client_ca.roots(), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("choose TLS 1.3")?
        .with_client_cert_verifier(verifier.build().context("trust the client CA")?)
        .with_single_cert(pki.server.chain(), pki.server.key())
        .context("use the server certificate")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn count(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, time: Duration) -> io::Result<u32> {
    let until = Instant::now() + time;
    let mut done = 0;
    while Instant::now() < until {
        one(client, server)?;
        done += 1;
    }
    Ok(done)
}

fn one(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> io::Result<()> {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let mut client = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    let mut server = ServerConnection::new(Arc::clone(server)).map_err(io::Error::other)?;
    let mut wire = Vec::with_capacity(8 * 1024);
    while client.is_handshaking() || server.is_handshaking() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        deliver(&wire, |bytes| server.read_tls(bytes))?;
        server.process_new_packets().map_err(io::Error::other)?;
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire)?;
        }
        deliver(&wire, |bytes| client.read_tls(bytes))?;
        client.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

fn deliver(mut bytes: &[u8], mut to: impl FnMut(&mut dyn io::Read) -> io::Result<usize>) -> io::Result<()> {
    while !bytes.is_empty() {
        to(&mut bytes)?;
    }
    Ok(())
}
