//! `signerctl config reload`: the configuration on disk into force, or the reasons why not.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use super::cli::ConfigReloadArgs;
use super::client::runtime;
use super::error::{CtlError, Exit};
use super::local;
use super::output::{Report, plain};
use super::problem::{Peer, Refusal};

pub(crate) fn run(args: &ConfigReloadArgs) -> Result<Report, CtlError> {
    let listener = local::listener(args.local.as_deref(), &args.config)?;
    let answer = runtime()?.block_on(local::call_within(PATIENCE, &listener, &Method::POST, "/config/reload"))?;
    let body: Value = serde_json::from_slice(&answer.body)
        .map_err(|error| CtlError::Unexpected(format!("the appliance's answer is no JSON: {error}")))?;
    match answer.status {
        StatusCode::OK => Ok(Report::new(told(&body), body)),
        StatusCode::UNPROCESSABLE_ENTITY => {
            let mut report = Report::new(refused(&body), body);
            report.exit = Exit::Config;
            Ok(report)
        }
        _ => Err(CtlError::Refused(Box::new(Refusal::read(Peer::Appliance, &answer)))),
    }
}

fn told(body: &Value) -> String {
    let digest = plain(body["sha256"].as_str().unwrap_or_default());
    let mut text = match body["changed"] == true {
        true => format!("the configuration is in force; SHA-256 {digest}\n"),
        false => {
            format!("the configuration is what it was; the files that it names were read anew; SHA-256 {digest}\n")
        }
    };
    for name in body["workersBehind"].as_array().into_iter().flatten().filter_map(Value::as_str).map(plain) {
        text.push_str(&format!("  its worker goes by the old one: systemctl restart signer-token@{name}\n"));
    }
    text
}

fn refused(body: &Value) -> String {
    let mut text = String::from("the configuration was not taken, the old one stays in force:\n");
    for line in body["detail"].as_str().unwrap_or_default().lines() {
        text.push_str(&format!("  {}\n", plain(line)));
    }
    text
}

/// Longer than signerd waits for tokens and keys of the new configuration.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_problem_has_its_line() {
        let text = refused(&json!({ "detail": "a.toml:1:2: x: wrong\nb.toml:3:4: y: wrong\u{1b}[2J" }));
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("  a.toml:1:2: x: wrong\n") && !text.contains('\u{1b}'), "{text:?}");
        let text = told(&json!({ "sha256": "ab", "changed": true, "workersBehind": ["main"] }));
        assert!(text.contains("in force; SHA-256 ab") && text.contains("restart signer-token@main"), "{text}");
    }
}
