//! A fixture that also signs keyless: with a real Fulcio, or with one of our own.
//!
//! Both tenants have an identity whose token lies in a file; the file is the test's to change.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::appliance::Settings;
use crate::authority::identity;
use crate::client::{Call, Client};
use crate::ct_log::CtLog;
use crate::fixture::{Builder, Peers};
use crate::fulcio::{Fulcio, OidcIssuer};
use crate::hostile_fulcio::HostileFulcio;
use crate::jwt::Jwt;
use crate::trusted_root::TrustedRoot;
use crate::tsa::TimestampServer;
use crate::{Fixture, Result, sample, shell};

/// With a Fulcio of our own: no program that is not ours is needed.
pub struct OwnFulcio {
    /// The appliance and its peers.
    pub fixture: Fixture,
    /// Fulcio: honest until told otherwise.
    pub fulcio: HostileFulcio,
}

/// With a real Fulcio, a real timestamp authority and a CT log.
pub struct RealFulcio {
    /// The appliance and its peers.
    pub fixture: Fixture,
    /// Fulcio.
    pub fulcio: Fulcio,
    /// The timestamp authority.
    pub tsa: TimestampServer,
    /// The CT log.
    pub log: CtLog,
    /// What is pinned of the three.
    pub trusted_root: PathBuf,
}

impl OwnFulcio {
    /// Starts it; `change` comes after the defaults.
    ///
    /// # Panics
    /// When it cannot be started; the message says why.
    #[must_use]
    #[track_caller]
    pub fn start(change: impl FnOnce(Builder) -> Builder) -> Self {
        Self::start_from(Fixture::builder(), change)
    }

    /// Starts it from a builder that has something already.
    ///
    /// # Panics
    /// When it cannot be started; the message says why.
    #[must_use]
    #[track_caller]
    pub fn start_from(builder: Builder, change: impl FnOnce(Builder) -> Builder) -> Self {
        let (sender, receiver) = mpsc::channel();
        let builder = builder.settings(move |settings, peers| {
            let fulcio = HostileFulcio::start(peers.pki).expect("a Fulcio of our own starts");
            let trusted_root = peers.dir.join("trusted_root.json");
            let root = TrustedRoot::new().certificate_authority(&fulcio.ca.chain()).ct_log(&fulcio.log);
            root.write(&trusted_root).expect("the trusted root can be written");
            configure(settings, peers, &fulcio.url(), &trusted_root);
            sender.send(fulcio).expect("the fixture waits for it");
        });
        let fixture = change(builder).start();
        Self { fixture, fulcio: receiver.recv().expect("it was sent") }
    }
}

impl RealFulcio {
    /// Starts it; `change` comes after the defaults.
    ///
    /// # Panics
    /// When it cannot be started; the message says why.
    #[must_use]
    #[track_caller]
    pub fn start(change: impl FnOnce(Builder) -> Builder) -> Self {
        Self::start_with(|_| Vec::new(), change)
    }

