//! Files put in their places: whole or not at all, never over something else, and taken away again when the run fails.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::plan::{FRONT, WORKER};
use crate::ctl::error::CtlError;

/// Who owns a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// root alone.
    Root,
    /// root, and the front's group may read.
    RootForFront,
    /// The front.
    Front,
    /// The workers.
    Worker,
}

/// What this run has made, so that it can be taken away again.
pub(crate) struct Ledger {
    root: Option<PathBuf>,
    force: bool,
    steps: Vec<Step>,
    /// What cannot be taken back, in words.
    stays: Vec<String>,
}

enum Step {
    Made(PathBuf),
    Replaced { file: PathBuf, before: PathBuf },
}

impl Ledger {
    pub(crate) fn new(root: Option<&Path>, force: bool) -> Self {
        Self { root: root.map(Path::to_owned), force, steps: Vec::new(), stays: Vec::new() }
    }

    /// Where `path` of the appliance is.
    pub(crate) fn at(&self, path: &Path) -> PathBuf {
        match &self.root {
            None => path.to_owned(),
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        }
    }

    /// A directory, with those above it; one that is there is left as it is.
    pub(crate) fn directory(&mut self, path: &Path, mode: u32, owner: Owner) -> Result<(), CtlError> {
        let at = self.at(path);
        if at.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| !self.at(parent).is_dir()) {
            self.directory(parent, 0o755, Owner::Root)?;
        }
        let made = fs::create_dir(&at)
            .and_then(|()| fs::set_permissions(&at, Permissions::from_mode(mode)))
            .and_then(|()| self.give(&at, owner));
        made.map_err(|error| CtlError::File { doing: "create", path: at.clone(), source: error })?;
        self.steps.push(Step::Made(at));
        Ok(())
    }

    /// A file. Returns whether it was not there, or was other than this.
    ///
    /// # Errors
    /// When there is another one, and nobody said that it may be replaced.
    pub(crate) fn file(&mut self, path: &Path, content: &[u8], mode: u32, owner: Owner) -> Result<bool, CtlError> {
        let at = self.at(path);
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755, Owner::Root)?;
        }
        let failed = |error| CtlError::write(&at, error);
        let before = match fs::read(&at) {
            Ok(same) if same == content => return Ok(false),
            Ok(_) if !self.force => {
                let why =
                    "it is there and differs from what init would write; keep it and drop the answer, or give --force";
                return Err(failed(io::Error::new(ErrorKind::AlreadyExists, why)));
            }
            Ok(_) => Some(beside(&at, "before-init")),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(CtlError::read(&at, error)),
        };
        let part = beside(&at, "part");
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
            self.give(&part, owner)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(content)?;
            file.sync_all()?;
            if let Some(before) = &before {
                // A second --force keeps what was there before the first.
                if !before.exists() {
                    fs::hard_link(&at, before)?;
                }
            }
            fs::rename(&part, &at)?;
            File::open(at.parent().unwrap_or(Path::new("/")))?.sync_all()
        })();
        if written.is_err() {
            // The error that counts is the first one.
            let _ = fs::remove_file(&part);
        }
        written.map_err(failed)?;
        self.steps.push(match before {
            None => Step::Made(at),
            Some(before) => Step::Replaced { file: at, before },
        });
        Ok(true)
    }

    /// A file of this run that something else now rests on: it is not taken back.
    pub(crate) fn keep(&mut self, path: &Path) {
        let at = self.at(path);
        let before = self.steps.len();
        self.steps.retain(|step| !matches!(step, Step::Made(file) | Step::Replaced { file, .. } if *file == at));
        if self.steps.len() < before {
            self.stays.push(at.display().to_string());
        }
    }

    /// From here on this stays, whatever comes.
    pub(crate) fn stays(&mut self, what: impl Into<String>) {
        self.stays.push(what.into());
    }

    /// What was made is wanted: nothing is taken back any more.
    pub(crate) fn commit(&mut self) {
        let files = self.steps.drain(..).filter_map(|step| match step {
            Step::Made(file) if file.is_file() => Some(file.display().to_string()),
            Step::Made(_) => None,
            Step::Replaced { file, .. } => Some(file.display().to_string()),
        });
        self.stays.extend(files);
    }

    /// Takes back what can be, the last thing first. Returns what was taken back and what stays, for people.
    pub(crate) fn undo(&mut self) -> (Vec<String>, Vec<String>) {
        let mut undone = Vec::new();
        for step in self.steps.drain(..).rev() {
            let (file, outcome) = match step {
                // A directory that somebody put something into stays.
                Step::Made(path) if path.is_dir() => {
                    let _ = fs::remove_dir(&path);
                    continue;
                }
                Step::Made(path) => (path.clone(), fs::remove_file(&path)),
                Step::Replaced { file, before } => (file.clone(), fs::rename(&before, &file)),
            };
            match outcome {
                Ok(()) => undone.push(file.display().to_string()),
                Err(error) => self.stays.push(format!("{} ({error})", file.display())),
            }
        }
        (undone, std::mem::take(&mut self.stays))
    }

    fn give(&self, path: &Path, owner: Owner) -> io::Result<()> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let (user, group) = match owner {
            Owner::Root => return chown(path, Some(0), Some(0)),
            Owner::RootForFront => (None, FRONT),
            Owner::Front => (Some(FRONT), FRONT),
            Owner::Worker => (Some(WORKER), WORKER),
        };
        let (uid, gid) = match user {
            None => (0, self.id("group", group)?),
            Some(user) => (self.id("passwd", user)?, self.id("group", group)?),
        };
        chown(path, Some(uid), Some(gid))
    }

    /// A number out of the passwd or group file, of the image where one is made: its users are not this machine's.
    fn id(&self, file: &str, name: &str) -> io::Result<u32> {
        let found = match &self.root {
            Some(_) => fs::read_to_string(self.at(&Path::new("/etc").join(file)))?.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
            }),
            None if file == "group" => nix::unistd::Group::from_name(name)?.map(|group| group.gid.as_raw()),
            None => nix::unistd::User::from_name(name)?.map(|user| user.uid.as_raw()),
        };
        found.ok_or_else(|| {
            io::Error::other(format!("there is no {file} entry `{name}`; the package makes it (systemd-sysusers)"))
        })
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{ending}"));
    path.with_file_name(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn modes(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_same_file_twice_is_left_alone_and_another_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = Path::new("/etc/app/file");
        let mut ledger = Ledger::new(Some(root.path()), false);
        assert!(ledger.file(path, b"one", 0o640, Owner::Root).unwrap());
        assert!(!ledger.file(path, b"one", 0o640, Owner::Root).unwrap());
        assert_eq!(modes(&root.path().join("etc/app/file")), 0o640);
        let refused = ledger.file(path, b"two", 0o640, Owner::Root).unwrap_err().to_string();
        assert!(refused.contains("--force") && refused.contains("etc/app/file"), "{refused}");
        assert_eq!(fs::read(root.path().join("etc/app/file")).unwrap(), b"one");
    }

    #[test]
    fn a_failed_run_leaves_what_was_there_before() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/app")).unwrap();
        fs::write(root.path().join("etc/app/old"), b"old").unwrap();
        let mut ledger = Ledger::new(Some(root.path()), true);
        ledger.file(Path::new("/etc/app/old"), b"new", 0o644, Owner::Root).unwrap();
        ledger.file(Path::new("/etc/app/sub/new"), b"new", 0o644, Owner::Root).unwrap();
        ledger.stays("the token");
        let (undone, stays) = ledger.undo();
        assert_eq!((undone.len(), stays), (2, vec!["the token".to_owned()]));
        assert_eq!(fs::read(root.path().join("etc/app/old")).unwrap(), b"old");
        assert_eq!(fs::read_dir(root.path().join("etc/app")).unwrap().count(), 1);
    }

    #[test]
    fn what_is_in_force_is_not_taken_back() {
        let root = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::new(Some(root.path()), false);
        ledger.file(Path::new("/etc/app/file"), b"one", 0o600, Owner::Root).unwrap();
        ledger.commit();
        let (undone, stays) = ledger.undo();
        assert!(undone.is_empty() && stays.len() == 1);
        assert!(root.path().join("etc/app/file").exists());
    }
}
