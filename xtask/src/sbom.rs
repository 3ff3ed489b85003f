//! This project's own SBOM: CycloneDX 1.6 JSON from what `cargo metadata` says.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use xtask::ui;

use crate::{Outcome, cargo};

/// `cargo xtask sbom`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where it goes.
    #[arg(default_value = "sbom.cdx.json")]
    file: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    let components = write(&cargo::metadata()?, &[], &arguments.file)?;
    ui::done(format!("{}: {components} components", arguments.file.display()));
    Ok(ExitCode::SUCCESS)
}

/// Writes the SBOM, with these components beside the crates, and returns how many it lists.
pub(crate) fn write(metadata: &Value, others: &[Value], file: &Path) -> Outcome<usize> {
    let mut sbom = of(metadata)?;
    if let Some(components) = sbom["components"].as_array_mut() {
        components.extend(others.iter().cloned());
    }
    let text = serde_json::to_string_pretty(&sbom).map_err(|error| format!("cannot write the SBOM: {error}"))?;
    fs::write(file, text + "\n").map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    Ok(sbom["components"].as_array().map_or(0, Vec::len))
}

/// The packages that the programs are built from, the root's first.
///
/// # Errors
/// When the metadata names no root.
pub(crate) fn shipped_packages(metadata: &Value) -> Outcome<Vec<&Value>> {
    let (root, packages, needs) = graph(metadata)?;
    let ids = std::iter::once(root).chain(reached(root, &needs).into_iter().filter(|id| *id != root));
    Ok(ids.filter_map(|id| packages.get(id).copied()).collect())
}

/// A package's dependencies, by its identity.
type Needs<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// The root, every package, and what each brings into the programs.
fn graph(metadata: &Value) -> Outcome<(&str, BTreeMap<&str, &Value>, Needs<'_>)> {
    let root = metadata["resolve"]["root"].as_str().ok_or("cargo metadata names no root package")?;
    let packages = list(&metadata["packages"]).filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let needs = list(&metadata["resolve"]["nodes"])
        .filter_map(|node| Some((node["id"].as_str()?, list(&node["deps"]).filter_map(shipped).collect())))
        .collect();
    Ok((root, packages, needs))
}

/// The root package and what it depends on, without what only tests need.
fn reached<'a>(root: &'a str, needs: &Needs<'a>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        open.extend(needs.get(id).into_iter().flatten().copied().filter(|need| reached.insert(need)));
    }
    reached
}

/// What the programs are built from.
fn of(metadata: &Value) -> Outcome<Value> {
    let (root, packages, needs) = graph(metadata)?;
    let reached = reached(root, &needs);
    let checksums = checksums();

    let purl = |id: &str| packages.get(id).map(|package| purl(package)).unwrap_or_default();
    let components: Vec<Value> = reached
        .iter()
        .filter(|id| **id != root)
        .filter_map(|id| packages.get(id).map(|package| component("library", package, &checksums)))
        .collect();
    let dependencies: Vec<Value> = reached
        .iter()
        .map(|id| {
            let on: BTreeSet<String> = needs.get(id).into_iter().flatten().map(|need| purl(need)).collect();
            json!({"ref": purl(id), "dependsOn": on})
        })
        .collect();
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "cargo xtask sbom"}]},
            "component": packages.get(root).map(|package| component("application", package, &checksums)),
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The package that a dependency brings into the programs, unless it serves builds or tests alone.
fn shipped(dependency: &Value) -> Option<&str> {
    let ships = list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
    ships.then(|| dependency["pkg"].as_str()).flatten()
}

fn component(kind: &str, package: &Value, checksums: &BTreeMap<String, String>) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    });
    if let Some(description) = package["description"].as_str() {
        component["description"] = json!(description.trim());
    }
    if let Some(license) = package["license"].as_str() {
        // Some old crates separate alternatives by a slash, which is no SPDX expression.
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    let named = format!("{} {}", package["name"].as_str().unwrap_or_default(), version(package));
    if let Some(checksum) = checksums.get(&named) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", package["name"].as_str().unwrap_or_default(), version(package))
}

fn version(package: &Value) -> &str {
    package["version"].as_str().unwrap_or_default()
}

/// SHA-256 of each crate's archive, by `name version`, from the lock file.
fn checksums() -> BTreeMap<String, String> {
    let lock = fs::read_to_string(cargo::root().join("Cargo.lock")).unwrap_or_default();
    let entry = |block: &str| {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            line.and_then(|rest| rest.strip_suffix('"')).map(str::to_owned)
        };
        Some((format!("{} {}", field("name")?, field("version")?), field("checksum")?))
    };
    lock.split("[[package]]").filter_map(entry).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_sbom_of_this_workspace_lists_what_is_shipped_and_not_what_only_tests_need() {
        let sbom = of(&cargo::metadata().unwrap()).unwrap();
        let names: BTreeSet<&str> = list(&sbom["components"]).filter_map(|one| one["name"].as_str()).collect();
        assert!(names.contains("rustls") && names.contains("cryptoki"), "{names:?}");
        assert!(!names.contains("proptest") && !names.contains("testkit"), "{names:?}");
        assert_eq!(sbom["metadata"]["component"]["name"], "stellaops-signer");
        let rustls = list(&sbom["components"]).find(|one| one["name"] == "rustls").unwrap();
        assert_eq!(rustls["hashes"][0]["content"].as_str().unwrap().len(), 64);
    }
}
