//! `signerctl trust export`: the offline kit.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::cli::TrustExportArgs;
use super::{lines, merge, readme};
use crate::config::{self, Loaded};
use crate::ctl::error::CtlError;
use crate::ctl::files;
use crate::ctl::keys::export::{Exported, exported};
use crate::ctl::output::{Report, plain};
use crate::ctl::verify::key::published;
use crate::ctl::verify::trusted_root;
use crate::custody::PublicKey;
use crate::sigstore::trusted_root::Authority;
use crate::sigstore::{CertificatePolicy, TrustedRoot};

/// What the kit holds.
pub(super) struct Kit {
    pub(super) root: Option<TrustedRoot>,
    pub(super) keys: Vec<KitKey>,
    /// Identities that tenants of the configuration sign as, keyless.
    pub(super) identities: Vec<(String, String)>,
    /// How long their certificates may live, where it is longer than `signerctl verify` accepts unasked.
    pub(super) lifetime: Option<Duration>,
}

/// A key and the name of its file in `keys/`.
pub(super) struct KitKey {
    pub(super) file: String,
    pub(super) key: PublicKey,
    jwk: Value,
}

pub(super) fn run(args: &TrustExportArgs) -> Result<Report, CtlError> {
    // Nothing is needed of the configuration when both are given: a verifier's own machine has none.
    let loaded = match (&args.keys, args.trusted_root.is_empty()) {
        (Some(_), false) => None,
        _ => Some(config::open(&args.reach.config).map_err(CtlError::Config)?),
    };
    let kit = Kit {
        root: roots(args, loaded.as_ref())?,
        keys: keys(args, loaded.as_ref())?,
        identities: loaded.as_ref().map(|loaded| configured_identities(&loaded.config)).unwrap_or_default(),
        lifetime: loaded.as_ref().and_then(|loaded| longer_lifetime(&loaded.config)),
    };
    empty_folder(&args.out)?;
    let written = write(&kit, &args.out)?;
    let mut text = format!("wrote {}\n", plain(&args.out.display().to_string()));
    for name in &written {
        text.push_str(&format!("  {name}\n"));
    }
    match &kit.root {
        Some(root) => text.push_str(&lines(root)),
        None => {
            text.push_str("  note       no trusted root: the configuration names none, so the kit is for keys alone\n");
        }
    }
    Ok(Report::new(text, json!({ "folder": args.out.display().to_string(), "files": written })))
}

fn roots(args: &TrustExportArgs, loaded: Option<&Loaded>) -> Result<Option<TrustedRoot>, CtlError> {
    let mut all: Option<TrustedRoot> = None;
    for path in &args.trusted_root {
        merge(all.get_or_insert_default(), trusted_root(path)?);
    }
    let Some(loaded) = loaded.filter(|_| all.is_none()) else { return Ok(all) };
    // Of each file what the appliance itself trusts of it, and no more.
    if let Some(keyless) = &loaded.config.keyless {
        let root = trusted_root(&keyless.trusted_root)?;
        merge(all.get_or_insert_default(), TrustedRoot { timestamp_authorities: Vec::new(), ..root });
    }
    if let Some(timestamps) = &loaded.config.timestamps {
        let timestamp_authorities = trusted_root(&timestamps.trusted_root)?.timestamp_authorities;
        merge(all.get_or_insert_default(), TrustedRoot { timestamp_authorities, ..TrustedRoot::default() });
    }
    Ok(all)
}

fn keys(args: &TrustExportArgs, loaded: Option<&Loaded>) -> Result<Vec<KitKey>, CtlError> {
    let mut keys: Vec<KitKey> = Vec::new();
    let mut add = |name: &str, key: PublicKey, jwk: Value| {
        let file = file_name(name, &key, &keys);
        keys.push(KitKey { file, key, jwk });
    };
    match (&args.keys, loaded) {
        (Some(path), _) => {
            let json = files::read(path, MAX_JWKS_BYTES)?;
            for one in published(&json).map_err(|why| CtlError::content(path, why))? {
                let key =
                    PublicKey::from_sec1(one.key.sec1()).map_err(|error| CtlError::content(path, error.to_string()))?;
                let name = one.text("name").unwrap_or("key").to_owned();
                add(&name, key, one.about);
            }
        }
        (None, Some(loaded)) => {
            for one in exported(loaded, &args.reach, true)? {
                let Exported { name, key, .. } = &one;
                add(name, *key, one.jwk());
            }
        }
        (None, None) => {}
    }
    Ok(keys)
}

