//! `signerctl trust`: whom an offline verifier trusts, as files.

pub(crate) mod cli;
mod export;
mod make;
mod readme;

use super::error::CtlError;
use super::output::{Report, plain};
use crate::sigstore::TrustedRoot;
use cli::TrustCommand;

pub(crate) fn run(command: &TrustCommand) -> Result<Report, CtlError> {
    match command {
        TrustCommand::Make(args) => make::run(args),
        TrustCommand::Export(args) => export::run(args),
    }
}

/// Adds what `more` has and `root` has not: the same Fulcio may be named for certificates and for timestamps.
fn merge(root: &mut TrustedRoot, more: TrustedRoot) {
    for (list, more) in [
        (&mut root.certificate_authorities, more.certificate_authorities),
        (&mut root.timestamp_authorities, more.timestamp_authorities),
    ] {
        for authority in more {
            if !list.contains(&authority) {
                list.push(authority);
            }
        }
    }
    for log in more.ct_logs {
        if !root.ct_logs.iter().any(|known| known.log_id == log.log_id && known.valid_for == log.valid_for) {
            root.ct_logs.push(log);
        }
    }
}

/// One line for each Fulcio, log and authority.
fn lines(root: &TrustedRoot) -> String {
    let mut text = String::new();
    let mut line = |kind: &str, name: &str, valid_for: crate::sigstore::trusted_root::ValidFor| {
        let end = valid_for.end.map_or("without end".to_owned(), |end| format!("until {}", end.rfc3339()));
        let name = if name.is_empty() { "(no URL)".to_owned() } else { plain(name) };
        text.push_str(&format!("  {kind:<10} {name} from {} {end}\n", valid_for.start.rfc3339()));
    };
    for fulcio in &root.certificate_authorities {
        line("fulcio", &fulcio.uri, fulcio.valid_for);
    }
    for log in &root.ct_logs {
        line("ct log", &log.base_url, log.valid_for);
    }
    for tsa in &root.timestamp_authorities {
        line("tsa", &tsa.uri, tsa.valid_for);
    }
    text
}
