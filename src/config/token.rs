//! How a token is reached: by a vendor's PKCS#11 module, or as a YubiHSM 2.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::Token;
use crate::custody::profiles;

/// How a token is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend<'a> {
    /// Through a vendor's module.
    Pkcs11 {
        /// Absolute path of the module.
        module: &'a Path,
        /// RFC 7512 URI that names the token.
        uri: &'a str,
    },
    /// As a YubiHSM 2, without a module.
    YubiHsm {
        /// Where the device is.
        connector: &'a YubiHsmConnector,
        /// Which device it must be.
        serial: Option<u32>,
        /// Object id of the authentication key.
        auth_key: u16,
        /// PEM file with the certificates that vouch for devices.
        attestation_roots: Option<&'a Path>,
    },
}

/// A key of `[tokens.NAME]` that does not go with the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct BackendError {
    /// The key.
    pub key: &'static str,
    /// What is wrong, and what to write.
    pub message: String,
}

/// Where a YubiHSM is: `"http://127.0.0.1:12345"` or `"usb"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum YubiHsmConnector {
    /// Yubico's `yubihsm-connector`. What goes over it is encrypted between us and the device.
    Http {
        /// Name or address.
        host: String,
        /// Yubico's default is 12345.
        port: u16,
    },
    /// On this machine, with no other program using it.
    Usb,
}

impl Token {
    /// Sessions held open, and so signatures in progress at once.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        let profile = self.profile.as_deref().and_then(profiles::find);
        self.sessions.unwrap_or(profiles::Defaults::of(profile).sessions).get()
    }

    /// How the token is reached.
    ///
    /// # Errors
    /// The first key that is missing, or does not go with the others.
    pub fn backend(&self) -> Result<Backend<'_>, BackendError> {
        let wrong = |key, message: &str| Err(BackendError { key, message: message.to_owned() });
        match (&self.module, &self.connector) {
            (Some(_), Some(_)) => wrong(
                "connector",
                "`module` is given as well; keep `connector` for a YubiHSM, `module` for anything else",
            ),
            (None, None) => wrong(
                "module",
                "it is missing; write the path of the vendor's PKCS#11 module, or `connector` for a YubiHSM",
            ),
            (Some(module), None) => {
                for (key, given) in [
                    ("serial", self.serial.is_some()),
                    ("auth_key", self.auth_key.is_some()),
                    ("attestation_roots", self.attestation_roots.is_some()),
                ] {
                    if given {
                        return wrong(key, "it is for a YubiHSM with `connector`; leave it out with `module`");
                    }
                }
                match &self.uri {
                    Some(uri) => Ok(Backend::Pkcs11 { module, uri }),
                    None => wrong("uri", "it is missing; name the token, as in `uri = \"pkcs11:token=signer\"`"),
                }
            }
            (None, Some(_)) if self.uri.is_some() => {
                wrong("uri", "it names a token of a PKCS#11 module; write `serial` for a YubiHSM")
            }
            (None, Some(_)) if self.sessions() > MOST_YUBIHSM_SESSIONS => {
                wrong("sessions", "a YubiHSM has 16 sessions, one of which is kept for its log; write at most 15")
            }
            (None, Some(connector)) => match self.auth_key {
                Some(auth_key) => Ok(Backend::YubiHsm {
                    connector,
                    serial: self.serial,
                    auth_key,
                    attestation_roots: self.attestation_roots.as_deref(),
                }),
                None => wrong(
                    "auth_key",
                    "it is missing; write the object id of the authentication key whose password is in `pin_file`",
                ),
            },
        }
    }
}

impl Token {
    /// The files and directories that are named, by their keys.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let optional = [
            ("module", self.module.as_deref()),
            ("attestation_roots", self.attestation_roots.as_deref()),
            ("state_dir", self.state_dir.as_deref()),
            ("pin_file", Some(self.pin_file.as_path())),
        ];
        optional.into_iter().filter_map(|(key, file)| Some((key, file?)))
    }
}

impl FromStr for YubiHsmConnector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no connector; write \"http://HOST:PORT\" of yubihsm-connector (Yubico's port is 12345), or \"usb\""
            )
        };
        if text == "usb" {
            return Ok(Self::Usb);
        }
        let address = text.strip_prefix("http://").ok_or_else(wrong)?;
        let address = address.strip_suffix('/').unwrap_or(address);
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let literal = |host: &str| host.parse::<std::net::Ipv6Addr>().is_ok();
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(literal);
        if !bracketed && (host.is_empty() || !host.chars().all(named)) {
            return Err(wrong());
        }
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self::Http { host: host.to_owned(), port }),
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for YubiHsmConnector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for YubiHsmConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { host, port } => write!(f, "http://{host}:{port}"),
            Self::Usb => f.write_str("usb"),
        }
    }
}

const MOST_YUBIHSM_SESSIONS: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connector_is_a_host_and_a_port_or_usb() {
        for (text, host, port) in [
            ("http://127.0.0.1:12345", "127.0.0.1", 12345),
            ("http://hsm-1.example:80/", "hsm-1.example", 80),
            ("http://[::1]:12345", "[::1]", 12345),
        ] {
            assert_eq!(text.parse(), Ok(YubiHsmConnector::Http { host: host.to_owned(), port }), "{text}");
        }
        assert_eq!("usb".parse(), Ok(YubiHsmConnector::Usb));
        for wrong in [
            "",
            "USB",
            "127.0.0.1:12345",
            "https://a:1",
            "http://a",
            "http://a:0",
            "http://a:65536",
            "http://:1",
            "http://u@a:1",
            "http://a:1/x",
            "http://[x]:1",
        ] {
            assert!(wrong.parse::<YubiHsmConnector>().is_err(), "{wrong}");
        }
    }
}
