//! Whether the evidence was made by a scanner that somebody released.
//!
//! A source of trust says of an image digest who vouches for it, and on what grounds. The operator's list is one;
//! [`TrustedReleases::check`] asks each in turn, so others stand beside it without the pipeline knowing.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use crate::config;

/// Everything that can vouch for a scanner image.
#[derive(Debug)]
pub struct TrustedReleases {
    operator: OperatorList,
}

/// A scanner image that somebody vouches for. Only this module makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedRelease {
    pub(crate) digest: Arc<str>,
    pub(crate) signed_by: Arc<str>,
    pub(crate) evidence: Evidence,
}

/// On what grounds an image is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The operator named its digest in the configuration.
    OperatorList {
        /// Why, in the operator's words.
        reason: Arc<str>,
    },
}

/// Why the configured list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseSetupError {
    /// An entry is no image digest.
    #[error("release.trusted[{index}].digest is `{digest}`; write `sha256:` and 64 lowercase hex digits")]
    Digest {
        /// Which entry, from zero.
        index: usize,
        /// What it says.
        digest: String,
    },
    /// An entry leaves out who or why.
    #[error("release.trusted[{index}].{key} is empty; write {want}")]
    Empty {
        /// Which entry, from zero.
        index: usize,
        /// Which key.
        key: &'static str,
        /// What belongs there.
        want: &'static str,
    },
    /// Two entries name the same image.
    #[error("release.trusted[{index}].digest is also that of entry {first}; keep one of them")]
    Duplicate {
        /// The later entry, from zero.
        index: usize,
        /// The earlier one.
        first: usize,
    },
}

/// Why an image is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Not an image digest.
    #[error("the scanner image digest is not `sha256:` and 64 lowercase hex digits")]
    Malformed,
    /// Nobody vouches for it.
    #[error("nobody vouches for the scanner image {digest}; the operator can, under [[release.trusted]]")]
    Untrusted {
        /// The digest that was asked about.
        digest: Arc<str>,
    },
}

impl TrustedReleases {
    /// Reads the operator's list.
    ///
    /// # Errors
    /// A [`ReleaseSetupError`] that names the first unusable entry.
    pub fn new(config: &config::Release) -> Result<Self, ReleaseSetupError> {
        Ok(Self { operator: OperatorList::new(&config.trusted)? })
    }

    /// Asks every source of trust about `digest`.
    ///
    /// # Errors
    /// [`ReleaseError`] when none vouches for it.
    // Asynchronous because a registry has to be asked over the network; the operator's list is at hand.
    #[allow(clippy::unused_async)]
    pub async fn check(&self, digest: &str) -> Result<TrustedRelease, ReleaseError> {
        if !is_image_digest(digest) {
            return Err(ReleaseError::Malformed);
        }
        self.operator.find(digest).ok_or_else(|| ReleaseError::Untrusted { digest: digest.into() })
    }
}

impl TrustedRelease {
    /// `sha256:` and 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Who vouches for it.
    #[must_use]
    pub fn signed_by(&self) -> &str {
        &self.signed_by
    }

    /// On what grounds.
    #[must_use]
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}

impl Evidence {
    /// The kind of grounds, for audit records.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OperatorList { .. } => "operator_list",
        }
    }
}

impl ReleaseError {
    /// The error code on the wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "release_untrusted"
    }

    /// The precise reason, for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "release_digest_malformed",
            Self::Untrusted { .. } => "release_not_listed",
        }
    }
}

/// The images that the operator vouches for by hand.
#[derive(Debug)]
struct OperatorList {
    releases: HashMap<Arc<str>, TrustedRelease>,
}