/// `NAME.pem`; a key of the past that had the same name gets a piece of its fingerprint as well.
fn file_name(name: &str, key: &PublicKey, taken: &[KitKey]) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = name.trim_start_matches('.').chars().map(safe).collect();
    let plain = format!("{}.pem", if name.is_empty() { "key" } else { &name });
    if taken.iter().all(|other| other.file != plain) {
        return plain;
    }
    let fingerprint = crate::hex::sha256(&key.spki());
    format!("{name}-{}.pem", &fingerprint[..16])
}

fn empty_folder(path: &Path) -> Result<(), CtlError> {
    fs::create_dir_all(path).map_err(|error| CtlError::write(path, error))?;
    let mut entries = fs::read_dir(path).map_err(|error| CtlError::read(path, error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(CtlError::content(path, "is not empty; an old file in a kit would be trusted like a new one")),
    }
}

/// Writes the files, and returns their names.
fn write(kit: &Kit, folder: &Path) -> Result<Vec<String>, CtlError> {
    let mut written = Vec::new();
    let mut put = |name: String, content: &str| {
        let path = folder.join(&name);
        written.push(name);
        files::write_new(&path, false, |file| file.write_all(content.as_bytes()))
    };
    if let Some(root) = &kit.root {
        put("trusted_root.json".to_owned(), &root.to_json())?;
        for (name, authorities) in
            [("fulcio.pem", &root.certificate_authorities), ("tsa.pem", &root.timestamp_authorities)]
        {
            if !authorities.is_empty() {
                put(name.to_owned(), &authorities.iter().map(chain_pem).collect::<String>())?;
            }
        }
    }
    let set = json!({ "keys": kit.keys.iter().map(|key| key.jwk.clone()).collect::<Vec<Value>>() });
    put("keys.json".to_owned(), &format!("{set:#}\n"))?;
    if !kit.keys.is_empty() {
        let keys = folder.join("keys");
        fs::create_dir(&keys).map_err(|error| CtlError::write(&keys, error))?;
    }
    for key in &kit.keys {
        put(format!("keys/{}", key.file), &key.key.to_pem())?;
    }
    put("README.txt".to_owned(), &readme::text(kit))?;
    Ok(written)
}

fn chain_pem(authority: &Authority) -> String {
    let one = |der: &rustls_pki_types::CertificateDer<'_>| {
        let base64 = BASE64_STANDARD.encode(der);
        let lines: Vec<&str> = (0..base64.len()).step_by(64).map(|at| &base64[at..base64.len().min(at + 64)]).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    authority.chain.iter().map(one).collect()
}

/// The longest life of the certificates that the appliance accepts, where a verifier must be told of it.
fn longer_lifetime(config: &config::Config) -> Option<Duration> {
    let keyless = config.keyless.as_ref()?;
    let accepted = keyless.max_certificate_lifetime.get() + keyless.clock_skew.get();
    Some(accepted).filter(|accepted| *accepted > CertificatePolicy::OFFLINE.max_lifetime)
}

/// Name and identity provider of each tenant that signs keyless.
fn configured_identities(config: &config::Config) -> Vec<(String, String)> {
    let Some(keyless) = &config.keyless else { return Vec::new() };
    let one = |tenant: &config::Tenant| {
        let signs = tenant.keyless.as_ref()?;
        let known = || keyless.identity.get(&signs.identity).map(|identity| identity.issuer.clone());
        Some((signs.san.clone(), signs.issuer.clone().or_else(known)?))
    };
    let mut identities: Vec<(String, String)> = config.tenants.values().filter_map(one).collect();
    identities.sort();
    identities.dedup();
    identities
}

const MAX_JWKS_BYTES: u64 = 4 * 1024 * 1024;
