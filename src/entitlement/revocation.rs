//! The signed revocation list: a file that the operator replaces, and the list in force.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Deserialize;

use super::json::{self, JsonFault};
use super::pinned::{KeyFile, Opened, PinnedError};
use crate::clock::UnixTime;
use crate::jose::NumericDate;
use crate::live_file::{self, FileState};

/// Where the list comes from and how it is judged.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) keys: Arc<KeyFile>,
    pub(super) issuer: String,
    pub(super) max_age: Duration,
    pub(super) clock_skew: Duration,
}

/// The list in force, replaced when its file is.
#[derive(Debug)]
pub(super) struct RevocationList {
    source: Source,
    in_force: ArcSwap<InForce>,
    /// The file that was judged last, whether or not it was taken.
    judged: Mutex<Option<FileState>>,
}

/// One list that was accepted.
#[derive(Debug)]
pub(super) struct InForce {
    sequence: u64,
    issued_at: UnixTime,
    fresh_until: UnixTime,
    signed_by: [u8; 32],
    licenses: HashSet<Box<str>>,
    tokens: HashSet<Box<str>>,
}

/// What a look at the file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The file is the one judged last.
    Unchanged,
    /// A new list is in force.
    Replaced {
        /// Its sequence number.
        sequence: u64,
    },
}

/// Why a revocation list was not taken. The one in force stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationListError {
    /// The file cannot be read.
    #[error("cannot read the revocation list {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a file, or larger than any list.
    #[error("the revocation list {path} is not a regular file of at most {MAX_LIST_BYTES} bytes")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file changed while it was read; the next look will find it whole.
    #[error("the revocation list {path} was being written while it was read; replace it by renaming a complete one")]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// Not signed by a pinned licensing key.
    #[error("the revocation list {path} is not signed by a pinned licensing key: {source}")]
    Signature {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PinnedError,
    },
    /// Its claims are not those of a revocation list.
    #[error("the revocation list {path} is not `iss`, `iat`, `seq` and `revoked`: {source}")]
    Claims {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: JsonFault,
    },
    /// Somebody else's list.
    #[error("the revocation list {path} is not of the issuer {expected}")]
    Issuer {
        /// The file.
        path: PathBuf,
        /// Whose it must be.
        expected: String,
    },
    /// Issued after now, which would make it fresh for too long.
    #[error("the revocation list {path} was issued in the future; compare the clocks")]
    IssuedInFuture {
        /// The file.
        path: PathBuf,
    },
    /// Older than the one in force.
    #[error("the revocation list {path} (sequence {sequence}) is older than the one in force (sequence {in_force})")]
    Rollback {
        /// The file.
        path: PathBuf,
        /// Its sequence number.
        sequence: u64,
        /// That of the list in force.
        in_force: u64,
    },
}

impl RevocationList {
    /// Reads the first list. One that is too old already is taken too: it lets nothing pass, and a restart is not
    /// the moment to fail over it.
    ///
    /// # Errors
    /// [`RevocationListError`]: without any list nothing can be said.
    pub(super) fn open(source: Source, now: UnixTime) -> Result<Self, RevocationListError> {
        let (state, bytes) = source.read()?;
        let first = source.judge(&bytes, now)?;
        Ok(Self { source, in_force: ArcSwap::from_pointee(first), judged: Mutex::new(Some(state)) })
    }

    /// The list in force.
    pub(super) fn in_force(&self) -> arc_swap::Guard<Arc<InForce>> {
        self.in_force.load()
    }

