//! The devices that the same end-to-end tests run on.
//!
//! | device | what it is |
//! |---|---|
//! | [`SoftHsm`](crate::softhsm::SoftHsm) | SoftHSM2, the one every fixture has unless told otherwise |
//! | [`Kryoptic`] | kryoptic, built as a peer |
//! | [`Tpm`] | tpm2-pkcs11 on a TPM 2.0 in software (swtpm) |
//! | [`Rack`] | any other module, named by three environment variables |
//!
//! A further device implements [`Device`] and gets a module of its own in `tests/matrix`.

#![forbid(unsafe_code)]

mod kryoptic;
mod rack;
mod tool;
mod tpm;

use std::path::{Path, PathBuf};

pub use kryoptic::Kryoptic;
pub use rack::Rack;
pub(crate) use tool::Tool;
pub use tpm::Tpm;

use crate::Result;
use crate::appliance::Settings;

/// A device with keys that are made in it.
pub trait Device: Send + Sync {
    /// Writes `module`, `uri`, `pin_file` and whatever else it needs into `[tokens.NAME]`.
    fn configure(&self, settings: &mut Settings, token: &str);

    /// What its module finds in the environment of the worker.
    fn environment(&self) -> Vec<(String, String)>;

    /// Makes a P-256 key pair in it: sensitive, not extractable.
    ///
    /// # Errors
    /// When it does not.
    fn generate_key(&mut self, label: &str) -> Result<TokenKey>;

    /// The PKCS#11 module; `None` where the worker speaks to the device itself.
    fn module(&self) -> Option<&Path>;

    /// File with the user PIN, mode 0600.
    fn pin_file(&self) -> &Path;

    /// Called before each start of the worker, and after each of its ends.
    ///
    /// # Errors
    /// When the device cannot be made ready.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A P-256 key in a token; it is sensitive and cannot be extracted.
#[derive(Clone, Debug)]
pub struct TokenKey {
    /// RFC 7512 URI of the object, without the token's part.
    pub uri: String,
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// The public key, PEM.
    pub public_key: PathBuf,
    /// The public point, uncompressed (65 bytes).
    pub point: Vec<u8>,
}
