//! From the answers to what will be on disk: `signer.toml`, the files that it names, and what the worker's unit needs.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::answers::{Answers, set};
use crate::ctl::error::CtlError;
use crate::ctl::token::percent;

/// What is to be there.
#[derive(Debug)]
pub(crate) struct Plan {
    /// `signer.toml`.
    pub(crate) config: String,
    /// Files of the operator's, copied to where the processes may read them.
    pub(crate) copies: Vec<Copied>,
    /// Files that are made.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Environment of the worker's unit, which a command on the token needs as well.
    pub(crate) environment: Vec<(String, String)>,
    /// The certificate of the Signer API is yet to be issued.
    pub(crate) request: bool,
}

/// A file that the answers name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// The key of the configuration that names it.
    pub(crate) key: String,
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
    /// For the front alone.
    pub(crate) secret: bool,
    /// It is sealed as this credential of signerd's unit, and `to` is where the unit finds it open.
    pub(crate) sealed: Option<&'static str>,
    /// Where an image has what is sealed here.
    pub(crate) in_image: Option<PathBuf>,
    /// Its operator renews it in its place: what is there is newer than what the answers name.
    pub(crate) kept_fresh: bool,
}

impl Plan {
    /// With `seal`, the keys of the front are credentials of its unit; without, files. The device's module is looked for
    /// below `root`: an image has one, and who makes it need not.
    ///
    /// # Errors
    /// When the device's module is nowhere, or the answers contradict the configuration's form.
    pub(crate) fn of(answers: &Answers, seal: bool, root: &Path) -> Result<Self, CtlError> {
        let mut config = answers.config.clone();
        let request = answers.tls_request.is_some();
        if request {
            let key = if seal { format!("{CREDENTIALS}/server.key") } else { SERVER_KEY.to_owned() };
            set(&mut config, SERVER_TLS_CERTIFICATE, Value::from(SERVER_CERTIFICATE))?;
            set(&mut config, SERVER_TLS_KEY, Value::from(key))?;
        }
        for (name, value) in DEFAULTS {
            if super::answers::get(&config, name).is_none() {
                set(&mut config, name, Value::from(value))?;
            }
        }
        let mut copies = Vec::new();
        relocate(&mut config, "", seal, &mut copies);
        token(answers, &mut config, root)?;
        key_and_tenant(answers, &mut config)?;
        let text = toml::to_string_pretty(&config)
            .map_err(|error| CtlError::Usage(format!("the answers make no configuration: {error}")))?;
        let mut plan =
            Self { config: format!("{HEADER}{text}"), copies, files: Vec::new(), environment: Vec::new(), request };
        plan.unit(answers)?;
        Ok(plan)
    }

    /// The drop-in of the device's profile, and what it expects.
    fn unit(&mut self, answers: &Answers) -> Result<(), CtlError> {
        let (profile, name) = (answers.profile()?, &answers.token.name);
        let drop_in = profile.drop_in();
        self.environment = environment(drop_in, name);
        let unit = format!("/etc/systemd/system/signer-token@{name}.service.d/10-device.conf");
        self.files.push((PathBuf::from(unit), drop_in.to_owned()));
        for (unit, default, listen) in self.listeners() {
            if listen != default {
                let text = format!(
                    "# By signerctl init: what signer.toml says.\n[Socket]\nListenStream=\nListenStream={listen}\n"
                );
                self.files.push((PathBuf::from(format!("/etc/systemd/system/{unit}.d/10-listen.conf")), text));
            }
        }
        if profile.name == "softhsm2" {
            let tokens = worker_state(name).join("softhsm2");
            let text = format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
                tokens.display()
            );
            self.files.push((PathBuf::from(format!("{CONFIG_DIR}/softhsm2-{name}.conf")), text));
        }
        Ok(())
    }
}