impl OperatorList {
    fn new(entries: &[config::TrustedDigest]) -> Result<Self, ReleaseSetupError> {
        let mut releases = HashMap::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let digest: Arc<str> = entry.digest.as_str().into();
            if !is_image_digest(&digest) {
                return Err(ReleaseSetupError::Digest { index, digest: entry.digest.clone() });
            }
            let (who, why) = ("who is named as signer", "why you vouch for it");
            for (key, value, want) in [("signed_by", &entry.signed_by, who), ("reason", &entry.reason, why)] {
                if value.trim().is_empty() {
                    return Err(ReleaseSetupError::Empty { index, key, want });
                }
            }
            let release = TrustedRelease {
                digest: Arc::clone(&digest),
                signed_by: entry.signed_by.as_str().into(),
                evidence: Evidence::OperatorList { reason: entry.reason.as_str().into() },
            };
            if releases.insert(digest, release).is_some() {
                let first = entries.iter().position(|earlier| earlier.digest == entry.digest).unwrap_or(0);
                return Err(ReleaseSetupError::Duplicate { index, first });
            }
        }
        Ok(Self { releases })
    }

    fn find(&self, digest: &str) -> Option<TrustedRelease> {
        self.releases.get(digest).cloned()
    }
}

/// The one spelling that registries use (OCI image specification, "Digests"): lowercase, so that equal images have
/// equal digests.
fn is_image_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn digest(fill: char) -> String {
        format!("sha256:{}", String::from(fill).repeat(64))
    }

    fn entry(digest: &str) -> config::TrustedDigest {
        config::TrustedDigest {
            digest: digest.to_owned(),
            signed_by: "platform team".to_owned(),
            reason: "bootstrap".to_owned(),
        }
    }

    fn releases(entries: Vec<config::TrustedDigest>) -> Result<TrustedReleases, ReleaseSetupError> {
        TrustedReleases::new(&config::Release { trusted: entries })
    }

    #[tokio::test]
    async fn a_listed_image_is_trusted_and_says_who_and_why() {
        let release = releases(vec![entry(&digest('a'))]).unwrap().check(&digest('a')).await.unwrap();
        assert_eq!(release.digest(), digest('a'));
        assert_eq!(release.signed_by(), "platform team");
        assert_eq!(release.evidence(), &Evidence::OperatorList { reason: "bootstrap".into() });
        assert_eq!(release.evidence().kind(), "operator_list");
    }

    #[tokio::test]
    async fn an_image_that_nobody_listed_is_refused() {
        for list in [vec![], vec![entry(&digest('a'))]] {
            let error = releases(list).unwrap().check(&digest('b')).await.unwrap_err();
            assert_eq!((error.code(), error.reason()), ("release_untrusted", "release_not_listed"));
        }
    }

    #[tokio::test]
    async fn what_is_no_digest_is_refused_before_any_look_up() {
        let list = releases(vec![entry(&digest('a'))]).unwrap();
        for wrong in
            ["", "sha256:", "a", &digest('a').to_uppercase(), &digest('g'), &format!("{} ", digest('a')), "sha512:aa"]
        {
            assert_eq!(list.check(wrong).await.unwrap_err().reason(), "release_digest_malformed", "{wrong}");
        }
    }

    #[test]
    fn every_entry_is_checked_when_the_list_is_read() {
        let silent = |entry: config::TrustedDigest| config::TrustedDigest { reason: "  ".to_owned(), ..entry };
        let nobody = |entry: config::TrustedDigest| config::TrustedDigest { signed_by: String::new(), ..entry };
        let (a, b) = (digest('a'), digest('b'));
        let cases = [
            (vec![entry(&a), entry("latest")], "release.trusted[1].digest is `latest`"),
            (vec![entry(&a.to_uppercase())], "release.trusted[0].digest is"),
            (vec![silent(entry(&a))], "release.trusted[0].reason is empty"),
            (vec![nobody(entry(&a))], "release.trusted[0].signed_by is empty"),
            (vec![entry(&a), entry(&b), entry(&a)], "release.trusted[2].digest is also that of entry 0"),
        ];
        for (entries, message) in cases {
            let error = releases(entries).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
