//! tpm2-pkcs11 on a TPM 2.0 in software, which the emulator swtpm serves on a Unix socket.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Device, TokenKey, Tool};
use crate::appliance::{Process, Settings};
use crate::{Context, Error, Result, peers, shell};

/// A software TPM and a tpm2-pkcs11 token in it.
pub struct Tpm {
    tool: Tool,
    tcti: String,
    // Last, so that the emulator outlives whoever speaks to it.
    _emulator: Process,
}

impl Tpm {
    /// A fresh TPM in `dir`, and in it a token labelled `label`.
    ///
    /// # Errors
    /// When swtpm or tpm2-pkcs11 is missing or fails.
    pub fn create(dir: &Path, label: &str) -> Result<Self> {
        let module = peers::tpm2_pkcs11()?;
        let (state, store) = (dir.join("tpm"), dir.join("store"));
        for dir in [&state, &store] {
            fs::create_dir_all(dir).context(format!("make {}", dir.display()))?;
        }
        let socket = dir.join("tpm.sock");
        let emulator = emulator(dir, &state, &socket)?;
        let tcti = format!("swtpm:path={}", socket.display());
        let environment = vec![
            ("TPM2_PKCS11_STORE".to_owned(), store.display().to_string()),
            ("TPM2_PKCS11_TCTI".to_owned(), tcti.clone()),
        ];
        let mut tool = Tool::initialize(module, dir, label, environment)?;
        tool.profile = Some("tpm2-pkcs11");
        Ok(Self { tool, tcti, _emulator: emulator })
    }
}

fn emulator(dir: &Path, state: &Path, socket: &Path) -> Result<Process> {
    // The control socket's name is not a choice: the TCTI takes the data socket's name and adds `.ctrl`.
    let control = PathBuf::from(format!("{}.ctrl", socket.display()));
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
    command.arg("--tpmstate").arg(format!("dir={}", state.display()));
    command.arg("--server").arg(format!("type=unixio,path={}", socket.display()));
    command.arg("--ctrl").arg(format!("type=unixio,path={}", control.display()));
    let mut emulator = Process::start("swtpm", command, dir)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !(socket.exists() && control.exists()) {
        if !emulator.is_running() || Instant::now() > deadline {
            return Err(Error(format!("swtpm does not listen\n{}", shell::tail(&emulator.log, 20))));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(emulator)
}

impl Device for Tpm {
    fn configure(&self, settings: &mut Settings, token: &str) {
        self.tool.configure(settings, token);
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.tool.environment.clone()
    }

    fn generate_key(&mut self, label: &str) -> Result<TokenKey> {
        self.tool.generate_key(label)
    }

    fn module(&self) -> Option<&Path> {
        Some(&self.tool.module)
    }

    fn pin_file(&self) -> &Path {
        &self.tool.pin_file
    }

    /// A real TPM is used through the kernel's resource manager, `/dev/tpmrm0`, which frees what a process that died
    /// had loaded. The emulator has room for three objects and no such manager.
    fn settle(&mut self) -> Result<()> {
        shell::run(Command::new("tpm2_flushcontext").args(["--transient-object", "--tcti", &self.tcti])).map(drop)
    }
}
