//! A change of the configuration as a drop-in: shown, accepted by the loader, put in force whole, taken back when it
//! turns out wrong.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use toml_edit::{DocumentMut, Item, Table, Value};

use crate::config::{self, Loaded};
use crate::ctl::error::CtlError;
use crate::ctl::files;

/// A value to set: `keys.NAME.FIELD`.
pub(super) struct Set {
    pub(super) key: String,
    pub(super) field: &'static str,
    pub(super) value: Value,
}

/// A change that the loader accepts.
pub(super) struct Change {
    config: PathBuf,
    file: PathBuf,
    before: Option<String>,
    after: String,
    lines: Vec<String>,
    // Held so that two operators do not take back each other's change.
    _lock: Flock<File>,
}

impl Change {
    /// Computes it; nothing is written.
    pub(super) fn prepare(config: &Path, loaded: &Loaded, sets: &[Set]) -> Result<Self, CtlError> {
        let lock = File::open(config).map_err(|error| CtlError::read(config, error))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => CtlError::KeyLife(format!(
                "another signerctl is changing {}; try again when it is done",
                config.display()
            )),
            errno => CtlError::read(config, errno.into()),
        })?;
        let file = path(config);
        let before = match fs::read_to_string(&file) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(CtlError::read(&file, error)),
        };
        let mut document: DocumentMut = before
            .as_deref()
            .unwrap_or(HEADER)
            .parse()
            .map_err(|error| CtlError::content(&file, format!("is not TOML: {error}")))?;
        let mut lines = Vec::new();
        for Set { key, field, value } in sets {
            let was = loaded.written(&["keys", key, field]);
            let shown = value.to_string().trim().to_owned();
            lines.push(match was {
                Some(was) => {
                    format!("keys.{key}.{field}: {was} → {shown}  (was {})", loaded.origin(&["keys", key, field]))
                }
                None => format!("keys.{key}.{field}: (absent) → {shown}"),
            });
            let not_a_table = || CtlError::content(&file, format!("`keys.{key}` is not a [section]"));
            let keys = document.entry("keys").or_insert_with(|| {
                let mut table = Table::new();
                table.set_implicit(true);
                Item::Table(table)
            });
            let section =
                keys.as_table_mut().ok_or_else(not_a_table)?.entry(key).or_insert_with(|| Item::Table(Table::new()));
            section.as_table_mut().ok_or_else(not_a_table)?.insert(field, Item::Value(value.clone()));
        }
        let after = document.to_string();
        let changed = config::open_with(config, &file, &after).map_err(CtlError::Config)?;
        for Set { key, field, .. } in sets {
            let place = changed.origin(&["keys", key, field]);
            if *place.file != *file {
                return Err(CtlError::KeyLife(format!(
                    "{place} says keys.{key}.{field} again, after {}, so the change would do nothing; take it out there",
                    file.display()
                )));
            }
        }
        Ok(Self { config: config.to_owned(), file, before, after, lines, _lock: lock })
    }

    /// What changes, for a person.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&format!("  {}\n", crate::ctl::output::plain(line)));
        }
        text
    }

    /// The lines of [`Self::describe`].
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The drop-in.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Writes it, reads the whole configuration again as the appliance will, and takes it back when that fails.
    pub(super) fn put_in_force(&self) -> Result<(), CtlError> {
        if let Some(directory) = self.file.parent().filter(|directory| !directory.exists()) {
            fs::create_dir(directory).map_err(|error| CtlError::write(directory, error))?;
            files::like(directory, self.config.parent().unwrap_or(Path::new("/")))
                .map_err(|error| CtlError::write(directory, error))?;
        }
        files::replace(&self.file, self.after.as_bytes(), &self.config)?;
        let judged = config::open(&self.config).and_then(|loaded| loaded.check_files(config::Viewer::Operator));
        let Err(errors) = judged else { return Ok(()) };
        match &self.before {
            Some(text) => files::replace(&self.file, text.as_bytes(), &self.config)?,
            None => fs::remove_file(&self.file).map_err(|error| CtlError::write(&self.file, error))?,
        }
        Err(CtlError::Config(errors))
    }
}

/// FILE.d/90-keys.toml.
fn path(config: &Path) -> PathBuf {
    let mut directory = OsString::from(config);
    directory.push(".d");
    PathBuf::from(directory).join("90-keys.toml")
}

const HEADER: &str =
    "# Written by `signerctl keys rotate` and `signerctl keys retire`. What is here wins over signer.toml.\n\n";
