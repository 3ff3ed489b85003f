//! `signerctl keys import-cert`.

use std::fs;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::prelude::X509Certificate;

use super::cli::KeysImportCertArgs;
use super::public_half::{self, configured};
use crate::config;
use crate::ctl::confirm;
use crate::ctl::error::CtlError;
use crate::ctl::files;
use crate::ctl::output::{Report, plain};
use crate::ctl::token::child::Admin;
use crate::custody::PublicKey;
use crate::custody::history::History;

pub(crate) fn run(args: &KeysImportCertArgs) -> Result<Report, CtlError> {
    let loaded = config::open(&args.reach.config).map_err(CtlError::Config)?;
    let (name, key) = (&args.key, configured(&loaded, &args.key)?);
    let to = match (&key.certificate_chain, &args.to) {
        (Some(file), None) => file.clone(),
        (None, Some(file)) => std::path::absolute(file).map_err(|error| CtlError::write(file, error))?,
        (Some(file), Some(_)) => {
            let place = loaded.origin(&["keys", name, "certificate_chain"]);
            return Err(CtlError::Usage(format!("{place} says {} already; leave --to out", file.display())));
        }
        (None, None) => {
            let place = loaded.origin(&["keys", name]);
            return Err(CtlError::Usage(format!(
                "{place}: the key has no certificate_chain; say where it goes with --to"
            )));
        }
    };
    let pem = files::read(&args.chain, MAX_CHAIN_BYTES)?;
    let wrong = |why: String| CtlError::content(&args.chain, why);
    let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("is no PEM file of certificates".to_owned()))?;
    let leaf = chain.first().ok_or_else(|| wrong("holds no certificate".to_owned()))?;
    let certified = judge(&chain, jiff::Timestamp::now().as_second()).map_err(wrong)?;
    let held = match public_half::in_token(&loaded, &args.reach, key)? {
        Some(shown) => shown,
        None => known(&loaded, name, key)?.ok_or_else(|| {
            CtlError::KeyLife(format!("the token shows no public key for `{name}`; set keys.{name}.public_key"))
        })?,
    };
    if held != certified {
        let (is, of) = (held.keyid(), certified.keyid());
        return Err(wrong(format!("its first certificate is for the key {of}; `{name}` in the token is {is}")));
    }
    if to.exists() {
        let consequence = format!("The certificate chain in {} will be replaced", to.display());
        confirm::by_typing(name, &consequence, args.yes)?;
    }
    if args.into_token {
        let file = DerFile::write(leaf)?;
        let admin = Admin::configured(&args.reach, &key.token)?.args(["import-cert", "--uri", &key.uri]);
        let _: Value = admin.args(["--certificate".as_ref(), file.0.as_os_str()]).run()?;
    }
    // Only the certificates: what else stands in a file of a CA is nobody's business.
    let text: String = chain.iter().map(|certificate| as_pem(certificate)).collect();
    files::replace(&to, text.as_bytes(), &args.reach.config)?;
    let mut said = format!("chain of {} for key `{name}` ({}) is in {}\n", chain.len(), held.keyid(), to.display());
    let line = format!("certificate_chain = {}\n", toml_edit::Value::from(to.display().to_string()));
    if key.certificate_chain.is_none() {
        said.push_str(&format!("\nadd this to [keys.{name}] in {}:\n\n{line}", args.reach.config.display()));
    }
    said.push_str("\nrestart signerd to serve it\n");
    let json = json!({
        "name": name, "keyid": held.keyid(), "certificates": chain.len(), "file": to.display().to_string(),
        "intoToken": args.into_token, "line": key.certificate_chain.is_none().then_some(line),
    });
    Ok(Report::new(said, json))
}

/// What is pinned, else what was written down when the key was made or seen.
fn known(loaded: &config::Loaded, name: &str, key: &config::Key) -> Result<Option<PublicKey>, CtlError> {
    match public_half::pinned(key)? {
        Some(pinned) => Ok(Some(pinned)),
        None => public_half::remembered(&History::of(&loaded.config), name),
    }
}

/// The leaf's key, when the chain is one: each signed by the next, CAs above the leaf, all valid at `now`.
fn judge(chain: &[CertificateDer<'_>], now: i64) -> Result<PublicKey, String> {
    let parse = |(number, der)| match x509_parser::parse_x509_certificate(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(format!("certificate {number} cannot be read: {error}")),
    };
    let parsed: Vec<X509Certificate<'_>> =
        (1..).zip(chain.iter().map(AsRef::as_ref)).map(parse).collect::<Result<_, _>>()?;
    for (number, certificate) in (1..).zip(&parsed) {
        let named = || plain(&format!("certificate {number} ({})", certificate.subject()));
        let validity = certificate.validity();
        if now < validity.not_before.timestamp() {
            return Err(format!("{} is not valid before {}", named(), validity.not_before));
        }
        if now > validity.not_after.timestamp() {
            return Err(format!("{} is not valid after {}", named(), validity.not_after));
        }
        if number > 1 && !certificate.is_ca() {
            return Err(format!("{} is no CA certificate; write the leaf first, then its issuers in order", named()));
        }
    }
    for (number, pair) in (1..).zip(parsed.windows(2)) {
        let [lower, upper] = pair else { continue };
        if lower.issuer() != upper.subject() {
            return Err(plain(&format!(
                "certificate {number} was issued by `{}`, and the next one is `{}`; write the leaf first, then its \
                 issuers in order",
                lower.issuer(),
                upper.subject()
            )));
        }
        lower
            .verify_signature(Some(upper.public_key()))
            .map_err(|error| format!("certificate {number} is not signed by the next one ({error})"))?;
    }
    let leaf = parsed.first().ok_or("holds no certificate")?;
    if leaf.is_ca() {
        return Err("its first certificate is a CA's; write the leaf first".to_owned());
    }
    PublicKey::from_spki(leaf.public_key().raw).map_err(|_| "its first certificate is for no P-256 key".to_owned())
}

/// For the child, which reads files alone; gone when dropped.
struct DerFile(std::path::PathBuf);

impl DerFile {
    fn write(der: &[u8]) -> Result<Self, CtlError> {
        let path = std::env::temp_dir().join(format!("signerctl-{}.der", uuid::Uuid::new_v4()));
        files::write_new(&path, false, |out| out.write_all(der))?;
        Ok(Self(path))
    }
}

impl Drop for DerFile {
    fn drop(&mut self) {
        // A certificate is no secret; one that stays behind does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

fn as_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok());
    let body: Vec<&str> = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", body.join("\n"))
}

/// The rest of what `doctor` asks of a chain: is it in order, and for how long.
pub(crate) fn check_file(file: &Path) -> Result<PublicKey, String> {
    let pem = fs::read(file).map_err(|error| format!("it cannot be read: {error}"))?;
    let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "it is no PEM file of certificates".to_owned())?;
    judge(&chain, jiff::Timestamp::now().as_second())
}

const MAX_CHAIN_BYTES: u64 = 1024 * 1024;
