//! `signerctl keys generate`.

use std::io;
use std::path::Path;

use serde_json::json;

use super::cli::KeysGenerateArgs;
use super::public_half;
use crate::config;
use crate::ctl::error::CtlError;
use crate::ctl::files;
use crate::ctl::output::{Report, plain};
use crate::ctl::token::child::Admin;
use crate::ctl::token::percent;
use crate::custody::PublicKey;
use crate::custody::history::History;
use crate::custody::token::admin::KeyFacts;

pub(crate) fn run(args: &KeysGenerateArgs) -> Result<Report, CtlError> {
    let config = config::load(&args.reach.config).map_err(CtlError::Config)?;
    let (name, token) = (&args.name, &args.token);
    let configured = config.token(token).map_err(|error| CtlError::Usage(error.to_string()))?;
    let yubihsm = configured.connector.is_some();
    if config.keys.contains_key(name) {
        return Err(CtlError::Usage(format!("the configuration has a key `{name}` already; choose another name")));
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(CtlError::Usage(format!(
            "`{}` is no name for a key; use letters, digits, `-`, `_` and `.`",
            plain(name)
        )));
    }
    if let Some(file) = &args.public_key {
        // Worth knowing before a key is made.
        files::refuse_existing(file, false)?;
    }
    if let Some(id) = args.id.as_ref().filter(|id| yubihsm && id.len() != 4) {
        return Err(CtlError::Usage(format!(
            "--id: `{}` is not the two bytes of a YubiHSM's object id in hex",
            plain(id)
        )));
    }
    if let Some(id) = args.id.as_ref().filter(|id| !is_id(id)) {
        return Err(CtlError::Usage(format!("--id: `{}` is not 1 to 32 bytes in hex", plain(id))));
    }
    let label = args.label.as_ref().unwrap_or(name);
    let id = args.id.clone().map_or_else(|| random_id(yubihsm), |id| Ok(id.to_ascii_lowercase()))?;
    let admin = Admin::configured(&args.reach, token)?.args(["generate", "--label", label, "--id", &id]);
    let (made, written) = make(args.public_key.as_deref(), || admin.run())?;
    let public_key = PublicKey::from_pem(made.public_key.as_bytes())
        .map_err(|error| CtlError::Unexpected(format!("the token's new public key is {error}")))?;
    // The key is there now; that it cannot be written down is said, not undone.
    let mut note = String::new();
    if let Err(error) = &written {
        note.push_str(&format!(
            "\n{error}; have it written before you use the key: signerctl keys export --format pem\n"
        ));
    }
    if let Err(error) = public_half::remember(&History::of(&config), name, token, &public_key) {
        note.push_str(&format!("\nnot written to the key history: {error}\n"));
    }
    let snippet = snippet(args, &made);
    let text = format!(
        "key `{name}` is in token `{token}`: {}\n{note}\nadd this to the configuration, and the name to a tenant's `keys`:\n\n{snippet}",
        public_key.keyid()
    );
    let mut report = Report::new(text, json!({ "name": name, "token": token, "key": made, "snippet": snippet }));
    if let Err(error) = written {
        report.exit = error.exit();
        report.json["unwritten"] = error.to_string().into();
    }
    Ok(report)
}

/// Has the key made once its public half can be written into `file`. Returns it, and whether that was written in the end.
///
/// # Errors
/// When no key was made.
fn make(
    file: Option<&Path>,
    generate: impl FnOnce() -> Result<KeyFacts, CtlError>,
) -> Result<(KeyFacts, Result<(), CtlError>), CtlError> {
    let Some(file) = file else { return Ok((generate()?, Ok(()))) };
    let mut outcome = None;
    let written = files::write_new(file, false, |out| {
        // The file is open, beside its final name.
        match outcome.insert(generate()) {
            Ok(made) => out.write_all(made.public_key.as_bytes()),
            Err(_) => Err(io::Error::other("no key was made")),
        }
    });
    match (outcome, written) {
        (Some(made), written) => Ok((made?, written)),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(CtlError::Unexpected("the token was asked for no key".to_owned())),
    }
}

fn snippet(args: &KeysGenerateArgs, made: &KeyFacts) -> String {
    let bytes = made.id.as_bytes().chunks(2).filter_map(|hex| std::str::from_utf8(hex).ok());
    let id: String = bytes.map(|hex| format!("%{}", hex.to_ascii_uppercase())).collect();
    let uri = format!("pkcs11:object={};id={id};type=private", percent(&made.label));
    let quoted = |text: &str| toml_edit::Value::from(text).to_string();
    let public_key = args.public_key.as_deref().map(|file| {
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        format!("public_key = {}\n", quoted(&absolute.display().to_string()))
    });
    format!(
        "[keys.{}]\ntoken = {}\nuri = {}\nstate = \"next\"\n{}",
        toml_edit::Key::new(&args.name).display_repr(),
        quoted(&args.token),
        quoted(&uri),
        public_key.unwrap_or_default(),
    )
}

fn is_id(text: &str) -> bool {
    (2..=64).contains(&text.len()) && text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn random_id(yubihsm: bool) -> Result<String, CtlError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| CtlError::Unexpected("the operating system gives no random numbers".to_owned()))?;
    if yubihsm {
        // Two bytes, and neither 0000 nor ffff, which mean something else.
        return Ok(format!("{:04x}", 1 + u16::from_be_bytes([bytes[0], bytes[1]]) % 0xfffe));
    }
    Ok(crate::hex::hex(&bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn facts() -> KeyFacts {
        let [label, id, keyid] = ["acme-1", "01", "SHA256:x"].map(str::to_owned);
        KeyFacts { label, id, keyid, public_key: "a key".to_owned(), attributes: BTreeMap::new() }
    }

    #[test]
    fn no_device_is_asked_for_a_key_whose_public_half_cannot_be_written() {
        let directory = tempfile::tempdir().unwrap();
        // A name that exists nowhere, and has no room for the ending of a file that is not whole yet.
        let file = directory.path().join("k".repeat(254));
        let mut asked = false;
        let refused = make(Some(&file), || {
            asked = true;
            Ok(facts())
        });
        assert!(matches!(refused, Err(CtlError::File { .. })) && !asked);
    }

    #[test]
    fn a_key_that_was_not_made_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.pub");
        let refused = make(Some(&file), || Err(CtlError::Usage("the device says no".to_owned()))).unwrap_err();
        assert_eq!(refused.to_string(), "the device says no");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);

        let (made, written) = make(Some(&file), || Ok(facts())).unwrap();
        assert!(written.is_ok());
        assert_eq!((std::fs::read_to_string(&file).unwrap(), made.public_key.as_str()), ("a key".to_owned(), "a key"));
    }
}