impl Plan {
    /// Of each socket unit: what it listens on as it is shipped, and what the configuration says.
    fn listeners(&self) -> Vec<(&'static str, &'static str, String)> {
        let config: Table = self.config.parse().unwrap_or_default();
        let text = |name: &str| {
            super::answers::get(&config, name).and_then(Value::as_str).unwrap_or_default().replacen("unix:", "", 1)
        };
        let api = text("server.listen");
        // The unit's port alone stands for every address.
        let api = if matches!(&*api, "0.0.0.0:8443" | "[::]:8443") { "8443".to_owned() } else { api };
        vec![
            ("signerd.socket", "8443", api),
            ("signerd-local.socket", "/run/stellaops-signer/local.sock", text("server.local_listen")),
        ]
    }
}

/// Where a key's public half is written.
pub(crate) fn public_key(key: &str) -> PathBuf {
    PathBuf::from(format!("{CONFIG_DIR}/keys/{key}.pub"))
}

/// The worker's own directory.
pub(crate) fn worker_state(token: &str) -> PathBuf {
    PathBuf::from(format!("/var/lib/stellaops-signer-token/{token}"))
}

fn token(answers: &Answers, config: &mut Table, root: &Path) -> Result<(), CtlError> {
    let (token, profile) = (&answers.token, answers.profile()?);
    let name = &token.name;
    let mut section = Table::new();
    let mut put = |key: &str, value: Value| drop(section.insert(key.to_owned(), value));
    put("socket", format!("/run/stellaops-signer/token-{name}.sock").into());
    put("front_user", FRONT.into());
    put("worker_user", WORKER.into());
    put("pin_file", format!("/run/credentials/signer-token@{name}.service/pin").into());
    put("profile", answers.profile.clone().into());
    if let Some(connector) = &token.connector {
        put("connector", connector.clone().into());
        put("auth_key", i64::from(token.auth_key.unwrap_or(WORKER_AUTH_KEY)).into());
        if let Some(serial) = token.serial {
            put("serial", i64::from(serial).into());
        }
        if let Some(roots) = &token.attestation_roots {
            put("attestation_roots", text(roots));
        }
    } else {
        let module = token.module.clone().or_else(|| profile.installed_module(root).map(|module| module.path.clone()));
        let Some(module) = module else {
            let known: Vec<_> = profile.modules.iter().map(|module| module.path.display().to_string()).collect();
            return Err(CtlError::Usage(format!(
                "token.module: the module of {} is not where it usually is ({}); install it, or write its path",
                profile.title,
                known.join(", ")
            )));
        };
        put("module", text(&module));
        put("uri", format!("pkcs11:token={}", percent(token.label.as_deref().unwrap_or_default())).into());
    }
    set(config, &format!("tokens.{name}"), Value::Table(section))
}

fn key_and_tenant(answers: &Answers, config: &mut Table) -> Result<(), CtlError> {
    let key = &answers.key;
    let mut section = Table::new();
    section.insert("token".to_owned(), answers.token.name.clone().into());
    section.insert("state".to_owned(), "active".into());
    section.insert("public_key".to_owned(), text(&public_key(&key.name)));
    if answers.is_yubihsm() {
        section.insert("object_id".to_owned(), format!("0x{:04x}", key.object_id).into());
    } else {
        let by_label = || format!("pkcs11:object={};type=private", percent(&key.name));
        section.insert("uri".to_owned(), key.uri.clone().unwrap_or_else(by_label).into());
    }
    set(config, &format!("keys.{}", key.name), Value::Table(section))?;
    let types = answers.tenant.predicate_types.iter().map(|name| Value::from(name.as_str())).collect();
    let mut tenant = Table::from_iter([
        ("keys".to_owned(), Value::Array(vec![key.name.clone().into()])),
        ("predicate_types".to_owned(), Value::Array(types)),
    ]);
    if let Some(keyless) = &answers.tenant.keyless {
        tenant.insert("keyless".to_owned(), keyless.clone().into());
    }
    // Not by a dotted name: a tenant's may have dots.
    config.insert("tenants".to_owned(), Value::Table(Table::from_iter([(answers.tenant.id.clone(), tenant.into())])));
    Ok(())
}

