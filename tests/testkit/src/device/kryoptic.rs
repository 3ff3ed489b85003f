//! kryoptic: a PKCS#11 token in software, in Rust.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use super::{Device, TokenKey, Tool};
use crate::appliance::Settings;
use crate::{Context, Result, peers};

/// A kryoptic token of its own.
pub struct Kryoptic(Tool);

impl Kryoptic {
    /// A fresh token labelled `label` in `dir`.
    ///
    /// # Errors
    /// When the module was not built or pkcs11-tool fails.
    pub fn create(dir: &Path, label: &str) -> Result<Self> {
        let module = peers::kryoptic()?;
        fs::create_dir_all(dir).context(format!("make {}", dir.display()))?;
        let conf = dir.join("kryoptic.conf");
        let text =
            format!("[[slots]]\nslot = 0\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", dir.join("token.sql").display());
        fs::write(&conf, text).context(format!("write {}", conf.display()))?;
        let environment = vec![("KRYOPTIC_CONF".to_owned(), conf.display().to_string())];
        let mut tool = Tool::initialize(module, dir, label, environment)?;
        tool.profile = Some("kryoptic");
        Ok(Self(tool))
    }
}

impl Device for Kryoptic {
    fn configure(&self, settings: &mut Settings, token: &str) {
        self.0.configure(settings, token);
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.0.environment.clone()
    }

    fn generate_key(&mut self, label: &str) -> Result<TokenKey> {
        self.0.generate_key(label)
    }

    fn module(&self) -> Option<&Path> {
        Some(&self.0.module)
    }

    fn pin_file(&self) -> &Path {
        &self.0.pin_file
    }
}
