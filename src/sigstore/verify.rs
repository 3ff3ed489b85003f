//! The whole of an offline verification: one function, top to bottom.

use std::collections::BTreeSet;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use super::certificate::{self, CertificateError, CertificatePolicy, FulcioCertificate, Identity};
use super::sct::{self, SctError, SctPolicy, VerifiedSct};
use super::timestamp::{self, Timestamp, TimestampError};
use super::trusted_root::TrustedRoot;
use crate::clock::UnixTime;
use crate::dsse::{Envelope, PublicKey, SignatureError};
use crate::statement::{ReadStatement, StatementError};

/// An envelope with what came along with it, in whatever form.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The envelope.
    pub envelope: &'a Envelope,
    /// Certificates, leaf first. A Sigstore bundle has the leaf alone; a key has none, or some that are not looked at.
    pub chain: &'a [CertificateDer<'static>],
    /// Whole RFC 3161 responses.
    pub timestamps: &'a [Vec<u8>],
}

/// What is demanded, and by which clock.
#[derive(Clone, Copy, Debug)]
pub struct Demands<'a> {
    /// Whose signature.
    pub signer: Trusted<'a>,
    /// The pinned Fulcios, CT logs and timestamp authorities. Without it, timestamps are not looked at.
    pub root: Option<&'a TrustedRoot>,
    /// A timestamp of a pinned authority must be there, for a key as well.
    pub require_timestamp: bool,
    /// When a person says that the signature was made, for a certificate without a timestamp. It proves nothing.
    pub asserted_time: Option<UnixTime>,
    /// The longest life of a certificate; [`CertificatePolicy::OFFLINE`] has what others allow.
    pub max_certificate_lifetime: Duration,
    /// The verifier's clock.
    pub now: UnixTime,
    /// Digests that must each be one of a subject: algorithm as in-toto names it, lowercase hex.
    pub digests: &'a [(&'a str, &'a str)],
}

/// Whose signature counts.
#[derive(Clone, Copy, Debug)]
pub enum Trusted<'a> {
    /// The holder of this key's.
    Key(&'a PublicKey),
    /// That of whoever a pinned Fulcio has certified to be this identity.
    Identity(&'a Identity, SctPolicy),
}

/// What was verified. Only [`verify`] makes one.
#[derive(Debug)]
pub struct Verified {
    /// The statement that was signed.
    pub statement: ReadStatement,
    /// The certificate; none where a key was trusted.
    pub certificate: Option<FulcioCertificate>,
    /// The CT logs that promised to publish it.
    pub scts: Vec<VerifiedSct>,
    /// The timestamps of pinned authorities.
    pub timestamps: Vec<Timestamp>,
    /// How many more there are, of authorities that nobody pinned.
    pub foreign_timestamps: usize,
    /// By which time the certificate was judged.
    pub time: TimeSource,
}

/// Where the time came from that a certificate was judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// No certificate was judged.
    None,
    /// Timestamps; the earliest of them. The certificate is valid at all of them.
    Timestamp(UnixTime),
    /// A person said so. Not proven.
    Asserted(UnixTime),
    /// The verifier's clock: the certificate still lives.
    Clock(UnixTime),
}

/// The first check that failed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Nothing is pinned to verify it against.
    #[error("there is no trusted root to verify its {0} against")]
    NoRoot(&'static str),
    /// A timestamp, of a pinned authority or of one that claims to be.
    #[error(transparent)]
    Timestamp(TimestampError),
    /// The same one twice, byte for byte.
    #[error("the same timestamp is there twice")]
    TimestampTwice,
    /// None is there, and one is demanded.
    #[error("it has no timestamp, and one is demanded")]
    TimestampMissing,
    /// The envelope names another key.
    #[error("it is signed with the key `{found}`; this key is {expected}")]
    Keyid {
        /// What the envelope says.
        found: String,
        /// The key at hand.
        expected: String,
    },
    /// An identity was demanded, and no certificate came along.
    #[error("it has no certificate, so nothing says whose signature it is")]
    NoCertificate,
    /// The certificate.
    #[error(transparent)]
    Certificate(CertificateError),
    /// The certificate has expired, and nothing proves that the signature was made before.
    #[error("its certificate expired at {}, and no timestamp proves that it was signed before", .not_after.rfc3339())]
    Untimed {
        /// The last second of the certificate.
        not_after: UnixTime,
    },
    /// The promise of the CT logs.
    #[error(transparent)]
    Sct(SctError),
    /// Not the signer's over these bytes.
    #[error(transparent)]
    Signature(SignatureError),
    /// The payload.
    #[error(transparent)]
    Statement(StatementError),
    /// The artifact is not what was signed.
    #[error("no subject of it has the digest {algorithm}:{hex}")]
    Subject {
        /// The algorithm.
        algorithm: String,
        /// The digest.
        hex: String,
    },
}

