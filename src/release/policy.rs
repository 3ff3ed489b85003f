//! Whom the operator trusts to release a scanner, and whether a candidate is signed by one of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::claim::{Claim, Form};
use super::digest::Digest;
use super::notary::Envelope;
use super::notary::trust::NotaryTrust;
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
    /// By a certificate that a trust store leads to, as the Notary Project has it.
    Notation(Box<NotaryTrust>),
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
    /// Of the signature's bytes.
    pub(super) signature: Digest,
    pub(super) time: Option<ProvenTime>,
    /// When it ceases to count, where it was judged by today's clock.
    pub(super) until: Option<UnixTime>,
}

/// When a signature existed at the latest, and what says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenTime {
    /// When.
    pub at: UnixTime,
    /// `timestamp`, `log_entry` or `signing_authority`.
    pub by: &'static str,
}

/// All that pinned authorities and logs prove of the time of one signature.
#[derive(Default)]
struct Times {
    /// The earliest says most.
    earliest: Option<ProvenTime>,
    /// Every one of them, and where a fraction of a second was stated, the second after it.
    moments: BTreeSet<UnixTime>,
}

impl Policy {
    /// Whether one of the identities has signed the candidate, and that it is a release of `image`. A candidate that
    /// fails for one identity may hold for another; of several reasons the one is given that came furthest.
    pub(super) fn judge(&self, found: &Found, image: Digest, now: UnixTime) -> Result<Accepted, Rejection> {
        let layer = &found.manifest.layers[found.layer];
        let Some(form) = found.form() else {
            let kind = super::claim::shown(&layer.media_type);
            return Err(Rejection::NotASignature(format!("a layer of type `{kind}`")));
        };
        if form.is_notary() {
            let envelope = Envelope::read(form, &found.blob)?;
            let accepted = self.first(|identity| identity.judge_notary(&envelope, now))?;
            return envelope.is_about(image, found.target.as_ref()).map(|()| accepted);
        }
        let claim = Claim::read(form, layer, &found.blob)?;
        let message = claim.message();
        let accepted = self.first(|identity| identity.judge(&claim, &message, now))?;
        claim.is_about(image).map(|()| accepted)
    }

    /// Whether a signature of the Notary Project could count at all.
    pub(super) fn has_notary(&self) -> bool {
        self.identities.iter().any(|identity| matches!(identity.signer, Signer::Notation(_)))
    }

    fn first(&self, judge: impl Fn(&ReleaseIdentity) -> Result<Accepted, Rejection>) -> Result<Accepted, Rejection> {
        let mut reason = Rejection::Signer("no identity is configured for a signature of this kind".to_owned());
        for identity in &self.identities {
            match judge(identity) {
                Ok(accepted) => return Ok(accepted),
                Err(rejection) if rejection.rank() >= reason.rank() => reason = rejection,
                Err(_) => {}
            }
        }
        Err(reason)
    }
}

