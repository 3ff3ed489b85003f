//! Whether a Notary signature counts for an identity: the trust stores, the times, what is revoked
//! (`trust-store-trust-policy.md`, "Signature Verification").

use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::attributes::Scheme;
use super::certificates::Chain;
use super::subject::{self, Subject};
use super::{Envelope, NotaryError};
use crate::clock::UnixTime;
use crate::release::digest::Digest;
use crate::release::policy::ProvenTime;
use crate::sigstore::trusted_root::{Authority, ValidFor};
use crate::sigstore::x509::Certificate;
use crate::sigstore::{TimestampError, TrustedRoot, timestamp};

/// Whom an operator trusts to sign with notation.
#[derive(Debug, Default)]
pub(in crate::release) struct NotaryTrust {
    /// `x509/ca`: for the scheme `notary.x509`.
    pub(in crate::release) ca: Vec<CertificateDer<'static>>,
    /// `x509/signingAuthority`: for the scheme of that name.
    pub(in crate::release) signing_authority: Vec<CertificateDer<'static>>,
    /// `x509/tsa`: pinned roots of time stamp authorities.
    pub(in crate::release) tsa: TrustedRoot,
    /// Whose certificates count; empty for every one that the stores lead to.
    pub(in crate::release) subjects: Vec<Subject>,
    /// Keys whose certificates count no more, wherever in a chain: SHA-256 of the SubjectPublicKeyInfo.
    pub(in crate::release) revoked: Vec<Digest>,
}

/// A signature that counts, but for what was signed.
pub(in crate::release) struct Trusted {
    /// What proves when it was made.
    pub(in crate::release) time: Option<ProvenTime>,
    /// The first and the last moment that it may be of.
    pub(in crate::release) between: (UnixTime, UnixTime),
    /// When it ceases to count.
    pub(in crate::release) until: Option<UnixTime>,
}

impl NotaryTrust {
    /// Judges a signature: whose it is, then whether it is one, then when it was made. What costs a look comes before what
    /// costs a computation, since anybody who may push can make us look.
    pub(in crate::release) fn judge(&self, envelope: &Envelope, now: UnixTime) -> Result<Trusted, NotaryError> {
        let attributes = &envelope.attributes;
        let store = match attributes.scheme {
            Scheme::X509 => &self.ca,
            Scheme::SigningAuthority => &self.signing_authority,
        };
        if !envelope.chain.iter().any(|certificate| store.contains(certificate)) {
            return Err(NotaryError::Untrusted(attributes.scheme.name()));
        }
        self.refuse_revoked(&envelope.chain)?;
        let chain = Chain::check(&envelope.chain)?;
        chain.verify(attributes.algorithm, &envelope.signed, &envelope.signature)?;
        let name = chain.leaf().subject;
        if !self.subjects.is_empty() && !self.subjects.iter().any(|subject| subject.is_of(name)) {
            return Err(NotaryError::Subject(subject::shown(name)));
        }
        if let Some(expiry) = attributes.expiry.filter(|expiry| *expiry <= now) {
            return Err(NotaryError::Expired(expiry));
        }
        let (time, between) = self.time(envelope, now)?;
        let why = match time {
            None => "now, for want of a proven time",
            Some(_) => "when it was signed",
        };
        for at in [between.0, between.1] {
            if !chain.is_valid(at) {
                return Err(NotaryError::NotValid { at, why });
            }
        }
        let ends = if time.is_none() { chain.ends() } else { None };
        let until = [attributes.expiry, ends].into_iter().flatten().min();
        Ok(Trusted { time, between, until })
    }

    /// By key, because a certificate has as many digests as somebody likes: an ECDSA signature (r, s) holds as (r, n - s)
    /// too, so that anybody can write a revoked certificate in other bytes that its CA stands behind all the same.
    fn refuse_revoked<'c>(
        &self,
        chain: impl IntoIterator<Item = &'c CertificateDer<'static>>,
    ) -> Result<(), NotaryError> {
        if self.revoked.is_empty() {
            return Ok(());
        }
        // What is no certificate has no key, and makes no chain either.
        let mut keys = chain.into_iter().filter_map(|der| Certificate::parse(der).ok().map(|one| Digest::of(one.spki)));
        match keys.find(|key| self.revoked.contains(key)) {
            Some(key) => Err(NotaryError::Revoked(key)),
            None => Ok(()),
        }
    }

    /// When it was made: by the word of a pinned authority, of either kind; else the signature counts by today's clock.
    fn time(
        &self,
        envelope: &Envelope,
        now: UnixTime,
    ) -> Result<(Option<ProvenTime>, (UnixTime, UnixTime)), NotaryError> {
        let attributes = &envelope.attributes;
        if attributes.scheme == Scheme::SigningAuthority {
            let at = attributes.signing_time;
            if at > now.plus(SKEW) {
                return Err(NotaryError::Future(at));
            }
            return Ok((Some(ProvenTime { at, by: "signing_authority" }), (at, at)));
        }
        let by_the_clock = (None, (now, now));
        let Some(token) = &envelope.timestamp else { return Ok(by_the_clock) };
        match timestamp::verify_token(token, &envelope.signature, &self.tsa, now) {
            Ok(stamp) => {
                self.refuse_revoked(std::iter::once(&stamp.signer).chain(&stamp.issuers))?;
                let between = (stamp.time.minus(stamp.accuracy), stamp.latest.plus(stamp.accuracy));
                Ok((Some(ProvenTime { at: stamp.time, by: "timestamp" }), between))
            }
            // Of strangers nothing is believed, good or bad.
            Err(TimestampError::Untrusted | TimestampError::NoCertificate) => Ok(by_the_clock),
            Err(error) => Err(NotaryError::Timestamp(error)),
        }
    }
}

/// The certificates of a trust store: a PEM file. Each is a CA, or signs for itself.
///
/// # Errors
/// What is wrong with the file and what would be right.
pub(in crate::release) fn store(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let store = read.map_err(|_| "must be a file of PEM certificates".to_owned())?;
    if store.is_empty() || store.len() > MAX_STORE {
        return Err(format!("has {} PEM certificates; it must have 1 to {MAX_STORE}", store.len()));
    }
    for (at, der) in store.iter().enumerate() {
        let parsed = Certificate::parse(der).map_err(|_| format!("certificate {} is no DER X.509 v3", at + 1))?;
        let is_ca = parsed.basic_constraints().is_ok_and(|constraints| constraints.ca);
        if !is_ca && parsed.issuer != parsed.subject {
            return Err(format!("certificate {} is neither a CA's nor its own issuer; write the root's", at + 1));
        }
    }
    Ok(store)
}

/// The roots of time stamp authorities in a PEM file.
///
/// # Errors
/// As [`store`].
pub(in crate::release) fn tsa(path: &Path) -> Result<TrustedRoot, String> {
    let always = ValidFor { start: UnixTime(i64::MIN), end: None };
    let authorities = store(path)?.into_iter().enumerate().map(|(at, root)| {
        let uri = format!("{}#{}", path.display(), at + 1);
        Authority::new(uri, vec![root], always).map_err(|why| format!("certificate {}: the chain {why}", at + 1))
    });
    Ok(TrustedRoot { timestamp_authorities: authorities.collect::<Result<_, _>>()?, ..TrustedRoot::default() })
}

/// Certificates of one store. Operators have a handful of roots.
const MAX_STORE: usize = 64;

/// By how much a signing authority's clock may be ahead.
const SKEW: std::time::Duration = std::time::Duration::from_secs(60);
