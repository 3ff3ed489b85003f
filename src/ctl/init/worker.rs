//! The device, spoken to as the worker will: by its user, with its unit's environment. What the worker may not reach is
//! found out here, and what is created belongs to it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use zeroize::Zeroizing;

use super::answers::Answers;
use super::plan::{Plan, WORKER};
use super::secret;
use crate::ctl::error::CtlError;
use crate::ctl::files;
use crate::ctl::token::child::Admin;
use crate::ctl::token::cli::Reach;
use crate::custody::admin::{Failure, Probe};
use crate::custody::token::admin::{KeyFacts, Slot};

/// A place in memory for the configuration as it will be, and for PINs; it goes with this value.
pub(crate) struct Stage {
    dir: PathBuf,
    owner: (u32, u32),
    signer_token: Option<PathBuf>,
    environment: Vec<(String, String)>,
    token: String,
    yubihsm: bool,
    administrator: u16,
}

impl Stage {
    /// # Errors
    /// When it cannot be made, or the worker's user is not there.
    pub(crate) fn new(answers: &Answers, plan: &Plan, signer_token: Option<&Path>) -> Result<Self, CtlError> {
        let user = nix::unistd::User::from_name(WORKER).ok().flatten().ok_or_else(|| {
            CtlError::Usage(format!("there is no user `{WORKER}`; the package makes it (systemd-sysusers)"))
        })?;
        // /run is memory. Others may pass through, and not look.
        let dir = PathBuf::from(format!("/run/stellaops-signer-init.{}", std::process::id()));
        let failed = |error| CtlError::File { doing: "create", path: dir.clone(), source: error };
        DirBuilder::new().mode(0o711).create(&dir).map_err(failed)?;
        let stage = Self {
            dir: dir.clone(),
            owner: (user.uid.as_raw(), user.gid.as_raw()),
            signer_token: signer_token.map(Path::to_owned),
            environment: plan.environment.clone(),
            token: answers.token.name.clone(),
            yubihsm: answers.is_yubihsm(),
            administrator: answers.token.administrator_key,
        };
        fs::write(stage.config(), &plan.config).map_err(|error| CtlError::write(&stage.config(), error))?;
        fs::set_permissions(stage.config(), fs::Permissions::from_mode(0o644))
            .map_err(|error| CtlError::write(&stage.config(), error))?;
        Ok(stage)
    }

