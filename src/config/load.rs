//! Reading: FILE, then FILE.d/*.toml on top of it, merged, matched with the schema, judged.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::de::{Kind, Refusal};
use super::error::{ConfigError, ConfigErrors, Origin};
use super::tree::{self, Node, Step};
use super::{Config, Token, validate};

/// Reads and judges the configuration at `path` and its drop-ins; see [`open`].
///
/// # Errors
/// Every problem that was found.
pub fn load(path: impl AsRef<Path>) -> Result<Config, ConfigErrors> {
    open(path).map(|loaded| loaded.config)
}

/// Reads the configuration at `path` and then, in the order of their names, the drop-ins `path`.d/*.toml.
///
/// In a drop-in, keys of a `[section]` are laid over the earlier ones; an array or an inline table replaces the
/// earlier one as a whole. Nothing that the configuration names is read: every process of the appliance can load the
/// one file, whichever of the keys and PINs it may see. [`Loaded::check_files`] looks at those.
///
/// # Errors
/// Every problem that was found, each with its file, line, column and key.
pub fn open(path: impl AsRef<Path>) -> Result<Loaded, ConfigErrors> {
    open_as_if(path.as_ref(), None)
}

/// [`open`], as if the drop-in `file` had the content `text`: what a change would do, before it is made.
///
/// # Errors
/// As [`open`].
pub fn open_with(path: impl AsRef<Path>, file: &Path, text: &str) -> Result<Loaded, ConfigErrors> {
    open_as_if(path.as_ref(), Some((file, text)))
}

/// Judges `text` as the configuration at `path`, without drop-ins and without looking at a file.
///
/// # Errors
/// As [`open`].
pub fn open_text(path: &Path, text: &str) -> Result<Loaded, ConfigErrors> {
    Loaded::from_sources(&[(path.to_owned(), text.to_owned())])
}

fn open_as_if(path: &Path, instead: Option<(&Path, &str)>) -> Result<Loaded, ConfigErrors> {
    let mut sources = vec![(path.to_owned(), read(path)?)];
    let mut files = drop_ins(path)?;
    if let Some((file, _)) = instead.filter(|(file, _)| !files.iter().any(|known| known == file)) {
        files.push(file.to_owned());
        files.sort();
    }
    for drop_in in files {
        let text = match instead {
            Some((file, text)) if file == drop_in => text.to_owned(),
            _ => read(&drop_in)?,
        };
        sources.push((drop_in, text));
    }
    Loaded::from_sources(&sources)
}

/// A configuration that passed every check that needs no other file, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    pub(super) tree: Node,
    /// The files it was read from, in order.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// Where the value at `path` (`["tokens", "main", "uri"]`) was written; where it is absent, the innermost table
    /// around it. An element of an array is `"[0]"`.
    #[must_use]
    pub fn origin(&self, path: &[&str]) -> Origin {
        self.tree.origin_of(&steps(path)).clone()
    }

    /// The value at `path` as text, when it was written and is a string, number, truth value or moment.
    #[must_use]
    pub fn written(&self, path: &[&str]) -> Option<String> {
        self.tree.text_of(&steps(path))
    }

    pub(super) fn from_sources(sources: &[(PathBuf, String)]) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let mut merged: Option<Node> = None;
        for (file, text) in sources {
            match tree::parse(file, text) {
                Ok(node) => match &mut merged {
                    Some(base) => base.merge(node),
                    None => merged = Some(node),
                },
                Err(error) => errors.push(error),
            }
        }
        let Some(tree) = merged.filter(|_| errors.is_empty()) else { return Err(ConfigErrors(errors)) };
        let files: Vec<PathBuf> = sources.iter().map(|(file, _)| file.clone()).collect();
        let judged = conform(&tree).and_then(|config| {
            let errors = validate::problems(&config, &tree);
            ConfigErrors::check(errors).map(|()| config)
        });
        match judged {
            Ok(config) => Ok(Self { config, tree, files }),
            Err(mut errors) => {
                let place = |origin: &Origin| {
                    (files.iter().position(|file| **file == *origin.file), origin.line, origin.column)
                };
                errors.0.sort_by_key(|error| place(&error.origin));
                Err(errors)
            }
        }
    }
}

impl Config {
    /// Reads and judges the configuration at `path` and its drop-ins; see [`open`].
    ///
    /// # Errors
    /// Every problem that was found.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        load(path)
    }

    /// The token called `name`: what its worker needs.
    ///
    /// # Errors
    /// When the configuration has no such token.
    pub fn token(&self, name: &str) -> Result<&Token, UnknownToken> {
        self.tokens.get(name).ok_or_else(|| UnknownToken {
            name: name.to_owned(),
            known: super::error::listed(self.tokens.keys().map(String::as_str)),
        })
    }
}

/// There is no token of this name.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has no token `{name}`; it has {known}")]
pub struct UnknownToken {
    name: String,
    known: String,
}

/// Matches the tree with the schema. After a refusal the value in question is set aside and the rest is looked at
/// again, so that one run tells an operator about more than one mistake.
fn conform(tree: &Node) -> Result<Config, ConfigErrors> {
    let mut rest = tree.clone();
    let mut set_aside: HashSet<Vec<Step>> = HashSet::new();
    let mut errors = Vec::new();
    loop {
        let refusal = match Config::deserialize(&rest) {
            Ok(config) if errors.is_empty() => return Ok(config),
            Ok(_) => return Err(ConfigErrors(errors)),
            Err(refusal) => refusal,
        };
        let mut suspect = refusal.path.clone();
        if let Kind::MissingKey(key) = refusal.kind {
            // What lacks a key that was set aside was reported already; it goes as a whole.
            let mut missing = suspect.clone();
            missing.push(Step::Key(key.to_owned()));
            if !set_aside.contains(&missing) {
                errors.push(reported(&refusal, &missing, tree));
            }
        } else if !set_aside.iter().any(|path| path.starts_with(&suspect)) {
            errors.push(reported(&refusal, &suspect, tree));
        }
        // Elements of an array keep their numbers only while none is taken out: the array goes as a whole.
        if let Some(first) = suspect.iter().position(|step| matches!(step, Step::Index(_))) {
            suspect.truncate(first);
        }
        if suspect.is_empty() || !rest.remove(&suspect) || errors.len() >= MAX_ERRORS {
            return Err(ConfigErrors(errors));
        }
        set_aside.insert(suspect);
    }
}

fn reported(refusal: &Refusal, path: &[Step], tree: &Node) -> ConfigError {
    let origin = refusal.origin.clone().unwrap_or_else(|| tree.origin_of(path).clone());
    ConfigError { origin, key: tree::dotted(path), message: refusal.message() }
}

pub(super) fn steps(path: &[&str]) -> Vec<Step> {
    let index = |key: &str| key.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(Step::Index);
    path.iter().map(|key| index(key).unwrap_or_else(|| Step::Key((*key).to_owned()))).collect()
}

fn read(path: &Path) -> Result<String, ConfigErrors> {
    let unreadable = |error: std::io::Error| ConfigErrors::file(path, format!("it cannot be read: {error}"));
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(unreadable)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigErrors::file(path, "it is longer than 1 MiB, so it is no configuration of ours"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        ConfigErrors::file(path, format!("line {line} is not UTF-8; save the file as UTF-8"))
    })
}

fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, ConfigErrors> {
    let mut directory = OsString::from(path);
    directory.push(".d");
    let directory = PathBuf::from(directory);
    let unreadable = |error: std::io::Error| ConfigErrors::file(&directory, format!("it cannot be listed: {error}"));
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(unreadable)?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_ERRORS: usize = 50;
