//! `signerctl keys csr`.

use serde_json::json;

use super::cli::KeysCsrArgs;
use super::public_half::configured;
use crate::config;
use crate::ctl::error::CtlError;
use crate::ctl::files;
use crate::ctl::output::Report;
use crate::ctl::token::child::Admin;
use crate::custody::admin::{Csr, alternative_name, subject};

pub(crate) fn run(args: &KeysCsrArgs) -> Result<Report, CtlError> {
    // Judged here as well, before anybody is asked for a PIN.
    let usage = |option: &str, why: String| CtlError::Usage(format!("{option}: {why}"));
    subject(&args.subject).map_err(|error| usage("--subject", error.to_string()))?;
    for name in &args.san {
        alternative_name(name).map_err(|error| usage("--san", error.to_string()))?;
    }
    if let Some(file) = &args.output {
        files::refuse_existing(file, args.force)?;
    }
    let loaded = config::open(&args.reach.config).map_err(CtlError::Config)?;
    let key = configured(&loaded, &args.key)?;
    let mut admin = Admin::configured(&args.reach, &key.token)?.args(["csr", "--uri", &key.uri, "--subject"]);
    admin = admin.args([&args.subject]);
    for name in &args.san {
        admin = admin.args(["--san", name]);
    }
    let made: Csr = admin.run()?;
    let json = json!({ "name": args.key, "keyid": made.key.keyid, "csr": made.csr });
    match &args.output {
        None => Ok(Report::new(made.csr, json)),
        Some(file) => {
            files::write_new(file, args.force, |out| out.write_all(made.csr.as_bytes()))?;
            let text = format!("request for key `{}` ({}) is in {}\n", args.key, made.key.keyid, file.display());
            Ok(Report::new(text, json))
        }
    }
}
