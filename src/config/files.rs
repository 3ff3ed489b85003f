//! What the configuration names on disk: is it there, is it what it should be, and who else could read it.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, SubjectPublicKeyInfoDer};

use super::error::ConfigErrors;
use super::load::Loaded;
use super::tree::Step;
use super::validate::{Report, key};
use super::{ClientAuthentication, Identity, IdentitySource, JwksSource, Keyless, Timestamps, Token};

/// On whose behalf files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewer<'a> {
    /// The front: its own files must be readable; of a worker's it can at best see that strangers can read them.
    Front,
    /// The worker of the token of this name: nothing but that token's files.
    Worker(&'a str),
    /// An operator who checks everything; what they may not see is passed over.
    Operator,
}

impl Loaded {
    /// Looks at every file that the configuration names, as far as they concern `viewer`.
    ///
    /// # Errors
    /// Every file that is absent, unreadable, not what it should be, or open to strangers.
    pub fn check_files(&self, viewer: Viewer<'_>) -> Result<(), ConfigErrors> {
        let mut check = Check { viewer, report: Report { tree: &self.tree, errors: Vec::new() } };
        let mut errors = Vec::new();
        for file in &self.files {
            if let Ok(metadata) = fs::metadata(file)
                && metadata.permissions().mode() & 0o002 != 0
            {
                let message = format!("anyone can write it; run `chmod o-w {}`", file.display());
                errors.extend(ConfigErrors::file(file, message).0);
            }
        }
        if !matches!(viewer, Viewer::Worker(_)) {
            self.front(&mut check);
        }
        for (name, token) in &self.config.tokens {
            if viewer == Viewer::Worker(name) || !matches!(viewer, Viewer::Worker(_)) {
                worker(name, token, &mut check);
            }
        }
        errors.extend(check.report.errors);
        ConfigErrors::check(errors)
    }

    fn front(&self, check: &mut Check<'_>) {
        let config = &self.config;
        let tls = &config.server.tls;
        check.own(key!["server", "tls", "certificate"], &tls.certificate, Kind::Certificates);
        check.own(key!["server", "tls", "private_key"], &tls.private_key, Kind::PrivateKey);
        check.own(key!["server", "tls", "client_ca"], &tls.client_ca, Kind::Certificates);
        for (i, crl) in tls.client_crl.iter().enumerate() {
            check.own(key!["server", "tls", "client_crl", i], crl, Kind::Crl);
        }
        if let JwksSource::File(file) = &config.authority.jwks {
            check.own(key!["authority", "jwks", "file"], file, Kind::JwkSet);
        }
        if let Some(ca) = &config.authority.ca {
            check.own(key!["authority", "ca"], ca, Kind::Certificates);
        }
        if let Some(offline) = &config.licensing.offline {
            check.own(key!["licensing", "offline", "keys"], &offline.keys, Kind::JwkSet);
            check.own(key!["licensing", "offline", "revocation_list"], &offline.revocation_list, Kind::Plain);
        }
        if let Some(online) = &config.licensing.online {
            check.own(key!["licensing", "online", "ca"], &online.ca, Kind::Certificates);
            check.own(key!["licensing", "online", "certificate"], &online.certificate, Kind::Certificates);
            check.own(key!["licensing", "online", "private_key"], &online.private_key, Kind::PrivateKey);
        }
        self.releases(check);
        for (name, key) in &config.keys {
            if let Some(file) = &key.public_key {
                check.own(key!["keys", name, "public_key"], file, Kind::PublicKey);
            }
            if let Some(file) = &key.certificate_chain {
                check.own(key!["keys", name, "certificate_chain"], file, Kind::Certificates);
            }
        }
        if let Some(keyless) = &config.keyless {
            keyless_files(keyless, check);
        }
        if let Some(timestamps) = &config.timestamps {
            timestamp_files(timestamps, check);
        }
        check.audit_directory(key!["audit", "path"], &config.audit.path);
    }

