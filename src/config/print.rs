//! What a part of the appliance was made from: equal prints, equal parts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::load::{Loaded, steps};
use super::tree::{Node, Value};
use crate::live_file::FileState;

/// Values of the configuration, and the state of the files that they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Print {
    values: String,
    /// `None` for a file that is not there.
    files: Vec<(PathBuf, Option<FileState>)>,
}

impl Print {
    /// Adds what is written at `path`, and nothing where nothing is.
    pub(crate) fn values(mut self, loaded: &Loaded, path: &[&str]) -> Self {
        self.add(loaded, path);
        self
    }

    /// As [`values`](Self::values), with the state of every file that is named there: who replaces a certificate and has
    /// the configuration read again means the new one.
    pub(crate) fn files(mut self, loaded: &Loaded, path: &[&str]) -> Self {
        if let Some(node) = self.add(loaded, path) {
            let mut named = Vec::new();
            node.paths(&mut named);
            self.files.extend(named.into_iter().map(|path| {
                let state = std::fs::metadata(&path).ok().map(|found| FileState::of(&found));
                (path, state)
            }));
        }
        self
    }

    fn add<'l>(&mut self, loaded: &'l Loaded, path: &[&str]) -> Option<&'l Node> {
        let node = loaded.tree.at(&steps(path));
        // Writing to a String does not fail.
        let _ = write!(self.values, "{path:?}=");
        match node {
            Some(node) => node.spell(&mut self.values),
            None => self.values.push('-'),
        }
        node
    }
}

impl Loaded {
    /// SHA-256 over all values, whichever files they stand in and in whatever order: 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut values = String::new();
        self.tree.spell(&mut values);
        crate::hex::sha256(values.as_bytes())
    }

    /// Are the values at `path` those of `other`?
    pub(crate) fn same(&self, other: &Self, path: &[&str]) -> bool {
        Print::default().values(self, path) == Print::default().values(other, path)
    }
}

impl Node {
    /// The values in one spelling, without their places.
    fn spell(&self, out: &mut String) {
        match &self.value {
            Value::Table(table) => {
                out.push('{');
                for (name, entry) in &table.entries {
                    let _ = write!(out, "{name:?}:");
                    entry.node.spell(out);
                    out.push(',');
                }
                out.push('}');
            }
            Value::Array(items) => {
                out.push('[');
                for item in items {
                    item.spell(out);
                    out.push(',');
                }
                out.push(']');
            }
            Value::String(text) => _ = write!(out, "{text:?}"),
            Value::Integer(number) => _ = write!(out, "{number}"),
            Value::Float(number) => _ = write!(out, "{number:?}"),
            Value::Bool(truth) => _ = write!(out, "{truth}"),
            Value::Datetime(moment) => _ = write!(out, "@{moment}"),
        }
    }

    /// Every absolute path among the values.
    fn paths(&self, out: &mut Vec<PathBuf>) {
        match &self.value {
            Value::Table(table) => table.entries.values().for_each(|entry| entry.node.paths(out)),
            Value::Array(items) => items.iter().for_each(|item| item.paths(out)),
            Value::String(text) if Path::new(text).is_absolute() => out.push(text.into()),
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../docs/signer.example.toml");

    fn loaded(text: &str) -> Loaded {
        Loaded::from_sources(&[("/etc/signer.toml".into(), text.to_owned())]).unwrap()
    }

    #[test]
    fn the_digest_is_of_the_values_and_not_of_how_they_are_written() {
        let text = EXAMPLE;
        let one = loaded(text);
        let digest = one.digest();
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
        assert_eq!(loaded(&format!("# a comment\n\n{text}")).digest(), digest);
        let other = loaded(&text.replacen("signer.example", "other.example", 1));
        assert_ne!(other.digest(), digest);
        assert!(one.same(&other, &["authority"]) && !one.same(&other, &["server"]));
    }

    #[test]
    fn a_file_that_was_replaced_changes_the_print_of_those_who_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, "one").unwrap();
        let text = EXAMPLE.replace("/etc/stellaops-signer/tls/authority-ca.crt", file.to_str().unwrap());
        let loaded = loaded(&text);
        let print = || Print::default().files(&loaded, &["authority"]);
        let before = print();
        assert_eq!(print(), before);
        std::fs::write(dir.path().join("new"), "two").unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        assert_ne!(print(), before);
        assert_eq!(Print::default().values(&loaded, &["authority"]).files, []);
    }
}
