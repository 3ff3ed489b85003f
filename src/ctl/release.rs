//! `signerctl release`: a verdict on a scanner image explained, and signatures taken along to a site without a registry.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::cli::{DEFAULT_CONFIG, EXIT_STATUS};
use super::client::runtime;
use super::error::{CtlError, Exit};
use super::files;
use super::output::{Report, plain, table};
use crate::config::{self, Span};
use crate::release::{Digest, Evidence, Mark, ReleaseError, Step, TakeError, TrustedRelease, TrustedReleases};
use crate::telemetry::ReleaseMetrics;

/// Commands on scanner releases.
#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    Check(ReleaseCheckArgs),
    Snapshot(ReleaseSnapshotArgs),
}

/// Say whether a scanner image is a trusted release, and step by step why.
///
/// Asks what the appliance would ask: the operator's lists, the snapshot, the repositories in their order. What the
/// appliance has at hand is not used. Exit code 0 says that the image is trusted, 4 that nobody can say now.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct ReleaseCheckArgs {
    /// The image: `sha256:` and 64 lowercase hex digits.
    #[arg(value_name = "DIGEST")]
    pub(crate) digest: String,
    #[command(flatten)]
    pub(crate) from: FromConfig,
}

/// Take the signatures of scanner images along to a site without a registry.
///
/// Asks the repositories of the configuration and writes signatures that count, up to four of each image, into one file,
/// signed with KEY. The site names that file and the key's public half under [release.snapshot], and judges each signature
/// anew by its own identities. An image without a signature that counts ends the command, and nothing is written.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct ReleaseSnapshotArgs {
    /// The images: `sha256:` and 64 lowercase hex digits each; at most 1,024.
    #[arg(value_name = "DIGEST", required = true)]
    pub(crate) digests: Vec<String>,
    /// PEM private key, ECDSA on P-256, unencrypted (PKCS#8 or SEC1).
    #[arg(long, value_name = "PEM")]
    pub(crate) key: PathBuf,
    /// Where the snapshot goes.
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Replace the output file when it exists.
    #[arg(long)]
    pub(crate) force: bool,
    /// How long it may be used, as in `30d`.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = span)]
    pub(crate) valid: Duration,
    #[command(flatten)]
    pub(crate) from: FromConfig,
}

/// Whose identities and repositories.
#[derive(Debug, Args)]
pub(crate) struct FromConfig {
    /// The appliance's configuration.
    #[arg(long, value_name = "FILE", env = "SIGNER_CONFIG", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

fn span(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(Span::get)
}

pub(crate) fn run(command: &ReleaseCommand) -> Result<Report, CtlError> {
    match command {
        ReleaseCommand::Check(args) => check(args),
        ReleaseCommand::Snapshot(args) => snapshot(args),
    }
}

fn check(args: &ReleaseCheckArgs) -> Result<Report, CtlError> {
    digest(&args.digest)?;
    let runtime = runtime()?;
    let releases = releases(&args.from.config, &runtime)?;
    let (verdict, steps) = runtime.block_on(releases.explain(&args.digest));
    Ok(told(&args.digest, &verdict, &steps))
}

fn told(digest: &str, verdict: &Result<TrustedRelease, ReleaseError>, steps: &[Step]) -> Report {
    let rows: Vec<Vec<String>> = steps.iter().map(|step| vec![step.mark.to_string(), plain(&step.text)]).collect();
    let mut text = table(&rows);
    let mut json = json!({
        "imageDigest": digest,
        "trusted": verdict.is_ok(),
        "steps": steps.iter().map(|step| json!({ "result": result(step.mark), "text": step.text })).collect::<Vec<_>>(),
    });
    let exit = match verdict {
        Ok(release) => {
            text.push_str(&format!("{digest} is trusted: {}\n", plain(&grounds(release))));
            json["signedBy"] = release.signed_by().into();
            json["evidence"] = release.evidence().kind().into();
            if let Some(signature) = release.evidence().signature() {
                json["signature"] = signature.into();
            }
            if let Some(sha256) = release.evidence().signature_sha256() {
                json["signatureSha256"] = sha256.into();
            }
            Exit::Success
        }
        Err(error) => {
            text.push_str(&format!("{digest} is not trusted ({}): {}\n", error.reason(), plain(&error.to_string())));
            json["reason"] = error.reason().into();
            json["detail"] = error.to_string().into();
            if error.retry_after().is_some() { Exit::Unavailable } else { Exit::Failed }
        }
    };
    Report { exit, ..Report::new(text, json) }
}

fn grounds(release: &TrustedRelease) -> String {
    match release.evidence() {
        Evidence::OperatorList { reason } => format!("{} vouches for it: {reason}", release.signed_by()),
        Evidence::Signature { digest, found_in, .. } => {
            format!("signed by `{}`, by {digest} in {found_in}", release.signed_by())
        }
    }
}

fn result(mark: Mark) -> &'static str {
    match mark {
        Mark::Good => "good",
        Mark::Bad => "bad",
        Mark::Note => "note",
    }
}

fn snapshot(args: &ReleaseSnapshotArgs) -> Result<Report, CtlError> {
    if args.digests.len() > MAX_IMAGES {
        let message = format!("{} images are too many for one snapshot; name at most {MAX_IMAGES}", args.digests.len());
        return Err(CtlError::Usage(message));
    }
    let mut images = args.digests.iter().map(|text| digest(text)).collect::<Result<Vec<_>, _>>()?;
    images.sort_unstable();
    images.dedup();
    files::refuse_existing(&args.output, args.force)?;
    let key = Zeroizing::new(files::read(&args.key, MAX_KEY_BYTES)?);
    let runtime = runtime()?;
    let releases = releases(&args.from.config, &runtime)?;
    let taken = runtime.block_on(releases.snapshot(&images, args.valid, &key));
    let (text, signatures) = taken.map_err(|error| match error {
        TakeError::Image(error) => CtlError::Release(error),
        TakeError::Snapshot(error) => CtlError::content(&args.key, error.to_string()),
    })?;
    files::write_new(&args.output, args.force, |file| file.write_all(text.as_bytes()))?;
    let file = args.output.display();
    let text = format!("{file} holds {signatures} signatures of {} images\n", images.len());
    let json = json!({ "file": file.to_string(), "images": images.len(), "signatures": signatures });
    Ok(Report::new(text, json))
}

fn digest(text: &str) -> Result<Digest, CtlError> {
    text.parse().map_err(|error| CtlError::Usage(format!("`{text}` is {error}")))
}

fn releases(config: &Path, runtime: &tokio::runtime::Runtime) -> Result<TrustedReleases, CtlError> {
    let loaded = config::open(config).map_err(CtlError::Config)?;
    TrustedReleases::new(&loaded.config.release, runtime.handle(), ReleaseMetrics::unseen())
        .map_err(|error| CtlError::content(config, error.to_string()))
}

const MAX_KEY_BYTES: u64 = 64 << 10;

/// A statement has no more subjects.
const MAX_IMAGES: usize = 1024;
