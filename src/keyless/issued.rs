//! A certificate that Fulcio issued, after everything about it was checked.

#![forbid(unsafe_code)]

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use signer_keyless::wire::Signed;

use super::error::Refuted;
use crate::clock::UnixTime;
use crate::config;
use crate::dsse::{self, DerSignature, PublicKey, Signature};
use crate::sigstore::{self, CertificatePolicy, FulcioCertificate, Identity, SctError, SctPolicy, TrustedRoot, sct};

/// What answers are held against.
#[derive(Debug)]
pub(super) struct Pins {
    pub(super) root: TrustedRoot,
    policy: CertificatePolicy,
    sct: SctPolicy,
}

/// A certificate to which nothing is left to be checked, and the names that records and answers have for it.
#[derive(Debug)]
pub struct Issued {
    /// DER.
    pub leaf: CertificateDer<'static>,
    /// PEM, leaf first, then the pinned certificates that lead to the anchor.
    pub chain: Vec<String>,
    /// The one subject alternative name.
    pub san: String,
    /// The OIDC issuer.
    pub issuer: String,
    /// From when on it is valid.
    pub not_before: UnixTime,
    /// Until when, that second included.
    pub not_after: UnixTime,
    /// SHA-256 of its DER, in hexadecimal.
    pub sha256: String,
    /// `keyid` of signatures by its key.
    pub keyid: Arc<str>,
    public_key: PublicKey,
}

impl Pins {
    pub(super) fn new(root: TrustedRoot, config: &config::Keyless) -> Self {
        let required = usize::from(config.sct == config::SctPolicy::Required);
        Self {
            root,
            policy: CertificatePolicy {
                max_lifetime: config.max_certificate_lifetime.get(),
                skew: config.clock_skew.get(),
            },
            sct: SctPolicy { required },
        }
    }

    /// Judges what a helper returned, in the order in which each check makes the next one meaningful: who issued the
    /// certificate and whether it is what Fulcio issues (path to a pinned root, validity, life, extended key usage, one
    /// name); to whom; for which key; does the CT log know it; and does that key's signature stand over the digest that
    /// was sent.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn judge(
        &self,
        signed: &Signed,
        expected: &Identity,
        digest: &[u8; 32],
        now: UnixTime,
    ) -> Result<(Issued, DerSignature), Refuted> {
        let chain: Vec<CertificateDer<'_>> =
            signed.certificates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let certificate = sigstore::certificate::verify(&chain, &self.root, now, &self.policy)?;
        certificate.expect(expected)?;
        let key = PublicKey::from_sec1(&signed.public_key).map_err(|_| Refuted::Key)?;
        certificate.certifies(&key)?;
        self.check_scts(&certificate, signed.sct.as_deref())?;
        let signature = check(&key, digest, &signed.signature)?;
        let issuers = certificate.issuers.iter().map(|issuer| to_pem(issuer));
        let issued = Issued {
            chain: std::iter::once(to_pem(&certificate.leaf)).chain(issuers).collect(),
            san: certificate.san.value().to_owned(),
            issuer: certificate.issuer.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            sha256: crate::hex::sha256(&certificate.leaf),
            keyid: key.keyid().into(),
            leaf: certificate.leaf,
            public_key: key,
        };
        Ok((issued, signature))
    }

    /// The policy asks for promises in the certificate, because no form of a bundle carries one that came beside it. That
    /// one must not be false all the same.
    fn check_scts(&self, certificate: &FulcioCertificate, detached: Option<&[u8]>) -> Result<(), SctError> {
        let Some(detached) = detached.filter(|sct| !sct.is_empty()) else {
            return sct::verify_embedded(certificate, &self.root, self.sct).map(drop);
        };
        sct::verify_detached(certificate, detached, &self.root, SctPolicy { required: 0 })?;
        match sct::verify_embedded(certificate, &self.root, self.sct) {
            Err(SctError::Missing) => Err(SctError::Detached),
            judged => judged.map(drop),
        }
    }
}

impl Issued {
    /// A further signature by the same key, checked.
    pub(super) fn check(&self, digest: &[u8; 32], signature: &[u8]) -> Result<DerSignature, Refuted> {
        check(&self.public_key, digest, signature)
    }
}

fn check(key: &PublicKey, digest: &[u8; 32], signature: &[u8]) -> Result<DerSignature, Refuted> {
    let signature = Signature::from_der(signature)?;
    dsse::verify_digest(key, digest, &signature)?;
    Ok(signature.to_der())
}

/// RFC 7468, section 5.1.
fn to_pem(der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let mut pem = String::with_capacity(base64.len() + base64.len() / 64 + 60);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in base64.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
