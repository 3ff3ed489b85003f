//! `signerctl keys attest`: fetches a custody report, or checks one offline.

mod verify;

use std::path::{Path, PathBuf};

use clap::Args;
use http::header::ACCEPT;
use http::{Method, StatusCode, request};
use serde_json::{Value, json};

use super::appliance::{Appliance, Call};
use super::cli::{DEFAULT_CONFIG, EXIT_STATUS};
use super::client::runtime;
use super::error::CtlError;
use super::files;
use super::local;
use super::output::{Report, plain};
use super::problem::{Peer, Refusal};
use super::settings::{Access, Defaults, Settings};
use super::upload::Upload;
use crate::config::{LocalListen, Span};

/// Fetch a signed report of where a key lives, or check one offline.
///
/// The report is a DSSE envelope over an in-toto statement of type `https://stella-ops.org/attestations/custody/1`, signed
/// by the key itself: device, serial number, firmware, attributes or attestation chain, times, and the operator's
/// written exceptions. It is fetched by the Signer API, or by the local listener with --local.
///
/// With --verify nothing is fetched: the signature, the key, the age, the attributes and the attestation are checked,
/// one line for each, and anything that does not hold ends with exit code 1.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct KeysAttestArgs {
    /// The key's name in the appliance [default: the one key that signs].
    #[arg(value_name = "KEY", conflicts_with = "verify")]
    name: Option<String>,
    /// Where the report goes; `-` is standard output.
    #[arg(long, value_name = "FILE", required_unless_present = "verify", conflicts_with = "verify")]
    out: Option<PathBuf>,
    /// Replace the file when it exists.
    #[arg(long)]
    force: bool,
    /// Fetch by the appliance's local listener on this machine, as `unix:/path`; without an address, by the one of
    /// --config.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "", conflicts_with = "verify")]
    local: Option<String>,
    /// Where the configuration is, for --local without an address.
    #[arg(long, value_name = "FILE", env = "SIGNER_CONFIG", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Check this report; `-` reads standard input.
    #[arg(long, value_name = "FILE", help_heading = "Verification")]
    verify: Option<PathBuf>,
    /// PEM public key that the report must be about.
    #[arg(long, value_name = "PEM", requires = "verify", help_heading = "Verification")]
    public_key: Option<PathBuf>,
    /// PEM certificate of the device vendor's attestation root; every token must then attest the key.
    #[arg(long, value_name = "PEM", requires = "verify", help_heading = "Verification")]
    attestation_root: Option<PathBuf>,
    /// How old the report may be [default: 24h].
    #[arg(long, value_name = "DURATION", requires = "verify", help_heading = "Verification")]
    max_age: Option<Span>,
    #[command(flatten)]
    access: Access,
}

pub(crate) fn run(args: &KeysAttestArgs) -> Result<Report, CtlError> {
    if let Some(file) = &args.verify {
        let demands =
            verify::Demands::read(args.public_key.as_deref(), args.attestation_root.as_deref(), args.max_age)?;
        return verify::run(file, &demands);
    }
    let Some(out) = &args.out else { return Err(CtlError::Usage("give --out FILE or --verify FILE".to_owned())) };
    if !files::is_dash(out) {
        files::refuse_existing(out, args.force)?;
    }
    let name = args.name.as_deref();
    let (name, report) = match &args.local {
        Some(address) => {
            let address = Some(address.as_str()).filter(|address| !address.is_empty());
            runtime()?.block_on(by_local_listener(&local::listener(address, &args.config)?, name))?
        }
        None => {
            let settings = Settings { access: args.access.clone(), request: Defaults::default() }.complete()?;
            let mut appliance = Appliance::prepare(&settings.access)?;
            runtime()?.block_on(by_api(&mut appliance, name))?
        }
    };
    // What is kept as evidence must be evidence: a report that does not hold by itself is not written.
    let checked = verify::check(&report, &verify::Demands::fresh())?;
    if let Some(fault) = checked.first_fault() {
        return Err(CtlError::Unexpected(format!(
            "the appliance's report of key `{}` does not hold: {fault}",
            plain(&name)
        )));
    }
    let mut answer = if files::is_dash(out) {
        let text = String::from_utf8(report).map_err(|_| CtlError::Unexpected("the report is not UTF-8".to_owned()))?;
        Report::new(text + "\n", json!({ "key": name }))
    } else {
        files::write_new(out, args.force, |file| file.write_all(&report))?;
        Report::new(
            format!("custody report of key {} in {}\n", plain(&name), plain(&out.display().to_string())),
            json!({ "key": name, "out": out }),
        )
    };
    answer.json["checks"] = checked.to_json();
    Ok(answer)
}

async fn by_local_listener(listener: &LocalListen, name: Option<&str>) -> Result<(String, Vec<u8>), CtlError> {
    let name = match name {
        Some(name) => key_name(name)?,
        None => {
            let readiness = local::read(listener, "/readyz").await?;
            sole(&names(&readiness.body, |key| key["state"] == "active"))?
        }
    };
    let answer = local::read(listener, &format!("/keys/{name}/custody")).await?;
    if answer.status == StatusCode::OK {
        Ok((name, answer.body.to_vec()))
    } else {
        Err(CtlError::Refused(Box::new(Refusal::read(Peer::Appliance, &answer))))
    }
}

async fn by_api(appliance: &mut Appliance, name: Option<&str>) -> Result<(String, Vec<u8>), CtlError> {
    let name = match name {
        Some(name) => key_name(name)?,
        None => {
            let keys = appliance.call(&Get("/api/v1/signer/keys".to_owned())).await?;
            sole(&names(&keys.body, |key| key["state"] == "active"))?
        }
    };
    let answer = appliance.call(&Get(format!("/api/v1/signer/keys/{name}/custody"))).await?;
    Ok((name, answer.body.to_vec()))
}

/// A name that stands in a path as it is.
fn key_name(name: &str) -> Result<String, CtlError> {
    let plain_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.chars().all(plain_char) {
        Ok(name.to_owned())
    } else {
        Err(CtlError::Usage(format!("`{}` is no name of a key; `signerctl keys list` shows them", plain(name))))
    }
}

fn names(json: &[u8], wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let all: Value = serde_json::from_slice(json).unwrap_or_default();
    let keys = all["keys"].as_array().into_iter().flatten().filter(|key| wanted(key));
    keys.filter_map(|key| key["name"].as_str().map(str::to_owned)).collect()
}

fn sole(names: &[String]) -> Result<String, CtlError> {
    match names {
        [name] => key_name(name),
        [] => Err(CtlError::Unexpected("the appliance lists no active key".to_owned())),
        several => {
            let listed: Vec<String> = several.iter().map(|name| plain(name)).collect();
            Err(CtlError::Usage(format!("several keys are active; name one of {}", listed.join(", "))))
        }
    }
}

/// `GET` of one path.
struct Get(String);

impl Call for Get {
    fn method(&self) -> Method {
        Method::GET
    }

    fn path(&self) -> &str {
        &self.0
    }

    fn form(&self, request: request::Builder) -> (request::Builder, Upload) {
        (request.header(ACCEPT, "application/json, application/problem+json"), Upload::default())
    }

    fn max_answer_bytes(&self) -> usize {
        1024 * 1024
    }
}

/// The name of a file in a line for people.
fn shown(path: &Path) -> String {
    plain(&path.display().to_string())
}
