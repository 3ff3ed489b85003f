//! TLS: without a good client certificate there is no HTTP.

#![forbid(unsafe_code)]

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use testkit::client::{TlsOptions, TlsVersions};
use testkit::pki::{Ca, Identity, Leaf};
use testkit::raw::Raw;
use testkit::{Context as _, Result};

use crate::case::{Case, Expect};
use crate::wire::{self, PATIENCE, Request, Wire};
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let shown = |&(name, reason, identity): &(&str, &'static [&'static str], fn(&World) -> Option<Identity>)| {
        Case::wire(format!("TLS: {name}"), Expect::Cut(None, reason), move |world| {
            shake(world, |options| options.identity = identity(world))
        })
    };
    let certified = |&(name, reason, certificate): &(&str, &'static [&'static str], fn(&World) -> CertifiedKey)| {
        Case::wire(format!("TLS: {name}"), Expect::Cut(None, reason), move |world| {
            shake_showing(world, certificate(world))
        })
    };
    let offered = |&(name, reason, change): &(&str, &'static [&'static str], fn(&mut TlsOptions))| {
        Case::wire(format!("TLS: {name}"), Expect::Cut(None, reason), move |world| shake(world, change))
    };
    let bytes = |&(name, reason, bytes): &(&str, &'static [&'static str], fn() -> Vec<u8>)| {
        Case::wire(format!("TLS: {name}"), Expect::Cut(None, reason), move |world| say(world, &bytes()))
    };
    let mut cases: Vec<Case> = SHOWN.iter().map(shown).collect();
    cases.extend(CERTIFIED.iter().map(certified));
    cases.extend(OFFERED.iter().map(offered));
    cases.extend(BYTES.iter().map(bytes));
    cases.push(Case::wire("TLS: no ALPN, which means HTTP/1.1 (is right)", Expect::Accepted, |world| {
        let options = world.client().tls().clone();
        let mut raw = Raw::tls_over(wire::tcp(world)?, options.config()?, &options)?;
        raw.send(Request::good(world).bytes())?;
        wire::finish(&mut raw, 1)
    }));
    cases
}

const SHOWN: [(&str, &[&str], fn(&World) -> Option<Identity>); 9] = [
    ("no client certificate", &["no_client_certificate"], |_| None),
    ("a certificate of another CA", &["client_certificate_unknown_issuer"], |w| Some(w.fixture.pki.stranger.clone())),
    ("a certificate of another CA of the same name", INVALID, |w| {
        let dir = w.fixture.dir().join("impostor");
        std::fs::create_dir_all(&dir).unwrap();
        Some(Ca::generate(&dir, "client-ca").unwrap().issue(&Leaf::client("impostor")).unwrap())
    }),
    ("a certificate of our server's CA", &["client_certificate_unknown_issuer"], |w| {
        Some(w.fixture.pki.server_ca.issue(&Leaf::client("from-server-ca")).unwrap())
    }),
    ("an expired certificate", &["client_certificate_expired"], |w| Some(w.fixture.pki.expired.clone())),
    ("a certificate that is not valid yet", &["client_certificate_not_yet_valid"], |w| {
        Some(w.fixture.pki.early.clone())
    }),
    ("a revoked certificate", &["client_certificate_revoked"], |w| Some(w.fixture.pki.revoked.clone())),
    ("a certificate for servers only", INVALID, |w| Some(w.fixture.pki.wrong_usage.clone())),
    ("the signer's own certificate", &["client_certificate_unknown_issuer", "client_certificate_invalid"], |w| {
        Some(w.fixture.pki.server.clone())
    }),
];

const CERTIFIED: [(&str, &[&str], fn(&World) -> CertifiedKey); 5] = [
    ("somebody's certificate, without its key", BAD_PROOF, |w| {
        certified(w.fixture.pki.acme.chain(), &w.fixture.pki.globex)
    }),
    ("a certificate with one bit changed", INVALID, |w| {
        let mut der = w.fixture.pki.acme.chain()[0].to_vec();
        *der.last_mut().unwrap() ^= 1;
        certified(vec![der.into()], &w.fixture.pki.acme)
    }),
    ("a certificate that is no DER", BAD_PROOF, |w| certified(vec![vec![0x30; 600].into()], &w.fixture.pki.acme)),
    ("a CA's certificate with a leaf's key", BAD_PROOF, |w| {
        let der = std::fs::read(&w.fixture.pki.client_ca.certificate).unwrap();
        certified(pem_certificates(&der), &w.fixture.pki.acme)
    }),
    ("a chain of two hundred certificates", BAD_PROOF, |w| {
        let chain = w.fixture.pki.acme.chain();
        certified(vec![chain[0].clone(); 200], &w.fixture.pki.globex)
    }),
];

