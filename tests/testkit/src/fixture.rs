//! All of it started together: PKI, token, Authority, Licensing Service, appliance.
//!
//! Tenant `acme` has an active, a next and a retired key and may have everything signed; tenant `globex` has one key
//! and may have only SBOMs signed.

#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use toml::Value;

use crate::appliance::{Appliance, Binaries, Settings};
use crate::authority::Authority;
use crate::client::{Client, Endpoint};
use crate::device::{Device, TokenKey};
use crate::licensing::{self, Licensing};
use crate::pki::Pki;
use crate::token::{Token, TokenKind};
use crate::{Context, Error, Result, sample};

/// A running appliance and everything around it.
pub struct Fixture {
    /// The processes under test.
    pub appliance: Appliance,
    /// The development Authority.
    pub authority: Arc<Authority>,
    /// The development Licensing Service.
    pub licensing: Arc<Licensing>,
    /// The token.
    pub token: Token,
    /// Its keys.
    pub keys: Keys,
    /// All certificates.
    pub pki: Pki,
    clients: [Client; 2],
    // Last, so that it goes after the processes that write to it.
    dir: TempDir,
}

/// The keys in the token.
pub struct Keys {
    /// `acme-active`: signs for acme.
    pub acme: TokenKey,
    /// `acme-next`: published, does not sign yet.
    pub acme_next: TokenKey,
    /// `acme-retired`: verifies only.
    pub acme_retired: TokenKey,
    /// `globex-active`: signs for globex.
    pub globex: TokenKey,
}

/// A fixture about to be started.
#[derive(Default)]
pub struct Builder {
    binaries: Option<Binaries>,
    token: Option<TokenKind>,
    device: Option<MakeDevice>,
    changes: Vec<Change>,
    environment: Vec<(String, String)>,
    front_environment: Vec<(String, String)>,
    activated: bool,
}

/// What a change of the settings may refer to.
pub struct Peers<'a> {
    /// All certificates.
    pub pki: &'a Pki,
    /// The development Authority.
    pub authority: &'a Authority,
    /// The development Licensing Service.
    pub licensing: &'a Licensing,
    /// The keys in the token.
    pub keys: &'a Keys,
    /// The fixture's directory.
    pub dir: &'a Path,
}

