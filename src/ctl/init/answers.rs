//! What an operator answers: the device, the key, the tenant, and of the configuration what has no default.
//!
//! Answers are a TOML tree until they are complete, whoever gave them; then they are these types, once.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::ctl::error::CtlError;
use crate::ctl::files;
use crate::custody::profiles::{self, Backend, Profile};

/// All of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answers {
    /// What kind of device it is: a name that `signerctl token profiles` lists.
    pub(crate) profile: String,
    /// The token.
    pub(crate) token: Token,
    /// The key that signs first.
    pub(crate) key: Key,
    /// The tenant that it signs for.
    pub(crate) tenant: Tenant,
    /// A certificate for the Signer API that is yet to be issued.
    pub(crate) tls_request: Option<TlsRequest>,
    /// Sections of `signer.toml`, as they are to be there.
    pub(crate) config: Table,
    /// A whole call, besides the appliance's own test signature.
    pub(crate) test: Option<Test>,
}

/// `[token]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// What the configuration calls it, and its unit: `signer-token@NAME`.
    #[serde(default = "main_token")]
    pub(crate) name: String,
    /// The vendor's module. Absent: where the profile says that it is.
    pub(crate) module: Option<PathBuf>,
    /// The label of the token (RFC 7512 `token=`).
    pub(crate) label: Option<String>,
    /// Of a YubiHSM: where its connector listens.
    pub(crate) connector: Option<String>,
    /// Of a YubiHSM: its serial number.
    pub(crate) serial: Option<u32>,
    /// Of a YubiHSM: the worker's authentication key.
    pub(crate) auth_key: Option<u16>,
    /// Of a YubiHSM: the administrator's authentication key, which makes the signing key.
    #[serde(default = "administrator")]
    pub(crate) administrator_key: u16,
    /// Of a YubiHSM: PEM certificates that must vouch for it.
    pub(crate) attestation_roots: Option<PathBuf>,
    /// File with the user PIN; of a YubiHSM with the password of `auth_key`. Absent: it is typed.
    pub(crate) pin_file: Option<PathBuf>,
    /// File with the security officer's PIN; of a YubiHSM with the administrator's password.
    pub(crate) so_pin_file: Option<PathBuf>,
    /// Make a token of an empty one.
    #[serde(default)]
    pub(crate) initialise: bool,
    /// What seals the PIN, as `systemd-creds --with-key=` takes it.
    #[serde(default = "seal_auto")]
    pub(crate) seal: String,
}

/// `[key]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// What configuration and audit records call it; and its label on a PKCS#11 token.
    pub(crate) name: String,
    /// Make it when it is not there.
    #[serde(default)]
    pub(crate) generate: bool,
    /// Which object it is (RFC 7512), where the label is not its name.
    pub(crate) uri: Option<String>,
    /// Of a YubiHSM: its object id.
    #[serde(default = "first_object")]
    pub(crate) object_id: u16,
}

/// `[tenant]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tenant {
    /// The `tid` of its tokens.
    pub(crate) id: String,
    /// What it may have signed.
    #[serde(default = "everything")]
    pub(crate) predicate_types: Vec<String>,
    /// As whom it signs keyless, as the configuration has it.
    pub(crate) keyless: Option<Table>,
}

/// `[tls_request]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsRequest {
    /// DNS names and addresses that clients call the appliance by.
    pub(crate) names: Vec<String>,
}

/// `[test]`: what `signerctl sign` needs. Its URL is the configured `public_url`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    pub(crate) url: Option<String>,
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) token_file: PathBuf,
    pub(crate) poe_file: PathBuf,
    pub(crate) dpop_key: Option<PathBuf>,
    pub(crate) scanner_digest: String,
    /// Type of the document that is signed, one that the tenant may have signed.
    #[serde(default = "sbom")]
    pub(crate) predicate_type: String,
}

