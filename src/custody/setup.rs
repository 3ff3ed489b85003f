//! From the configuration to links and keys, before any worker is there.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::client::Link;
use super::error::CustodySetupError;
use super::event::Events;
use super::health::Health;
use super::history::{History, Remembered};
use super::registry::{Entry, Registry, TenantKeys};
use super::replica::Replica;
use super::uri::KeyUri;
use super::{Lane, PublicKey, user_id};
use crate::config::{Config, Key, Token};

/// A token's link and the most time that a signature in it may take.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) link: Link,
    pub(super) sign_timeout: Duration,
    /// Shared with the token's replicas.
    pub(super) drained: Arc<AtomicBool>,
}

/// What [`build`] makes.
#[derive(Debug)]
pub(super) struct Built {
    /// In the order of the tokens' names.
    pub(super) links: Vec<Configured>,
    pub(super) registry: Registry,
    pub(super) events: Arc<Events>,
}

/// The links and the keys.
pub(super) fn build(config: &Config) -> Result<Built, CustodySetupError> {
    let links = config.tokens.iter().map(|(name, token)| link(name, token)).collect::<Result<Vec<_>, _>>()?;
    let events = Arc::new(Events::new());
    let mut entries = config
        .keys
        .iter()
        .enumerate()
        .map(|(i, (name, key))| entry(i, name, key, &links, &events))
        .collect::<Result<Vec<_>, _>>()?;
    recall(config, &mut entries)?;
    let places: HashMap<&str, usize> = entries.iter().map(|entry| (&*entry.name, entry.index)).collect();
    let mut tenants = HashMap::new();
    for (tid, tenant) in &config.tenants {
        let place = |key: &String| {
            let unknown = || CustodySetupError::NoKey { tenant: tid.clone(), key: key.clone() };
            places.get(key.as_str()).copied().ok_or_else(unknown)
        };
        let keys = tenant.keys.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        tenants.insert(tid.clone(), TenantKeys { lane: Lane::of_tenant(tid), keys });
    }
    Ok(Built { links, registry: Registry { entries, tenants }, events })
}

/// Gives the keys of which the configuration states no public half the one that the history has last. A history that
/// cannot be read is not taken for an empty one.
fn recall(config: &Config, entries: &mut [Entry]) -> Result<(), CustodySetupError> {
    if entries.iter().all(|entry| entry.pinned.get().is_some()) {
        return Ok(());
    }
    let history = History::of(config).read().map_err(CustodySetupError::History)?;
    // Later ones replace earlier ones.
    let last: HashMap<&str, &Remembered> = history.iter().map(|key| (key.name.as_str(), key)).collect();
    for entry in entries.iter_mut().filter(|entry| entry.pinned.get().is_none()) {
        entry.remembered = last.get(&*entry.name).and_then(|remembered| remembered.key());
    }
    Ok(())
}

fn link(name: &str, token: &Token) -> Result<Configured, CustodySetupError> {
    let worker_uid = user_id(&token.worker_user)
        .ok_or_else(|| CustodySetupError::NoUser { token: name.to_owned(), user: token.worker_user.clone() })?;
    let link = Link::new(name.into(), token.socket.clone(), worker_uid);
    Ok(Configured { link, sign_timeout: token.sign_timeout.get(), drained: Arc::default() })
}

fn entry(
    index: usize,
    name: &str,
    key: &Key,
    links: &[Configured],
    events: &Arc<Events>,
) -> Result<Entry, CustodySetupError> {
    key.uri.parse::<KeyUri>().map_err(|source| CustodySetupError::Uri { key: name.to_owned(), source })?;
    let mut replicas = vec![replica(name, &key.token, &key.uri, links)?];
    for more in &key.replica {
        let wrong = |source| CustodySetupError::ReplicaUri { key: name.to_owned(), token: more.token.clone(), source };
        more.uri.parse::<KeyUri>().map_err(wrong)?;
        replicas.push(replica(name, &more.token, &more.uri, links)?);
    }
    let tokens = replicas.iter().map(|replica| &*replica.token).collect::<Vec<_>>().join(",");
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
        name: name.into(),
        tokens: tokens.into(),
        state: key.state,
        not_before: key.not_before,
        not_after: key.not_after,
        certificate_chain: chain.into(),
        exceptions: key.custody_exception.clone(),
        replicas: replicas.into(),
        pinned: OnceLock::new(),
        remembered: None,
        events: Arc::clone(events),
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

fn replica(key: &str, token: &str, uri: &str, links: &[Configured]) -> Result<Replica, CustodySetupError> {
    let unknown = || CustodySetupError::NoToken { key: key.to_owned(), token: token.to_owned() };
    let link = links.iter().position(|configured| *configured.link.name == *token).ok_or_else(unknown)?;
    Ok(Replica {
        link,
        token: Arc::clone(&links[link].link.name),
        uri: uri.to_owned(),
        health: Health::default(),
        drained: Arc::clone(&links[link].drained),
    })
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
