//! `signerctl config check`: the loader of the appliance, run by itself.

use serde_json::json;

use super::cli::ConfigCheckArgs;
use super::error::CtlError;
use super::output::Report;
use crate::config::{self, Viewer};
use crate::sigstore::TrustedRoot;

pub(crate) fn run(args: &ConfigCheckArgs) -> Result<Report, CtlError> {
    let loaded = config::open(&args.config).map_err(CtlError::Config)?;
    if !args.no_files {
        loaded.check_files(Viewer::Operator).map_err(CtlError::Config)?;
    }
    let config = &loaded.config;
    let file = args.config.display().to_string();
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    // What is unreadable here was passed over above, and is so here.
    let root = config.timestamps.as_ref().filter(|_| !args.no_files);
    let root = root.and_then(|timestamps| TrustedRoot::load(&timestamps.trusted_root).ok());
    let warnings = root.map(|root| root.warnings()).unwrap_or_default();
    let mut text = format!(
        "{file} is valid: {}, {}, {}, {}\n",
        counted(loaded.files.len() - 1, "drop-in"),
        counted(config.tokens.len(), "token"),
        counted(config.keys.len(), "key"),
        counted(config.tenants.len(), "tenant"),
    );
    warnings.iter().for_each(|warning| text.push_str(&format!("warning: timestamps.trusted_root: {warning}\n")));
    let json = json!({
        "valid": true,
        "file": file,
        "files": loaded.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
        "checkedFiles": !args.no_files,
        "tokens": config.tokens.len(),
        "keys": config.keys.len(),
        "tenants": config.tenants.len(),
        "warnings": warnings,
    });
    Ok(Report::new(text, json))
}
