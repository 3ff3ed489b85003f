//! What is running, and where the reader finds the files.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use testkit::appliance::Binaries;
use testkit::token::TokenKind;
use testkit::{Context, Error, Fixture, Result};
use xtask::ui;

/// Everything that runs during the demo.
pub(crate) struct Stage {
    pub(crate) fixture: Fixture,
    /// Where commands run and files go.
    pub(crate) output: PathBuf,
    /// `signerctl` as a reader in the output directory types it.
    pub(crate) signerctl: String,
    start: Instant,
}

/// A licence on the revocation list from the start.
pub(crate) const REVOKED_LICENSE: &str = "lic-acme-0";

impl Stage {
    /// Starts it all and says what was started.
    pub(crate) fn set(programs: &Path, output: &Path, token: TokenKind) -> Result<Self> {
        let start = Instant::now();
        ui::heading("start");
        let mut fixture = Fixture::builder()
            .binaries(Binaries::in_dir(programs)?)
            .token(token)
            .settings(|_, peers| {
                peers.licensing.revoke_license(REVOKED_LICENSE).expect("the list was written a moment ago");
            })
            .try_start()?;
        let fingerprint = testkit::envelope::keyid(&fixture.keys.acme.point);
        let (name, reached_by) = (fixture.token.name(), fixture.token.reached_by());
        let (front, worker) = (fixture.appliance.front().id(), fixture.appliance.worker("main").id());
        ui::done(format!("PKI, {name} and P-256 keys, for this run only: {}", fixture.dir().display()));
        ui::note(format!("acme signs with {fingerprint}, made inside the token, not extractable"));
        ui::done(format!("development Authority          {}", fixture.authority.issuer()));
        ui::done(format!("development Licensing Service  {}", fixture.licensing.introspection_url()));
        ui::done(format!("signer-token  pid {worker:<7} has the PIN and {reached_by}"));
        ui::done(format!("signerd       pid {front:<7} {} has neither", fixture.appliance.url()));
        let public_key = output.join("pub.pem");
        fs::copy(&fixture.keys.acme.public_key, &public_key).context(format!("write {}", public_key.display()))?;
        let signerctl = relative(output, &programs.join("signerctl"));
        Ok(Self { fixture, output: output.to_owned(), signerctl, start })
    }

    /// Shows a command, runs it in the output directory, shows what it printed.
    pub(crate) fn show(&self, line: &str) -> Result<()> {
        ui::command(line);
        let flat = line.replace("\\\n", " ");
        let output =
            Command::new("sh").args(["-c", &flat]).current_dir(&self.output).output().context("run a shell")?;
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).lines().for_each(|line| println!("  {line}"));
        if output.status.success() {
            Ok(())
        } else {
            Err(Error(format!("the command above failed: {}", output.status)))
        }
    }

    /// Signatures that the token has made so far.
    pub(crate) fn signatures(&self) -> Result<u64> {
        Ok(self.fixture.appliance.metrics()?.count("signer_kms_sign_total", &[]))
    }

    /// What happened, in few words. `granted` is how many signatures were given to those entitled to them.
    pub(crate) fn summarize(&self, granted: u64) -> Result<()> {
        let reached = self.signatures()?.saturating_sub(granted);
        let records = self.fixture.appliance.audit()?.len();
        let log = self.fixture.appliance.settings.get("audit.path").and_then(|path| path.as_str()).unwrap_or_default();
        fs::copy(log, self.output.join("audit.log")).context("copy the audit log")?;
        ui::heading("summary");
        ui::done("2 signatures over this project's SBOM: token bound by DPoP, token bound by certificate");
        ui::done("both verified by openssl, with a public key that came out of the token");
        ui::done(format!("{} refusals; {reached} of them reached the token", crate::refusals::COUNT));
        ui::done(format!("{records} audit records, durable before any answer: audit.log"));
        ui::note(format!("{} holds it all; {} since the start", self.place(), ui::spoken(self.start.elapsed())));
        if reached == 0 { Ok(()) } else { Err(Error::new("a refused request reached the token")) }
    }

    /// Stops everything in good order and removes what only worked while it ran.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.fixture.appliance.stop()?;
        for file in ["dpop.toml", "mtls.toml", "request.json"] {
            // Not every run writes each of them.
            let _ = fs::remove_file(self.output.join(file));
        }
        ui::done("everything is stopped");
        Ok(())
    }

    /// The output directory as the reader would type it.
    pub(crate) fn place(&self) -> String {
        let here = env::current_dir().unwrap_or_default();
        self.output.strip_prefix(&here).unwrap_or(&self.output).display().to_string()
    }
}

/// `path` as seen from `from`, when both are below the same parent; else `path` itself.
fn relative(from: &Path, path: &Path) -> String {
    match from.parent().and_then(|parent| path.strip_prefix(parent).ok()) {
        Some(beside) => format!("../{}", beside.display()),
        None => path.display().to_string(),
    }
}
