//! Any device that has a PKCS#11 module: the one in the rack.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use super::{Device, TokenKey, Tool};
use crate::appliance::Settings;
use crate::{Context, Error, Result, random_id};

/// The device that `SIGNER_TEST_MODULE`, `SIGNER_TEST_TOKEN` (its label) and `SIGNER_TEST_PIN_FILE` or
/// `SIGNER_TEST_PIN` name. Keys that are made in it are removed when this is dropped.
pub struct Rack {
    tool: Tool,
    made: Vec<TokenKey>,
    run: String,
    // Last, so that the keys are gone before the next one begins.
    _turn: Turn,
}

impl Rack {
    /// The device that the environment names. Nothing in it is initialized or changed but for the keys.
    ///
    /// # Errors
    /// When a variable is missing.
    pub fn named(dir: &Path) -> Result<Self> {
        let variable = |name: &str| env::var(name).context(format!("read {name}"));
        let module = PathBuf::from(variable("SIGNER_TEST_MODULE")?);
        let label = variable("SIGNER_TEST_TOKEN")?;
        let pin = match env::var_os("SIGNER_TEST_PIN_FILE") {
            Some(file) => fs::read_to_string(&file).context(format!("read {}", file.display()))?,
            None => variable("SIGNER_TEST_PIN")?,
        };
        let pin = pin.strip_suffix('\n').unwrap_or(&pin).to_owned();
        if pin.is_empty() {
            return Err(Error::new("the PIN in SIGNER_TEST_PIN_FILE or SIGNER_TEST_PIN is empty"));
        }
        let turn = Turn::wait();
        let tool = Tool::new(module, dir, &label, pin, Vec::new())?;
        // Labels of a run are its own, so that a test that broke off leaves nothing that the next one trips over.
        Ok(Self { tool, made: Vec::new(), run: random_id()[..6].replace(['-', '_'], "x"), _turn: turn })
    }
}

impl Device for Rack {
    fn configure(&self, settings: &mut Settings, token: &str) {
        self.tool.configure(settings, token);
        if let Ok(profile) = env::var("SIGNER_TEST_PROFILE") {
            settings.set(&format!("tokens.{token}.profile"), profile);
        }
    }

    /// What the module needs is in the environment that the test itself was given, which its children have too.
    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn generate_key(&mut self, label: &str) -> Result<TokenKey> {
        let mut key = self.tool.generate_key(&format!("{label}-{}", self.run))?;
        self.made.push(key.clone());
        // The tests know the key by the name they asked for.
        key.label = label.to_owned();
        Ok(key)
    }

    fn module(&self) -> Option<&Path> {
        Some(&self.tool.module)
    }

    fn pin_file(&self) -> &Path {
        &self.tool.pin_file
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        for key in &self.made {
            if let Err(error) = self.tool.delete_key(key) {
                eprintln!("the test key {} is still in the device: {error}", key.label);
            }
        }
    }
}

/// There is one device, some of them for one process at a time, and tests run side by side: one after another here.
struct Turn;

static BUSY: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Self {
        let busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
        *FREE.wait_while(busy, |busy| *busy).unwrap_or_else(PoisonError::into_inner) = true;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *BUSY.lock().unwrap_or_else(PoisonError::into_inner) = false;
        FREE.notify_one();
    }
}
