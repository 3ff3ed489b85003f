//! Where an operator's PINs come from: a file, the configured file, or the terminal.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::message::Failure;
use crate::custody::presenting::{Memories, MemoryError, Outcome};
use crate::custody::token::admin::{AdminError, AdminSession, TokenSeen};
use crate::custody::token::{Pin, PinFileError, PinState, TokenError, explain};

/// A PIN, and whether nobody chose it just now.
pub(super) struct Chosen {
    pub(super) pin: Pin,
    pub(super) unattended: bool,
}

/// The PIN in `named`; for want of it the one in `configured`, where that can be read; for want of that, typed.
///
/// # Errors
/// When a file that was named is unusable, or nobody is there to ask.
pub(super) fn user_pin(named: Option<&Path>, configured: Option<&Path>, what: &str) -> Result<Chosen, Failure> {
    if let Some(file) = named {
        return Ok(Chosen { pin: read(file)?, unattended: false });
    }
    if let Some(file) = configured {
        match Pin::read(&credential(file, std::env::var_os("CREDENTIALS_DIRECTORY"))) {
            Ok(pin) => return Ok(Chosen { pin, unattended: true }),
            // A credential exists only while its unit runs, and may be another user's.
            Err(PinFileError::Io { source, .. })
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
            Err(error) => return Err(unusable(&error)),
        }
    }
    Ok(Chosen { pin: typed(&format!("PIN of {what}: "))?, unattended: false })
}

/// A PIN that is about to be set: from a file, or typed twice.
///
/// # Errors
/// As [`user_pin`], and when the two are not the same.
pub(super) fn new_pin(named: Option<&Path>, what: &str) -> Result<Pin, Failure> {
    if let Some(file) = named {
        return read(file);
    }
    let pin = typed(&format!("{what}: "))?;
    if typed(&format!("{what}, once more: "))?.same_as(&pin) {
        Ok(pin)
    } else {
        Err(Failure::new("pin", format!("{what}: the two are not the same; nothing was done")))
    }
}

/// Presents it, if the worker's memory has nothing against it. `account` tells apart whose PIN it is where a token has
/// those of several.
///
/// # Errors
/// When it was not presented, or not taken.
pub(super) fn log_in(
    session: &dyn AdminSession,
    chosen: &Chosen,
    memories: &mut Memories,
    account: &str,
) -> Result<(), Failure> {
    let token = session.slot().token.clone().unwrap_or_default();
    let login = || session.login(&chosen.pin, chosen.unattended);
    Ok(memories.present(&chosen.pin, &known_as(&token, account), token.pin_state(), login, outcome)??)
}

/// As [`log_in`] with the security officer's PIN, which the call that initialises takes.
///
/// # Errors
/// As there.
pub(super) fn as_officer<T>(
    serial: &str,
    pin: &Pin,
    memories: &mut Memories,
    initialise: impl FnOnce() -> Result<T, AdminError>,
) -> Result<T, Failure> {
    Ok(memories.present(pin, &format!("{serial}{OFFICER}"), PinState::Good, initialise, outcome)??)
}

/// By what the memory knows a token: as the worker does.
pub(super) fn known_as(token: &TokenSeen, account: &str) -> String {
    let serial = if token.serial.is_empty() { &token.label } else { &token.serial };
    format!("{serial}{account}")
}

fn outcome(error: &AdminError) -> Outcome {
    match error {
        AdminError::Token(TokenError::PinRefused(_)) => Outcome::Refused,
        AdminError::Token(TokenError::LoginUnclear(_)) => Outcome::Unclear,
        _ => Outcome::NotTried,
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Self::new("pin_not_tried", explain(&error))
    }
}

const OFFICER: &str = " (security officer)";

/// Where this process finds the configured file. A credential has the same name in every unit that loads it, such as the
/// doctor's own (`--in-unit`), and lies in a folder of that unit, which `folder` names.
fn credential(file: &Path, folder: Option<OsString>) -> PathBuf {
    match (folder, file.file_name()) {
        (Some(folder), Some(name)) if file.starts_with("/run/credentials") => Path::new(&folder).join(name),
        _ => file.to_owned(),
    }
}

fn read(file: &Path) -> Result<Pin, Failure> {
    Pin::read(file).map_err(|error| unusable(&error))
}

fn unusable(error: &PinFileError) -> Failure {
    Failure::new("pin", explain(error))
}

fn typed(prompt: &str) -> Result<Pin, Failure> {
    // On the terminal itself, whatever standard input and output are.
    let line = rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
        Failure::new("pin", format!("no PIN: no file was named that can be read, and nobody can be asked ({error})"))
            .with_remedy("name a file of mode 0400 with --pin-file (and --so-pin-file), or run this on a terminal")
    })?;
    Pin::from_bytes(line.as_bytes())
        .ok_or_else(|| Failure::new("pin", "no PIN: nothing was typed, or more than 1023 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_read_from_the_folder_of_the_unit_that_runs() {
        let of_worker = Path::new("/run/credentials/signer-token@main.service/pin");
        let folder = || Some(OsString::from("/run/credentials/run-u7.service"));
        assert_eq!(credential(of_worker, folder()), Path::new("/run/credentials/run-u7.service/pin"));
        assert_eq!(credential(of_worker, None), of_worker);
        let file = Path::new("/etc/stellaops-signer/pin");
        assert_eq!(credential(file, folder()), file);
    }
}
