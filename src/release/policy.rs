//! Whom the operator trusts to release a scanner, and whether a candidate is signed by one of them.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::claim::{Claim, Form};
use super::digest::Digest;
use super::rejection::Rejection;
use super::search::Found;
use crate::clock::UnixTime;
use crate::dsse::{SignatureError, verify_digest};
use crate::sigstore::certificate::{self, CertificateError, CertificatePolicy};
use crate::sigstore::log::{LogError, Logged, TransparencyLogs};
use crate::sigstore::{Identity as CertificateIdentity, SctPolicy, TrustedRoot, VerifyingKey, sct, timestamp};
use crate::sigstore::{TimestampError, trusted_root};

/// The release identities.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) identities: Vec<ReleaseIdentity>,
}

/// Somebody who releases scanners.
#[derive(Debug)]
pub(super) struct ReleaseIdentity {
    pub(super) name: Arc<str>,
    pub(super) signer: Signer,
    /// What proves when it was signed; for a certificate also who issued it.
    pub(super) roots: Option<Arc<Roots>>,
    /// Its signatures count from this moment on.
    pub(super) not_before: Option<UnixTime>,
    /// And up to this one.
    pub(super) not_after: Option<UnixTime>,
    /// A signature of a key, too, must have a proven time.
    pub(super) require_time: bool,
}

/// How its signatures are known.
#[derive(Debug)]
pub(super) enum Signer {
    /// By this key.
    Key(Box<VerifyingKey>),
    /// By a certificate that a pinned Fulcio issued to this identity.
    Certificate(CertificateIdentity, SctPolicy),
}

/// A trusted root, read for both of its uses.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) sigstore: TrustedRoot,
    pub(super) logs: TransparencyLogs,
}

/// A signature that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) identity: Arc<str>,
    pub(super) form: Form,
    pub(super) time: Option<ProvenTime>,
    /// When it ceases to count, where it was judged by today's clock.
    pub(super) until: Option<UnixTime>,
}

/// When a signature existed at the latest, and what says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenTime {
    /// When.
    pub at: UnixTime,
    /// `timestamp` or `log_entry`.
    pub by: &'static str,
}

impl Policy {
    /// Whether one of the identities has signed the candidate, and that it is a release of `image`. A candidate that
    /// fails for one identity may hold for another; of several reasons the one is given that came furthest.
    pub(super) fn judge(&self, found: &Found, image: Digest, now: UnixTime) -> Result<Accepted, Rejection> {
        let layer = &found.manifest.layers[found.layer];
        let claim = Claim::read(layer, &found.blob)?;
        let message = claim.message();
        let mut reason = Rejection::Signer("no identity is configured for a signature of this kind".to_owned());
        for identity in &self.identities {
            match identity.judge(&claim, &message, now) {
                Ok(accepted) => return claim.is_about(image).map(|()| accepted),
                Err(rejection) if rejection.rank() >= reason.rank() => reason = rejection,
                Err(_) => {}
            }
        }
        Err(reason)
    }
}

