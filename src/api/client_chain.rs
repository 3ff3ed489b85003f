//! Verification of client certificates, with a short memory: a client that connects again with the same chain costs one
//! signature verification, the proof that it holds the key, instead of three (chain and revocation list besides).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Remembers which chains its inner verifier accepted, by their exact bytes, for [`MEMORY`] at most and never beyond the
/// end of a certificate or a revocation list. New revocation lists come with a new verifier, and so with no memory.
#[derive(Debug)]
pub(super) struct RememberingVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    /// The earliest `nextUpdate` of the revocation lists.
    lists_end: Option<u64>,
    /// Seconds since the epoch until which a chain needs no second look.
    accepted: Mutex<HashMap<[u8; 32], u64>>,
}

impl RememberingVerifier {
    /// `lists` are those that `inner` consults.
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, lists: &[CertificateRevocationListDer<'_>]) -> Self {
        let lists_end = lists.iter().map(|list| next_update(list)).min();
        Self { inner, lists_end, accepted: Mutex::default() }
    }

    /// The earliest `nextUpdate` of the revocation lists, in seconds since the epoch; `None` without a list.
    pub(super) fn lists_end(&self) -> Option<u64> {
        self.lists_end
    }

    fn remembers(&self, chain: &[u8; 32], now: UnixTime) -> bool {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.get(chain).is_some_and(|until| now.as_secs() < *until)
    }

    fn remember(&self, chain: [u8; 32], until: u64, now: UnixTime) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.len() >= MAX_REMEMBERED {
            accepted.retain(|_, until| now.as_secs() < *until);
        }
        // More clients than that within a minute: the rest is verified in full.
        if accepted.len() < MAX_REMEMBERED {
            accepted.insert(chain, until);
        }
    }
}

impl ClientCertVerifier for RememberingVerifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = identity(end_entity, intermediates);
        if self.remembers(&chain, now) {
            return Ok(ClientCertVerified::assertion());
        }
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        // `min` of nothing that can be read is the past: such a chain is verified each time.
        let certificates_end = std::iter::once(end_entity).chain(intermediates).map(not_after).min().unwrap_or(0);
        let until = (now.as_secs() + MEMORY.as_secs()).min(certificates_end).min(self.lists_end.unwrap_or(u64::MAX));
        self.remember(chain, until, now);
        Ok(verified)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// SHA-256 over every certificate of the chain, each with its length before it, so that no two chains run together.
fn identity(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for certificate in std::iter::once(end_entity).chain(intermediates) {
        context.update(&(certificate.len() as u64).to_be_bytes());
        context.update(certificate);
    }
    let mut identity = [0; 32];
    identity.copy_from_slice(context.finish().as_ref());
    identity
}

/// Seconds since the epoch; 0 for what cannot be read.
fn not_after(certificate: &CertificateDer<'_>) -> u64 {
    let parsed = X509Certificate::from_der(certificate).ok();
    parsed.and_then(|(_, parsed)| u64::try_from(parsed.validity().not_after.timestamp()).ok()).unwrap_or(0)
}

/// Seconds since the epoch; 0 for a list that cannot be read or does not say.
fn next_update(list: &CertificateRevocationListDer<'_>) -> u64 {
    let parsed = CertificateRevocationList::from_der(list).ok();
    let next = parsed.and_then(|(_, list)| list.next_update()).map(|time| time.timestamp());
    next.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0)
}

const MEMORY: Duration = Duration::from_secs(60);
const MAX_REMEMBERED: usize = 10_000;

#[cfg(test)]
#[path = "client_chain_tests.rs"]
mod tests;