/// Verifies a signed statement. Nothing in the payload is looked at before the signature over it holds, and nothing the
/// certificate says before it leads to a pinned Fulcio.
///
/// # Errors
/// The first check that failed.
pub fn verify(evidence: &Evidence<'_>, demands: &Demands<'_>) -> Result<Verified, VerifyError> {
    let (timestamps, foreign_timestamps) = pinned_timestamps(evidence, demands)?;
    let (certificate, scts, time) = match demands.signer {
        Trusted::Key(key) => {
            expect_keyid(evidence.envelope, key)?;
            evidence.envelope.verify(key).map_err(VerifyError::Signature)?;
            (None, Vec::new(), TimeSource::None)
        }
        Trusted::Identity(identity, policy) => {
            let root = demands.root.ok_or(VerifyError::NoRoot("certificate"))?;
            let (certificate, time) = certificate_in_time(evidence, &timestamps, root, demands)?;
            certificate.expect(identity).map_err(VerifyError::Certificate)?;
            let scts = sct::verify_embedded(&certificate, root, policy).map_err(VerifyError::Sct)?;
            expect_keyid(evidence.envelope, &certificate.public_key)?;
            evidence.envelope.verify(&certificate.public_key).map_err(VerifyError::Signature)?;
            (Some(certificate), scts, time)
        }
    };
    let statement = ReadStatement::parse(evidence.envelope.payload.clone()).map_err(VerifyError::Statement)?;
    for (algorithm, hex) in demands.digests {
        expect_subject(&statement, algorithm, hex)?;
    }
    Ok(Verified { statement, certificate, scts, timestamps, foreign_timestamps, time })
}

/// The timestamps of pinned authorities, and how many others there are. One that is broken, or lies about being of a
/// pinned authority, is an error even where none is needed.
fn pinned_timestamps(evidence: &Evidence<'_>, demands: &Demands<'_>) -> Result<(Vec<Timestamp>, usize), VerifyError> {
    let Some(root) = demands.root else {
        return if demands.require_timestamp { Err(VerifyError::NoRoot("timestamp")) } else { Ok((Vec::new(), 0)) };
    };
    let mut pinned = Vec::new();
    let mut seen = BTreeSet::new();
    for response in evidence.timestamps {
        if !seen.insert(response) {
            return Err(VerifyError::TimestampTwice);
        }
        match timestamp::verify(response, &evidence.envelope.signature, root, demands.now) {
            Ok(stamp) => pinned.push(stamp),
            // Another verifier may have pinned its authority.
            Err(TimestampError::Untrusted | TimestampError::NoCertificate) => {}
            Err(error) => return Err(VerifyError::Timestamp(error)),
        }
    }
    let foreign = evidence.timestamps.len() - pinned.len();
    match (pinned.is_empty(), foreign) {
        (true, 0) if demands.require_timestamp => Err(VerifyError::TimestampMissing),
        (true, 1..) if demands.require_timestamp => Err(VerifyError::Timestamp(TimestampError::Untrusted)),
        _ => Ok((pinned, foreign)),
    }
}

/// A keyid is not needed; one that is wrong makes cosign skip the signature.
fn expect_keyid(envelope: &Envelope, key: &PublicKey) -> Result<(), VerifyError> {
    match &envelope.keyid {
        Some(found) if found != key.keyid() => {
            Err(VerifyError::Keyid { found: found.clone(), expected: key.keyid().to_owned() })
        }
        _ => Ok(()),
    }
}

/// The certificate, valid at every timestamp; for want of one at the time that a person stated, or at this moment.
fn certificate_in_time(
    evidence: &Evidence<'_>,
    timestamps: &[Timestamp],
    root: &TrustedRoot,
    demands: &Demands<'_>,
) -> Result<(FulcioCertificate, TimeSource), VerifyError> {
    if evidence.chain.is_empty() {
        return Err(VerifyError::NoCertificate);
    }
    let earliest = timestamps.iter().map(|stamp| stamp.time).min();
    let (at, source) = match (earliest, demands.asserted_time) {
        (Some(at), _) => (at, TimeSource::Timestamp(at)),
        (None, Some(at)) => (at, TimeSource::Asserted(at)),
        (None, None) => (demands.now, TimeSource::Clock(demands.now)),
    };
    let policy = CertificatePolicy { max_lifetime: demands.max_certificate_lifetime, ..CertificatePolicy::OFFLINE };
    let judged = |at| {
        certificate::verify(evidence.chain, root, at, &policy).map_err(|error| match (source, error) {
            (TimeSource::Clock(_), CertificateError::Expired { not_after, .. }) => VerifyError::Untimed { not_after },
            (_, error) => VerifyError::Certificate(error),
        })
    };
    let certificate = judged(at)?;
    // Its issuers, and what is pinned of them, must count at every other time as well.
    let others: BTreeSet<UnixTime> = timestamps.iter().flat_map(|stamp| [stamp.time, stamp.latest]).collect();
    for other in others.into_iter().filter(|other| *other != at) {
        judged(other)?;
    }
    Ok((certificate, source))
}

fn expect_subject(statement: &ReadStatement, algorithm: &str, hex: &str) -> Result<(), VerifyError> {
    let is_it = |(name, value): &(_, _)| is(name, algorithm) && is(value, hex);
    if statement.subjects.iter().any(|subject| subject.digest.iter().any(is_it)) {
        Ok(())
    } else {
        Err(VerifyError::Subject { algorithm: algorithm.to_owned(), hex: hex.to_owned() })
    }
}

fn is(text: &impl AsRef<str>, other: &str) -> bool {
    text.as_ref() == other
}

impl VerifyError {
    /// A stable word for audit records, metrics and scripts.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoRoot(_) => "no_trusted_root",
            Self::Timestamp(error) => error.reason(),
            Self::TimestampTwice => "timestamp_duplicate",
            Self::TimestampMissing => "timestamp_missing",
            Self::Keyid { .. } => "key_mismatch",
            Self::NoCertificate => "certificate_missing",
            Self::Certificate(error) => error.reason(),
            Self::Untimed { .. } => "certificate_expired_without_timestamp",
            Self::Sct(error) => error.reason(),
            Self::Signature(SignatureError::Mismatch) => "signature_invalid",
            Self::Signature(_) => "signature_form",
            Self::Statement(_) => "statement_invalid",
            Self::Subject { .. } => "subject_mismatch",
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
