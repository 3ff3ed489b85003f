//! Where the Authority's keys come from: discovery, a URL, or a file.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::config::JwksSource;
use crate::jose::{JoseError, JwkSet};
use crate::outbound::{Outbound, OutboundError};

/// One source of keys, and what is needed to read it.
pub(super) struct KeySource {
    from: JwksSource,
    issuer: String,
    outbound: Outbound,
}

/// What reading a source came to.
pub(super) enum Reading {
    Keys(JwkSet, Option<FileStamp>),
    /// The file is the one that was read before.
    Unchanged,
}

/// What tells one version of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// Why the Authority's keys could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySourceError {
    /// The Authority did not give its keys.
    #[error("the Authority's keys cannot be fetched")]
    Fetch(#[source] OutboundError),
    /// The metadata document is none.
    #[error("{url} is not the metadata of an issuer: it needs `issuer` and `jwks_uri`")]
    Metadata {
        /// Where it is.
        url: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The metadata document belongs to somebody else (RFC 8414, section 3.3).
    #[error("{url} is the metadata of `{found}`, not of `{expected}`; the two must be equal to the last character")]
    Issuer {
        /// Where it is.
        url: String,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// It is no key set.
    #[error("{place} is not a JWK set that can be used")]
    Set {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        source: JoseError,
    },
}

impl KeySource {
    pub(super) fn new(from: JwksSource, issuer: String, outbound: Outbound) -> Self {
        Self { from, issuer, outbound }
    }

    pub(super) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// A file costs nothing to look at, and its operator expects a change to be seen.
    pub(super) fn refresh_interval(&self, configured: Duration) -> Duration {
        match self.from {
            JwksSource::File(_) => configured.min(Duration::from_secs(5)),
            _ => configured,
        }
    }

    /// Reads the keys. A file that still is as `last` says is not read again.
    pub(super) async fn read(&self, last: Option<FileStamp>) -> Result<Reading, KeySourceError> {
        match &self.from {
            JwksSource::File(path) => read_file(path, last),
            JwksSource::Url(url) => self.fetch(url).await,
            JwksSource::Discovery(url) => {
                let jwks_uri = self.discover(&metadata_url(url)).await?;
                self.fetch(&jwks_uri).await
            }
        }
    }

    /// Reads a file at start, where there is no waiting; `None` for the sources that need the network.
    pub(super) fn read_now(&self) -> Option<Result<Reading, KeySourceError>> {
        match &self.from {
            JwksSource::File(path) => Some(read_file(path, None)),
            _ => None,
        }
    }

    async fn discover(&self, url: &str) -> Result<String, KeySourceError> {
        #[derive(Deserialize)]
        struct Metadata {
            issuer: String,
            jwks_uri: String,
        }
        let body = self.fetch_json(url).await?;
        let metadata: Metadata =
            serde_json::from_slice(&body).map_err(|source| KeySourceError::Metadata { url: url.to_owned(), source })?;
        if metadata.issuer != self.issuer {
            let (found, expected) = (metadata.issuer, self.issuer.clone());
            return Err(KeySourceError::Issuer { url: url.to_owned(), found, expected });
        }
        Ok(metadata.jwks_uri)
    }

    async fn fetch(&self, url: &str) -> Result<Reading, KeySourceError> {
        let body = self.fetch_json(url).await?;
        let set = JwkSet::parse(&body).map_err(|source| KeySourceError::Set { place: url.to_owned(), source })?;
        Ok(Reading::Keys(set, None))
    }

    async fn fetch_json(&self, url: &str) -> Result<bytes::Bytes, KeySourceError> {
        let fetched = self.outbound.get(url, "application/json").await.map_err(KeySourceError::Fetch)?;
        fetched.into_ok_body(url).map_err(KeySourceError::Fetch)
    }
}

/// An issuer is given by its metadata document or by its name, from which OpenID Connect Discovery 1.0, section 4,
/// makes the address of that document.
fn metadata_url(url: &str) -> String {
    if url.contains("/.well-known/") {
        url.to_owned()
    } else {
        format!("{}/.well-known/openid-configuration", url.trim_end_matches('/'))
    }
}

fn read_file(path: &Path, last: Option<FileStamp>) -> Result<Reading, KeySourceError> {
    let failed = |source| KeySourceError::File { path: path.to_owned(), source };
    // The stamp is taken first: a change in between is then read twice, not missed.
    let stamp = FileStamp::of(&fs::metadata(path).map_err(failed)?);
    if last == Some(stamp) {
        return Ok(Reading::Unchanged);
    }
    let json = fs::read(path).map_err(failed)?;
    let set =
        JwkSet::parse(&json).map_err(|source| KeySourceError::Set { place: path.display().to_string(), source })?;
    Ok(Reading::Keys(set, Some(stamp)))
}

impl FileStamp {
    fn of(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { inode: metadata.ino(), bytes: metadata.len(), modified }
    }
}
