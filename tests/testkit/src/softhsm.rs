//! A SoftHSM2 token of its own, with keys made inside it.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::appliance::Settings;
use crate::device::Device;
pub use crate::device::TokenKey;
use crate::{Context, Error, Result, hex, random_id, shell};

/// A token in a directory of its own, initialized, with a random PIN.
pub struct SoftHsm {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// What `SOFTHSM2_CONF` must name.
    pub conf: PathBuf,
    /// File with the user PIN, mode 0600.
    pub pin_file: PathBuf,
    /// The token's label.
    pub label: String,
    dir: PathBuf,
    pin: String,
    keys: u8,
}

impl SoftHsm {
    /// A fresh token labelled `label` in `dir`.
    ///
    /// # Errors
    /// When SoftHSM2 or pkcs11-tool is missing (the message says how to get them) or fails.
    pub fn create(dir: &Path, label: &str) -> Result<Self> {
        let module = find_module()?;
        if shell::find_program("pkcs11-tool").is_none() {
            return Err(Error::new("pkcs11-tool is missing: install the package opensc"));
        }
        let tokens = dir.join("tokens");
        fs::create_dir_all(&tokens).context(format!("make {}", tokens.display()))?;
        let conf = dir.join("softhsm2.conf");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            tokens.display()
        );
        fs::write(&conf, text).context(format!("write {}", conf.display()))?;
        let (pin, so_pin) = (random_id(), random_id());
        let pin_file = dir.join(format!("{label}.pin"));
        shell::write_private(&pin_file, format!("{pin}\n").as_bytes())?;
        let token = Self { module, conf, pin_file, label: label.to_owned(), dir: dir.to_owned(), pin, keys: 0 };
        token.initialize(&so_pin)?;
        Ok(token)
    }

    /// Another token in the same module, so that one process environment serves the workers of both.
    ///
    /// # Errors
    /// As [`SoftHsm::create`].
    pub fn another(&self, label: &str) -> Result<Self> {
        let (pin, so_pin) = (random_id(), random_id());
        let pin_file = self.dir.join(format!("{label}.pin"));
        shell::write_private(&pin_file, format!("{pin}\n").as_bytes())?;
        let token = Self {
            module: self.module.clone(),
            conf: self.conf.clone(),
            pin_file,
            label: label.to_owned(),
            dir: self.dir.clone(),
            pin,
            keys: 0,
        };
        token.initialize(&so_pin)?;
        Ok(token)
    }

    /// SoftHSM2 shows an uninitialized token behind those that are there.
    fn initialize(&self, so_pin: &str) -> Result<()> {
        let free = shell::run(self.tool().args(["--list-slots"]))?;
        let free = String::from_utf8_lossy(&free).matches("token label").count().to_string();
        let so_pin = |command: &mut Command| {
            shell::run(command.env("TESTKIT_SO_PIN", so_pin).args(["--so-pin", "env:TESTKIT_SO_PIN"]))
        };
        so_pin(self.tool().args(["--init-token", "--slot-index", &free, "--label", &self.label]))?;
        so_pin(self.tool_on_token().args([
            "--init-pin",
            "--login",
            "--login-type",
            "so",
            "--new-pin",
            "env:TESTKIT_PIN",
        ]))
        .map(drop)
    }

    /// RFC 7512 URI of the token.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("pkcs11:token={}", self.label)
    }

    /// Imports a P-256 key pair: how two tokens come to hold the same key. `pkcs8` and `spki` are DER.
    ///
    /// # Errors
    /// When pkcs11-tool fails.
    pub fn import_key(&mut self, label: &str, pkcs8: &[u8], spki: &[u8]) -> Result<TokenKey> {
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

    /// Makes a P-256 key pair inside the token.
    ///
    /// # Errors
    /// When pkcs11-tool fails.
    pub fn make_key(&mut self, label: &str) -> Result<TokenKey> {
        self.keys += 1;
        let id = vec![0xa0, self.keys];
        self.logged_in(
            &["--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign", "--sensitive", "--private"],
            label,
            &id,
        )?;
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
        command.env("SOFTHSM2_CONF", &self.conf).env("TESTKIT_PIN", &self.pin).arg("--module").arg(&self.module);
        command
    }
}

impl Device for SoftHsm {
    fn configure(&self, settings: &mut Settings, token: &str) {
        settings
            .set(&format!("tokens.{token}.profile"), "softhsm2")
            .set_path(&format!("tokens.{token}.module"), &self.module)
            .set(&format!("tokens.{token}.uri"), self.uri())
            .set_path(&format!("tokens.{token}.pin_file"), &self.pin_file);
    }

    fn environment(&self) -> Vec<(String, String)> {
        vec![("SOFTHSM2_CONF".to_owned(), self.conf.display().to_string())]
    }

    fn generate_key(&mut self, label: &str) -> Result<TokenKey> {
        self.make_key(label)
    }

    fn module(&self) -> Option<&Path> {
        Some(&self.module)
    }

    fn pin_file(&self) -> &Path {
        &self.pin_file
    }
}

/// The SoftHSM2 module of this machine: `SOFTHSM2_MODULE`, else where distributions put it.
///
/// # Errors
/// When it is nowhere; the message says which package to install.
pub fn find_module() -> Result<PathBuf> {
    env::var_os("SOFTHSM2_MODULE")
        .map(PathBuf::from)
        .into_iter()
        .chain(MODULES.iter().map(PathBuf::from))
        .find(|path| path.is_file())
        .context("find libsofthsm2.so: install the package softhsm2 (Debian) or softhsm (Fedora)")
}

const SPKI_P256_BYTES: usize = 91;

const MODULES: [&str; 7] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
