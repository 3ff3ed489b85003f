//! A simulated YubiHSM 2 with keys made inside it, in this process; the worker reaches it over HTTP.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;
use yubihsm_sim::object::capability;
use yubihsm_sim::{Device, Settings as DeviceSettings, Simulator};

use crate::appliance::Settings;
use crate::device::{self, TokenKey};
use crate::{Context, Result, pem, random_id, shell};

/// A device with an authentication key of its own for the worker, its log on and never to be lost.
pub struct YubiHsm {
    /// The device, to look at and to steer.
    pub simulator: Simulator,
    /// File with the password of the authentication key, mode 0600.
    pub pin_file: PathBuf,
    /// PEM of the certificates that vouch for the device.
    pub roots: PathBuf,
    /// Where the worker keeps the device's log.
    pub state_dir: PathBuf,
    dir: PathBuf,
    keys: u8,
}

/// The object id of the worker's authentication key.
pub const AUTH_KEY: u16 = 2;

/// What that key may have done.
pub const AUTH_CAPABILITIES: u64 = capability::SIGN_ECDSA
    | capability::GET_LOG_ENTRIES
    | capability::SIGN_ATTESTATION_CERTIFICATE
    | capability::GET_OPAQUE;

/// The domain of that key and of the keys it signs with.
pub const DOMAIN: u16 = 0b1;

impl YubiHsm {
    /// A fresh device; it drops sessions that are idle for `session_expiry`, a real one after 30 s.
    ///
    /// # Errors
    /// When nothing can be listened on, or files cannot be written.
    pub fn create(dir: &Path, session_expiry: Duration) -> Result<Self> {
        fs::create_dir_all(dir).context(format!("make {}", dir.display()))?;
        let settings = DeviceSettings { session_expiry, ..DeviceSettings::default() };
        let simulator = Simulator::start(settings).context("start the simulated YubiHSM")?;
        let password = random_id();
        let pin_file = dir.join("yubihsm.pin");
        shell::write_private(&pin_file, format!("{password}\n").as_bytes())?;
        let roots = dir.join("yubihsm-roots.pem");
        fs::write(&roots, simulator.with(Device::attestation_roots)).context("write the attestation roots")?;
        let state_dir = dir.join("state");
        fs::create_dir_all(&state_dir).context(format!("make {}", state_dir.display()))?;
        simulator.with(|device| {
            device.put_authentication_key(AUTH_KEY, password.as_bytes(), DOMAIN, AUTH_CAPABILITIES);
            device.audit_commands(&[SIGN_ECDSA], true);
        });
        Ok(Self { simulator, pin_file, roots, state_dir, dir: dir.to_owned(), keys: 0 })
    }

    /// Makes a P-256 key inside the device.
    ///
    /// # Errors
    /// When its public key cannot be written to a file.
    pub fn generate_key(&mut self, label: &str) -> Result<TokenKey> {
        self.keys += 1;
        let id = [0xa0, self.keys];
        let number = u16::from_be_bytes(id);
        let point = self.simulator.with(|device| {
            device.generate_p256(number, label, DOMAIN, capability::SIGN_ECDSA);
            device.public_point(number)
        });
        let point = [&[4], &point.context("read the public key back")?[..]].concat();
        let public_key = self.dir.join(format!("{label}.pub.pem"));
        fs::write(&public_key, pem("PUBLIC KEY", &[SPKI_P256, &point[..]].concat()))
            .context(format!("write {}", public_key.display()))?;
        let uri = format!("pkcs11:object={label};id=%{:02X}%{:02X}", id[0], id[1]);
        Ok(TokenKey { uri, label: label.to_owned(), id: id.to_vec(), public_key, point })
    }

    /// Names the device under `[tokens.NAME]`.
    pub fn configure(&self, settings: &mut Settings, token: &str) {
        let name = |key: &str| format!("tokens.{token}.{key}");
        let serial = Value::from(i64::from(DeviceSettings::default().serial));
        settings
            .set(&name("connector"), self.simulator.url())
            .set(&name("serial"), serial)
            .set(&name("auth_key"), i64::from(AUTH_KEY))
            .set_path(&name("attestation_roots"), &self.roots)
            .set_path(&name("state_dir"), &self.state_dir)
            .set_path(&name("pin_file"), &self.pin_file);
    }

    /// The lines of the device's log as the worker keeps it.
    ///
    /// # Errors
    /// When there is none, or a line is no JSON.
    pub fn log(&self) -> Result<Vec<serde_json::Value>> {
        let text = fs::read_to_string(self.state_dir.join("yubihsm-log.jsonl")).context("read the device's log")?;
        // The last line may be in the making.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).context("read a line of the device's log")).collect()
    }
}

impl device::Device for YubiHsm {
    fn configure(&self, settings: &mut Settings, token: &str) {
        settings.set(&format!("tokens.{token}.profile"), "yubihsm2");
        self.configure(settings, token);
    }

    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn generate_key(&mut self, label: &str) -> Result<TokenKey> {
        self.generate_key(label)
    }

    fn module(&self) -> Option<&Path> {
        None
    }

    fn pin_file(&self) -> &Path {
        &self.pin_file
    }
}

const SIGN_ECDSA: u8 = 0x56;

/// SubjectPublicKeyInfo of P-256 up to the point.
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
