//! `signerctl token drain` and `undrain`: an operator takes a token off, or back.

use std::path::PathBuf;

use clap::Args;
use http::{Method, StatusCode};
use serde_json::Value;

use super::cli::{DEFAULT_CONFIG, EXIT_STATUS};
use super::client::runtime;
use super::error::CtlError;
use super::local;
use super::output::{Report, plain};
use super::problem::{Peer, Refusal};

/// Which token, on which appliance.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_STATUS)]
pub(crate) struct TokenDrainArgs {
    /// The token's name in the configuration.
    name: String,
    /// The local listener, as `unix:/path` [default: what the configuration says].
    #[arg(long, value_name = "ADDRESS", env = "SIGNER_LOCAL")]
    local: Option<String>,
    /// Where the configuration is, for want of --local.
    #[arg(long, value_name = "FILE", env = "SIGNER_CONFIG", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

pub(crate) fn run(args: &TokenDrainArgs, drain: bool) -> Result<Report, CtlError> {
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if args.name.is_empty() || !args.name.chars().all(named) {
        return Err(CtlError::Usage(format!(
            "`{}` is no name of a token; `signerctl status` lists them",
            plain(&args.name)
        )));
    }
    let listener = local::listener(args.local.as_deref(), &args.config)?;
    let path = format!("/tokens/{}/{}", args.name, if drain { "drain" } else { "undrain" });
    let answer = runtime()?.block_on(local::call(&listener, &Method::POST, &path))?;
    if answer.status != StatusCode::OK {
        return Err(CtlError::Refused(Box::new(Refusal::read(Peer::Appliance, &answer))));
    }
    let done: Value = serde_json::from_slice(&answer.body)
        .map_err(|error| CtlError::Unexpected(format!("the appliance's answer is no JSON: {error}")))?;
    Ok(Report::new(told(&args.name, drain, &done), done))
}

fn told(name: &str, drain: bool, done: &Value) -> String {
    let mut text = format!("token {} is {}\n", plain(name), if drain { "drained" } else { "in use again" });
    if drain && let Some(waiting @ 1..) = done["inFlight"].as_u64() {
        text.push_str(&format!(
            "  {waiting} requests are still under way in it; `signerctl status` shows when they are done\n"
        ));
    }
    let without: Vec<String> =
        done["keysWithoutToken"].as_array().into_iter().flatten().filter_map(Value::as_str).map(plain).collect();
    if !without.is_empty() {
        text.push_str(&format!("  WARNING: no token signs with these keys now: {}\n", without.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_still_under_way_and_what_no_longer_signs_is_said() {
        let text = told("main", true, &json!({ "inFlight": 3, "keysWithoutToken": ["acme"] }));
        assert!(text.contains("drained") && text.contains("3 requests") && text.contains("WARNING"), "{text}");
        let text = told("main", false, &json!({ "inFlight": 3, "keysWithoutToken": [] }));
        assert_eq!(text, "token main is in use again\n");
    }
}
