//! Configuration files as trees that remember where each value was written, and their merging.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml_edit::{Document, Item, TableLike};

use super::error::{ConfigError, Origin};

/// A value and the place where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Table(Table),
    Array(Vec<Node>),
    String(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// As written; the schema reads it as a string.
    Datetime(String),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<String, Entry>,
    /// Written as `{ … }`: a value that a drop-in replaces as a whole.
    inline: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Origin,
    pub(super) node: Node,
}

/// One step from a node to what is inside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The tree of one file.
///
/// # Errors
/// The first place where `text` is not TOML.
pub(super) fn parse(file: &Path, text: &str) -> Result<Node, ConfigError> {
    let lines = Lines::new(file, text);
    let document = Document::parse(text).map_err(|error| ConfigError {
        origin: lines.origin(error.span().map_or(0, |span| span.start)),
        key: String::new(),
        message: format!("this is not TOML: {}", error.message().trim().replace('\n', ", ")),
    })?;
    Ok(lines.table(document.as_table(), lines.origin(0), false))
}

impl Node {
    /// Lays `over` on top: tables written as `[section]` or with dotted keys merge, everything else is replaced.
    pub(super) fn merge(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Table(base), Value::Table(over)) if !base.inline && !over.inline => {
                for (name, entry) in over.entries {
                    match base.entries.entry(name) {
                        std::collections::btree_map::Entry::Occupied(mut base) => base.get_mut().merge(entry),
                        std::collections::btree_map::Entry::Vacant(place) => {
                            place.insert(entry);
                        }
                    }
                }
            }
            (_, value) => *self = Self { origin: over.origin, value },
        }
    }

    /// Where the value at `path` was written; where that is absent, the innermost table around it.
    pub(super) fn origin_of(&self, path: &[Step]) -> &Origin {
        path.split_first()
            .and_then(|(step, rest)| self.child(step).map(|child| child.origin_of(rest)))
            .unwrap_or(&self.origin)
    }

    /// What is at `path`.
    pub(super) fn at(&self, path: &[Step]) -> Option<&Self> {
        match path.split_first() {
            None => Some(self),
            Some((step, rest)) => self.child(step)?.at(rest),
        }
    }

    /// The scalar at `path` as text.
    pub(super) fn text_of(&self, path: &[Step]) -> Option<String> {
        if let Some((step, rest)) = path.split_first() {
            return self.child(step)?.text_of(rest);
        }
        match &self.value {
            Value::String(text) | Value::Datetime(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Table(_) | Value::Array(_) => None,
        }
    }

    /// Takes out what is at `path`, an entry of a table. False when there is nothing.
    pub(super) fn remove(&mut self, path: &[Step]) -> bool {
        match (path, &mut self.value) {
            ([Step::Key(key)], Value::Table(table)) => table.entries.remove(key).is_some(),
            ([Step::Key(key), rest @ ..], Value::Table(table)) => {
                table.entries.get_mut(key).is_some_and(|entry| entry.node.remove(rest))
            }
            _ => false,
        }
    }

    #[cfg(test)]
    pub(super) fn has(&self, path: &[Step]) -> bool {
        path.split_first().is_none_or(|(step, rest)| self.child(step).is_some_and(|child| child.has(rest)))
    }

    #[cfg(test)]
    pub(super) fn plant(&mut self, path: &[Step], key: &str, node: Self) {
        match (path.split_first(), &mut self.value) {
            (None, Value::Table(table)) => {
                table.entries.insert(key.to_owned(), Entry { key: self.origin.clone(), node });
            }
            (Some((Step::Key(step), rest)), Value::Table(table)) => {
                table.entries.get_mut(step).expect("the path was walked before").node.plant(rest, key, node);
            }
            (Some((Step::Index(step), rest)), Value::Array(items)) => items[*step].plant(rest, key, node),
            _ => panic!("no table there"),
        }
    }

    fn child(&self, step: &Step) -> Option<&Self> {
        match (step, &self.value) {
            (Step::Key(key), Value::Table(table)) => table.entries.get(key).map(|entry| &entry.node),
            (Step::Index(index), Value::Array(items)) => items.get(*index),
            _ => None,
        }
    }
}

impl Entry {
    fn merge(&mut self, over: Self) {
        let replaced = !matches!((&self.node.value, &over.node.value), (Value::Table(a), Value::Table(b)) if !a.inline && !b.inline);
        if replaced {
            self.key = over.key.clone();
        }
        self.node.merge(over.node);
    }
}

/// `tokens.main.sessions`, `release.trusted[0].digest`, `tenants."a b".keys`: as TOML would write it.
pub(super) fn dotted(path: &[Step]) -> String {
    struct Dotted<'a>(&'a [Step]);
    impl fmt::Display for Dotted<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for (i, step) in self.0.iter().enumerate() {
                match step {
                    Step::Index(index) => write!(f, "[{index}]")?,
                    Step::Key(key) => {
                        if i > 0 {
                            f.write_str(".")?;
                        }
                        write!(f, "{}", toml_edit::Key::new(key).display_repr())?;
                    }
                }
            }
            Ok(())
        }
    }
    Dotted(path).to_string()
}

