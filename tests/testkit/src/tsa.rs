//! A real timestamp authority (RFC 3161) with a chain of ours.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;

use crate::appliance::{Process, free_port};
use crate::fulcio::wait_until_it_answers;
use crate::pki::{Pki, at};
use crate::tls_front::TlsFront;
use crate::{Context, Result, der, now, peers, pem, shell};

/// A running timestamp-server; it ends when dropped.
pub struct TimestampServer {
    /// Leaf and root, DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// What clients connect to.
    pub front: TlsFront,
    process: Process,
}

impl TimestampServer {
    /// Starts it; `name` tells its files from another's.
    ///
    /// # Errors
    /// When it was not built, or does not start.
    pub fn start(pki: &Pki, dir: &Path, name: &str) -> Result<Self> {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).context(format!("make {}", dir.display()))?;
        let (chain, key) = authority(name)?;
        let (chain_file, key_file) = (dir.join("chain.pem"), dir.join("tsa.key"));
        let certificates: String = chain.iter().map(|link| pem("CERTIFICATE", link)).collect();
        std::fs::write(&chain_file, certificates).context(format!("write {}", chain_file.display()))?;
        shell::write_private(&key_file, key.as_bytes())?;
        let port = free_port()?;
        let mut command = Command::new(peers::timestamp_server()?);
        command
            .args(["serve", "--host", "127.0.0.1", "--port", &port.to_string(), "--disable-ntp-monitoring"])
            // Else it looks for a configuration in the home of whoever runs the tests.
            .env("HOME", &dir)
            .args(["--timestamp-signer", "file", "--file-signer-key-path"])
            .arg(key_file)
            .arg("--certificate-chain-path")
            .arg(chain_file);
        let mut process = Process::start("timestamp-server", command, &dir)?;
        let plain = SocketAddr::from(([127, 0, 0, 1], port));
        wait_until_it_answers(&mut process, plain, "/ping")?;
        Ok(Self { chain, front: TlsFront::start(&pki.services, plain)?, process })
    }

    /// Where queries are posted.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/api/v1/timestamp", self.front.url())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// Leaf and root, and the leaf's key.
fn authority(name: &str) -> Result<(Vec<CertificateDer<'static>>, String)> {
    let key = || KeyPair::generate().context("make a key");
    let params = |common_name: String| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        (params.not_before, params.not_after) = (at!(now() - DAY), at!(now() + 30 * DAY));
        params
    };
    let mut root = params(format!("StellaOps test {name} root"));
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = CertifiedIssuer::self_signed(root, key()?).context("make a root certificate")?;
    let mut leaf = params(format!("StellaOps test {name}"));
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.use_authority_key_identifier_extension = true;
    // RFC 3161, section 2.3: critical, and nothing else. rcgen's own is not critical.
    let mut usage = CustomExtension::from_oid_content(
        EXTENDED_KEY_USAGE,
        der::write(der::SEQUENCE, &der::write(der::OID, TIME_STAMPING)),
    );
    usage.set_criticality(true);
    leaf.custom_extensions.push(usage);
    let leaf_key = key()?;
    let leaf = leaf.signed_by(&leaf_key, &root).context("sign a certificate")?;
    Ok((vec![leaf.der().clone(), root.der().clone()], leaf_key.serialize_pem()))
}

// 2.5.29.37.
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
// 1.3.6.1.5.5.7.3.8.
const TIME_STAMPING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08];
const DAY: i64 = 24 * 3600;
