//! Files put in their places: whole or not at all, never over something else, and taken away again when the run fails.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
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

/// What became of a file that its operator keeps fresh once it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seeded {
    /// It was not there, and was written.
    New,
    /// It is there as it would be written.
    Same,
    /// It is there with other content, which stays.
    Other,
}

/// What this run has made, so that it can be taken away again.
pub(crate) struct Ledger {
    root: Option<PathBuf>,
    force: bool,
    steps: Vec<Step>,
    /// Every file that was written or moved, also when nothing of it is taken back any more.
    changed: Vec<PathBuf>,
    /// Goes when what took its place is in force.
    obsolete: Vec<PathBuf>,
    /// What cannot be taken back, in words.
    stays: Vec<String>,
}

enum Step {
    Made(PathBuf),
    Replaced { file: PathBuf, before: PathBuf },
}

impl Ledger {
    pub(crate) fn new(root: Option<&Path>, force: bool) -> Self {
        let (steps, changed, obsolete, stays) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { root: root.map(Path::to_owned), force, steps, changed, obsolete, stays }
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
        // Closed until it has its owner.
        let made = DirBuilder::new().mode(0o700).create(&at).and_then(|()| self.settle(&at, mode, owner));
        made.map_err(|error| CtlError::File { doing: "create", path: at.clone(), source: error })?;
        self.steps.push(Step::Made(at));
        Ok(())
    }

    /// A file. Returns whether it was not there, or was other than this.
    ///
    /// # Errors
    /// When there is another one, and nobody said that it may be replaced.
    pub(crate) fn file(&mut self, path: &Path, content: &[u8], mode: u32, owner: Owner) -> Result<bool, CtlError> {
        self.put(path, content, mode, owner, &|_| false)
    }

    /// As [`Self::file`]; one that is there with the content `earlier` is ours, and is replaced without being told.
    pub(crate) fn file_after(
        &mut self,
        path: &Path,
        content: &[u8],
        earlier: &[u8],
        mode: u32,
        owner: Owner,
    ) -> Result<bool, CtlError> {
        self.put(path, content, mode, owner, &|there| there == earlier)
    }

