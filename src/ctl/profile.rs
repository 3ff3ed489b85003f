//! The client profile: a TOML file whose keys are the names of `sign`'s options, with `_` for `-`.

use std::path::{Path, PathBuf};

use clap::{Args as _, Command};
use toml::de::{DeTable, Error};

use super::error::CtlError;
use super::files;
use super::settings::{Access, Defaults, Settings};

/// Reads a profile. Relative paths in it start at its own directory.
pub(super) fn read(path: &Path) -> Result<Settings, CtlError> {
    let text = files::read_text(path, MAX_PROFILE_BYTES)?;
    let settings = parse(&text).map_err(|(offset, message)| {
        let (line, column) = position(&text, offset);
        CtlError::Profile(format!("{}:{line}:{column}: {message}", path.display()))
    })?;
    settings.access.one_token_source(&path.display().to_string())?;
    Ok(beside(path.parent().unwrap_or(Path::new("")), settings))
}

/// The settings, or the offset and the words of what is wrong.
fn parse(text: &str) -> Result<Settings, (usize, String)> {
    let failed = |error: Error| (error.span().map_or(0, |span| span.start), error.message().to_owned());
    let known = option_names();
    for (key, _) in DeTable::parse(text).map_err(failed)?.get_ref() {
        if !known.iter().any(|name| name == key.get_ref()) {
            let message = format!("unknown key `{}`; there are {}", key.get_ref(), known.join(", "));
            return Err((key.span().start, message));
        }
    }
    Ok(Settings { access: toml::from_str(text).map_err(failed)?, request: toml::from_str(text).map_err(failed)? })
}

/// From the command line's own definition, so that the two cannot drift apart.
fn option_names() -> Vec<String> {
    let command = Defaults::augment_args(Access::augment_args(Command::new("profile")));
    command.get_arguments().map(|option| option.get_id().to_string()).filter(|name| name != "profile").collect()
}

fn beside(directory: &Path, settings: Settings) -> Settings {
    let at = |file: Option<PathBuf>| file.map(|file| directory.join(file));
    let Settings { access, request } = settings;
    Settings {
        access: Access {
            ca: at(access.ca),
            cert: at(access.cert),
            key: at(access.key),
            token_file: at(access.token_file),
            authority_ca: at(access.authority_ca),
            client_key: at(access.client_key),
            dpop_key: at(access.dpop_key),
            ..access
        },
        request: Defaults { poe_file: at(request.poe_file), ..request },
    }
}

/// Line and column, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

const MAX_PROFILE_BYTES: u64 = 64 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ctl::settings::{Binding, BundleForm, Patience};

    #[test]
    fn every_option_can_stand_in_a_profile_and_paths_start_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.toml");
        let text = r#"
            url = "https://signer.example:8443"
            ca = "ca.pem"
            cert = "/abs/cert.pem"
            key = "key.pem"
            timeout = "5s"
            retry_for = "0s"
            authority = "https://as.example"
            authority_ca = "as.pem"
            client_id = "ci"
            client_key = "ck.pem"
            client_key_id = "k1"
            scope = "signer.sign"
            resource = "urn:signer"
            binding = "mtls"
            dpop_key = "dpop.pem"
            poe_file = "poe.jwt"
            poe_in_header = true
            scanner_digest = "sha256:00"
            mode = "kms"
            bundle = "dsse+cert"
        "#;
        std::fs::write(&path, text).unwrap();
        let Settings { access, request } = read(&path).unwrap();
        assert_eq!(access.ca, Some(directory.path().join("ca.pem")));
        assert_eq!(access.cert, Some("/abs/cert.pem".into()));
        assert_eq!(access.retry_for, Some(Patience(Duration::ZERO)));
        assert_eq!(access.binding, Some(Binding::Mtls));
        assert_eq!(request.bundle, Some(BundleForm::DsseCert));
        assert_eq!(request.poe_file, Some(directory.path().join("poe.jwt")));
        // With `token_file`, which excludes `authority`, the text above names every key there is.
        let written = text.lines().filter(|line| line.contains('=')).count();
        assert_eq!(written + 1, option_names().len());
    }

    #[test]
    fn a_wrong_profile_says_where_it_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.toml");
        for (text, place, words) in [
            ("url = \"https://a\"\nurll = \"b\"\n", ":2:1: ", "unknown key `urll`"),
            ("\n\n  timeout = \"soon\"\n", ":3:13: ", "is no duration"),
            ("binding = \"tls\"\n", ":1:11: ", "unknown variant"),
            ("poe_in_header = \"yes\"\n", ":1:17: ", "boolean"),
            ("url = \n", ":1:", ""),
            ("profile = \"other.toml\"\n", ":1:1: ", "unknown key `profile`"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(words), "{text:?}: {error}");
        }
        std::fs::write(&path, "token_file = \"t\"\nauthority = \"https://a\"\n").unwrap();
        assert!(matches!(read(&path), Err(CtlError::Usage(_))));
    }
}
