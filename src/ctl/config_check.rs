//! `signerctl config check`: the loader of the appliance, run by itself.

use serde_json::json;

use super::cli::ConfigCheckArgs;
use super::error::CtlError;
use super::output::Report;
use crate::config;

pub(crate) fn run(args: &ConfigCheckArgs) -> Result<Report, CtlError> {
    let config = config::load(&args.config).map_err(CtlError::Config)?;
    let file = args.config.display().to_string();
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let text = format!(
        "{file} is valid: {}, {}, {}\n",
        counted(config.tokens.len(), "token"),
        counted(config.keys.len(), "key"),
        counted(config.tenants.len(), "tenant"),
    );
    let json = json!({
        "valid": true,
        "file": file,
        "tokens": config.tokens.len(),
        "keys": config.keys.len(),
        "tenants": config.tenants.len(),
    });
    Ok(Report::new(text, json))
}
