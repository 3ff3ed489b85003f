//! Where a key's public half is known from, in the order in which it is believed.

use std::path::Path;

use crate::config::{Backend, Key, Loaded};
use crate::ctl::error::CtlError;
use crate::ctl::files;
use crate::ctl::token::child::Admin;
use crate::ctl::token::cli::Reach;
use crate::custody::PublicKey;
use crate::custody::admin::Probe;
use crate::custody::history::{History, HistoryError, Remembered};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// A key of the configuration.
pub(super) fn configured<'a>(loaded: &'a Loaded, name: &str) -> Result<&'a Key, CtlError> {
    loaded.config.keys.get(name).ok_or_else(|| {
        let known: Vec<&str> = loaded.config.keys.keys().map(String::as_str).collect();
        CtlError::Usage(format!("the configuration has no key `{name}`; it has {}", known.join(", ")))
    })
}

/// What the configuration pins: the file `public_key`, else the leaf of `certificate_chain`.
pub(crate) fn pinned(key: &Key) -> Result<Option<PublicKey>, CtlError> {
    if let Some(file) = &key.public_key {
        let pem = files::read(file, MAX_FILE_BYTES)?;
        return PublicKey::from_pem(&pem).map(Some).map_err(|error| CtlError::content(file, error.to_string()));
    }
    key.certificate_chain.as_deref().map(certified).transpose()
}

/// The key of a chain's leaf.
pub(crate) fn certified(file: &Path) -> Result<PublicKey, CtlError> {
    let pem = files::read(file, MAX_FILE_BYTES)?;
    let leaf = CertificateDer::from_pem_slice(&pem).map_err(|_| CtlError::content(file, "holds no PEM certificate"))?;
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf)
        .map_err(|error| CtlError::content(file, format!("its first certificate cannot be read: {error}")))?;
    PublicKey::from_spki(leaf.public_key().raw)
        .map_err(|_| CtlError::content(file, "its first certificate is for another kind of key than P-256"))
}

/// What the token shows without a PIN; `None` when it shows no public key object, and of a native YubiHSM, which shows
/// nothing before somebody has authenticated.
pub(super) fn in_token(loaded: &Loaded, reach: &Reach, key: &Key) -> Result<Option<PublicKey>, CtlError> {
    if let Ok(token) = loaded.config.token(&key.token)
        && matches!(token.backend(), Ok(Backend::YubiHsm { .. }))
    {
        return Ok(None);
    }
    let probe: Probe = Admin::configured(reach, &key.token)?.args(["probe", "--key", &key.uri]).run()?;
    if let Some(failure) = probe.token_failure {
        return Err(CtlError::Token(failure));
    }
    match probe.keys.into_iter().next() {
        Some(probed) => {
            if let Some(failure) = probed.failure {
                return Err(CtlError::Token(failure));
            }
            let key = probed.public_key.map(|pem| PublicKey::from_pem(pem.as_bytes()));
            key.transpose().map_err(|error| CtlError::Unexpected(error.to_string()))
        }
        None => Ok(None),
    }
}

/// The newest key that the history has under this name.
pub(super) fn remembered(history: &History, name: &str) -> Result<Option<PublicKey>, CtlError> {
    let all = history.read().map_err(|error| unusable(&error))?;
    Ok(all.iter().rev().find(|key| key.name == name).and_then(Remembered::key))
}

/// Writes it down for ever.
pub(super) fn remember(history: &History, name: &str, token: &str, key: &PublicKey) -> Result<(), CtlError> {
    let all = [Remembered::now(name, token, key)];
    history.remember(&all).map(drop).map_err(|error| unusable(&error))
}

pub(super) fn unusable(error: &HistoryError) -> CtlError {
    let path = match error {
        HistoryError::Io { path, .. } | HistoryError::Damaged { path, .. } => path,
    };
    CtlError::content(path, crate::custody::token::explain(error))
}

const MAX_FILE_BYTES: u64 = 1024 * 1024;
