//! Images that the operator vouches for, or withdraws, by hand.

use std::collections::HashMap;
use std::sync::Arc;

use super::ReleaseSetupError;
use super::digest::Digest;
use super::verdict::{Evidence, ReleaseError, TrustedRelease};
use crate::config;

/// What the configuration says of single images.
#[derive(Debug, Default)]
pub(super) struct OperatorList {
    releases: HashMap<Digest, TrustedRelease>,
    revoked: HashMap<Digest, Arc<str>>,
}

impl OperatorList {
    pub(super) fn new(config: &config::Release) -> Result<Self, ReleaseSetupError> {
        let mut list = Self::default();
        for (index, entry) in config.trusted.iter().enumerate() {
            let wrong = || ReleaseSetupError::Digest { list: "trusted", index, digest: entry.digest.clone() };
            let digest: Digest = entry.digest.parse().map_err(|_| wrong())?;
            let (who, why) = ("who is named as signer", "why you vouch for it");
            for (key, value, want) in [("signed_by", &entry.signed_by, who), ("reason", &entry.reason, why)] {
                if value.trim().is_empty() {
                    return Err(ReleaseSetupError::Empty { list: "trusted", index, key, want });
                }
            }
            let release = TrustedRelease {
                digest: entry.digest.as_str().into(),
                signed_by: entry.signed_by.as_str().into(),
                evidence: Evidence::OperatorList { reason: entry.reason.as_str().into() },
            };
            if list.releases.insert(digest, release).is_some() {
                let first = config.trusted.iter().position(|earlier| earlier.digest == entry.digest).unwrap_or(0);
                return Err(ReleaseSetupError::Duplicate { index, first });
            }
        }
        for (index, entry) in config.revoked.iter().enumerate() {
            let wrong = || ReleaseSetupError::Digest { list: "revoked", index, digest: entry.digest.clone() };
            let digest = entry.digest.parse().map_err(|_| wrong())?;
            if entry.reason.trim().is_empty() {
                let want = "why it is withdrawn";
                return Err(ReleaseSetupError::Empty { list: "revoked", index, key: "reason", want });
            }
            list.revoked.insert(digest, entry.reason.as_str().into());
        }
        Ok(list)
    }

    /// What is certain without asking anybody. A revoked image is trusted by no signature and no list.
    pub(super) fn find(&self, image: Digest) -> Option<Result<TrustedRelease, ReleaseError>> {
        if let Some(why) = self.revoked.get(&image) {
            return Some(Err(ReleaseError::Revoked { digest: image, why: Arc::clone(why) }));
        }
        self.releases.get(&image).cloned().map(Ok)
    }
}
