//! A whole call of the Signer API, as a client makes it, where the answers have a token and a PoE for one.

use std::ffi::OsStr;
use std::path::Path;

use clap::Parser as _;
use serde_json::Value;

use super::answers::Test;
use crate::ctl::cli::Cli;
use crate::ctl::error::CtlError;

/// Signs a small document and verifies what comes back with the key's public half. Returns the audit id.
///
/// # Errors
/// As of `signerctl sign` and `signerctl verify`.
pub(crate) fn sign(test: &Test, public_url: &str, public_key: &Path, dir: &Path) -> Result<String, CtlError> {
    let document = dir.join("test.json");
    let text = r#"{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"metadata":{"component":{"type":"application","name":"signerctl-init"}}}"#;
    std::fs::write(&document, text).map_err(|error| CtlError::write(&document, error))?;
    let output = dir.join("test.dsse.json");
    let subject = format!("signerctl-init@sha256:{}", "0".repeat(64));
    let mut line: Vec<&OsStr> = vec!["signerctl".as_ref(), "sign".as_ref(), document.as_ref()];
    let url = test.url.as_deref().unwrap_or(public_url);
    let options: [(&str, &OsStr); 10] = [
        ("--type", test.predicate_type.as_ref()),
        ("--subject", subject.as_ref()),
        ("--output", output.as_ref()),
        ("--url", url.as_ref()),
        ("--ca", test.ca.as_ref()),
        ("--cert", test.cert.as_ref()),
        ("--key", test.key.as_ref()),
        ("--token-file", test.token_file.as_ref()),
        ("--poe-file", test.poe_file.as_ref()),
        ("--scanner-digest", test.scanner_digest.as_ref()),
    ];
    line.extend(options.iter().flat_map(|(option, value)| [OsStr::new(option), value]));
    if let Some(key) = &test.dpop_key {
        line.extend([OsStr::new("--dpop-key"), key.as_os_str()]);
    }
    let signed = run(line)?;
    run(vec!["signerctl".as_ref(), "verify".as_ref(), output.as_ref(), "--key".as_ref(), public_key.as_ref()])?;
    Ok(signed["auditId"].as_str().unwrap_or_default().to_owned())
}

/// As if it was typed.
fn run(line: Vec<&OsStr>) -> Result<Value, CtlError> {
    let cli = Cli::try_parse_from(line).map_err(|error| CtlError::Usage(format!("[test]: {error}")))?;
    crate::ctl::run(cli.command, true).map(|report| report.json)
}