/// The tree of a file (if there is one) with `--set` laid over it.
///
/// # Errors
/// When the file is no TOML, or a setting no `NAME=VALUE`.
pub(crate) fn gather(file: Option<&Path>, settings: &[String]) -> Result<Table, CtlError> {
    let mut tree: Table = match file {
        None => Table::new(),
        Some(file) => files::read_text(file, MAX_BYTES)?
            .parse()
            .map_err(|error: toml::de::Error| CtlError::content(file, error.to_string().trim_end().to_owned()))?,
    };
    for setting in settings {
        let Some((name, value)) = setting.split_once('=') else {
            return Err(CtlError::Usage(format!("--set: `{setting}` is not NAME=VALUE")));
        };
        set(&mut tree, name, read_value(value))?;
    }
    Ok(tree)
}

/// Sets a value by its dotted name.
///
/// # Errors
/// When something on the way is no table.
pub(crate) fn set(tree: &mut Table, name: &str, value: Value) -> Result<(), CtlError> {
    let (tables, last) = name.rsplit_once('.').map_or((None, name), |(tables, last)| (Some(tables), last));
    let mut table = tree;
    for step in tables.iter().flat_map(|tables| tables.split('.')) {
        let entry = table.entry(step).or_insert_with(|| Value::Table(Table::new()));
        table = entry
            .as_table_mut()
            .ok_or_else(|| CtlError::Usage(format!("`{name}`: `{step}` has a value, and is no section")))?;
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

/// The value by its dotted name.
pub(crate) fn get<'a>(tree: &'a Table, name: &str) -> Option<&'a Value> {
    let mut steps = name.split('.');
    let first = tree.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get(step))
}

/// What `--set` says is TOML where it can be, as in `true`, `7550140` or `["*"]`, and text where not.
fn read_value(text: &str) -> Value {
    let line = format!("value = {text}");
    line.parse::<Table>().ok().and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::from(text))
}

impl Answers {
    /// Complete and in agreement with the device's profile.
    ///
    /// # Errors
    /// What is missing, unknown or contradictory.
    pub(crate) fn read(tree: &Table) -> Result<Self, CtlError> {
        let answers: Self = tree
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| CtlError::Usage(format!("the answers: {}", error.message())))?;
        answers.judge()?;
        Ok(answers)
    }

    /// The device's profile.
    pub(crate) fn profile(&self) -> Result<&'static Profile, CtlError> {
        profiles::find(&self.profile).ok_or_else(|| {
            let known: Vec<_> = profiles::names().collect();
            CtlError::Usage(format!("profile: there is no `{}`; known: {}", self.profile, known.join(", ")))
        })
    }

    /// Whether the device is spoken to without a module.
    pub(crate) fn is_yubihsm(&self) -> bool {
        self.profile().is_ok_and(|profile| profile.backend == Backend::Yubihsm)
    }

    fn judge(&self) -> Result<(), CtlError> {
        self.profile()?;
        for (what, name) in [("token.name", &self.token.name), ("key.name", &self.key.name)] {
            // They become parts of file and unit names.
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
                return Err(CtlError::Usage(format!("{what}: write letters, digits, `-` and `_`, at most 64 of them")));
            }
        }
        let token = &self.token;
        let foreign = if self.is_yubihsm() {
            if token.connector.is_none() {
                return Err(CtlError::Usage(
                    "token.connector: a YubiHSM has one, as in \"http://127.0.0.1:12345\"".to_owned(),
                ));
            }
            [("module", token.module.is_some()), ("label", token.label.is_some()), ("", false)]
        } else {
            if token.label.is_none() {
                return Err(CtlError::Usage("token.label: write the label of the token".to_owned()));
            }
            [
                ("connector", token.connector.is_some()),
                ("serial", token.serial.is_some()),
                ("auth_key", token.auth_key.is_some()),
            ]
        };
        if let Some((field, _)) = foreign.iter().find(|(_, given)| *given) {
            return Err(CtlError::Usage(format!("token.{field} is not for a device of profile `{}`", self.profile)));
        }
        if !SEALS.contains(&token.seal.as_str()) {
            return Err(CtlError::Usage(format!("token.seal: write one of {}", SEALS.join(", "))));
        }
        for section in ["tokens", "keys", "tenants"] {
            if self.config.contains_key(section) {
                let instead = section.trim_end_matches('s');
                return Err(CtlError::Usage(format!(
                    "config.{section}: the first one is described by [{instead}]; more are written into \
                     /etc/stellaops-signer/signer.toml.d/ when the appliance runs"
                )));
            }
        }
        Ok(())
    }
}