    /// A file that its operator keeps fresh once it is there: it is never replaced, whatever was said.
    pub(crate) fn seed(&mut self, path: &Path, content: &[u8], mode: u32, owner: Owner) -> Result<Seeded, CtlError> {
        let at = self.at(path);
        match fs::read(&at) {
            Ok(there) if there == content => Ok(Seeded::Same),
            Ok(_) => Ok(Seeded::Other),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.file(path, content, mode, owner).map(|_| Seeded::New)
            }
            Err(error) => Err(CtlError::read(&at, error)),
        }
    }

    /// Moves a file out of the way, if there is one. Returns where it is now.
    pub(crate) fn move_aside(&mut self, path: &Path) -> Result<Option<PathBuf>, CtlError> {
        let at = self.at(path);
        if fs::symlink_metadata(&at).is_err() {
            return Ok(None);
        }
        let before = set_aside(&at).map_err(|error| CtlError::write(&at, error))?;
        self.steps.push(Step::Replaced { file: at.clone(), before: before.clone() });
        self.changed.push(at.clone());
        fs::remove_file(&at).map_err(|error| CtlError::write(&at, error))?;
        Ok(Some(before))
    }

    /// A file that goes when what took its place is in force.
    pub(crate) fn retire(&mut self, path: &Path) {
        self.obsolete.push(self.at(path));
    }

    /// Whether this run has changed a file whose path below the root has `part` in it.
    pub(crate) fn has_changed(&self, part: &str) -> bool {
        self.changed.iter().any(|file| file.to_string_lossy().contains(part))
    }

    fn put(
        &mut self,
        path: &Path,
        content: &[u8],
        mode: u32,
        owner: Owner,
        ours: &dyn Fn(&[u8]) -> bool,
    ) -> Result<bool, CtlError> {
        let at = self.at(path);
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755, Owner::Root)?;
        }
        let failed = |error| CtlError::write(&at, error);
        let replaces = match fs::read(&at) {
            Ok(same) if same == content => return Ok(false),
            Ok(there) if !self.force && !ours(&there) => {
                let why =
                    "it is there and differs from what init would write; keep it and drop the answer, or give --force";
                return Err(failed(io::Error::new(ErrorKind::AlreadyExists, why)));
            }
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(CtlError::read(&at, error)),
        };
        let part = beside(&at, "part");
        let mut before = None;
        let written = (|| {
            // Made here and now (O_EXCL follows no link), and from then on known by its handle: whoever owns the folder
            // may put a link in its place.
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&part)?;
            file.write_all(content)?;
            self.give(&file, mode, owner)?;
            file.sync_all()?;
            if replaces {
                before = Some(set_aside(&at)?);
            }
            fs::rename(&part, &at)?;
            File::open(at.parent().unwrap_or(Path::new("/")))?.sync_all()
        })();
        if written.is_err() {
            // The error that counts is the first one.
            let _ = fs::remove_file(&part);
        }
        let outcome = written.map_err(failed);
        // Also after an error: the file may be in its place, and only the folder not be synced.
        match before {
            Some(before) => self.steps.push(Step::Replaced { file: at.clone(), before }),
            None if outcome.is_ok() => self.steps.push(Step::Made(at.clone())),
            None => {}
        }
        self.changed.push(at);
        outcome.map(|()| true)
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
        for file in self.obsolete.drain(..) {
            if let Err(error) = fs::remove_file(&file) {
                self.stays.push(format!("{} (not needed any more: {error})", file.display()));
            }
        }
        let files = self.steps.drain(..).filter_map(|step| match step {
            Step::Made(file) if file.is_file() => Some(file.display().to_string()),
            Step::Made(_) => None,
            Step::Replaced { file, .. } => Some(file.display().to_string()),
        });
        self.stays.extend(files);
    }

    /// Takes back what can be, the last thing first. Returns what was taken back and what stays, for people.
    pub(crate) fn undo(&mut self) -> (Vec<String>, Vec<String>) {
        self.obsolete.clear();
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

    /// Gives a directory that was just made its mode and owner.
    fn settle(&self, path: &Path, mode: u32, owner: Owner) -> io::Result<()> {
        // By a handle, and by no link: whoever owns the folder above may have put one in its place meanwhile.
        let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)?;
        self.give(&directory, mode, owner)
    }

    fn give(&self, open: &File, mode: u32, owner: Owner) -> io::Result<()> {
        if nix::unistd::geteuid().is_root() {
            let (uid, gid) = self.numbers(owner)?;
            fchown(open, Some(uid), Some(gid))?;
        }
        // After the owner: a change of that takes bits away.
        open.set_permissions(Permissions::from_mode(mode))
    }

    fn numbers(&self, owner: Owner) -> io::Result<(u32, u32)> {
        match owner {
            Owner::Root => Ok((0, 0)),
            Owner::RootForFront => Ok((0, self.id("group", FRONT)?)),
            Owner::Front => Ok((self.id("passwd", FRONT)?, self.id("group", FRONT)?)),
            Owner::Worker => Ok((self.id("passwd", WORKER)?, self.id("group", WORKER)?)),
        }
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

/// Gives the file that is there a second name, one that nothing had before: what an earlier run has kept stays, too.
fn set_aside(file: &Path) -> io::Result<PathBuf> {
    for n in 0..MAX_KEPT {
        let ending = if n == 0 { "before-init".to_owned() } else { format!("before-init.{n}") };
        let name = beside(file, &ending);
        match fs::hard_link(file, &name) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("{MAX_KEPT} files *.before-init of it are there; remove those that nobody needs")))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{ending}"));
    path.with_file_name(name)
}

