//! From the configuration to identities and repositories: every file that it names is read here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::lookup::Sources;
use super::notary::subject::Subject;
use super::notary::trust::{self, NotaryTrust};
use super::policy::{Policy, ReleaseIdentity, Roots, Signer};
use super::registry::{Credentials, Registry, RegistrySettings, RegistrySetupError};
use super::snapshot::SnapshotFile;
use crate::clock::UnixTime;
use crate::config::{self, ReleaseSigner};
use crate::outbound::OutboundTls;
use crate::sigstore::{Identity, SctPolicy, TrustedRoot, VerifyingKey};

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseSetupError {
    /// An entry is no image digest.
    #[error("release.{list}[{index}].digest is `{digest}`; write `sha256:` and 64 lowercase hex digits")]
    Digest {
        /// Which list.
        list: &'static str,
        /// Which entry, from zero.
        index: usize,
        /// What it says.
        digest: String,
    },
    /// An entry leaves out who or why.
    #[error("release.{list}[{index}].{key} is empty; write {want}")]
    Empty {
        /// Which list.
        list: &'static str,
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
    /// A file that an entry names is not what it should be.
    #[error("{key}: {}: {why}", path.display())]
    File {
        /// Which key of the configuration.
        key: String,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// What `notation` says cannot be used.
    #[error("{key}: {why}")]
    Notation {
        /// Which key of the configuration.
        key: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// A repository cannot be used.
    #[error("release.repository[{index}]: {source}")]
    Repository {
        /// Which entry, from zero.
        index: usize,
        /// Why.
        source: RegistrySetupError,
    },
}

pub(super) fn sources(config: &config::Release, runtime: &Handle) -> Result<Sources, ReleaseSetupError> {
    let mut roots = HashMap::new();
    let mut identities = Vec::with_capacity(config.identity.len());
    for (index, identity) in config.identity.iter().enumerate() {
        identities.push(one_identity(index, identity, &mut roots)?);
    }
    let mut registries = Vec::with_capacity(config.repository.len());
    for (index, repository) in config.repository.iter().enumerate() {
        let settings = settings(index, repository, config)?;
        let registry = Registry::new(settings, runtime);
        let registry = registry.map_err(|source| ReleaseSetupError::Repository { index, source })?;
        registries.push(Arc::new(registry));
    }
    let snapshot = match &config.snapshot {
        Some(snapshot) => {
            let key = file("release.snapshot.public_key", &snapshot.public_key, snapshot_key)?;
            Some(Arc::new(SnapshotFile::new(&snapshot.file, key, snapshot.max_age.get())))
        }
        None => None,
    };
    Ok(Sources { policy: Policy { identities }, snapshot, registries, timeout: config.timeout.get() })
}

fn one_identity(
    index: usize,
    identity: &config::ReleaseIdentity,
    known: &mut HashMap<PathBuf, Arc<Roots>>,
) -> Result<ReleaseIdentity, ReleaseSetupError> {
    let place = |key: &str| format!("release.identity[{index}].{key}");
    let roots = match &identity.trusted_root {
        Some(path) => Some(match known.get(path) {
            Some(roots) => Arc::clone(roots),
            None => {
                let read = |path: &Path| Roots::load(path).map_err(|error| error.to_string());
                let roots = Arc::new(file(&place("trusted_root"), path, read)?);
                known.insert(path.clone(), Arc::clone(&roots));
                roots
            }
        }),
        None => None,
    };
    let signer = match identity.signer() {
        ReleaseSigner::Key(path) => Signer::Key(Box::new(file(&place("public_key"), path, public_key)?)),
        ReleaseSigner::Certificate { san, issuer } => {
            let expected = Identity { san: san.to_owned(), issuer: issuer.to_owned() };
            Signer::Certificate(expected, SctPolicy { required: if identity.require_sct { 1 } else { 0 } })
        }
        ReleaseSigner::Notation(notation) => Signer::Notation(Box::new(notary_trust(index, notation)?)),
    };
    Ok(ReleaseIdentity {
        name: identity.name.as_str().into(),
        signer,
        roots,
        not_before: identity.not_before.map(|moment| UnixTime(moment.as_second())),
        not_after: identity.not_after.map(|moment| UnixTime(moment.as_second())),
        require_time: identity.require_time,
    })
}

fn notary_trust(index: usize, notation: &config::Notation) -> Result<NotaryTrust, ReleaseSetupError> {
    let place = |key: &str| format!("release.identity[{index}].notation.{key}");
    let store = |key: &str, path: &Option<PathBuf>| match path {
        Some(path) => file(&place(key), path, trust::store),
        None => Ok(Vec::new()),
    };
    let wrong = |key: &str, why: String| ReleaseSetupError::Notation { key: place(key), why };
    let tsa = match &notation.tsa {
        Some(path) => file(&place("tsa"), path, trust::tsa)?,
        None => TrustedRoot::default(),
    };
    let revoked = notation.revoked.iter().map(|text| {
        let why = |_| wrong("revoked", format!("`{text}` is no digest; write `sha256:` and 64 lowercase hex digits"));
        text.parse().map_err(why)
    });
    Ok(NotaryTrust {
        ca: store("ca", &notation.ca)?,
        signing_authority: store("signing_authority", &notation.signing_authority)?,
        tsa,
        subjects: subjects(&notation.trusted_identities).map_err(|(_, why)| wrong("trusted_identities", why))?,
        revoked: revoked.collect::<Result<_, _>>()?,
    })
}

/// The trusted identities; none of them for `*`, which stands alone.
fn subjects(identities: &[String]) -> Result<Vec<Subject>, (usize, String)> {
    if identities == ["*"] {
        return Ok(Vec::new());
    }
    if identities.is_empty() {
        return Err((0, "is empty; write whose certificates count, or \"*\" for all of the trust store's".to_owned()));
    }
    let mut subjects: Vec<Subject> = Vec::with_capacity(identities.len());
    for (at, identity) in identities.iter().enumerate() {
        if identity == "*" {
            return Err((at, "`*` stands alone; take the others out, or it".to_owned()));
        }
        let subject = Subject::parse(identity).map_err(|why| (at, format!("`{identity}`: {why}")))?;
        if let Some(other) = subjects.iter().position(|known| known.overlaps(&subject)) {
            let why = format!("`{identity}` overlaps with `{}`; keep the one that says less", identities[other]);
            return Err((at, why));
        }
        subjects.push(subject);
    }
    Ok(subjects)
}

fn settings(
    index: usize,
    repository: &config::Repository,
    config: &config::Release,
) -> Result<RegistrySettings, ReleaseSetupError> {
    let credentials = match &repository.credentials {
        Some(path) => Some(file(&format!("release.repository[{index}].credentials"), path, credentials)?),
        None => None,
    };
    let identity = match (&repository.certificate, &repository.private_key) {
        (Some(certificate), Some(key)) => Some((certificate.as_path(), key.as_path())),
        _ => None,
    };
    // One on loopback without TLS needs no roots, and a system may have none.
    let tls = if repository.url.starts_with("http:") {
        OutboundTls::default()
    } else {
        OutboundTls::load(repository.ca.as_deref(), identity)
            .map_err(|source| ReleaseSetupError::Repository { index, source: source.into() })?
    };
    Ok(RegistrySettings {
        url: repository.url.clone(),
        tls,
        credentials,
        token_service: repository.token_service.clone(),
        redirects: repository.redirects.clone(),
        timeout: config.timeout.get(),
    })
}

fn file<T>(key: &str, path: &Path, read: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, ReleaseSetupError> {
    read(path).map_err(|why| ReleaseSetupError::File { key: key.to_owned(), path: path.to_owned(), why })
}

/// A release key in a PEM file.
fn public_key(path: &Path) -> Result<VerifyingKey, String> {
    let right = "must hold a PEM public key: ECDSA on P-256, P-384 or P-521, RSA from 2048 bits on, or Ed25519";
    pem_key(path).and_then(|der| VerifyingKey::of_release(&der)).ok_or_else(|| right.to_owned())
}

/// The key of whoever makes snapshots.
fn snapshot_key(path: &Path) -> Result<VerifyingKey, String> {
    let right = "must hold a PEM public key: ECDSA on P-256, with which `signerctl release snapshot` signs";
    pem_key(path).and_then(|der| VerifyingKey::from_spki(&der)).ok_or_else(|| right.to_owned())
}

fn pem_key(path: &Path) -> Option<SubjectPublicKeyInfoDer<'static>> {
    SubjectPublicKeyInfoDer::from_pem_file(path).ok()
}

fn credentials(path: &Path) -> Result<Credentials, String> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| format!("cannot be read: {error}"))?;
    Credentials::parse(&text).map_err(str::to_owned)
}

/// Whether a file is one of credentials, for the check of a configuration.
pub(crate) fn check_credentials(path: &Path) -> Result<(), String> {
    credentials(path).map(drop)
}

/// Whether a file is a release key, for the check of a configuration.
pub(crate) fn check_public_key(path: &Path) -> Result<(), String> {
    public_key(path).map(drop)
}

/// Whether a file is a trusted root, for the check of a configuration.
pub(crate) fn check_trusted_root(path: &Path) -> Result<(), String> {
    Roots::load(path).map(drop).map_err(|error| error.to_string())
}

/// Whether a file is a key that snapshots are signed with, for the check of a configuration.
pub(crate) fn check_snapshot_key(path: &Path) -> Result<(), String> {
    snapshot_key(path).map(drop)
}

/// Whether a file is a trust store of certificates, for the check of a configuration.
pub(crate) fn check_trust_store(path: &Path) -> Result<(), String> {
    trust::store(path).map(drop)
}

/// Whether a file is a trust store of time stamp authorities, for the check of a configuration.
pub(crate) fn check_tsa(path: &Path) -> Result<(), String> {
    trust::tsa(path).map(drop)
}

/// Whether these are trusted identities; else which is not, and why.
pub(crate) fn check_trusted_identities(identities: &[String]) -> Result<(), (usize, String)> {
    subjects(identities).map(drop)
}
