//! What the licences of the linked crates want to be passed on with the programs: their texts, each once.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Outcome;

/// The texts, each below the names of the crates that come with it; the crates without one at the end.
pub(super) fn of(packages: &[&Value]) -> Outcome<String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut without = Vec::new();
    // The first is ours.
    for package in packages.iter().skip(1) {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let named = format!("{} {} ({})", field("name"), field("version"), field("license"));
        let folder = Path::new(field("manifest_path")).parent().unwrap_or(Path::new("/"));
        let files = licence_files(folder)?;
        if files.is_empty() {
            without.push(named.clone());
        }
        for file in files {
            let text = fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            let text = String::from_utf8_lossy(&text).replace('\r', "");
            let crates = texts.entry(text.trim_end().to_owned()).or_default();
            if !crates.contains(&named) {
                crates.push(named.clone());
            }
        }
    }
    let mut blocks: Vec<(Vec<String>, String)> = texts.into_iter().map(|(text, crates)| (crates, text)).collect();
    blocks.sort();
    let mut all = String::from("Licences of what the programs of stellaops-signer are linked with.\n");
    for (crates, text) in blocks {
        // Writing to a string cannot fail.
        let _ = write!(all, "\n{RULE}\n{}\n{RULE}\n\n{text}\n", crates.join("\n"));
    }
    let _ = write!(all, "\n{RULE}\nWithout a text of their own:\n{}\n", without.join("\n"));
    Ok(all)
}

/// In the crate's folder and one below it, where bundled C libraries have theirs.
fn licence_files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let read = |folder: &Path| -> Outcome<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    let mut files = Vec::new();
    for path in read(folder)? {
        if path.is_dir() {
            files.extend(read(&path)?.into_iter().filter(|path| is_licence(path)));
        } else if is_licence(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_licence(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_uppercase();
    let source = [".RS", ".C", ".H", ".PY", ".TOML"].iter().any(|end| name.ends_with(end));
    !source && path.is_file() && NAMES.iter().any(|begin| name.starts_with(begin))
}

const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
const RULE: &str = "------------------------------------------------------------------------";