    /// The configuration as it will be.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("signer.toml")
    }

    /// Puts a secret where the worker's user alone may read it.
    pub(crate) fn lend(&self, name: &str, secret: &Zeroizing<Vec<u8>>) -> Result<(), CtlError> {
        let file = self.dir.join(name);
        let written =
            secret::write_private(&file, secret).and_then(|open| fchown(open, Some(self.owner.0), Some(self.owner.1)));
        written.map_err(|error| CtlError::write(&file, error))
    }

    /// Makes the token of an empty one, unless there is one of this label. Returns whether it was made.
    pub(crate) fn initialise(&self, label: &str) -> Result<bool, CtlError> {
        if !self.yubihsm {
            let slots: Vec<Slot> = self.admin(None)?.args(["slots"]).run()?;
            let mut tokens = slots.into_iter().filter_map(|slot| slot.token);
            if tokens.any(|token| token.initialized && token.label == label) {
                return Ok(false);
            }
        } else if self.probe(&[])?.logged_in {
            return Ok(false);
        }
        let administrator = self.yubihsm.then_some(self.administrator);
        let mut admin = self.admin(administrator)?.args(["init", "--label", label]);
        admin = admin.args(["--so-pin-file".as_ref(), self.dir.join(SO_PIN).as_os_str()]);
        if self.yubihsm {
            // The new password of the worker; the officer's file has the administrator's.
            admin = admin.args(["--pin-file".as_ref(), self.dir.join(PIN).as_os_str()]);
        }
        let _: Slot = admin.run()?;
        Ok(true)
    }

    /// The public half of the key with this URI, PEM, or `None` when the token has no such key. Logs in.
    pub(crate) fn public_key(&self, uri: &str) -> Result<Option<String>, CtlError> {
        let probe = self.probe(&[uri])?;
        if let Some(failure) = probe.token_failure.or(probe.login_failure) {
            return Err(CtlError::Token(failure));
        }
        let key = probe.keys.into_iter().next().unwrap_or_default();
        match (key.facts, key.public_key, key.failure) {
            (Some(facts), _, _) => Ok(Some(facts.public_key)),
            (None, Some(public), _) => Ok(Some(public)),
            (None, None, Some(failure)) if failure.code != "key_not_found" => Err(CtlError::Token(failure)),
            _ => Ok(None),
        }
    }

    /// Makes the key. Returns its public half, PEM.
    pub(crate) fn generate(&self, label: &str, id: &str) -> Result<String, CtlError> {
        let administrator = self.yubihsm.then_some(self.administrator);
        let mut admin = self.admin(administrator)?;
        if self.yubihsm {
            admin = admin.args(["--pin-file".as_ref(), self.dir.join(SO_PIN).as_os_str()]);
        }
        let made: KeyFacts = admin.args(["generate", "--label", label, "--id", id]).run()?;
        Ok(made.public_key)
    }

    /// `signerctl token doctor --login`, as the worker's user.
    ///
    /// # Errors
    /// When it cannot be run. What it finds is in its answer.
    pub(crate) fn doctor(&self) -> Result<Value, CtlError> {
        let program = std::env::current_exe().map_err(|error| CtlError::read("/proc/self/exe".as_ref(), error))?;
        let mut doctor = Command::new(&program);
        doctor.args(["--json", "token", "doctor", &self.token, "--login", "--config"]).arg(self.config());
        doctor.arg("--pin-file").arg(self.dir.join(PIN));
        if let Some(program) = &self.signer_token {
            doctor.arg("--signer-token").arg(program);
        }
        let mut command = as_user(&doctor, self.owner);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output =
            command.output().map_err(|error| CtlError::content(&program, format!("cannot be run: {error}")))?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            CtlError::Unexpected(format!("signerctl token doctor gave no report: {said}"))
        })
    }

    fn probe(&self, keys: &[&str]) -> Result<Probe, CtlError> {
        let mut admin = self.admin(None)?.args(["probe", "--login"]);
        for uri in keys {
            admin = admin.args(["--key", uri]);
        }
        admin.run()
    }

    fn admin(&self, acting: Option<u16>) -> Result<Admin, CtlError> {
        let reach = Reach {
            config: self.config(),
            auth_key: acting,
            pin_file: acting.is_none().then(|| self.dir.join(PIN)),
            signer_token: self.signer_token.clone(),
        };
        let admin = Admin::configured(&reach, &self.token)?;
        Ok(admin.wrapped(|command| as_user(command, self.owner)).envs(&self.environment))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Memory in any case; the next boot has none of it.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The same command as another user, in that user's groups: devices are often opened to a group.
fn as_user(command: &Command, (uid, gid): (u32, u32)) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--init-groups", "--"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped
}

/// As `signer-token` says it of a failure of these.
pub(crate) fn failure(code: &str, message: String) -> CtlError {
    CtlError::Token(Failure::new(code, message))
}

/// Reads a PIN file as the worker would: one line, and not open to others.
pub(crate) fn pin(file: Option<&Path>, what: &str) -> Result<Zeroizing<Vec<u8>>, CtlError> {
    if let Some(file) = file {
        return crate::custody::token::Pin::read(file)
            .map_err(|error| failure("pin", error.to_string()))
            .and_then(|_| files::read(file, 4096).map(Zeroizing::new));
    }
    let typed = rpassword::prompt_password(format!("{what}: ")).map(Zeroizing::new).map_err(|error| {
        failure("pin", format!("{what}: no file was named, and nobody can be asked ({error}); name one in the answers"))
    })?;
    if typed.is_empty() {
        return Err(failure("pin", format!("{what}: nothing was typed")));
    }
    Ok(Zeroizing::new(typed.as_bytes().to_vec()))
}

pub(crate) const PIN: &str = "pin";
pub(crate) const SO_PIN: &str = "so-pin";
