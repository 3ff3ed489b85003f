//! `packaging/contents`: the list of what is in the packages.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Kind;
use crate::{Outcome, cargo};

/// One file of a package.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packed {
    /// Where it is now.
    pub(super) from: PathBuf,
    /// Where it will be, from the root on.
    pub(super) to: String,
    /// Its permissions.
    pub(super) mode: u32,
    /// What it is to a package manager.
    pub(super) role: Role,
}

/// What a file is to a package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Plain,
    Config,
    Doc,
}

/// The files of one kind of package, in the order of their places.
///
/// # Errors
/// A line that cannot be understood, or that names nothing that exists.
pub(super) fn read(kind: Kind, programs: &Path, made: &Path) -> Outcome<Vec<Packed>> {
    let text = list()?;
    let mut files = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = |problem: String| format!("packaging/contents:{}: {problem}", number + 1);
        if let Some(entry) = entry(line).map_err(at)?.filter(|entry| entry.is_in(kind)) {
            files.extend(entry.files(&cargo::root(), programs, made).map_err(at)?);
        }
    }
    files.sort_by(|one, other| one.to.cmp(&other.to));
    match files.windows(2).find(|pair| pair[0].to == pair[1].to) {
        Some(pair) => Err(format!("packaging/contents: two files would be {}", pair[0].to)),
        None => Ok(files),
    }
}

/// Name and place of each program.
pub(super) fn programs() -> Outcome<Vec<(String, String)>> {
    let text = list()?;
    let mut programs = Vec::new();
    for line in text.lines() {
        let found = entry(line)?.filter(|entry| entry.kind == "program");
        programs.extend(found.map(|entry| (entry.source.to_owned(), format!("{}{}", entry.to, entry.source))));
    }
    Ok(programs)
}

fn list() -> Outcome<String> {
    let list = cargo::root().join("packaging/contents");
    fs::read_to_string(&list).map_err(|error| format!("cannot read {}: {error}", list.display()))
}

/// Copies the files below `stage`, as they will be installed. A copy is younger than the packages' date, to which both
/// tools set it back; a file from long ago would keep its own.
pub(super) fn stage(files: &mut [Packed], stage: &Path) -> Outcome {
    let _ = fs::remove_dir_all(stage);
    for file in files {
        let at = stage.join(file.to.trim_start_matches('/'));
        let copied = fs::create_dir_all(at.parent().unwrap_or(stage)).and_then(|()| fs::read(&file.from));
        copied
            .and_then(|content| fs::write(&at, content))
            .and_then(|()| fs::set_permissions(&at, fs::Permissions::from_mode(file.mode)))
            .map_err(|error| format!("cannot copy {} to {}: {error}", file.from.display(), at.display()))?;
        file.from = at;
    }
    Ok(())
}

#[derive(Debug)]
struct Entry<'a> {
    package: &'a str,
    mode: u32,
    kind: &'a str,
    source: &'a str,
    to: &'a str,
}

/// The entry of a line; none in a comment or an empty line.
fn entry(line: &str) -> Outcome<Option<Entry<'_>>> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[package, mode, kind, source, to] = fields.as_slice() else {
        return Err(format!("five fields are needed (in, mode, kind, source, to), there are {}", fields.len()));
    };
    if !["deb", "rpm", "both"].contains(&package) {
        return Err(format!("`{package}` is no package; there are deb, rpm and both"));
    }
    let mode = u32::from_str_radix(mode, 8).ok().filter(|_| mode.len() == 4 && mode.starts_with('0'));
    let mode = mode.ok_or_else(|| format!("`{}` is no mode; it has four octal digits, the first 0", fields[1]))?;
    if !to.starts_with('/') {
        return Err(format!("`{to}` is no absolute path"));
    }
    Ok(Some(Entry { package, mode, kind, source, to }))
}

impl Entry<'_> {
    fn is_in(&self, kind: Kind) -> bool {
        self.package == "both" || self.package == kind.name()
    }

    fn files(&self, root: &Path, programs: &Path, made: &Path) -> Outcome<Vec<Packed>> {
        let (below, role) = match self.kind {
            "program" => (programs, Role::Plain),
            "made" => (made, Role::Plain),
            "file" => (root, Role::Plain),
            "config" => (root, Role::Config),
            "doc" => (root, Role::Doc),
            unknown => return Err(format!("`{unknown}` is no kind; there are program, made, file, config and doc")),
        };
        // Documentation is what it is by its place, whoever wrote it.
        let documents = ["/usr/share/doc/", "/usr/share/man/"].iter().any(|place| self.to.starts_with(place));
        let role = if documents { Role::Doc } else { role };
        let found = matching(below, self.source)?;
        if found.is_empty() {
            return Err(format!("`{}` is not there, below {}", self.source, below.display()));
        }
        let pack = |(from, star): (PathBuf, String)| {
            let mut to = self.to.replace('*', &star);
            if to.ends_with('/') {
                to.push_str(&from.file_name().unwrap_or_default().to_string_lossy());
            }
            Packed { from, to, mode: self.mode, role }
        };
        Ok(found.into_iter().map(pack).collect())
    }
}

/// The files that `pattern` names below `root`, with what its `*` stood for.
fn matching(root: &Path, pattern: &str) -> Outcome<Vec<(PathBuf, String)>> {
    let mut found = vec![(root.to_owned(), String::new())];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for (folder, star) in found {
            let Some((before, after)) = part.split_once('*') else {
                next.push((folder.join(part), star));
                continue;
            };
            let entries =
                fs::read_dir(&folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
            for entry in entries {
                let name = entry.map_err(|error| format!("cannot read {}: {error}", folder.display()))?.file_name();
                let name = name.to_str().ok_or_else(|| format!("{} has a name that is not UTF-8", folder.display()))?;
                let middle = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                next.extend(middle.map(|middle| (folder.join(name), middle.to_owned())));
            }
        }
        found = next;
    }
    found.retain(|(path, _)| path.is_file());
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_star_is_the_same_name_on_both_sides() {
        let root = cargo::root();
        let one = entry("both 0644 file hsm-profiles/*/profile.toml /x/*/").unwrap().unwrap();
        let files = one.files(&root, &root, &root).unwrap();
        let softhsm = files.iter().find(|file| file.to == "/x/softhsm2/profile.toml").unwrap();
        assert_eq!(softhsm.from, root.join("hsm-profiles/softhsm2/profile.toml"));
        assert!(files.len() > 5, "{files:?}");
    }

    #[test]
    fn a_line_that_is_wrong_is_told_with_what_would_be_right() {
        for (line, says) in [
            ("both 0644 file README.md", "five fields"),
            ("all 0644 file README.md /x", "deb, rpm and both"),
            ("both 644 file README.md /x", "four octal digits"),
            ("both 0644 file README.md x/", "absolute"),
        ] {
            assert!(entry(line).unwrap_err().contains(says), "{line}");
        }
        let missing = entry("both 0644 file no-such-file /x").unwrap().unwrap();
        let root = cargo::root();
        assert!(missing.files(&root, &root, &root).unwrap_err().contains("not there"));
        let unknown = entry("both 0644 folder docs /x").unwrap().unwrap();
        assert!(unknown.files(&root, &root, &root).unwrap_err().contains("program, made"));
    }
}