fn main_token() -> String {
    "main".to_owned()
}

fn administrator() -> u16 {
    3
}

fn seal_auto() -> String {
    "auto".to_owned()
}

fn first_object() -> u16 {
    0x0100
}

fn everything() -> Vec<String> {
    vec!["*".to_owned()]
}

fn sbom() -> String {
    "sbom".to_owned()
}

const SEALS: [&str; 4] = ["auto", "host", "tpm2", "host+tpm2"];
const MAX_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
        profile = "softhsm2"
        token = { label = "signer" }
        key = { name = "acme-2026", generate = true }
        tenant = { id = "acme" }
        [config]
    "#;

    fn with(change: impl FnOnce(&mut Table)) -> Result<Answers, CtlError> {
        let mut tree: Table = LEAST.parse().unwrap();
        change(&mut tree);
        Answers::read(&tree)
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let answers = with(|_| ()).unwrap();
        assert_eq!((answers.token.name.as_str(), answers.token.seal.as_str()), ("main", "auto"));
        assert_eq!(answers.tenant.predicate_types, ["*"]);
        assert!(!answers.token.initialise && answers.key.generate && !answers.is_yubihsm());
    }

    #[test]
    fn the_answers_of_the_documents_are_complete() {
        let page = include_str!("../../../docs/install.md");
        let example = page.split("### Answers\n").nth(1).unwrap();
        let lines = example.lines().skip(1).take_while(|line| line.is_empty() || line.starts_with("    "));
        let text: String = lines.map(|line| format!("{}\n", line.trim_start())).collect();
        let mut tree: Table = text.parse().unwrap();
        super::super::ask::complete(&mut tree, Path::new("/")).unwrap();
        let answers = Answers::read(&tree).unwrap();
        super::super::plan::Plan::of(&answers, true, Path::new("/"))
            .map(drop)
            .or_else(|error| {
                // Where SoftHSM2 is not installed, its module is the one thing that is missing.
                if error.to_string().contains("token.module") { Ok(()) } else { Err(error) }
            })
            .unwrap();
    }

    #[test]
    fn a_mistake_is_named() {
        let wrong = |name: &'static str, value: &'static str| {
            with(|tree| set(tree, name, read_value(value)).unwrap()).unwrap_err().to_string()
        };
        for (name, value, words) in [
            ("profile", "softhsm3", "softhsm2"),
            ("token.pin", "1234", "unknown field `pin`"),
            ("token.name", "../main", "token.name"),
            ("token.seal", "none", "host+tpm2"),
            ("token.connector", "http://127.0.0.1:12345", "token.connector is not for a device of profile `softhsm2`"),
            ("config.tokens.main.pin_file", "/x", "described by [token]"),
            ("profile", "yubihsm2", "token.connector"),
        ] {
            let said = wrong(name, value);
            assert!(said.contains(words), "{name} = {value}: {said}");
        }
        assert!(with(|tree| drop(tree.remove("key"))).unwrap_err().to_string().contains("missing field `key`"));
    }

    #[test]
    fn settings_are_values_where_they_can_be_and_lie_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), LEAST).unwrap();
        let settings = ["token.label=other", "token.initialise=true", "config.server.threads=2", "a.b=x y"];
        let tree = gather(Some(file.path()), &settings.map(str::to_owned)).unwrap();
        assert_eq!(get(&tree, "token.label"), Some(&Value::from("other")));
        assert_eq!(get(&tree, "token.initialise"), Some(&Value::from(true)));
        assert_eq!(get(&tree, "config.server.threads"), Some(&Value::from(2)));
        assert_eq!(get(&tree, "a.b"), Some(&Value::from("x y")));
        assert!(gather(None, &["profile".to_owned()]).unwrap_err().to_string().contains("NAME=VALUE"));
        assert!(gather(Some(file.path()), &["profile.x=1".to_owned()]).unwrap_err().to_string().contains("no section"));
    }
}