    fn releases(&self, check: &mut Check<'_>) {
        let release = &self.config.release;
        for (i, identity) in release.identity.iter().enumerate() {
            if let Some(file) = &identity.public_key {
                check.own(key!["release", "identity", i, "public_key"], file, Kind::ReleaseKey);
            }
            if let Some(file) = &identity.trusted_root {
                check.own(key!["release", "identity", i, "trusted_root"], file, Kind::TrustedRoot);
            }
            let Some(notation) = &identity.notation else { continue };
            for (key, file, kind) in [
                ("ca", &notation.ca, Kind::TrustStore),
                ("signing_authority", &notation.signing_authority, Kind::TrustStore),
                ("tsa", &notation.tsa, Kind::TimeStampRoots),
            ] {
                if let Some(file) = file {
                    check.own(key!["release", "identity", i, "notation", key], file, kind);
                }
            }
        }
        for (i, repository) in release.repository.iter().enumerate() {
            for (key, file, kind) in [
                ("ca", &repository.ca, Kind::Certificates),
                ("certificate", &repository.certificate, Kind::Certificates),
                ("private_key", &repository.private_key, Kind::PrivateKey),
                ("credentials", &repository.credentials, Kind::Credentials),
            ] {
                if let Some(file) = file {
                    check.own(key!["release", "repository", i, key], file, kind);
                }
            }
        }
        if let Some(snapshot) = &release.snapshot {
            check.own(key!["release", "snapshot", "file"], &snapshot.file, Kind::Plain);
            check.own(key!["release", "snapshot", "public_key"], &snapshot.public_key, Kind::SnapshotKey);
        }
    }
}

fn keyless_files(keyless: &Keyless, check: &mut Check<'_>) {
    if let Some(ca) = &keyless.ca {
        check.own(key!["keyless", "ca"], ca, Kind::Certificates);
    }
    check.own(key!["keyless", "trusted_root"], &keyless.trusted_root, Kind::TrustedRoot);
    if let Some(helper) = &keyless.helper {
        check.program(key!["keyless", "helper"], helper);
    }
    for (name, identity) in &keyless.identity {
        identity_files(name, identity, check);
    }
}

fn identity_files(name: &String, identity: &Identity, check: &mut Check<'_>) {
    match &identity.source {
        IdentitySource::File(file) => {
            check.later(key!["keyless", "identity", name, "source", "file"], file);
        }
        // It exists only while the unit runs.
        IdentitySource::Credential(_) => {}
        IdentitySource::ClientCredentials(client) => {
            let at = |field: &str| key!["keyless", "identity", name, "source", "client_credentials", field].to_vec();
            check.own(&at("ca"), &client.ca, Kind::Certificates);
            if let ClientAuthentication::Mtls(own) = &client.authentication {
                let within = |field: &str| {
                    let mut path = at("authentication");
                    path.extend([Step::from("mtls"), Step::from(field)]);
                    path
                };
                check.own(&within("certificate"), &own.certificate, Kind::Certificates);
                check.own(&within("private_key"), &own.private_key, Kind::PrivateKey);
            }
        }
    }
}

fn timestamp_files(timestamps: &Timestamps, check: &mut Check<'_>) {
    check.own(key!["timestamps", "trusted_root"], &timestamps.trusted_root, Kind::TrustedRoot);
    for (name, authority) in &timestamps.authority {
        if let Some(ca) = &authority.ca {
            check.own(key!["timestamps", "authority", name, "ca"], ca, Kind::Certificates);
        }
    }
}

fn worker(name: &String, token: &Token, check: &mut Check<'_>) {
    if let Some(module) = &token.module {
        check.workers(key!["tokens", name, "module"], module, Kind::Module);
    }
    if let Some(roots) = &token.attestation_roots {
        check.workers(key!["tokens", name, "attestation_roots"], roots, Kind::Certificates);
    }
    check.workers(key!["tokens", name, "pin_file"], &token.pin_file, Kind::Pin);
}

/// Permission bits that no secret has: a group of its own may read it, nobody else, and none but its owner may write it.
pub(crate) const SECRET_OPEN: u32 = 0o037;

