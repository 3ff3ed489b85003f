//! A SoftHSM2 token of its own, with keys made inside it.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::appliance::Settings;
pub use crate::device::TokenKey;
use crate::device::{Device, Tool};
use crate::{Context, Result};

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
    tool: Tool,
}

impl SoftHsm {
    /// A fresh token labelled `label` in `dir`.
    ///
    /// # Errors
    /// When SoftHSM2 or pkcs11-tool is missing (the message says how to get them) or fails.
    pub fn create(dir: &Path, label: &str) -> Result<Self> {
        let module = find_module()?;
        let tokens = dir.join("tokens");
        fs::create_dir_all(&tokens).context(format!("make {}", tokens.display()))?;
        let conf = dir.join("softhsm2.conf");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            tokens.display()
        );
        fs::write(&conf, text).context(format!("write {}", conf.display()))?;
        Self::initialize(module, conf, dir, label)
    }

    /// Another token in the same module, so that one process environment serves the workers of both.
    ///
    /// # Errors
    /// As [`SoftHsm::create`].
    pub fn another(&self, label: &str) -> Result<Self> {
        Self::initialize(self.module.clone(), self.conf.clone(), &self.tool.dir, label)
    }

    fn initialize(module: PathBuf, conf: PathBuf, dir: &Path, label: &str) -> Result<Self> {
        let environment = vec![("SOFTHSM2_CONF".to_owned(), conf.display().to_string())];
        let mut tool = Tool::initialize_behind(module.clone(), dir, label, environment)?;
        tool.profile = Some("softhsm2");
        Ok(Self { module, conf, pin_file: tool.pin_file.clone(), label: label.to_owned(), tool })
    }

    /// RFC 7512 URI of the token.
    #[must_use]
    pub fn uri(&self) -> String {
        self.tool.uri()
    }

    /// Imports a P-256 key pair: how two tokens come to hold the same key. `pkcs8` and `spki` are DER.
    ///
    /// # Errors
    /// When pkcs11-tool fails.
    pub fn import_key(&mut self, label: &str, pkcs8: &[u8], spki: &[u8]) -> Result<TokenKey> {
        self.tool.import_key(label, pkcs8, spki)
    }

    /// Makes a P-256 key pair inside the token.
    ///
    /// # Errors
    /// When pkcs11-tool fails.
    pub fn make_key(&mut self, label: &str) -> Result<TokenKey> {
        self.tool.generate_key(label)
    }
}

impl Device for SoftHsm {
    fn configure(&self, settings: &mut Settings, token: &str) {
        self.tool.configure(settings, token);
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.tool.environment.clone()
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

const MODULES: [&str; 7] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