const MAX_KEPT: u32 = 1000;

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

    #[test]
    fn a_second_replacement_is_taken_back_to_what_the_first_one_wrote() {
        let root = tempfile::tempdir().unwrap();
        let (path, at) = (Path::new("/etc/app/file"), root.path().join("etc/app/file"));
        fs::create_dir_all(root.path().join("etc/app")).unwrap();
        fs::write(&at, b"one").unwrap();
        let mut first = Ledger::new(Some(root.path()), true);
        first.file(path, b"two", 0o644, Owner::Root).unwrap();
        first.commit();
        let mut second = Ledger::new(Some(root.path()), true);
        second.file(path, b"three", 0o644, Owner::Root).unwrap();
        assert_eq!(fs::read(root.path().join("etc/app/file.before-init.1")).unwrap(), b"two");
        let (undone, stays) = second.undo();
        assert_eq!((undone.len(), stays.len()), (1, 0));
        assert_eq!(fs::read(&at).unwrap(), b"two");
        assert_eq!(fs::read(root.path().join("etc/app/file.before-init")).unwrap(), b"one");
    }

    #[test]
    fn a_link_in_place_of_what_was_made_gets_no_owner_and_no_mode() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("victim")).unwrap();
        fs::set_permissions(at("victim"), Permissions::from_mode(0o700)).unwrap();
        fs::write(at("secret"), b"secret").unwrap();
        fs::set_permissions(at("secret"), Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(at("victim"), at("swapped")).unwrap();
        std::os::unix::fs::symlink(at("secret"), at("file.part")).unwrap();

        let mut ledger = Ledger::new(Some(root.path()), true);
        assert!(ledger.settle(&at("swapped"), 0o777, Owner::Root).is_err());
        assert!(ledger.settle(&at("secret"), 0o777, Owner::Root).is_err(), "no directory");
        assert!(ledger.file(Path::new("/file"), b"x", 0o666, Owner::Root).is_err());
        assert_eq!((modes(&at("victim")), modes(&at("secret"))), (0o700, 0o600));
        assert_eq!(fs::read(at("secret")).unwrap(), b"secret");
    }

    #[test]
    fn what_its_operator_keeps_fresh_is_written_once_and_never_again() {
        let root = tempfile::tempdir().unwrap();
        let path = Path::new("/var/app/list");
        let mut ledger = Ledger::new(Some(root.path()), true);
        assert_eq!(ledger.seed(path, b"one", 0o640, Owner::Root).unwrap(), Seeded::New);
        assert_eq!(ledger.seed(path, b"one", 0o640, Owner::Root).unwrap(), Seeded::Same);
        assert_eq!(ledger.seed(path, b"two", 0o640, Owner::Root).unwrap(), Seeded::Other);
        assert_eq!(fs::read(root.path().join("var/app/list")).unwrap(), b"one");
    }

    #[test]
    fn what_was_moved_aside_comes_back_and_what_is_obsolete_goes_only_in_the_end() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["request", "key"] {
            fs::write(at(name), b"old").unwrap();
        }
        let mut ledger = Ledger::new(Some(root.path()), false);
        assert_eq!(ledger.move_aside(Path::new("/none")).unwrap(), None);
        assert!(!ledger.has_changed("request"));
        assert!(ledger.move_aside(Path::new("/request")).unwrap().is_some() && !at("request").exists());
        ledger.file(Path::new("/request"), b"new", 0o644, Owner::Root).unwrap();
        ledger.retire(Path::new("/key"));
        assert!(ledger.has_changed("request"));
        ledger.undo();
        ledger.commit();
        assert_eq!((fs::read(at("request")).unwrap(), at("key").exists()), (b"old".to_vec(), true));
        ledger.retire(Path::new("/key"));
        assert!(at("key").exists());
        ledger.commit();
        assert!(!at("key").exists());
    }

    #[test]
    fn what_an_earlier_half_has_written_is_replaced_without_force_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let path = Path::new("/config");
        let mut ledger = Ledger::new(Some(root.path()), false);
        ledger.file(path, b"half", 0o644, Owner::Root).unwrap();
        assert!(ledger.file_after(path, b"whole", b"half", 0o644, Owner::Root).unwrap());
        assert!(ledger.file_after(path, b"other", b"half", 0o644, Owner::Root).is_err());
        assert_eq!(fs::read(root.path().join("config")).unwrap(), b"whole");
    }
}
