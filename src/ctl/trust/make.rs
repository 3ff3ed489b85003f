//! `signerctl trust make`.

use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde_json::json;

use super::cli::TrustMakeArgs;
use super::{lines, merge};
use crate::clock::UnixTime;
use crate::ctl::error::CtlError;
use crate::ctl::files;
use crate::ctl::output::{Report, plain};
use crate::ctl::verify::trusted_root;
use crate::sigstore::TrustedRoot;
use crate::sigstore::trusted_root::{Authority, CtLog, ValidFor};

pub(super) fn run(args: &TrustMakeArgs) -> Result<Report, CtlError> {
    let to_stdout = files::is_dash(&args.output);
    if !to_stdout {
        files::refuse_existing(&args.output, args.force)?;
    }
    let root = assemble(args)?;
    let json = root.to_json();
    if !to_stdout {
        files::write_new(&args.output, args.force, |file| file.write_all(json.as_bytes()))?;
    }
    let mut text = if to_stdout { json.clone() } else { format!("wrote {}\n{}", shown(&args.output), lines(&root)) };
    if !to_stdout && !root.certificate_authorities.is_empty() && root.ct_logs.is_empty() {
        text.push_str("  note       it has no CT log: certificates then verify with --insecure-ignore-sct alone\n");
    }
    let warnings = root.warnings();
    if !to_stdout {
        warnings.iter().for_each(|warning| text.push_str(&format!("  note       {warning}\n")));
    }
    let mut told = json!({
        "certificateAuthorities": root.certificate_authorities.len(),
        "ctlogs": root.ct_logs.len(),
        "timestampAuthorities": root.timestamp_authorities.len(),
        "warnings": warnings,
    });
    if to_stdout {
        told["trustedRoot"] = serde_json::from_str(&json).unwrap_or_default();
    } else {
        told["file"] = args.output.display().to_string().into();
    }
    Ok(Report::new(text, told))
}

fn assemble(args: &TrustMakeArgs) -> Result<TrustedRoot, CtlError> {
    let mut root = TrustedRoot::default();
    for path in &args.from {
        merge(&mut root, trusted_root(path)?);
    }
    let mut made = TrustedRoot::default();
    for text in &args.fulcio_chain {
        made.certificate_authorities.push(authority(text, args)?);
    }
    for text in &args.tsa_chain {
        made.timestamp_authorities.push(authority(text, args)?);
    }
    let fulcios = made.certificate_authorities.iter().chain(&root.certificate_authorities);
    let earliest = fulcios.map(|fulcio| fulcio.valid_for.start).min();
    for text in &args.ct_key {
        let start = moment(args.start).or(earliest).ok_or_else(|| {
            CtlError::Usage("a CT log without a Fulcio needs --start: from when on it counts".to_owned())
        })?;
        made.ct_logs.push(ct_log(text, ValidFor { start, end: moment(args.end) })?);
    }
    merge(&mut root, made);
    if root.certificate_authorities.is_empty() && root.ct_logs.is_empty() && root.timestamp_authorities.is_empty() {
        let all = "nothing to trust: give --fulcio-chain, --ct-key, --tsa-chain or --from";
        return Err(CtlError::Usage(all.to_owned()));
    }
    Ok(root)
}

fn authority(text: &str, args: &TrustMakeArgs) -> Result<Authority, CtlError> {
    let (uri, path) = place(text);
    let pem = files::read(path, MAX_PEM_BYTES)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| CtlError::content(path, format!("holds something else than PEM certificates: {error}")))?;
    let wrong = |why: String| CtlError::content(path, why);
    let mut authority = Authority::of_chain(uri.to_owned(), chain).map_err(wrong)?;
    if let Some(start) = moment(args.start) {
        authority.valid_for.start = start;
    }
    if let Some(end) = moment(args.end) {
        authority.valid_for.end = Some(end);
    }
    if authority.valid_for.end.is_some_and(|end| end < authority.valid_for.start) {
        return Err(wrong("would count until a time before its beginning; see --start and --end".to_owned()));
    }
    Ok(authority)
}

fn ct_log(text: &str, valid_for: ValidFor) -> Result<CtLog, CtlError> {
    let (url, path) = place(text);
    let pem = files::read(path, MAX_PEM_BYTES)?;
    let spki = SubjectPublicKeyInfoDer::from_pem_slice(&pem)
        .map_err(|_| CtlError::content(path, "holds no PUBLIC KEY block, as `openssl pkey -pubout` writes it"))?;
    CtLog::new(url.to_owned(), &spki, valid_for).map_err(|why| CtlError::content(path, why))
}

/// `[URL=]PEM`. Only what looks like a URL is one: a file name may have an equals sign.
fn place(text: &str) -> (&str, &Path) {
    match text.rsplit_once('=') {
        Some((url, path)) if url.starts_with("https://") || url.starts_with("http://") => (url, Path::new(path)),
        _ => ("", Path::new(text)),
    }
}

fn moment(at: Option<jiff::Timestamp>) -> Option<UnixTime> {
    at.map(|at| UnixTime(at.as_second()))
}

fn shown(path: &Path) -> String {
    plain(&path.display().to_string())
}

const MAX_PEM_BYTES: u64 = 1024 * 1024;