    /// The keys are others now: whatever lies there is judged anew by the next look.
    pub(super) fn keys_changed(&self) {
        *self.judged.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Looks at the file and takes a changed list into force. A file that was judged and refused is not judged
    /// again; one that could not be read, or was issued in the future, is tried again by the next look.
    ///
    /// # Errors
    /// [`RevocationListError`]; the list in force stays.
    pub(super) fn refresh(&self, now: UnixTime) -> Result<Refreshed, RevocationListError> {
        // Held throughout: two looks at once could otherwise put an older list after a newer one.
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = std::fs::metadata(&self.source.path).map_err(|error| self.source.unreadable(error))?;
        if *judged == Some(FileState::of(&metadata)) {
            return Ok(Refreshed::Unchanged);
        }
        let (state, bytes) = self.source.read()?;
        let list = self.source.judge(&bytes, now);
        // A list from the future becomes acceptable by waiting: our clock may be the one that is wrong.
        if !matches!(list, Err(RevocationListError::IssuedInFuture { .. })) {
            *judged = Some(state);
        }
        let list = list?;
        let in_force = self.in_force.load();
        // The same sequence may come again with a later `iat`: signed anew because nothing happened.
        if (list.sequence, list.issued_at) < (in_force.sequence, in_force.issued_at) {
            let (path, in_force) = (self.source.path.clone(), in_force.sequence);
            return Err(RevocationListError::Rollback { path, sequence: list.sequence, in_force });
        }
        let sequence = list.sequence;
        self.in_force.store(Arc::new(list));
        Ok(Refreshed::Replaced { sequence })
    }
}

impl InForce {
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The moment from which nothing can be proven by it, give or take the clock skew.
    pub(super) fn fresh_until(&self) -> UnixTime {
        self.fresh_until
    }

    /// The RFC 7638 thumbprint of the key that signed it.
    pub(super) fn signed_by(&self) -> &[u8; 32] {
        &self.signed_by
    }

    pub(super) fn revokes_license(&self, license_id: &str) -> bool {
        self.licenses.contains(license_id)
    }

    pub(super) fn revokes_token(&self, token_id: &str) -> bool {
        self.tokens.contains(token_id)
    }
}

impl Source {
    fn read(&self) -> Result<(FileState, Vec<u8>), RevocationListError> {
        live_file::read(&self.path, MAX_LIST_BYTES).map_err(|error| match error.kind() {
            ErrorKind::InvalidData => RevocationListError::NotAFile { path: self.path.clone() },
            ErrorKind::WouldBlock => RevocationListError::Changing { path: self.path.clone() },
            _ => self.unreadable(error),
        })
    }

    fn judge(&self, bytes: &[u8], now: UnixTime) -> Result<InForce, RevocationListError> {
        let path = || self.path.clone();
        // Bytes that are no UTF-8 are no base64url either.
        let token = std::str::from_utf8(bytes).unwrap_or("").trim_ascii_end();
        let Opened { payload, signed_by } = self
            .keys
            .in_force()
            .open(token, bytes.len(), LIST_TYPE)
            .map_err(|source| RevocationListError::Signature { path: path(), source })?;
        let claims: ListClaims =
            json::parse(&payload).map_err(|source| RevocationListError::Claims { path: path(), source })?;
        if claims.iss != self.issuer {
            return Err(RevocationListError::Issuer { path: path(), expected: self.issuer.clone() });
        }
        let NumericDate(issued_at) = claims.iat;
        if now.plus(self.clock_skew) < issued_at {
            return Err(RevocationListError::IssuedInFuture { path: path() });
        }
        let old = issued_at.plus(self.max_age);
        Ok(InForce {
            sequence: claims.seq,
            issued_at,
            fresh_until: claims.exp.map_or(old, |NumericDate(exp)| old.min(exp)),
            signed_by,
            licenses: claims.revoked.license_ids.into_iter().collect(),
            tokens: claims.revoked.jtis.into_iter().collect(),
        })
    }

    fn unreadable(&self, source: io::Error) -> RevocationListError {
        RevocationListError::Read { path: self.path.clone(), source }
    }
}

#[derive(Deserialize)]
struct ListClaims {
    iss: String,
    iat: NumericDate,
    exp: Option<NumericDate>,
    seq: u64,
    revoked: Revoked,
}

// Unknown members are refused: a list that revokes by something else would be obeyed by half.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoked {
    #[serde(default)]
    license_ids: Vec<Box<str>>,
    #[serde(default)]
    jtis: Vec<Box<str>>,
}

/// The `typ` that a revocation list may have instead of `JWT`.
const LIST_TYPE: &str = "poe-revocations+jwt";

/// A quarter of a million revoked identifiers.
const MAX_LIST_BYTES: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests;