/// The one spelling that cosign and sigstore-go take.
const TRUSTED_ROOT: &str = "application/vnd.dev.sigstore.trustedroot+json;version=0.1";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Certificates,
    Crl,
    PrivateKey,
    PublicKey,
    JwkSet,
    ReleaseKey,
    SnapshotKey,
    TrustStore,
    TimeStampRoots,
    TrustedRoot,
    Credentials,
    IdentityToken,
    Module,
    Pin,
    Plain,
}

impl Kind {
    fn secret(self) -> bool {
        matches!(self, Self::PrivateKey | Self::Pin | Self::Credentials)
    }
}

struct Check<'a> {
    viewer: Viewer<'a>,
    report: Report<'a>,
}

impl Check<'_> {
    /// A file of the front's.
    fn own(&mut self, path: &[Step], file: &Path, kind: Kind) {
        let judged = match File::open(file).and_then(|open| open.metadata()) {
            Ok(metadata) => mode(&metadata, kind).and_then(|()| content(file, kind)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied && self.viewer == Viewer::Operator => Ok(()),
            // A credential exists only while the front's unit runs.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && self.viewer == Viewer::Operator
                    && file.starts_with("/run/credentials") =>
            {
                Ok(())
            }
            Err(error) => Err(unopened(&error)),
        };
        self.report.expect(path, judged);
    }

    /// A file that somebody else writes, perhaps after the front has started: without it there is no signature, but there
    /// is a front.
    fn later(&mut self, path: &[Step], file: &Path) {
        match fs::symlink_metadata(file) {
            Err(error) if error.kind() == ErrorKind::NotFound && self.viewer == Viewer::Front => {}
            _ => self.own(path, file, Kind::IdentityToken),
        }
    }

    /// A program that the front starts. It may be executable and no more: mode 0711 keeps others from reading it.
    fn program(&mut self, path: &[Step], file: &Path) {
        let judged = match fs::metadata(file) {
            Ok(metadata) => mode(&metadata, Kind::Module).and_then(|()| {
                if metadata.permissions().mode() & 0o111 == 0 {
                    return Err("it is no program; run `chmod 0711` on it".to_owned());
                }
                Ok(())
            }),
            Err(error) if error.kind() == ErrorKind::PermissionDenied && self.viewer == Viewer::Operator => Ok(()),
            Err(error) => Err(unopened(&error)),
        };
        self.report.expect(path, judged);
    }

    /// A file that only a token's worker reads.
    fn workers(&mut self, path: &[Step], file: &Path, kind: Kind) {
        // A credential exists only while its unit runs, and a sandboxed front sees neither it nor vendor modules.
        let credential = file.starts_with("/run/credentials");
        let judged = match fs::metadata(file) {
            Ok(metadata) => mode(&metadata, kind),
            Err(error) => match (self.viewer, error.kind()) {
                (Viewer::Front, _) | (Viewer::Operator, ErrorKind::PermissionDenied) => Ok(()),
                // Where the service manager has none, the worker starts, says so, and is there to be asked why.
                (Viewer::Operator | Viewer::Worker(_), ErrorKind::NotFound) if credential => Ok(()),
                _ => Err(unopened(&error)),
            },
        };
        self.report.expect(path, judged);
    }

    fn audit_directory(&mut self, path: &[Step], log: &Path) {
        let directory = log.parent().unwrap_or(Path::new("/"));
        let judged = match fs::metadata(directory) {
            Ok(metadata) if !metadata.is_dir() => Err("its parent is no directory; write a path inside one".to_owned()),
            Ok(metadata) if metadata.permissions().mode() & 0o002 != 0 => {
                Err("anyone can write to its directory and so replace the log; take that right away with `chmod o-w`"
                    .to_owned())
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied && self.viewer == Viewer::Operator => Ok(()),
            Err(error) => Err(format!("its directory cannot be used: {error}; create it for the front's user")),
        };
        self.report.expect(path, judged);
    }
}

// The file's name is not repeated: someone may have typed a secret where the name of its file belongs.
fn unopened(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file; create it or write the right path".to_owned(),
        ErrorKind::PermissionDenied => {
            "this process may not read it; give its user or group the right to, and to every directory above".to_owned()
        }
        _ => format!("it cannot be read: {error}; write the path of a readable file"),
    }
}

