//! The manifest that cargo-deb and cargo-generate-rpm read: `packaging/metadata.toml` behind a package of its own, and the
//! files of `packaging/contents` behind that. Neither tool needs to know of the workspace.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use serde_json::json;

use super::contents::{Packed, Role};
use super::{Kind, NAME, REVISION};
use crate::{Outcome, cargo};

/// Writes a package of no code to `folder`, which says how the `kind` of package is made.
pub(super) fn write(folder: &Path, kind: Kind, files: &[Packed], suffix: &str) -> Outcome {
    let root = cargo::root();
    let read = |file: &str| fs::read_to_string(root.join(file)).map_err(|error| format!("cannot read {file}: {error}"));
    let metadata = cargo::metadata()?;
    let own = metadata["packages"].as_array().into_iter().flatten().find(|package| package["name"] == NAME);
    let own = own.ok_or_else(|| format!("cargo metadata has no package {NAME}"))?;
    let field = |name: &str| own[name].as_str().map(quoted).ok_or_else(|| format!("Cargo.toml: no {name}"));

    // The version here is only what cargo takes for one; the suffix is none of SemVer's.
    let mut text = format!(
        "[package]\nname = \"{NAME}\"\nversion = {}\nedition = \"2024\"\nlicense = {}\ndescription = {}\nrepository = {}\n\n\
         [lib]\npath = \"nothing.rs\"\n\n[workspace]\n\n{}\n",
        field("version")?,
        field("license")?,
        quoted(SYNOPSIS),
        field("repository")?,
        with_settings(&read("packaging/metadata.toml")?, kind, suffix, &root)?,
    );
    for file in files {
        text.push_str(&asset(kind, file));
    }
    fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    for (name, content) in [("Cargo.toml", text.as_str()), ("nothing.rs", "")] {
        let path = folder.join(name);
        fs::write(&path, content).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// The metadata, with what only a build knows put into the tables of both tools.
fn with_settings(metadata: &str, kind: Kind, suffix: &str, root: &Path) -> Outcome<String> {
    let version = super::version(suffix)?;
    let scripts = |name: &str| quoted(&root.join(format!("packaging/rpm/{name}")).display().to_string());
    let (table, settings) = match kind {
        Kind::Deb => (
            "[package.metadata.deb]\n",
            format!(
                "maintainer-scripts = {}\nrevision = {}\n",
                quoted(&root.join("packaging/deb").display().to_string()),
                quoted(REVISION)
            ),
        ),
        Kind::Rpm => (
            "[package.metadata.generate-rpm]\n",
            format!(
                "version = {}\nrelease = {}\npost_install_script = {}\n\
                 pre_uninstall_script = {}\npost_uninstall_script = {}\n",
                quoted(&version),
                quoted(REVISION),
                scripts("post"),
                scripts("preun"),
                scripts("postun")
            ),
        ),
    };
    if !metadata.contains(table) {
        return Err(format!("packaging/metadata.toml has no {}", table.trim()));
    }
    Ok(metadata.replacen(table, &format!("{table}{settings}"), 1))
}

fn asset(kind: Kind, file: &Packed) -> String {
    let (from, to) = (quoted(&file.from.display().to_string()), quoted(&file.to));
    let mode = quoted(&format!("{:o}", file.mode));
    match kind {
        // A file below /etc is a conffile by its place.
        Kind::Deb => {
            let to = quoted(file.to.trim_start_matches('/'));
            format!("[[package.metadata.deb.assets]]\nsource = {from}\ndest = {to}\nmode = {mode}\n")
        }
        Kind::Rpm => {
            let role = match file.role {
                Role::Plain => "",
                Role::Config => "config = \"noreplace\"\n",
                Role::Doc => "doc = true\n",
            };
            format!(
                "[[package.metadata.generate-rpm.assets]]\nsource = {from}\ndest = {to}\nmode = {mode}\n\
                 user = \"root\"\ngroup = \"root\"\n{role}"
            )
        }
    }
}

/// What lists of packages show; they cut it at 80 characters.
const SYNOPSIS: &str = "hardware-backed signing: in-toto statements in, DSSE envelopes out";

/// A basic string of TOML; JSON's are a subset.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}
