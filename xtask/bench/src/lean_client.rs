//! A TLS client that costs little beside the server: it verifies the server's chain the first time, and from then on
//! compares its bytes. The proof that the server holds the key is verified every time.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use testkit::{Context, Result};

/// `config` for full handshakes one after the other with one server.
pub(crate) fn config(config: &ClientConfig, roots: Arc<RootCertStore>) -> Result<ClientConfig> {
    let provider = Arc::clone(config.crypto_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    let inner = inner.context("trust the server's CA")?;
    let mut config = config.clone();
    config.resumption = Resumption::disabled();
    config.dangerous().set_certificate_verifier(Arc::new(Remembering { inner, accepted: OnceLock::new() }));
    Ok(config)
}

#[derive(Debug)]
struct Remembering {
    inner: Arc<WebPkiServerVerifier>,
    accepted: OnceLock<(CertificateDer<'static>, ServerName<'static>)>,
}

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        let known = self.accepted.get();
        if known.is_some_and(|(certificate, name)| certificate == end_entity && name == server_name) {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        // Another thread's first handshake may have been first.
        let _ = self.accepted.set((end_entity.clone().into_owned(), server_name.to_owned()));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
