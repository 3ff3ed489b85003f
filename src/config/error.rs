//! What is wrong with a configuration, where, and what would be right.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file, as it was named to the loader.
    pub file: Arc<Path>,
    /// Line, counted from 1; 0 when the whole file is meant.
    pub line: u32,
    /// Column in characters, counted from 1; 0 when the whole file is meant.
    pub column: u32,
}

/// One problem. Displays as one line: `FILE:LINE:COLUMN: KEY: what is wrong; what would be right`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Where.
    pub origin: Origin,
    /// The key's full path, as in `tokens.main.sessions`; empty when the problem is the file itself.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Every problem found, in the order of the files and their lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl Origin {
    /// `file` as a whole.
    pub(super) fn whole(file: &Path) -> Self {
        Self { file: Arc::from(file), line: 0, column: 0 }
    }
}

impl ConfigErrors {
    /// One problem of a whole file.
    pub(super) fn file(file: &Path, message: impl Into<String>) -> Self {
        Self(vec![ConfigError { origin: Origin::whole(file), key: String::new(), message: message.into() }])
    }

    /// `Ok` when `errors` is empty.
    pub(super) fn check(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// The candidate that `wrong` was probably meant to be, when one is close enough to be worth suggesting.
pub(super) fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(wrong, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= candidate.chars().count().max(3) / 3)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Names in backquotes, separated by commas, as messages list them.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Edits between the two, a swap of neighbours counting as one, with `-` and `_` and the case of letters taken as equal.
fn distance(a: &str, b: &str) -> usize {
    let fold = |c: char| if c == '-' { '_' } else { c.to_ascii_lowercase() };
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().map(fold).collect(), b.chars().map(fold).collect());
    let mut cost = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            cost[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let substituted = cost[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let plain = substituted.min(cost[i - 1][j] + 1).min(cost[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { plain.min(cost[i - 2][j - 2] + 1) } else { plain }
            };
        }
    }
    cost[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_matched_and_a_stranger_is_not() {
        let keys = ["sessions", "max_queue", "sign_timeout", "uri"];
        for (wrong, meant) in [
            ("sesions", Some("sessions")),
            ("Sessions", Some("sessions")),
            ("max-queue", Some("max_queue")),
            ("sign_timout", Some("sign_timeout")),
            ("url", Some("uri")),
            ("sessoins", Some("sessions")),
            ("ur", Some("uri")),
            ("frobnicate", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, keys), meant, "{wrong}");
        }
    }
}