/// Turns byte offsets of one file into lines and columns.
struct Lines<'a> {
    file: Arc<Path>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &Path, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { file: Arc::from(file), text, starts }
    }

    fn origin(&self, offset: usize) -> Origin {
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset.min(self.text.len())).unwrap_or_default();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Origin { file: Arc::clone(&self.file), line: number(line), column: number(before.chars().count() + 1) }
    }

    fn table(&self, table: &dyn TableLike, origin: Origin, inline: bool) -> Node {
        let mut entries = BTreeMap::new();
        for (name, item) in table.iter() {
            let key =
                table.key(name).and_then(toml_edit::Key::span).map_or_else(|| origin.clone(), |s| self.origin(s.start));
            if let Some(node) = self.item(item, &key) {
                entries.insert(name.to_owned(), Entry { key, node });
            }
        }
        Node { origin, value: Value::Table(Table { entries, inline }) }
    }

    fn item(&self, item: &Item, key: &Origin) -> Option<Node> {
        let origin = |span: Option<std::ops::Range<usize>>| span.map_or_else(|| key.clone(), |s| self.origin(s.start));
        match item {
            Item::None => None,
            Item::Value(value) => Some(self.value(value, key)),
            Item::Table(table) => {
                let header = if table.is_dotted() || table.is_implicit() { None } else { table.span() };
                Some(self.table(table, origin(header), false))
            }
            Item::ArrayOfTables(tables) => {
                let items = tables.iter().map(|table| self.table(table, origin(table.span()), false)).collect();
                Some(Node { origin: origin(tables.span()), value: Value::Array(items) })
            }
        }
    }

    fn value(&self, value: &toml_edit::Value, key: &Origin) -> Node {
        let origin = value.span().map_or_else(|| key.clone(), |span| self.origin(span.start));
        let value = match value {
            toml_edit::Value::String(text) => Value::String(text.value().clone()),
            toml_edit::Value::Integer(number) => Value::Integer(*number.value()),
            toml_edit::Value::Float(number) => Value::Float(*number.value()),
            toml_edit::Value::Boolean(truth) => Value::Bool(*truth.value()),
            toml_edit::Value::Datetime(moment) => Value::Datetime(moment.value().to_string()),
            toml_edit::Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.value(item, &origin)).collect())
            }
            // A dotted key inside braces belongs to them: `{ a.b = 1 }` is one value.
            toml_edit::Value::InlineTable(table) => return self.table(table, origin, !table.is_dotted()),
        };
        Node { origin, value }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn steps(path: &str) -> Vec<Step> {
        path.split('.').map(|s| s.parse().map_or_else(|_| Step::Key(s.to_owned()), Step::Index)).collect()
    }

    #[test]
    fn every_value_remembers_its_line_and_column() {
        let text = "a = 1\n[t.u]\n  b = [1,\n   { c = 2 }]\n\n[[v]]\nd.e = 'é' \n[[v]]\nf = true\n";
        let tree = parse(Path::new("x.toml"), text).unwrap();
        for (path, place) in [
            ("a", "x.toml:1:5"),
            ("t", "x.toml:2:2"),
            ("t.u", "x.toml:2:1"),
            ("t.u.b", "x.toml:3:7"),
            ("t.u.b.1", "x.toml:4:4"),
            ("t.u.b.1.c", "x.toml:4:10"),
            ("v.0", "x.toml:6:1"),
            ("v.0.d.e", "x.toml:7:7"),
            ("v.1.f", "x.toml:9:5"),
            ("t.u.absent", "x.toml:2:1"),
            ("absent.too", "x.toml:1:1"),
        ] {
            assert_eq!(tree.origin_of(&steps(path)).to_string(), place, "{path}");
        }
    }

    #[test]
    fn sections_merge_while_arrays_and_inline_tables_are_replaced() {
        let mut tree = parse(Path::new("a"), "[s]\nx = 1\ny = [1, 2]\nz = { url = 'u' }\n[s.t]\nk = 1\n").unwrap();
        tree.merge(parse(Path::new("b"), "s.x = 2\ns.y = [3]\ns.z = { file = 'f' }\ns.t.l = 2\n").unwrap());
        let origin = |path| tree.origin_of(&steps(path)).to_string();
        assert_eq!(origin("s.x"), "b:1:7");
        assert_eq!(origin("s.t.k"), "a:6:5");
        assert_eq!(origin("s.t.l"), "b:4:9");
        assert!(
            tree.child(&Step::Key("s".into()))
                .unwrap()
                .child(&Step::Key("z".into()))
                .unwrap()
                .child(&Step::Key("url".into()))
                .is_none()
        );
        assert_eq!(origin("s.y.1"), "b:2:7", "the second element is gone");
    }

    #[test]
    fn paths_print_as_toml_would_write_them() {
        let path = [Step::Key("tenants".into()), Step::Key("a b".into()), Step::Key("keys".into()), Step::Index(1)];
        assert_eq!(dotted(&path), "tenants.\"a b\".keys[1]");
    }

    #[test]
    fn what_is_not_toml_is_reported_with_its_place() {
        let error = parse(Path::new("x.toml"), "a = 1\nb = \n").unwrap_err().to_string();
        assert!(error.starts_with("x.toml:2:"), "{error}");
    }
}
