//! `signer.toml` as a tree that tests change by dotted names.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// The configuration of an appliance.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    root: Table,
}

impl Settings {
    /// Reads TOML text.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { root: text.parse().expect("settings are TOML") }
    }

    /// Sets a value by its dotted name, as in `("server.limits.body_timeout", "2s")`; tables on the way are made.
    ///
    /// # Panics
    /// When something on the way is not a table.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        let mut keys: Vec<&str> = name.split('.').collect();
        let last = keys.pop().expect("a split has at least one part");
        let table = keys.into_iter().fold(&mut self.root, |table, key| {
            let entry = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
            entry.as_table_mut().unwrap_or_else(|| panic!("`{key}` of `{name}` is not a table"))
        });
        table.insert(last.to_owned(), value.into());
        self
    }

    /// Sets a value to a path.
    ///
    /// # Panics
    /// When the path is not text.
    pub fn set_path(&mut self, name: &str, path: &Path) -> &mut Self {
        self.set(name, path.to_str().expect("paths of a test are text"))
    }

    /// Removes a value or table by its dotted name.
    pub fn unset(&mut self, name: &str) -> &mut Self {
        match name.rsplit_once('.') {
            None => self.root.remove(name),
            Some((outer, last)) => {
                let mut table = Some(&mut self.root);
                for key in outer.split('.') {
                    table = table.and_then(|table| table.get_mut(key)).and_then(Value::as_table_mut);
                }
                table.and_then(|table| table.remove(last))
            }
        };
        self
    }

    /// A value by its dotted name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let mut keys = name.split('.');
        let first = self.root.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))
    }

    /// The names under `[tokens]`.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.get("tokens").and_then(Value::as_table).map(|tokens| tokens.keys().cloned().collect()).unwrap_or_default()
    }

    /// As TOML text.
    ///
    /// # Panics
    /// When it cannot be written, which no tree built here can bring about.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(&self.root).expect("a TOML tree can be written")
    }

    pub(crate) fn choose_ports(&mut self, api: u16, local: u16) {
        self.set("server.listen", format!("127.0.0.1:{api}"));
        self.set("server.local_listen", format!("127.0.0.1:{local}"));
        self.set("server.public_url", format!("https://localhost:{api}"));
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let text = self.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("`{name}` is set"));
        text.parse().unwrap_or_else(|error| panic!("`{name}` is an address: {error}"))
    }

    pub(crate) fn audit_path(&self) -> PathBuf {
        PathBuf::from(self.get("audit.path").and_then(Value::as_str).expect("`audit.path` is set"))
    }
}