type MakeDevice = Box<dyn FnOnce(&Path, &str) -> Result<Box<dyn Device>>>;
type Change = Box<dyn FnOnce(&mut Settings, &Peers<'_>)>;

impl Fixture {
    /// Everything with its defaults.
    ///
    /// # Panics
    /// When it cannot be started; the message says why.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// To be changed before it is started.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The client of tenant acme: DPoP-bound, HTTP/1.1, one connection. Clones share it; see [`Client::fork`].
    #[must_use]
    pub fn client(&self) -> Client {
        self.clients[0].clone()
    }

    /// The client of tenant globex.
    #[must_use]
    pub fn globex(&self) -> Client {
        self.clients[1].clone()
    }

    /// The directory of everything that belongs to it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps the directory when the fixture is dropped.
    pub fn keep_dir(&mut self) {
        self.dir.disable_cleanup(true);
    }
}

impl Builder {
    /// Runs the programs of this directory.
    #[must_use]
    pub fn binaries(mut self, binaries: Binaries) -> Self {
        self.binaries = Some(binaries);
        self
    }

    /// With this token instead of the one that `SIGNER_TEST_DEVICE` names.
    #[must_use]
    pub fn token(mut self, kind: TokenKind) -> Self {
        self.token = Some(kind);
        self
    }

    /// Has the keys in this device instead of SoftHSM2: `make` gets a directory for it and the token's label.
    #[must_use]
    pub fn device<D: Device + 'static>(mut self, make: impl FnOnce(&Path, &str) -> Result<D> + 'static) -> Self {
        self.device = Some(Box::new(|dir, label| Ok(Box::new(make(dir, label)?))));
        self
    }

    /// Sets a value by its dotted name, as in `("licensing.online.cache_ttl", "1s")`.
    #[must_use]
    pub fn set(self, name: &str, value: impl Into<Value>) -> Self {
        let (name, value) = (name.to_owned(), value.into());
        self.settings(move |settings, _| {
            settings.set(&name, value);
        })
    }

    /// Removes a value or table by its dotted name.
    #[must_use]
    pub fn unset(self, name: &str) -> Self {
        let name = name.to_owned();
        self.settings(move |settings, _| {
            settings.unset(&name);
        })
    }

    /// Sets an environment variable of the workers.
    ///
    /// # Panics
    /// When the value is not text.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        let value = value.as_ref().to_str().expect("variables of a test are text");
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets an environment variable of the front.
    ///
    /// # Panics
    /// When the value is not text.
    #[must_use]
    pub fn front_environment(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        let value = value.as_ref().to_str().expect("variables of a test are text");
        self.front_environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With listening sockets that outlive the processes; see [`Appliance::hold_sockets`].
    #[must_use]
    pub fn activated(mut self) -> Self {
        self.activated = true;
        self
    }

    /// Changes the settings at will.
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings, &Peers<'_>) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started; the message says why.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Fixture {
        match self.try_start() {
            Ok(fixture) => fixture,
            Err(error) => panic!("the fixture cannot be started: {error}"),
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When a program is missing or fails, in words for the person who started the run.
    pub fn try_start(self) -> Result<Fixture> {
        let binaries = self.binaries.map_or_else(Binaries::locate, Ok)?;
        let dir = tempfile::Builder::new().prefix("signer-").tempdir().context("make a temporary directory")?;
        let path = dir.path();
        let pki = Pki::generate(&path.join("pki"))?;
        let (kind, hsm) = (self.token.map_or_else(TokenKind::from_environment, Ok)?, path.join("hsm"));
        let mut token = match self.device {
            Some(make) => Token::Device(make(&hsm, TOKEN_LABEL)?),
            None => Token::create(kind, &hsm, TOKEN_LABEL)?,
        };
        let keys = Keys {
            acme: token.generate_key("acme-active")?,
            acme_next: token.generate_key("acme-next")?,
            acme_retired: token.generate_key("acme-retired")?,
            globex: token.generate_key("globex-active")?,
        };
        let authority = Arc::new(Authority::start(&pki)?);
        let licensing = Arc::new(Licensing::start(&pki, path)?);
        let peers = Peers { pki: &pki, authority: &authority, licensing: &licensing, keys: &keys, dir: path };
        token.settle()?;
        let mut settings = settings(&peers, &token, &keys)?;
        self.changes.into_iter().for_each(|change| change(&mut settings, &peers));
        let mut environment = self.environment;
        environment.extend(token.environment());
        let mut appliance = Appliance::prepare(binaries, path, settings, &environment)?;
        appliance.front_environment = self.front_environment;
        if self.activated {
            appliance.hold_sockets()?;
        }
        let appliance = appliance.started()?;
        let endpoint = Endpoint { addr: appliance.addr(), url: appliance.url(), roots: pki.server_roots() };
        let client =
            |identity, tenant| Client::new(endpoint.clone(), identity, tenant, authority.clone(), licensing.clone());
        let clients = [client(&pki.acme, "acme"), client(&pki.globex, "globex")];
        Ok(Fixture { appliance, authority, licensing, token, keys, pki, clients, dir })
    }
}

/// The defaults of every fixture.
fn settings(peers: &Peers<'_>, token: &Token, keys: &Keys) -> Result<Settings> {
    let Peers { pki, authority, licensing, dir, .. } = peers;
    // Numbers serve where an account has no name, as in some containers.
    let user = std::fs::metadata("/proc/self").context("find out who I am")?.uid().to_string();
    let audit = dir.join("audit");
    std::fs::create_dir_all(&audit).context("make a directory for the audit log")?;
    if dir.as_os_str().len() > MAX_DIR_BYTES {
        return Err(Error(format!(
            "{} is too long a path for Unix sockets; set TMPDIR to a shorter one",
            dir.display()
        )));
    }
    let mut settings = Settings::parse(DEFAULTS);
    settings
        .set_path("server.tls.certificate", pki.server.certificate())
        .set_path("server.tls.private_key", pki.server.private_key())
        .set_path("server.tls.client_ca", &pki.client_ca.certificate)
        .set("server.tls.client_crl", vec![pki.client_crl.display().to_string()])
        .set("authority.issuer", authority.issuer())
        .set("authority.jwks.discovery", authority.discovery_url())
        .set_path("authority.ca", &pki.server_ca.certificate)
        .set("licensing.offline.issuer", licensing::ISSUER)
        .set_path("licensing.offline.keys", &licensing.keys_file)
        .set_path("licensing.offline.revocation_list", &licensing.revocation_file)
        .set("licensing.online.introspection_url", licensing.introspection_url())
        .set_path("licensing.online.ca", &pki.server_ca.certificate)
        .set_path("licensing.online.certificate", pki.appliance.certificate())
        .set_path("licensing.online.private_key", pki.appliance.private_key())
        .set_path("tokens.main.socket", &dir.join("main.sock"))
        .set("tokens.main.front_user", user.as_str())
        .set("tokens.main.worker_user", user)
        .set_path("tokens.main.state_dir", &dir.join("worker-state"))
        .set_path("audit.path", &audit.join("audit.log"));
    token.configure(&mut settings, "main");
    for (key, state) in
        [(&keys.acme, "active"), (&keys.acme_next, "next"), (&keys.acme_retired, "retired"), (&keys.globex, "active")]
    {
        let name = format!("keys.{}", key.label);
        settings
            .set(&format!("{name}.token"), "main")
            .set(&format!("{name}.uri"), key.uri.as_str())
            .set(&format!("{name}.state"), state)
            .set_path(&format!("{name}.public_key"), &key.public_key)
            .set(
                &format!("{name}.custody_exception"),
                vec![toml::Table::from_iter([
                    ("attribute".to_owned(), Value::from("CKA_UNWRAP")),
                    ("reason".to_owned(), Value::from("pkcs11-tool cannot make a key without it on SoftHSM2")),
                ])],
            );
    }
    let trusted = toml::Table::from_iter([
        ("digest".to_owned(), Value::from(sample::SCANNER_IMAGE)),
        ("signed_by".to_owned(), Value::from("release@stella-ops.test")),
        ("reason".to_owned(), Value::from("the scanner of the test fixture")),
    ]);
    settings.set("release.trusted", vec![trusted]);
    Ok(settings)
}

const TOKEN_LABEL: &str = "stella-test";

// A Unix socket's path has 107 bytes at most; the longest name below the directory takes some of them.
const MAX_DIR_BYTES: usize = 80;

const DEFAULTS: &str = r#"
[server]
threads = 2

[plans.pro]
qps = 10000
concurrency = 256
max_artifact_bytes = "32 MiB"

[plans.free]
qps = 2
burst = 2
concurrency = 1
max_artifact_bytes = "64 KiB"

[tenants.acme]
keys = ["acme-active", "acme-next", "acme-retired"]
predicate_types = ["*"]

[tenants.globex]
keys = ["globex-active"]
predicate_types = ["stella.ops/sbom@v1", "https://stella-ops.org/attestations/sbom/1"]

[log]
filter = "info"
target = "text"
"#;
