//! A configuration for tests of other modules.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::Config;
use super::load::Loaded;

/// What every configuration needs, and `more`, which has the tenants.
pub(crate) fn minimal(more: &str) -> Config {
    let base = "
        [server]
        listen = '127.0.0.1:0'
        local_listen = '127.0.0.1:0'
        public_url = 'https://signer.example'
        tls = { certificate = '/a', private_key = '/b', client_ca = '/c' }
        [authority]
        issuer = 'https://authority.example'
        jwks = { file = '/d' }
        [licensing.offline]
        issuer = 'https://licensing.example'
        keys = '/e'
        revocation_list = '/f'
        [audit]
        path = '/nonexistent/audit.jsonl'
        ";
    let loaded = Loaded::from_sources(&[(PathBuf::from("signer.toml"), format!("{base}\n{more}"))]);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).config
}