/// Has every file that is not the appliance's own copied to where it is, and the configuration name the copy: a unit's
/// sandbox does not see the operator's home.
fn relocate(table: &mut Table, path: &str, seal: bool, copies: &mut Vec<Copied>) {
    for (key, value) in table.iter_mut() {
        let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(inner) => relocate(inner, &at, seal, copies),
            Value::Array(values) => {
                for (i, value) in values.iter_mut().enumerate() {
                    let at = format!("{at}.{i}");
                    match value {
                        Value::Table(inner) => relocate(inner, &at, seal, copies),
                        Value::String(file) if key == "client_crl" => copy(file, key, &at, seal, copies),
                        _ => {}
                    }
                }
            }
            Value::String(file) if names_a_file(key, path) => copy(file, key, &at, seal, copies),
            _ => {}
        }
    }
}

fn copy(file: &mut String, key: &str, at: &str, seal: bool, copies: &mut Vec<Copied>) {
    let from = PathBuf::from(&*file);
    if !from.is_absolute() || OURS.iter().any(|ours| from.starts_with(ours)) {
        return;
    }
    let sealed = SEALED.iter().find(|(known, _)| seal && *known == at).map(|(_, name)| *name);
    let known = PLACES.iter().find(|(known, _)| *known == at).map(|(_, to)| PathBuf::from(to));
    let in_image = sealed.and(known.clone());
    let known = sealed.map(|name| Path::new(CREDENTIALS).join(name)).or(known);
    let to = known.unwrap_or_else(|| {
        let mut name = at.replace(['.', '_'], "-");
        if let Some(extension) = from.extension() {
            name = format!("{name}.{}", extension.to_string_lossy());
        }
        Path::new(CONFIG_DIR).join("files").join(name)
    });
    *file = to.display().to_string();
    let secret = matches!(key, "private_key" | "credentials");
    let kept_fresh = matches!(key, "revocation_list" | "client_crl") || at == SERVER_TLS_CERTIFICATE;
    copies.push(Copied { key: at.to_owned(), from, to, secret, sealed, in_image, kept_fresh });
}

/// Files that something else keeps fresh (identity tokens, release snapshots) are left where they are.
fn names_a_file(key: &str, path: &str) -> bool {
    FILE_KEYS.contains(&key)
        || (key == "file" && path.ends_with("jwks"))
        || (key == "keys" && path.ends_with("offline"))
}

/// `Environment=` of a drop-in, for one worker.
fn environment(drop_in: &str, name: &str) -> Vec<(String, String)> {
    let lines = drop_in.lines().filter_map(|line| line.strip_prefix("Environment="));
    let pairs = lines.filter_map(|line| line.trim_matches('"').split_once('='));
    pairs.map(|(variable, value)| (variable.to_owned(), value.replace("%i", name))).collect()
}

fn text(path: &Path) -> Value {
    Value::from(path.display().to_string())
}

pub(crate) const CONFIG_DIR: &str = "/etc/stellaops-signer";
pub(crate) const CONFIG: &str = "/etc/stellaops-signer/signer.toml";
pub(crate) const SERVER_CERTIFICATE: &str = "/etc/stellaops-signer/tls/server.crt";
pub(crate) const SERVER_KEY: &str = "/etc/stellaops-signer/tls/server.key";
/// The keys of the configuration that name these two.
pub(crate) const SERVER_TLS_CERTIFICATE: &str = "server.tls.certificate";
pub(crate) const SERVER_TLS_KEY: &str = "server.tls.private_key";
/// What signerd's unit opens its credentials as.
pub(crate) const CREDENTIALS: &str = "/run/credentials/signerd.service";
pub(crate) const REVOCATIONS: &str = "/var/lib/stellaops-signer/revocations.jwt";
pub(crate) const FRONT: &str = "stellaops-signer";
pub(crate) const WORKER: &str = "stellaops-signer-token";
const WORKER_AUTH_KEY: u16 = 2;

const DEFAULTS: [(&str, &str); 3] = [
    ("server.listen", "0.0.0.0:8443"),
    ("server.local_listen", "unix:/run/stellaops-signer/local.sock"),
    ("audit.path", "/var/lib/stellaops-signer/audit/audit.jsonl"),
];

/// Keys that name a file, wherever they stand.
const FILE_KEYS: [&str; 8] =
    ["certificate", "private_key", "client_ca", "ca", "revocation_list", "public_key", "trusted_root", "credentials"];

/// What is there already may be named as it is.
const OURS: [&str; 4] = [CONFIG_DIR, "/var/lib/stellaops-signer", "/usr", "/run/credentials"];