fn mode(metadata: &Metadata, kind: Kind) -> Result<(), String> {
    let mode = metadata.permissions().mode() & 0o777;
    if !metadata.is_file() {
        return Err("this is not a file; write the path of one".to_owned());
    }
    if kind.secret() && mode & SECRET_OPEN != 0 {
        return Err(format!(
            "mode {mode:04o} opens this secret to others; run `chmod 0600` on it, or 0640 with a group of its own"
        ));
    }
    // Whoever writes it chooses as whom the appliance signs. Its reader refuses it for the same reason.
    if kind == Kind::IdentityToken && mode & 0o022 != 0 {
        return Err(format!("mode {mode:04o} lets others than its owner write it; run `chmod go-w` on it"));
    }
    if mode & 0o002 != 0 {
        return Err(format!("mode {mode:04o} lets anyone write it; run `chmod o-w` on it"));
    }
    Ok(())
}

fn content(file: &Path, kind: Kind) -> Result<(), String> {
    let pem = |what: &str, result: Result<usize, rustls::pki_types::pem::Error>| match result {
        Ok(0) | Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            Err(format!("it holds no {what}; write the path of a PEM file that does"))
        }
        Ok(_) => Ok(()),
        // Not the error itself: it may quote the file.
        Err(_) => Err(format!("it is no PEM file with a {what}; convert it to PEM")),
    };
    match kind {
        Kind::Certificates => pem("certificate", CertificateDer::pem_file_iter(file).and_then(count)),
        Kind::Crl => pem("CRL", CertificateRevocationListDer::pem_file_iter(file).and_then(count)),
        Kind::PublicKey => pem("public key", SubjectPublicKeyInfoDer::from_pem_file(file).map(|_| 1)),
        Kind::PrivateKey => pem("private key", PrivateKeyDer::from_pem_file(file).map(|_| 1)),
        Kind::JwkSet => {
            let text = fs::read(file).map_err(|error| unopened(&error))?;
            let set: Result<serde_json::Value, _> = serde_json::from_slice(&text);
            match set.as_ref().ok().and_then(|set| set.get("keys")).and_then(serde_json::Value::as_array) {
                Some(keys) if !keys.is_empty() => Ok(()),
                Some(_) => Err("its JWK set is empty; add the keys to trust".to_owned()),
                None => Err("it is no JWK set; write a file like {\"keys\": [ … ]}".to_owned()),
            }
        }
        Kind::ReleaseKey => crate::release::check_public_key(file).map_err(|why| format!("it {why}")),
        Kind::SnapshotKey => crate::release::check_snapshot_key(file).map_err(|why| format!("it {why}")),
        Kind::TrustStore => crate::release::check_trust_store(file).map_err(|why| format!("it {why}")),
        Kind::TimeStampRoots => crate::release::check_tsa(file).map_err(|why| format!("it {why}")),
        Kind::Credentials => crate::release::check_credentials(file).map_err(|why| format!("it {why}")),
        Kind::TrustedRoot => {
            let text = fs::read(file).map_err(|error| unopened(&error))?;
            let root: Result<serde_json::Value, _> = serde_json::from_slice(&text);
            match root.as_ref().ok().and_then(|root| root.get("mediaType")).and_then(serde_json::Value::as_str) {
                Some(TRUSTED_ROOT) => crate::release::check_trusted_root(file),
                _ => Err(format!(
                    "it is no Sigstore trusted root; write a JSON file whose `mediaType` is {TRUSTED_ROOT}"
                )),
            }
        }
        Kind::IdentityToken | Kind::Module | Kind::Pin | Kind::Plain => Ok(()),
    }
}

fn count<T>(
    mut items: impl Iterator<Item = Result<T, rustls::pki_types::pem::Error>>,
) -> Result<usize, rustls::pki_types::pem::Error> {
    items.try_fold(0, |n, item| item.map(|_| n + 1))
}
