//! Is the helper's program the one that was installed, and can nobody but us and root put another in its place?

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The sealed helper's file, judged. It is run by its real path, on which every folder belongs to root or this user and
/// is writable by nobody else, so that what was judged stays what is run.
#[derive(Clone, Debug)]
pub(super) struct Program(PathBuf);

/// Why the helper must not be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It, or a folder above it, is not there or cannot be looked at.
    #[error(
        "the keyless helper {program} cannot be used; install `signer-keyless` there, or name it by `helper` in \
         [keyless]"
    )]
    Io {
        /// As configured.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else owns it or a folder above it.
    #[error(
        "the keyless helper {program} is not run: {path} belongs to user {owner}, who could replace it; `chown root` it"
    )]
    Owner {
        /// As configured.
        program: PathBuf,
        /// It, or a folder on the way.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may write it or a folder above it.
    #[error(
        "the keyless helper {program} is not run: {path} has mode {mode:04o}, so that others could replace it; \
         `chmod go-w` it"
    )]
    Writable {
        /// As configured.
        program: PathBuf,
        /// It, or a folder on the way.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a file that can be run.
    #[error("the keyless helper {0} is no program; name the file `signer-keyless` by `helper` in [keyless]")]
    NotAProgram(PathBuf),
}

impl Program {
    /// Finds the helper where the configuration says, else beside the running program, else where the package has it;
    /// and judges it.
    ///
    /// # Errors
    /// When it is not to be run, with what would mend it.
    pub(super) fn find(configured: Option<&Path>) -> Result<Self, ProgramError> {
        if let Some(path) = configured {
            return Self::judge(path);
        }
        let own = std::env::current_exe().ok();
        let beside = own.as_deref().and_then(Path::parent).map(|folder| folder.join(NAME));
        match beside.filter(|path| path.is_file()) {
            Some(path) => Self::judge(&path),
            None => Self::judge(&Path::new(PACKAGED).join(NAME)),
        }
    }

    fn judge(program: &Path) -> Result<Self, ProgramError> {
        let failed = |source| ProgramError::Io { program: program.to_owned(), source };
        let real = fs::canonicalize(program).map_err(failed)?;
        let metadata = fs::metadata(&real).map_err(failed)?;
        if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
            return Err(ProgramError::NotAProgram(program.to_owned()));
        }
        let uid = nix::unistd::geteuid().as_raw();
        for path in real.ancestors() {
            let metadata = fs::symlink_metadata(path).map_err(failed)?;
            let (program, path) = (program.to_owned(), path.to_owned());
            if metadata.uid() != 0 && metadata.uid() != uid {
                return Err(ProgramError::Owner { program, path, owner: metadata.uid() });
            }
            let mode = metadata.mode() & 0o7777;
            // In a sticky folder, as /tmp is, only the owner of a file can replace it, and owners are looked at.
            let sticky = metadata.is_dir() && mode & 0o1000 != 0;
            if mode & 0o022 != 0 && !sticky {
                return Err(ProgramError::Writable { program, path, mode });
            }
        }
        Ok(Self(real))
    }

    /// What is run.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

const NAME: &str = "signer-keyless";
const PACKAGED: &str = "/usr/libexec/stellaops-signer";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn program(folder_mode: u32, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("bin");
        fs::create_dir(&folder).unwrap();
        let path = folder.join(NAME);
        fs::write(&path, "#!/bin/false\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(folder_mode)).unwrap();
        (outer, path)
    }

    #[test]
    fn a_program_in_safe_hands_is_run_by_its_real_path() {
        let (outer, path) = program(0o755, 0o711);
        let link = outer.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let found = Program::find(Some(&link)).unwrap();
        assert_eq!(found.path(), fs::canonicalize(&path).unwrap());
    }

    #[test]
    fn one_that_others_could_replace_or_that_is_none_is_refused() {
        let (_outer, path) = program(0o777, 0o711);
        assert!(matches!(Program::find(Some(&path)), Err(ProgramError::Writable { mode: 0o777, .. })));
        let (_outer, path) = program(0o755, 0o722);
        assert!(matches!(Program::find(Some(&path)), Err(ProgramError::Writable { mode: 0o722, .. })));
        let (_outer, path) = program(0o755, 0o600);
        assert!(matches!(Program::find(Some(&path)), Err(ProgramError::NotAProgram(_))));
        assert!(matches!(Program::find(Some(&path.join("no"))), Err(ProgramError::Io { .. })));
    }

    #[test]
    fn one_of_another_user_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (_outer, path) = program(0o755, 0o711);
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert!(matches!(Program::find(Some(&path)), Err(ProgramError::Owner { owner: 65534, .. })));
    }
}
