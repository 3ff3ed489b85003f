//! What single values must look like. Each rule answers with what is wrong and what would be right.

use crate::custody::uri::{KeyUri, TokenUri};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// An `https://` URL, or an `http://` one whose host is this machine.
pub(super) fn outbound_url(text: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("`{text}` {why}; write one like \"https://licensing.example/path\""));
    let Ok(uri) = text.parse::<http::Uri>() else { return wrong("is no URL") };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("is not an absolute URL");
    };
    if authority.as_str().contains('@') {
        return Err("the URL carries a user name or password; secrets do not belong in the configuration".to_owned());
    }
    if text.contains('#') {
        return wrong("has a fragment");
    }
    match scheme {
        "https" => Ok(()),
        "http" if loopback(authority.host()) => Ok(()),
        "http" => wrong("is not encrypted, which is accepted only to loopback"),
        _ => wrong("is neither https nor http"),
    }
}

/// Scheme and authority that clients call, and nothing after them.
pub(super) fn public_url(text: &str) -> Result<(), String> {
    let wrong =
        |why: &str| Err(format!("`{text}` {why}; write scheme, host and port, as in \"https://signer.example:8443\""));
    let Ok(uri) = text.parse::<http::Uri>() else { return wrong("is no URL") };
    if uri.scheme_str() != Some("https") {
        return wrong("is not https");
    }
    let Some(authority) = uri.authority() else { return wrong("names no host") };
    if text.len() != "https://".len() + authority.as_str().len() {
        return wrong("has something after the authority");
    }
    if authority.as_str().contains('@') {
        return wrong("names a user");
    }
    Ok(())
}

/// Scheme, host and port of a service, and nothing after them.
pub(super) fn origin(text: &str, scheme: &str, example: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("`{text}` {why}; write scheme, host and port, as in \"{example}\""));
    let Ok(uri) = text.parse::<http::Uri>() else { return wrong("is no URL") };
    if uri.scheme_str() != Some(scheme) {
        return wrong(&format!("is not {scheme}"));
    }
    let Some(authority) = uri.authority() else { return wrong("names no host") };
    if authority.as_str().contains('@') {
        return Err("the URL carries a user name or password; secrets do not belong in the configuration".to_owned());
    }
    if text.len() != scheme.len() + "://".len() + authority.as_str().len() {
        return wrong("has something after the authority");
    }
    Ok(())
}

/// An `https://` URL, on this machine too: what comes back is a credential.
pub(super) fn https_url(text: &str) -> Result<(), String> {
    outbound_url(text)?;
    if text.starts_with("https://") {
        Ok(())
    } else {
        Err(format!("`{text}` is not https, and a credential comes back from there; write an https URL"))
    }
}

/// What a certificate of Fulcio names its subject by: a URI, or an email address.
pub(super) fn subject_alternative_name(text: &str) -> Result<(), String> {
    let plain = !text.is_empty() && text.len() <= 2048 && text.bytes().all(|byte| byte.is_ascii_graphic());
    let scheme = text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    let email = text.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && !domain.is_empty());
    if plain && (scheme || email) {
        Ok(())
    } else {
        Err("this is no subject alternative name; write it as the certificate has it, as in \
             \"spiffe://example.org/signer\" or \"signer@example.org\""
            .to_owned())
    }
}

/// An issuer identifier (RFC 8414, section 2): a URL without query and fragment.
pub(super) fn issuer(text: &str) -> Result<(), String> {
    outbound_url(text)?;
    if text.contains('?') {
        return Err(format!("`{text}` has a query; write the `iss` exactly as the tokens carry it"));
    }
    Ok(())
}

/// An absolute path. The value is not repeated: a secret typed where its file's name belongs must not reach a log.
pub(super) fn absolute(path: &Path) -> Result<(), String> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err("this is no absolute path; write one that starts with `/`, since a service has no directory of its own"
            .to_owned())
    }
}

/// The path of a Unix socket (unix(7): at most 107 bytes).
pub(super) fn socket(path: &Path) -> Result<(), String> {
    absolute(path)?;
    match path.as_os_str().len() {
        0..=107 => Ok(()),
        long => Err(format!("the path has {long} bytes and a socket's may have 107; write a shorter one")),
    }
}

/// A name that becomes part of unit names, metric labels and audit records.
pub(super) fn name(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&text.len()) && text.chars().all(plain) && !text.starts_with('.') {
        Ok(())
    } else {
        Err("this name is not usable; write up to 64 letters, digits, `-`, `_` and `.`".to_owned())
    }
}