/// The names that docs/signer.example.toml has.
const PLACES: [(&str, &str); 9] = [
    (SERVER_TLS_CERTIFICATE, SERVER_CERTIFICATE),
    (SERVER_TLS_KEY, SERVER_KEY),
    ("server.tls.client_ca", "/etc/stellaops-signer/tls/client-ca.crt"),
    ("authority.ca", "/etc/stellaops-signer/tls/authority-ca.crt"),
    ("licensing.offline.keys", "/etc/stellaops-signer/licensing/keys.json"),
    ("licensing.offline.revocation_list", REVOCATIONS),
    ("licensing.online.ca", "/etc/stellaops-signer/tls/licensing-ca.crt"),
    ("licensing.online.certificate", "/etc/stellaops-signer/tls/licensing-client.crt"),
    ("licensing.online.private_key", "/etc/stellaops-signer/tls/licensing-client.key"),
];

/// The credentials that signerd's unit loads, by the keys that they are for.
const SEALED: [(&str, &str); 2] =
    [(SERVER_TLS_KEY, "server.key"), ("licensing.online.private_key", "licensing-client.key")];

const HEADER: &str = "\
# Written by `signerctl init`. Yours from now on; further changes go here or into signer.toml.d/*.toml.
# Every key is explained in /usr/share/doc/stellaops-signer/examples/signer.example.toml; `signerctl config check` judges it.

";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_in_gives_its_environment_for_one_worker() {
        let drop_in = "[Service]\n# why\nEnvironment=SOFTHSM2_CONF=/etc/x-%i.conf\nEnvironment=\"A=b c\"\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(environment(drop_in, "main"), [pair("SOFTHSM2_CONF", "/etc/x-main.conf"), pair("A", "b c")]);
    }

    #[test]
    fn files_of_the_operator_are_copied_and_the_appliances_own_are_named() {
        let mut config: Table = r#"
            [server.tls]
            private_key = "/root/k.pem"
            client_ca = "/etc/stellaops-signer/tls/mine.crt"
            client_crl = ["/root/a.crl"]
            [authority.jwks]
            file = "/root/jwks.json"
            [licensing.offline]
            keys = "/root/keys.json"
            [keyless.identity.w.source]
            file = "/var/run/secrets/token"
            [[release.identity]]
            public_key = "/root/release.pub"
        "#
        .parse()
        .unwrap();
        let mut copies = Vec::new();
        relocate(&mut config, "", false, &mut copies);
        let moved: Vec<_> =
            copies.iter().map(|copy| (copy.key.as_str(), copy.to.to_str().unwrap(), copy.secret)).collect();
        assert_eq!(
            moved,
            [
                ("authority.jwks.file", "/etc/stellaops-signer/files/authority-jwks-file.json", false),
                ("licensing.offline.keys", "/etc/stellaops-signer/licensing/keys.json", false),
                (
                    "release.identity.0.public_key",
                    "/etc/stellaops-signer/files/release-identity-0-public-key.pub",
                    false
                ),
                ("server.tls.client_crl.0", "/etc/stellaops-signer/files/server-tls-client-crl-0.crl", false),
                ("server.tls.private_key", "/etc/stellaops-signer/tls/server.key", true),
            ]
        );
        let fresh: Vec<_> = copies.iter().filter(|copy| copy.kept_fresh).map(|copy| copy.key.as_str()).collect();
        assert_eq!(fresh, ["server.tls.client_crl.0"]);
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("/etc/stellaops-signer/tls/mine.crt") && text.contains("/var/run/secrets/token"));
        assert!(!text.contains("/root"), "{text}");

        let mut config: Table = "[server.tls]\nprivate_key = \"/root/k.pem\"".parse().unwrap();
        let mut copies = Vec::new();
        relocate(&mut config, "", true, &mut copies);
        assert_eq!(copies[0].sealed, Some("server.key"));
        assert_eq!(copies[0].in_image.as_deref(), Some(Path::new(SERVER_KEY)));
        assert!(toml::to_string(&config).unwrap().contains("/run/credentials/signerd.service/server.key"));
    }
}
