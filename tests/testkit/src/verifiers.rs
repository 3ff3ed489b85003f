//! Verifiers of Sigstore bundles that are not ours (and `signerctl`), all asked the same: without a network, and at any
//! time of day.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::appliance::Binaries;
use crate::{Context, Error, Result, later, peers};

/// A verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// cosign 3.
    Cosign,
    /// cosign 2.
    CosignV2,
    /// sigstore-go.
    SigstoreGo,
    /// `@sigstore/verify`.
    SigstoreJs,
    /// The crate `sigstore-verify`.
    SigstoreRs,
    /// Our own.
    Signerctl,
}

/// What a verifier is asked to confirm.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The bundle, a file.
    pub bundle: PathBuf,
    /// `trusted_root.json`.
    pub trusted_root: PathBuf,
    /// SHA-256 of a subject, hexadecimal.
    pub digest: String,
    /// The statement's predicate type.
    pub predicate_type: String,
    /// Who signed it.
    pub by: Signer,
}

/// Who is said to have signed.
#[derive(Clone, Debug)]
pub enum Signer {
    /// The owner of this public key, a PEM file.
    Key(PathBuf),
    /// Whoever Fulcio gave a certificate.
    Identity {
        /// Subject alternative name.
        san: String,
        /// OIDC issuer.
        issuer: String,
    },
}

/// When a verifier is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Now.
    Now,
    /// With a clock that is this many seconds ahead.
    Later(i64),
}

impl Verifier {
    /// Asks it. The verifier runs in a network namespace of its own, which has not even a loopback interface that is
    /// up; a timestamp is demanded, a log entry is not.
    ///
    /// # Errors
    /// When it was not built or cannot be run.
    pub fn ask(self, claim: &Claim, when: When) -> Result<Output> {
        let command = offline(&self.command(claim)?);
        match when {
            When::Now => without_input(command),
            When::Later(seconds) => later::run(&command, seconds),
        }
    }

    fn command(self, claim: &Claim) -> Result<Command> {
        match self {
            Self::Cosign => Ok(cosign(&peers::cosign()?, claim)),
            Self::CosignV2 => {
                let mut command = cosign(&peers::cosign_v2()?, claim);
                command.arg("--new-bundle-format");
                Ok(command)
            }
            Self::SigstoreGo => Ok(sigstore_go(&peers::sigstore_go()?, claim)),
            Self::SigstoreJs => {
                let mut command = Command::new("node");
                command.arg(peers::sigstore_js()?);
                Ok(plain(command, claim))
            }
            Self::Signerctl => Ok(signerctl(&Binaries::locate()?.signerctl(), claim)),
            Self::SigstoreRs => Ok(plain(Command::new(peers::sigstore_rs()?), claim)),
        }
    }
}

/// The same command in a network namespace of its own.
#[must_use]
pub fn offline(command: &Command) -> Command {
    use std::os::unix::fs::MetadataExt as _;
    let root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let mut offline = Command::new("unshare");
    if !root {
        offline.args(["--user", "--map-root-user"]);
    }
    offline.args(["--net", "--"]).arg(command.get_program()).args(command.get_args());
    offline.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    offline
}

/// That a network namespace of its own can be had, and that nothing can be reached from it.
///
/// # Errors
/// When one of the two is not so.
pub fn prove_offline() -> Result<()> {
    let mut command = Command::new("cat");
    command.arg("/proc/net/route");
    let output = without_input(offline(&command))?;
    let routes = String::from_utf8_lossy(&output.stdout).lines().skip(1).count();
    if output.status.success() && routes == 0 { Ok(()) } else { Err(Error(format!("not offline: {output:?}"))) }
}

fn without_input(mut command: Command) -> Result<Output> {
    let name = command.get_program().display().to_string();
    command.stdin(std::process::Stdio::null()).output().context(format!("run {name}"))
}

fn cosign(program: &Path, claim: &Claim) -> Command {
    let mut command = Command::new(program);
    command
        .args(["verify-blob-attestation", "--insecure-ignore-tlog", "--use-signed-timestamps", "--trusted-root"])
        .arg(&claim.trusted_root)
        .args(["--type", &claim.predicate_type, "--digest", &claim.digest, "--digestAlg", "sha256", "--bundle"])
        .arg(&claim.bundle)
        // cosign keeps a trust root in its home; it must neither find one there nor leave one.
        .env("HOME", claim.bundle.parent().unwrap_or(Path::new("/")));
    match &claim.by {
        Signer::Key(key) => command.arg("--key").arg(key),
        Signer::Identity { san, issuer } => {
            command.args(["--certificate-identity", san, "--certificate-oidc-issuer", issuer])
        }
    };
    command
}

fn sigstore_go(program: &Path, claim: &Claim) -> Command {
    let mut command = Command::new(program);
    command.args(["-requireTlog=false", "-artifact-digest", &claim.digest, "-trustedrootJSONpath"]);
    command.arg(&claim.trusted_root);
    match &claim.by {
        Signer::Key(key) => command.arg("-requireCTlog=false").arg("-publicKey").arg(key),
        Signer::Identity { san, issuer } => command.args(["-expectedSAN", san, "-expectedIssuer", issuer]),
    };
    command.arg(&claim.bundle);
    command
}

fn signerctl(program: &Path, claim: &Claim) -> Command {
    let mut command = Command::new(program);
    command.args(["verify", "--require-timestamp", "--trusted-root"]).arg(&claim.trusted_root);
    command.args(["--type", &claim.predicate_type, "--digest", &format!("sha256:{}", claim.digest)]);
    match &claim.by {
        Signer::Key(key) => command.arg("--key").arg(key),
        Signer::Identity { san, issuer } => {
            command.args(["--certificate-identity", san, "--certificate-oidc-issuer", issuer])
        }
    };
    command.arg(&claim.bundle);
    command
}

/// Our own two programs around libraries take the same options.
fn plain(mut command: Command, claim: &Claim) -> Command {
    command.arg("--bundle").arg(&claim.bundle).arg("--trusted-root").arg(&claim.trusted_root);
    command.args(["--digest", &claim.digest]);
    match &claim.by {
        Signer::Key(key) => command.arg("--key").arg(key),
        Signer::Identity { san, issuer } => command.args(["--identity", san, "--issuer", issuer]),
    };
    command
}