const OFFERED: [(&str, &[&str], fn(&mut TlsOptions)); 3] = [
    ("TLS 1.2 where 1.3 is the least", &["tls_incompatible"], |options| options.versions = TlsVersions::Only12),
    ("ALPN of another protocol", &["no_common_alpn"], |options| options.alpn = Some(vec![b"smtp".to_vec()])),
    ("ALPN of HTTP/1.0", &["no_common_alpn"], |options| options.alpn = Some(vec![b"http/1.0".to_vec()])),
];

const BYTES: [(&str, &[&str], fn() -> Vec<u8>); 9] = [
    ("plain HTTP", MALFORMED, || b"GET /api/v1/signer/keys HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
    ("the preface of plain HTTP/2", MALFORMED, || b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ("a proxy's announcement of somebody else", MALFORMED, || b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n".to_vec()),
    ("zeros", MALFORMED, || vec![0; 4096]),
    ("a record longer than any may be", MALFORMED, || [&[0x16, 3, 1, 0xff, 0xff][..], &[1; 512]].concat()),
    ("a record that begins with application data", MALFORMED, || [&[0x17, 3, 3, 0, 16][..], &[7; 16]].concat()),
    ("a ClientHello that is garbage", MALFORMED, || [&[0x16, 3, 1, 0, 8, 1, 0, 0, 4][..], &[0xff; 4]].concat()),
    ("an alert instead of a hello", &["client_alert", "tls_malformed"], || vec![0x15, 3, 3, 0, 2, 2, 40]),
    ("nothing", &["connection_lost"], Vec::new),
];

const INVALID: &[&str] = &["client_certificate_invalid", "client_certificate_unknown_issuer"];
const BAD_PROOF: &[&str] =
    &["client_certificate_invalid", "client_certificate_unknown_issuer", "tls_malformed", "tls_failed"];
const MALFORMED: &[&str] = &["tls_malformed"];

/// A handshake, and what the appliance does after it: with TLS 1.3 a client believes to be done before it is judged.
fn shake(world: &World, change: impl FnOnce(&mut TlsOptions)) -> Result<Wire> {
    let mut options = world.client().tls().clone();
    options.alpn = Some(vec![b"http/1.1".to_vec()]);
    change(&mut options);
    let config = options.config()?;
    shake_with(world, config, &options)
}

fn shake_showing(world: &World, certificate: CertifiedKey) -> Result<Wire> {
    let options = world.client().tls().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .with_root_certificates(options.roots.clone())
        .with_client_cert_resolver(Arc::new(Show(Arc::new(certificate))));
    shake_with(world, config, &options)
}

fn shake_with(world: &World, config: ClientConfig, options: &TlsOptions) -> Result<Wire> {
    let tcp = wire::tcp(world)?;
    let from = tcp.local_addr()?;
    match Raw::tls_over(tcp, config, options) {
        Err(error) => Ok(wire::failed(from, &error)),
        Ok(mut raw) => {
            // A request that must not be answered.
            let _ = raw.send(Request::good(world).bytes());
            Ok(Wire { from, received: raw.receive(PATIENCE) })
        }
    }
}

/// Says these bytes over TCP and nothing more.
fn say(world: &World, bytes: &[u8]) -> Result<Wire> {
    let mut raw = Raw::plain(world.fixture.appliance.addr())?;
    let from = raw.local_addr()?;
    raw.send(bytes)?;
    raw.finish_sending()?;
    Ok(Wire { from, received: raw.receive(PATIENCE) })
}

/// Shows a certificate whatever the server asks for and whether or not it is the key's.
#[derive(Debug)]
struct Show(Arc<CertifiedKey>);

impl ResolvesClientCert for Show {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &Identity) -> CertifiedKey {
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key.key()).unwrap();
    CertifiedKey::new(chain, key)
}

fn pem_certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::pem_slice_iter(pem).map(|certificate| certificate.unwrap()).collect()
}