/// A name given by someone else, such as a tenant's: any text that prints on one line.
pub(super) fn label(text: &str, max: usize) -> Result<(), String> {
    if text.trim().is_empty() {
        Err("it is empty; write a text".to_owned())
    } else if text.len() > max || text.chars().any(char::is_control) {
        Err(format!("it is too long or has control characters; write one line of at most {max} bytes"))
    } else {
        Ok(())
    }
}

/// `sha256:` and 64 lowercase hex digits.
pub(super) fn image_digest(text: &str) -> Result<(), String> {
    digest(text, "image digest")
}

/// `sha256:` and the SHA-256 of the SubjectPublicKeyInfo of a certificate.
pub(super) fn certificate_key_digest(text: &str) -> Result<(), String> {
    digest(text, "digest of a certificate's key")
}

fn digest(text: &str, what: &str) -> Result<(), String> {
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    match text.strip_prefix("sha256:") {
        Some(digest) if digest.len() == 64 && digest.bytes().all(hex) => Ok(()),
        _ => Err(format!("`{text}` is no {what}; write `sha256:` and 64 lowercase hex digits")),
    }
}

/// A SHA-256 as sha256sum(1) prints it.
pub(super) fn sha256(text: &str) -> Result<(), String> {
    if text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err(format!("`{text}` is no SHA-256; write the 64 hex digits that `sha256sum` prints"))
    }
}

/// An RFC 7512 URI that names a token, without a PIN in it.
pub(super) fn token_uri(text: &str) -> Result<(), String> {
    text.parse::<TokenUri>().map(drop).map_err(|error| format!("{error}; write one like \"pkcs11:token=signer\""))
}

/// An RFC 7512 URI that names a key within a token.
pub(super) fn key_uri(text: &str) -> Result<(), String> {
    text.parse::<KeyUri>().map(drop).map_err(|error| format!("{error}; write one like \"pkcs11:object=acme;id=%01\""))
}

/// At most `most`, said in the unit of the operator.
pub(super) fn at_most(value: Duration, most: Duration) -> Result<(), String> {
    if value <= most {
        return Ok(());
    }
    let (seconds, milliseconds) = (most.as_secs(), most.as_millis());
    let most = if seconds > 0 { format!("{seconds}s") } else { format!("{milliseconds}ms") };
    Err(format!("{value:?} is too long; write at most \"{most}\""))
}

fn loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_outbound_url_is_encrypted_or_stays_on_this_machine() {
        for right in [
            "https://a.example",
            "https://a.example:8443/x?y=z",
            "http://127.0.0.1:9/x",
            "http://[::1]:9",
            "http://localhost/x",
        ] {
            assert_eq!(outbound_url(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "a.example",
            "http://a.example",
            "http://127.0.0.1.evil.example/",
            "ftp://a.example",
            "https://u:p@a.example",
            "https://a.example/#f",
            "https:///x",
            "https://a b",
        ] {
            assert!(outbound_url(wrong).is_err(), "{wrong}");
        }
        assert!(!outbound_url("https://u:hunter2@a.example").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn the_public_url_ends_with_its_authority() {
        assert_eq!(public_url("https://signer.example:8443"), Ok(()));
        for wrong in [
            "",
            "signer.example",
            "http://signer.example",
            "https://signer.example/",
            "https://signer.example/api",
            "https://signer.example?x",
            "https://u@signer.example",
        ] {
            assert!(public_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_digests_and_uris_are_held_to_their_form() {
        for (wrong, rule) in [
            ("", name as fn(&str) -> Result<(), String>),
            ("a/b", name),
            ("..", name),
            ("a b", name),
            ("sha256:abc", image_digest),
            ("SHA256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", image_digest),
            ("abc", sha256),
            ("token=x", token_uri),
            ("pkcs11:token=x?pin-value=1234", token_uri),
            ("https://a.example/?x", issuer),
        ] {
            assert!(rule(wrong).is_err(), "{wrong}");
        }
        assert!(!token_uri("pkcs11:token=x?pin-value=1234").unwrap_err().contains("1234"));
        assert_eq!(name("hsm-1.a_B"), Ok(()));
        assert_eq!(sha256(&"0A".repeat(32)), Ok(()));
        assert_eq!(image_digest(&format!("sha256:{}", "0a".repeat(32))), Ok(()));
    }
}