impl ReleaseIdentity {
    fn judge(&self, claim: &Claim, message: &[u8], now: UnixTime) -> Result<Accepted, Rejection> {
        let times = match (&self.signer, &claim.certificate) {
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
                self.proven_times(claim, verifier, now)?
            }
            (Signer::Notation(_), _) => return Err(Rejection::Signer(UNKNOWN_KEY.to_owned())),
            (Signer::Certificate(..), None) => return Err(Rejection::Signer(UNKNOWN_KEY.to_owned())),
            (Signer::Certificate(expected, scts), Some(leaf)) => {
                let roots = self.roots.as_ref().ok_or(Rejection::Certificate(CertificateError::UntrustedIssuer))?;
                let judged = |at: UnixTime| {
                    let chain = std::slice::from_ref(leaf);
                    certificate::verify(chain, &roots.sigstore, at, &CertificatePolicy::OFFLINE)
                        .map_err(Rejection::Certificate)
                };
                // Who it is comes before when it was, so that a stranger's signature is called a stranger's, and so that
                // nobody but the holder of a trusted certificate's key has a list of time stamps verified. The one moment
                // that is known by then is the certificate's first second.
                let certificate = judged(first_second(leaf))?;
                certificate.expect(expected).map_err(Rejection::Certificate)?;
                let sha256: [u8; 32] = digest(&SHA256, message).as_ref().try_into().expect("SHA-256 has 32 bytes");
                let verified = crate::dsse::Signature::from_der(&claim.signature)
                    .and_then(|signature| verify_digest(&certificate.public_key, &sha256, &signature));
                verified.map_err(|error: SignatureError| {
                    Rejection::Signer(format!("the signature is not by the key of its certificate: {error}"))
                })?;
                let times = self.proven_times(claim, leaf, now)?;
                if times.earliest.is_none() {
                    return Err(Rejection::TimeMissing);
                }
                // It must have been valid at every proven time, as for every other verifier of Sigstore.
                for at in &times.moments {
                    judged(*at)?;
                }
                sct::verify_embedded(&certificate, &roots.sigstore, *scts).map_err(Rejection::Sct)?;
                times
            }
        };
        self.accept(claim.form, &claim.signature, times.earliest, &times.moments, None, now)
    }

    fn judge_notary(&self, envelope: &Envelope, now: UnixTime) -> Result<Accepted, Rejection> {
        let Signer::Notation(trust) = &self.signer else {
            return Err(Rejection::Signer("no configured identity signs with notation".to_owned()));
        };
        let trusted = trust.judge(envelope, now)?;
        let moments = BTreeSet::from([trusted.between.0, trusted.between.1]);
        self.accept(envelope.form, &envelope.signature, trusted.time, &moments, trusted.until, now)
    }

    /// What the identity itself demands of the time. `moments` are those that are proven; where none is, today's clock
    /// decides, and the signature counts for as long as that lets it, and up to `until`.
    fn accept(
        &self,
        form: Form,
        signature: &[u8],
        time: Option<ProvenTime>,
        moments: &BTreeSet<UnixTime>,
        until: Option<UnixTime>,
        now: UnixTime,
    ) -> Result<Accepted, Rejection> {
        if self.require_time && time.is_none() {
            return Err(Rejection::TimeRequired(self.name.to_string()));
        }
        let by_the_clock = BTreeSet::from([now]);
        let moments = if time.is_none() { &by_the_clock } else { moments };
        for at in moments {
            self.in_window(*at, time.is_some())?;
        }
        let ends = if time.is_none() { self.not_after } else { None };
        let until = [until, ends].into_iter().flatten().min();
        Ok(Accepted { identity: Arc::clone(&self.name), form, signature: Digest::of(signature), time, until })
    }

    /// The times that pinned authorities and logs prove. One that lies about being pinned is an error; of strangers nothing
    /// is believed. Each is an upper bound and whoever hands the signature in chooses which to show, so that the earliest
    /// alone would do where all clocks are right: where they disagree about a certificate or a window, nothing is proven.
    fn proven_times(&self, claim: &Claim, verifier: &[u8], now: UnixTime) -> Result<Times, Rejection> {
        let mut times = Times::default();
        let Some(roots) = &self.roots else { return Ok(times) };
        let mut add = |at, latest, by| {
            if times.earliest.is_none_or(|known| at < known.at) {
                times.earliest = Some(ProvenTime { at, by });
            }
            times.moments.extend([at, latest]);
        };
        for (index, response) in claim.timestamps.iter().enumerate() {
            if claim.timestamps[..index].contains(response) {
                return Err(Rejection::Twice("time stamp"));
            }
            match timestamp::verify(response, &claim.signature, &roots.sigstore, now) {
                Ok(stamp) => add(stamp.time, stamp.latest, "timestamp"),
                Err(TimestampError::Untrusted | TimestampError::NoCertificate) => {}
                Err(error) => return Err(Rejection::Timestamp(error)),
            }
        }
        if !claim.log_entries.is_empty() {
            let content: [u8; 32] = digest(&SHA256, &claim.content).as_ref().try_into().expect("SHA-256 has 32 bytes");
            let logged = Logged { signature: &claim.signature, content_sha256: &content, verifier };
            for (index, entry) in claim.log_entries.iter().enumerate() {
                if claim.log_entries[..index].contains(entry) {
                    return Err(Rejection::Twice("log entry"));
                }
                match roots.logs.verify(entry, &logged) {
                    Ok(at) if at > now.plus(SKEW) => return Err(Rejection::Log(LogError::Time(at))),
                    Ok(at) => add(at, at, "log_entry"),
                    Err(LogError::UnknownLog) => {}
                    Err(error) => return Err(Rejection::Log(error)),
                }
            }
        }
        Ok(times)
    }

    fn in_window(&self, at: UnixTime, proven: bool) -> Result<(), Rejection> {
        let outside = |why| {
            let identity = self.name.to_string();
            Err(Rejection::Window { identity, why, at, proven })
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