    /// Starts it with more issuers than the development Authority.
    ///
    /// # Panics
    /// When it cannot be started; the message says why.
    #[must_use]
    #[track_caller]
    pub fn start_with(
        issuers: impl FnOnce(&Peers<'_>) -> Vec<OidcIssuer> + 'static,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let (sender, receiver) = mpsc::channel();
        let builder = Fixture::builder().settings(move |settings, peers| {
            let started = start_real(peers, issuers(peers));
            let started = started.unwrap_or_else(|error| panic!("the real Fulcio cannot be started: {error}"));
            let (fulcio, tsa, _, trusted_root) = &started;
            configure(settings, peers, &fulcio.url(), trusted_root);
            settings
                .set_path("timestamps.trusted_root", trusted_root)
                .set("timestamps.authority.main.url", tsa.url())
                .set_path("timestamps.authority.main.ca", &peers.pki.server_ca.certificate);
            sender.send(started).expect("the fixture waits for it");
        });
        let fixture = change(builder).start();
        let (fulcio, tsa, log, trusted_root) = receiver.recv().expect("it was sent");
        Self { fixture, fulcio, tsa, log, trusted_root }
    }
}

fn start_real(peers: &Peers<'_>, mut issuers: Vec<OidcIssuer>) -> Result<(Fulcio, TimestampServer, CtLog, PathBuf)> {
    let log = CtLog::start(peers.pki)?;
    issuers.push(OidcIssuer { url: peers.authority.issuer(), ca: peers.pki.server_ca.certificate.clone() });
    let fulcio = Fulcio::start(peers.pki, peers.dir, Some(&log), &issuers)?;
    let tsa = TimestampServer::start(peers.pki, peers.dir, "tsa")?;
    let trusted_root = peers.dir.join("trusted_root.json");
    let root = TrustedRoot::new().certificate_authority(&fulcio.ca.chain()).timestamp_authority(&tsa.chain);
    root.ct_log(&log.key).write(&trusted_root)?;
    Ok((fulcio, tsa, log, trusted_root))
}

/// `[keyless]` for both tenants, their tokens in files.
///
/// # Panics
/// When a token cannot be written.
pub fn configure(settings: &mut Settings, peers: &Peers<'_>, fulcio_url: &str, trusted_root: &Path) {
    settings
        .set("keyless.fulcio_url", fulcio_url)
        .set_path("keyless.ca", &peers.pki.server_ca.certificate)
        .set_path("keyless.trusted_root", trusted_root);
    for tenant in ["acme", "globex"] {
        let file = token_file(peers.dir, tenant);
        write_token(&file, &peers.authority.mint_identity(tenant).shift("exp", LONG)).expect("a token can be written");
        settings
            .set_path(&format!("keyless.identity.{tenant}.source.file"), &file)
            .set(&format!("keyless.identity.{tenant}.issuer"), peers.authority.issuer())
            .set(&format!("tenants.{tenant}.keyless.identity"), tenant)
            .set(&format!("tenants.{tenant}.keyless.san"), identity(tenant));
    }
}

/// Where a tenant's identity token lies.
#[must_use]
pub fn token_file(dir: &Path, tenant: &str) -> PathBuf {
    dir.join(format!("identity-{tenant}.jwt"))
}

/// Puts a token in a file's place, in one step. Returns it.
///
/// # Errors
/// When it cannot be written.
pub fn write_token(file: &Path, token: &Jwt) -> Result<String> {
    let token = token.encode();
    let beside = file.with_extension("beside");
    shell::write_private(&beside, token.as_bytes())?;
    std::fs::rename(&beside, file)?;
    Ok(token)
}

/// A request to sign a small SBOM keyless, for a bundle of this form.
pub fn sign(client: &Client, form: &str) -> Call {
    let options = json!({"signingMode": "keyless", "returnBundle": form});
    client.sign(&sample::request()).body(|body: &mut Value| body["options"] = options)
}

/// The helpers that a front has started and that are still there, ended ones that nobody reaped included.
#[must_use]
pub fn helpers_of(front: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| parent_of(*id) == Some(front)).collect()
}

/// Waits until a front has a helper, and returns its process id.
///
/// # Panics
/// When there is none in time.
#[must_use]
#[track_caller]
pub fn wait_for_helper(front: u32) -> u32 {
    let mut found = None;
    wait_until("there is a helper", || {
        found = helpers_of(front).first().copied();
        found.is_some()
    });
    found.expect("it was waited for")
}

/// Waits until a front has no helper.
///
/// # Panics
/// When it still has one when the time is up.
#[track_caller]
pub fn wait_for_no_helper(front: u32) {
    wait_until("no helper is left", || helpers_of(front).is_empty());
}

/// Waits until something holds.
///
/// # Panics
/// When it does not in ten seconds.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the name in parentheses and may hold spaces; the state and the parent follow it.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// Seconds by which the files' tokens live longer than the Authority's usual ones: no test outlives them.
pub const LONG: i64 = 3000;

const PATIENCE: Duration = Duration::from_secs(10);
