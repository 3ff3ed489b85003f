#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, CertificateRevocationListParams, KeyPair, SerialNumber, date_time_ymd};

use super::*;

/// Accepts or refuses everything, and counts how often it was asked.
#[derive(Debug)]
struct Counting {
    asked: Arc<AtomicUsize>,
    accepts: bool,
}

impl ClientCertVerifier for Counting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.accepts {
            true => Ok(ClientCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(rustls::CertificateError::Revoked)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("not part of this test".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("not part of this test".into()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Vec::new()
    }
}

fn remembering(accepts: bool, lists: &[CertificateRevocationListDer<'_>]) -> (RememberingVerifier, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let inner = Arc::new(Counting { asked: Arc::clone(&asked), accepts });
    (RememberingVerifier::new(inner, lists), asked)
}

/// A certificate that ends with the year 2030.
fn certificate() -> CertificateDer<'static> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.not_after = date_time_ymd(2031, 1, 1);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn at(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap()))
}

/// 2030-06-01, a moment at which everything here is valid.
const NOW: i64 = 1_906_502_400;

#[test]
fn the_same_chain_is_verified_once_a_minute() {
    let (verifier, asked) = remembering(true, &[]);
    let leaf = certificate();
    for (second, expected) in [(0, 1), (1, 1), (59, 1), (60, 2), (61, 2)] {
        verifier.verify_client_cert(&leaf, &[], at(NOW + second)).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), expected, "after {second} s");
    }
}

#[test]
fn another_chain_is_another_question() {
    let (verifier, asked) = remembering(true, &[]);
    let (leaf, other, issuer) = (certificate(), certificate(), certificate());
    verifier.verify_client_cert(&leaf, &[], at(NOW)).unwrap();
    verifier.verify_client_cert(&other, &[], at(NOW)).unwrap();
    verifier.verify_client_cert(&leaf, std::slice::from_ref(&issuer), at(NOW)).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[test]
fn a_refusal_is_not_remembered() {
    let (verifier, asked) = remembering(false, &[]);
    let leaf = certificate();
    for _ in 0..2 {
        assert!(verifier.verify_client_cert(&leaf, &[], at(NOW)).is_err());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn no_chain_outlives_its_certificates() {
    let (verifier, asked) = remembering(true, &[]);
    let leaf = certificate();
    let end = date_time_ymd(2031, 1, 1).unix_timestamp();
    verifier.verify_client_cert(&leaf, &[], at(end - 10)).unwrap();
    verifier.verify_client_cert(&leaf, &[], at(end - 1)).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    verifier.verify_client_cert(&leaf, &[], at(end)).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn no_chain_outlives_the_revocation_list() {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2030, 5, 1),
        next_update: date_time_ymd(2030, 6, 2),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
    let issuer = rcgen::Issuer::new(ca, KeyPair::generate().unwrap());
    let list = params.signed_by(&issuer).unwrap();
    let (verifier, asked) = remembering(true, std::slice::from_ref(list.der()));
    let leaf = certificate();
    let end = date_time_ymd(2030, 6, 2).unix_timestamp();
    verifier.verify_client_cert(&leaf, &[], at(end - 2)).unwrap();
    verifier.verify_client_cert(&leaf, &[], at(end - 1)).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    verifier.verify_client_cert(&leaf, &[], at(end)).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn what_cannot_be_read_is_verified_each_time() {
    let (verifier, asked) = remembering(true, &[]);
    let leaf = CertificateDer::from(b"no certificate".to_vec());
    for _ in 0..2 {
        verifier.verify_client_cert(&leaf, &[], at(NOW)).unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}
