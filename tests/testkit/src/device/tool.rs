//! A PKCS#11 token driven by OpenSC's `pkcs11-tool`, which is as far from the signer's own code as a client can be.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::TokenKey;
use crate::appliance::Settings;
use crate::{Context, Error, Result, hex, random_id, shell};

/// One token of one module.
pub(crate) struct Tool {
    pub(crate) module: PathBuf,
    pub(crate) label: String,
    pub(crate) pin_file: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    /// Of `signer.toml`, for a device that has one.
    pub(crate) profile: Option<&'static str>,
    pub(crate) dir: PathBuf,
    pin: String,
    keys: u8,
}

impl Tool {
    /// A token that is there already, with its PIN. What is written about it goes to `dir`.
    pub(crate) fn new(
        module: PathBuf,
        dir: &Path,
        label: &str,
        pin: String,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        if shell::find_program("pkcs11-tool").is_none() {
            return Err(Error::new("pkcs11-tool is missing: install the package opensc"));
        }
        fs::create_dir_all(dir).context(format!("make {}", dir.display()))?;
        let pin_file = dir.join(format!("{label}.pin"));
        shell::write_private(&pin_file, format!("{pin}\n").as_bytes())?;
        let (label, dir) = (label.to_owned(), dir.to_owned());
        Ok(Self { module, label, pin_file, environment, profile: None, dir, pin, keys: 0 })
    }

    /// A fresh token in the module's first slot, with a random PIN.
    pub(crate) fn initialize(
        module: PathBuf,
        dir: &Path,
        label: &str,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        Self::new(module, dir, label, random_id(), environment)?.initialized("0")
    }

    /// One more in a module that shows an uninitialized token behind those that are there.
    pub(crate) fn initialize_behind(
        module: PathBuf,
        dir: &Path,
        label: &str,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        let token = Self::new(module, dir, label, random_id(), environment)?;
        let slots = shell::run(token.tool().args(["--list-slots"]))?;
        let free = String::from_utf8_lossy(&slots).matches("token label").count().to_string();
        token.initialized(&free)
    }

    fn initialized(self, slot_index: &str) -> Result<Self> {
        let so_pin = random_id();
        let so_pin = |command: &mut Command| {
            shell::run(command.env("TESTKIT_SO_PIN", &so_pin).args(["--so-pin", "env:TESTKIT_SO_PIN"]))
        };
        so_pin(self.tool().args(["--init-token", "--slot-index", slot_index, "--label", &self.label]))?;
        so_pin(self.tool_on_token().args([
            "--init-pin",
            "--login",
            "--login-type",
            "so",
            "--new-pin",
            "env:TESTKIT_PIN",
        ]))?;
        Ok(self)
    }

    /// Makes a P-256 key pair inside the token.
    pub(crate) fn generate_key(&mut self, label: &str) -> Result<TokenKey> {
        self.keys += 1;
        let id = vec![0xa0, self.keys];
        self.logged_in(
            &["--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign", "--sensitive", "--private"],
            label,
            &id,
        )?;
        self.described(label, id)
    }

    /// Imports a P-256 key pair. `pkcs8` and `spki` are DER.
    pub(crate) fn import_key(&mut self, label: &str, pkcs8: &[u8], spki: &[u8]) -> Result<TokenKey> {
        self.keys += 1;
        let id = vec![0xb0, self.keys];
        for (class, der, more) in [
            ("privkey", pkcs8, &["--usage-sign", "--sensitive", "--private"][..]),
            ("pubkey", spki, &["--usage-sign"][..]),
        ] {
            let file = self.dir.join(format!("{label}.{class}.der"));
            shell::write_private(&file, der)?;
            let path = file.to_str().context("name a file for the key")?;
            let arguments = [&["--write-object", path, "--type", class][..], more].concat();
            let imported = self.logged_in(&arguments, label, &id);
            fs::remove_file(&file).context("remove the imported key's file")?;
            imported?;
        }
        self.described(label, id)
    }

    /// The key pair as the token has it.
    fn described(&self, label: &str, id: Vec<u8>) -> Result<TokenKey> {
        let der_file = self.dir.join(format!("{label}.der"));
        let der_path = der_file.to_str().context("name a file for the public key")?;
        self.logged_in(&["--read-object", "--type", "pubkey", "--output-file", der_path], label, &id)?;
        let der = fs::read(&der_file).context("read the public key back from the token")?;
        let public_key = self.dir.join(format!("{label}.pub.pem"));
        fs::write(&public_key, crate::pem("PUBLIC KEY", &der)).context(format!("write {}", public_key.display()))?;
        let point = der.get(der.len().saturating_sub(65)..).unwrap_or_default().to_vec();
        if der.len() != SPKI_P256_BYTES || point[0] != 4 {
            return Err(Error(format!("pkcs11-tool wrote {} bytes that are no P-256 public key", der.len())));
        }
        let uri = format!("pkcs11:object={label};id=%{:02X}%{:02X};type=private", id[0], id[1]);
        Ok(TokenKey { uri, label: label.to_owned(), id, public_key, point })
    }

    /// Removes a key pair.
    pub(crate) fn delete_key(&self, key: &TokenKey) -> Result<()> {
        self.logged_in(&["--delete-object", "--type", "privkey"], &key.label, &key.id)?;
        self.logged_in(&["--delete-object", "--type", "pubkey"], &key.label, &key.id)
    }

    /// RFC 7512 URI of the token.
    pub(crate) fn uri(&self) -> String {
        format!("pkcs11:token={}", self.label)
    }

    pub(crate) fn configure(&self, settings: &mut Settings, token: &str) {
        settings
            .set_path(&format!("tokens.{token}.module"), &self.module)
            .set(&format!("tokens.{token}.uri"), self.uri())
            .set_path(&format!("tokens.{token}.pin_file"), &self.pin_file);
        if let Some(profile) = self.profile {
            settings.set(&format!("tokens.{token}.profile"), profile);
        }
    }

    fn logged_in(&self, arguments: &[&str], label: &str, id: &[u8]) -> Result<()> {
        let mut command = self.tool_on_token();
        command.args(["--login", "--pin", "env:TESTKIT_PIN", "--label", label, "--id", &hex(id)]).args(arguments);
        shell::run(&mut command).map(drop)
    }

    fn tool_on_token(&self) -> Command {
        let mut command = self.tool();
        command.args(["--token-label", &self.label]);
        command
    }

    // PINs go by environment: a command line can be read by every user of the machine.
    fn tool(&self) -> Command {
        let mut command = Command::new("pkcs11-tool");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("TESTKIT_PIN", &self.pin).arg("--module").arg(&self.module);
        command
    }
}

const SPKI_P256_BYTES: usize = 91;
