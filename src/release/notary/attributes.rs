//! The signed attributes of a Notary signature, whichever encoding they had (`signature-specification.md`, "Signed
//! Attributes").

use super::certificates::Algorithm;
use super::{NotaryError, PAYLOAD};
use crate::clock::UnixTime;
use crate::release::claim::shown;

/// What the signed attributes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::release) struct Attributes {
    /// What the envelope says that it is signed with.
    pub(super) algorithm: Algorithm,
    pub(super) scheme: Scheme,
    /// Under `notary.x509` the word of whoever signed, under the other scheme that of a signing authority.
    pub(super) signing_time: UnixTime,
    pub(super) expiry: Option<UnixTime>,
}

/// How trust comes about (`signing-scheme.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::release) enum Scheme {
    /// Somebody signs with a certificate; the time is proven by a time stamp or not at all.
    X509,
    /// A service signs for somebody, and its word for the time counts.
    SigningAuthority,
}

/// The attributes as an encoding gave them.
#[derive(Debug, Default)]
pub(super) struct Raw {
    /// The number of COSE, or of the name of JWS.
    pub(super) algorithm: Option<Algorithm>,
    /// What `algorithm` was where it is none that is known.
    pub(super) unknown_algorithm: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) scheme: Option<String>,
    pub(super) signing_time: Option<UnixTime>,
    pub(super) authentic_signing_time: Option<UnixTime>,
    pub(super) expiry: Option<UnixTime>,
    /// One of notation's plugins is needed.
    pub(super) plugin: bool,
    pub(super) critical: Vec<String>,
}

impl Scheme {
    /// As the attribute spells it.
    pub(in crate::release) fn name(self) -> &'static str {
        match self {
            Self::X509 => "notary.x509",
            Self::SigningAuthority => "notary.x509.signingAuthority",
        }
    }
}

impl Raw {
    /// Whether all that must be there is, all that must be critical is, and all that is critical is understood.
    pub(super) fn check(self) -> Result<Attributes, NotaryError> {
        let malformed = |why: &str| NotaryError::Malformed(why.to_owned());
        self.check_critical()?;
        if let Some(found) = self.unknown_algorithm {
            return Err(NotaryError::Algorithm { found: shown(&found), expected: "none of that name" });
        }
        let algorithm = self.algorithm.ok_or_else(|| malformed("it has no `alg`"))?;
        match self.content_type.as_deref() {
            Some(PAYLOAD) => {}
            Some(other) => return Err(NotaryError::Malformed(format!("its content is of type `{}`", shown(other)))),
            None => return Err(malformed("it does not say what its content is")),
        }
        let (scheme, times) = match self.scheme.as_deref() {
            Some("notary.x509") => (Scheme::X509, (self.signing_time, self.authentic_signing_time)),
            Some("notary.x509.signingAuthority") => {
                (Scheme::SigningAuthority, (self.authentic_signing_time, self.signing_time))
            }
            Some(other) => {
                return Err(NotaryError::Critical(format!("its signing scheme is `{}`", shown(other))));
            }
            None => return Err(malformed("it has no signing scheme")),
        };
        // Each scheme has its own time, which must be there, and not the other's.
        let (Some(signing_time), None) = times else {
            return Err(malformed("it has not the one signing time that belongs to its signing scheme"));
        };
        Ok(Attributes { algorithm, scheme, signing_time, expiry: self.expiry })
    }

    fn check_critical(&self) -> Result<(), NotaryError> {
        let wrong = |why: String| Err(NotaryError::Critical(why));
        if self.plugin {
            return wrong("it demands a plugin of notation, and there are none here".to_owned());
        }
        let there = [
            (SCHEME, self.scheme.is_some()),
            (AUTHENTIC_SIGNING_TIME, self.authentic_signing_time.is_some()),
            (EXPIRY, self.expiry.is_some()),
        ];
        for (at, name) in self.critical.iter().enumerate() {
            match there.iter().find(|(known, _)| known == name) {
                None => return wrong(format!("`{}` is critical, and nobody here knows what it means", shown(name))),
                Some((_, false)) => return wrong(format!("`{name}` is critical, and it is not there")),
                Some(_) if self.critical[..at].contains(name) => return wrong(format!("`{name}` is listed twice")),
                Some(_) => {}
            }
        }
        match there.iter().find(|(name, there)| *there && !self.critical.iter().any(|critical| critical == name)) {
            Some((name, _)) => wrong(format!("`{name}` is not marked as critical")),
            None => Ok(()),
        }
    }
}

pub(super) const SCHEME: &str = "io.cncf.notary.signingScheme";
pub(super) const SIGNING_TIME: &str = "io.cncf.notary.signingTime";
pub(super) const AUTHENTIC_SIGNING_TIME: &str = "io.cncf.notary.authenticSigningTime";
pub(super) const EXPIRY: &str = "io.cncf.notary.expiry";
/// Of notation's plugins: this, and the same with `MinVersion` behind it.
pub(super) const PLUGIN: &str = "io.cncf.notary.verificationPlugin";
/// Unsigned.
pub(super) const TIMESTAMP: &str = "io.cncf.notary.timestampSignature";

/// Attributes that a critical list may name, and some more for the message that says which is not known.
pub(super) const MAX_CRITICAL: usize = 32;