impl ReleaseIdentity {
    fn judge(&self, claim: &Claim, message: &[u8], now: UnixTime) -> Result<Accepted, Rejection> {
        let time = match (&self.signer, &claim.certificate) {
            (Signer::Key(key), certificate) => {
                // The signature first: what is not this key's is nobody's business here. A certificate that came along
                // with it decides nothing.
                if !key.verifies(message, &claim.signature) {
                    let what = if certificate.is_some() {
                        "its certificate is of no configured identity"
                    } else {
                        UNKNOWN_KEY
                    };
                    return Err(Rejection::Signer(what.to_owned()));
                }
                let verifier = certificate.as_ref().map_or(key.spki(), |certificate| certificate);
                self.proven_time(claim, verifier, now)?
            }
            (Signer::Certificate(..), None) => return Err(Rejection::Signer(UNKNOWN_KEY.to_owned())),
            (Signer::Certificate(expected, scts), Some(leaf)) => {
                let roots = self.roots.as_ref().ok_or(Rejection::Certificate(CertificateError::UntrustedIssuer))?;
                let time = self.proven_time(claim, leaf, now)?;
                // Who it is comes before when it was, so that a stranger's signature is called a stranger's: for want of
                // a proven time the certificate is looked at as of its first second, and then refused all the same.
                let at = time.map_or_else(|| first_second(leaf), |time| time.at);
                let chain = std::slice::from_ref(leaf);
                let certificate = certificate::verify(chain, &roots.sigstore, at, &CertificatePolicy::OFFLINE)
                    .map_err(Rejection::Certificate)?;
                certificate.expect(expected).map_err(Rejection::Certificate)?;
                if time.is_none() {
                    return Err(Rejection::TimeMissing);
                }
                sct::verify_embedded(&certificate, &roots.sigstore, *scts).map_err(Rejection::Sct)?;
                let sha256: [u8; 32] = digest(&SHA256, message).as_ref().try_into().expect("SHA-256 has 32 bytes");
                let verified = crate::dsse::Signature::from_der(&claim.signature)
                    .and_then(|signature| verify_digest(&certificate.public_key, &sha256, &signature));
                verified.map_err(|error: SignatureError| {
                    Rejection::Signer(format!("the signature is not by the key of its certificate: {error}"))
                })?;
                time
            }
        };
        if self.require_time && time.is_none() {
            return Err(Rejection::TimeRequired(self.name.to_string()));
        }
        self.in_window(time, now)?;
        let until = if time.is_none() { self.not_after } else { None };
        Ok(Accepted { identity: Arc::clone(&self.name), form: claim.form, time, until })
    }

    /// The earliest time that a pinned authority or log proves. One that lies about being pinned is an error; of
    /// strangers nothing is believed.
    fn proven_time(&self, claim: &Claim, verifier: &[u8], now: UnixTime) -> Result<Option<ProvenTime>, Rejection> {
        let Some(roots) = &self.roots else { return Ok(None) };
        let mut proven: Option<ProvenTime> = None;
        let mut add = |at, by| {
            if proven.is_none_or(|known| at < known.at) {
                proven = Some(ProvenTime { at, by });
            }
        };
        for response in &claim.timestamps {
            match timestamp::verify(response, &claim.signature, &roots.sigstore, now) {
                Ok(stamp) => add(stamp.time, "timestamp"),
                Err(TimestampError::Untrusted | TimestampError::NoCertificate) => {}
                Err(error) => return Err(Rejection::Timestamp(error)),
            }
        }
        if !claim.log_entries.is_empty() {
            let content: [u8; 32] = digest(&SHA256, &claim.content).as_ref().try_into().expect("SHA-256 has 32 bytes");
            let logged = Logged { signature: &claim.signature, content_sha256: &content, verifier };
            for entry in &claim.log_entries {
                match roots.logs.verify(entry, &logged) {
                    Ok(at) if at > now.plus(SKEW) => return Err(Rejection::Log(LogError::Time(at))),
                    Ok(at) => add(at, "log_entry"),
                    Err(LogError::UnknownLog) => {}
                    Err(error) => return Err(Rejection::Log(error)),
                }
            }
        }
        Ok(proven)
    }

    fn in_window(&self, time: Option<ProvenTime>, now: UnixTime) -> Result<(), Rejection> {
        let at = time.map_or(now, |time| time.at);
        let outside = |why| {
            let identity = self.name.to_string();
            Err(Rejection::Window { identity, why, at, proven: time.is_some() })
        };
        match (self.not_before, self.not_after) {
            (Some(start), _) if at < start => outside("does not count yet"),
            (_, Some(end)) if at > end => outside("no longer counts"),
            _ => Ok(()),
        }
    }
}

impl Roots {
    pub(super) fn load(path: &std::path::Path) -> Result<Self, trusted_root::TrustedRootError> {
        Ok(Self { sigstore: TrustedRoot::load(path)?, logs: TransparencyLogs::load(path)? })
    }
}

/// `notBefore` of a certificate, by its own word.
fn first_second(leaf: &[u8]) -> UnixTime {
    crate::sigstore::not_before(leaf).unwrap_or(UnixTime(0))
}

const UNKNOWN_KEY: &str = "the key that made it is none of the configured ones";

/// By how much a log's clock may be ahead.
const SKEW: std::time::Duration = std::time::Duration::from_secs(60);
