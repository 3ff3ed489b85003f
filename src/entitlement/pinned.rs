//! What the Licensing Service signs, checked against its pinned keys.

use crate::jose::{Algorithm, JoseError, JwkSet, Jws};

/// The licensing keys that the operator pinned.
#[derive(Debug)]
pub(super) struct PinnedKeys {
    keys: JwkSet,
    algorithms: Vec<Algorithm>,
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

impl PinnedKeys {
    pub(super) fn new(keys: JwkSet, algorithms: Vec<Algorithm>) -> Self {
        Self { keys, algorithms }
    }

    /// The payload of `token`, if one of the keys signed it. `typ` may be absent, `JWT` or `own_typ`: the second keeps
    /// apart what the same keys sign for different purposes (RFC 8725, section 3.11).
    ///
    /// # Errors
    /// [`PinnedError`], naming the first thing wrong.
    pub(super) fn open(&self, token: &str, max_bytes: usize, own_typ: &str) -> Result<Vec<u8>, PinnedError> {
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
        Ok(jws.verify(key)?)
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
