//! Objects whose members are known: what is wrong is said with its path and what would be right.

use std::borrow::Cow;

use super::error::Path;
use super::node::{Kind, Node};

/// An object, all of whose members have been asked for by name.
#[derive(Clone, Copy)]
pub struct Fields<'d, 'p> {
    node: Node<'d>,
    path: &'p str,
}

/// A value and its path.
pub struct Field<'d> {
    node: Node<'d>,
    path: String,
}

/// A value that is not what belongs there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct FieldError {
    /// Where: `$.subject[0].digest.sha256`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub problem: Cow<'static, str>,
}

impl<'d> Field<'d> {
    /// The outermost value.
    #[must_use]
    pub fn root(node: Node<'d>) -> Self {
        Self { node, path: Path::root().finish() }
    }

    /// The value.
    #[must_use]
    pub fn node(&self) -> Node<'d> {
        self.node
    }

    /// This field is not what belongs there.
    pub fn wrong(&self, problem: impl Into<Cow<'static, str>>) -> FieldError {
        FieldError { path: self.path.clone(), problem: problem.into() }
    }

    /// It as an object that has no other members than these.
    ///
    /// # Errors
    /// It is no object, or has another member.
    pub fn object(&self, known: &[&str]) -> Result<Fields<'d, '_>, FieldError> {
        if !self.node.is_object() {
            return Err(self.wrong(format!("must be an object with {}", list(known))));
        }
        for (key, _) in self.node.members() {
            if !known.iter().any(|name| key.is_str(name)) {
                let path = member_path(&self.path, &key.as_str().unwrap_or_default());
                return Err(FieldError {
                    path,
                    problem: format!("unknown member; allowed are {}", list(known)).into(),
                });
            }
        }
        Ok(Fields { node: self.node, path: &self.path })
    }

    /// The elements of an array of `range` elements; `what` says what they are.
    ///
    /// # Errors
    /// It is no array, or has too few or too many elements.
    pub fn elements(
        &self,
        range: std::ops::RangeInclusive<usize>,
        what: &str,
    ) -> Result<impl Iterator<Item = Field<'d>> + use<'_, 'd>, FieldError> {
        let in_range = self.node.kind() == Kind::Array
            && range.contains(&self.node.elements().take(range.end().saturating_add(1)).count());
        if !in_range {
            return Err(self.wrong(format!("must be an array of {} {what}", counts(&range))));
        }
        let elements = self.node.elements().enumerate();
        Ok(elements.map(|(index, node)| Field { node, path: format!("{}[{index}]", self.path) }))
    }

    /// The members of an object, whatever they are called; `what` says what it is.
    ///
    /// # Errors
    /// It is no object, or has too few or too many members.
    pub fn members(
        &self,
        range: std::ops::RangeInclusive<usize>,
        what: &str,
    ) -> Result<impl Iterator<Item = (Cow<'d, str>, Field<'d>)> + use<'_, 'd>, FieldError> {
        let in_range =
            self.node.is_object() && range.contains(&self.node.members().take(range.end().saturating_add(1)).count());
        if !in_range {
            return Err(self.wrong(format!("must be an object of {} {what}", counts(&range))));
        }
        Ok(self.node.members().map(|(key, node)| {
            let key = key.as_str().unwrap_or_default();
            let path = member_path(&self.path, &key);
            (key, Field { node, path })
        }))
    }

    /// A member of an object that may have any others.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Field<'d>> {
        self.node.get(name).map(|node| Field { node, path: member_path(&self.path, name) })
    }

    /// It as a string of at most `max` bytes; `right` says which.
    ///
    /// # Errors
    /// It is no string, or longer.
    pub fn text(&self, max: usize, right: &'static str) -> Result<Cow<'d, str>, FieldError> {
        match self.node.as_str() {
            Some(text) if text.len() <= max => Ok(text),
            Some(_) => Err(self.wrong(format!("longer than {max} bytes; must be {right}"))),
            None => Err(self.wrong(format!("must be {right}"))),
        }
    }
}

impl<'d> Fields<'d, '_> {
    /// A member that must be there; `right` says what it must be.
    ///
    /// # Errors
    /// It is not.
    pub fn required(&self, name: &str, right: &'static str) -> Result<Field<'d>, FieldError> {
        self.optional(name).ok_or_else(|| FieldError {
            path: member_path(self.path, name),
            problem: format!("missing; must be {right}").into(),
        })
    }

    /// A member that may be there.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<Field<'d>> {
        self.node.get(name).map(|node| Field { node, path: member_path(self.path, name) })
    }
}

fn member_path(parent: &str, key: &str) -> String {
    let mut path = Path::from(parent);
    path.key(key);
    path.finish()
}

/// `1 to 8`, or just `1`.
fn counts(range: &std::ops::RangeInclusive<usize>) -> String {
    if range.start() == range.end() { range.end().to_string() } else { format!("{} to {}", range.start(), range.end()) }
}

/// `a`, `b` and `c`.
fn list(names: &[&str]) -> String {
    let mut list = String::new();
    for (at, name) in names.iter().enumerate() {
        let before = match at {
            0 => "",
            _ if at + 1 == names.len() => " and ",
            _ => ", ",
        };
        list.push_str(&format!("{before}`{name}`"));
    }
    list
}
