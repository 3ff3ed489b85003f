//! What the Licensing Service signs, checked against its pinned keys.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::EntitlementSetupError;
use crate::config::OfflineLicensing;
use crate::jose::{Algorithm, JoseError, JwkSet, Jws};
use crate::live_file::{self, FileState};

/// The licensing keys that the operator pinned: those in force, replaced when their file is.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    algorithms: Vec<Algorithm>,
    in_force: ArcSwap<PinnedKeys>,
    /// The file that was judged last, whether or not it was taken.
    judged: Mutex<FileState>,
}

/// One set of pinned keys.
#[derive(Debug)]
pub(super) struct PinnedKeys {
    keys: JwkSet,
    algorithms: Vec<Algorithm>,
    generation: u64,
}

/// What a pinned key signed.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) payload: Vec<u8>,
    /// The RFC 7638 thumbprint of the key.
    pub(super) signed_by: [u8; 32],
}

/// Why a JWT is not one that the Licensing Service signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinnedError {
    /// Not a JWT, or not one that is read here, or its signature does not verify.
    #[error(transparent)]
    Jose(#[from] JoseError),
    /// Signed with an algorithm that the configuration does not accept.
    #[error("the algorithm {} is not accepted by the configuration", algorithm.name())]
    Algorithm {
        /// Which one.
        algorithm: Algorithm,
    },
    /// `typ` says that it is something else.
    #[error("its `typ` says that it is something else")]
    Type,
    /// Its `kid` names none of the pinned keys, or none that fits its algorithm.
    #[error("its `kid` names no pinned licensing key for its algorithm")]
    KeyUnknown,
    /// It has no `kid`, and several pinned keys fit its algorithm.
    #[error("it has no `kid`, and not exactly one pinned licensing key fits its algorithm")]
    KeyUnnamed,
}

impl KeyFile {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`EntitlementSetupError`]: without keys nothing can be proven.
    pub(super) fn open(config: &OfflineLicensing) -> Result<Self, EntitlementSetupError> {
        let path = config.keys.clone();
        let (state, json) = live_file::read(&path, MAX_KEYS_BYTES)
            .map_err(|source| EntitlementSetupError::KeysUnreadable { path: path.clone(), source })?;
        let first = PinnedKeys::judge(&path, &json, &config.algorithms, 0)?;
        Ok(Self {
            path,
            algorithms: config.algorithms.clone(),
            in_force: ArcSwap::from_pointee(first),
            judged: Mutex::new(state),
        })
    }

    /// The keys in force.
    pub(super) fn in_force(&self) -> arc_swap::Guard<Arc<PinnedKeys>> {
        self.in_force.load()
    }

    /// Looks at the file and takes changed keys into force; whether it did. A file that was judged and refused is
    /// not judged again; one that could not be read is.
    ///
    /// # Errors
    /// [`EntitlementSetupError`]; the keys in force stay.
    pub(super) fn refresh(&self) -> Result<bool, EntitlementSetupError> {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let unreadable = |source| EntitlementSetupError::KeysUnreadable { path: self.path.clone(), source };
        if *judged == FileState::of(&std::fs::metadata(&self.path).map_err(unreadable)?) {
            return Ok(false);
        }
        let (state, json) = live_file::read(&self.path, MAX_KEYS_BYTES).map_err(unreadable)?;
        *judged = state;
        let generation = self.in_force.load().generation + 1;
        let keys = PinnedKeys::judge(&self.path, &json, &self.algorithms, generation)?;
        self.in_force.store(Arc::new(keys));
        Ok(true)
    }
}

impl PinnedKeys {
    fn judge(
        path: &Path,
        json: &[u8],
        algorithms: &[Algorithm],
        generation: u64,
    ) -> Result<Self, EntitlementSetupError> {
        let path = || path.to_owned();
        let keys = JwkSet::parse(json).map_err(|source| EntitlementSetupError::Keys { path: path(), source })?;
        if keys.skipped() > 0 {
            tracing::warn!(path = %path().display(), skipped = keys.skipped(), "some licensing keys cannot be used");
        }
        if !keys.keys().iter().any(|key| algorithms.iter().any(|algorithm| key.jwk().fits(*algorithm))) {
            return Err(EntitlementSetupError::NoKeys { path: path() });
        }
        Ok(Self { keys, algorithms: algorithms.to_vec(), generation })
    }

    /// Grows by one with every set that is taken into force: what was proven by an older one must be proven again.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// RFC 7638.
    pub(super) fn thumbprints(&self) -> Vec<[u8; 32]> {
        self.keys.keys().iter().map(|key| *key.thumbprint()).collect()
    }

    /// Is the key with this thumbprint one of them?
    pub(super) fn pin(&self, thumbprint: &[u8; 32]) -> bool {
        self.keys.keys().iter().any(|key| key.thumbprint() == thumbprint)
    }

    /// The payload of `token` and its key, if one of the keys signed it. `typ` may be absent, `JWT` or `own_typ`: the second keeps
    /// apart what the same keys sign for different purposes (RFC 8725, section 3.11).
    ///
    /// # Errors
    /// [`PinnedError`], naming the first thing wrong.
    pub(super) fn open(&self, token: &str, max_bytes: usize, own_typ: &str) -> Result<Opened, PinnedError> {
        let jws = Jws::parse(token, max_bytes)?;
        let header = jws.header();
        if !self.algorithms.contains(&header.alg) {
            return Err(PinnedError::Algorithm { algorithm: header.alg });
        }
        if header.typ.is_some() && !header.is_typ("JWT") && !header.is_typ(own_typ) {
            return Err(PinnedError::Type);
        }
        let mut candidates = self.keys.find(header.kid.as_deref(), header.alg);
        let none = if header.kid.is_some() { PinnedError::KeyUnknown } else { PinnedError::KeyUnnamed };
        let Some(key) = candidates.next() else { return Err(none) };
        if candidates.next().is_some() {
            return Err(PinnedError::KeyUnnamed);
        }
        Ok(Opened { payload: jws.verify(key)?, signed_by: *key.thumbprint() })
    }
}

impl PinnedError {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Jose(JoseError::Signature) => "poe_signature",
            Self::Jose(JoseError::AlgorithmMissing | JoseError::AlgorithmUnknown { .. }) | Self::Algorithm { .. } => {
                "poe_algorithm"
            }
            Self::Jose(JoseError::Critical { .. }) => "poe_critical_header",
            Self::Jose(_) => "poe_malformed",
            Self::Type => "poe_typ",
            Self::KeyUnknown => "poe_kid_unknown",
            Self::KeyUnnamed => "poe_kid_missing",
        }
    }
}

/// Sixty-four RSA keys of 8,192 bits with their certificates.
const MAX_KEYS_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
mod tests;
