//! From the configuration to links and keys, before any worker is there.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::client::Link;
use super::error::CustodySetupError;
use super::registry::{Entry, Health, Registry};
use super::uri::KeyUri;
use super::{PublicKey, user_id};
use crate::config::{Config, Key, Token};

/// A token's link and the most time that a signature in it may take.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) link: Link,
    pub(super) sign_timeout: Duration,
}

/// The links in the order of the tokens' names, and the keys.
pub(super) fn build(config: &Config) -> Result<(Vec<Configured>, Registry), CustodySetupError> {
    let links = config.tokens.iter().map(|(name, token)| link(name, token)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<Arc<str>> = links.iter().map(|configured| Arc::clone(&configured.link.name)).collect();
    let entries = config
        .keys
        .iter()
        .enumerate()
        .map(|(i, (name, key))| entry(i, name, key, &names))
        .collect::<Result<Vec<_>, _>>()?;
    let places: HashMap<&str, usize> = entries.iter().map(|entry| (&*entry.name, entry.index)).collect();
    let mut tenants = HashMap::new();
    for (tid, tenant) in &config.tenants {
        let place = |key: &String| {
            let unknown = || CustodySetupError::NoKey { tenant: tid.clone(), key: key.clone() };
            places.get(key.as_str()).copied().ok_or_else(unknown)
        };
        tenants.insert(tid.clone(), tenant.keys.iter().map(place).collect::<Result<Vec<_>, _>>()?);
    }
    Ok((links, Registry { entries, tenants }))
}

fn link(name: &str, token: &Token) -> Result<Configured, CustodySetupError> {
    let worker_uid = user_id(&token.worker_user)
        .ok_or_else(|| CustodySetupError::NoUser { token: name.to_owned(), user: token.worker_user.clone() })?;
    let link = Link::new(name.into(), token.socket.clone(), worker_uid);
    Ok(Configured { link, sign_timeout: token.sign_timeout.get() })
}

fn entry(index: usize, name: &str, key: &Key, tokens: &[Arc<str>]) -> Result<Entry, CustodySetupError> {
    let unknown = || CustodySetupError::NoToken { key: name.to_owned(), token: key.token.clone() };
    let link = tokens.iter().position(|token| **token == *key.token).ok_or_else(unknown)?;
    key.uri.parse::<KeyUri>().map_err(|source| CustodySetupError::Uri { key: name.to_owned(), source })?;
    let configured = key.public_key.as_deref().map(|path| public_key(name, path)).transpose()?;
    let (chain, certified) = match key.certificate_chain.as_deref().map(|path| chain(name, path)).transpose()? {
        Some((chain, certified)) => (chain, Some(certified)),
        None => (Vec::new(), None),
    };
    if configured.is_some() && certified.is_some() && configured != certified {
        return Err(CustodySetupError::ChainMismatch { key: name.to_owned() });
    }
    let entry = Entry {
        index,
        link,
        name: name.into(),
        token: Arc::clone(&tokens[link]),
        uri: key.uri.clone(),
        state: key.state,
        not_before: key.not_before,
        not_after: key.not_after,
        certificate_chain: chain.into(),
        health: Arc::new(Health::default()),
        pinned: OnceLock::new(),
    };
    // A certificate pins its key as well as a public key does.
    if let Some(public_key) = configured.or(certified) {
        entry.pin(public_key).map_err(|source| CustodySetupError::PublicKey {
            key: name.to_owned(),
            path: key.public_key.clone().or_else(|| key.certificate_chain.clone()).unwrap_or_default(),
            source,
        })?;
    }
    Ok(entry)
}

fn public_key(key: &str, path: &Path) -> Result<PublicKey, CustodySetupError> {
    PublicKey::from_pem(&read(key, path)?).map_err(|source| CustodySetupError::PublicKey {
        key: key.to_owned(),
        path: path.to_owned(),
        source,
    })
}

/// The certificates as PEM, and the first one's key.
fn chain(key: &str, path: &Path) -> Result<(Vec<String>, PublicKey), CustodySetupError> {
    let unusable = || CustodySetupError::Chain { key: key.to_owned(), path: path.to_owned() };
    let pem = read(key, path)?;
    let chain: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| unusable())?;
    let leaf = chain.first().ok_or_else(unusable)?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|_| unusable())?;
    let certified = PublicKey::from_spki(leaf.public_key().raw).map_err(|_| unusable())?;
    Ok((chain.iter().map(|certificate| to_pem(certificate)).collect(), certified))
}

/// RFC 7468, section 5: 64 characters a line, nothing around it.
fn to_pem(der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in base64.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, CustodySetupError> {
    fs::read(path).map_err(|source| CustodySetupError::Read { key: key.to_owned(), path: path.to_owned(), source })
}
