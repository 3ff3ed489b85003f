//! The SBOM in the package: every crate that is linked, and none that Cargo.lock does not know.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::unpacked;
use crate::{output, program, source};

/// Name and version.
type Crate = (String, String);

fn shipped() -> Value {
    let sbom = fs::read(unpacked().join("usr/share/stellaops-signer/sbom.cdx.json")).unwrap();
    serde_json::from_slice(&sbom).unwrap()
}

fn listed(sbom: &Value) -> BTreeSet<Crate> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let libraries = sbom["components"].as_array().unwrap().iter().filter(|one| one["type"] == "library");
    libraries.map(|one| (text(&one["name"]), text(&one["version"]))).collect()
}

/// What `cargo auditable` wrote into a program: JSON, compressed, in a section of its own.
fn embedded(program_path: &str) -> BTreeSet<Crate> {
    let work = tempfile::tempdir().unwrap();
    let section = work.path().join("dep-v0");
    let dump = format!(".dep-v0={}", section.display());
    // The copy that it insists on goes beside it: never to a device, which root would replace by a file.
    let copy = work.path().join("copy");
    let files = [unpacked().join(program_path), copy];
    output(program("objcopy", ["--dump-section", &dump]).args(files));
    let python = "import sys, zlib; sys.stdout.write(zlib.decompress(open(sys.argv[1], 'rb').read()).decode())";
    let json = output(program("python3", ["-c", python]).arg(&section));
    let audit: Value = serde_json::from_str(&json).unwrap();
    let linked = audit["packages"].as_array().unwrap().iter().filter(|package| package["kind"].is_null());
    let linked = linked.filter(|package| package["root"] != true);
    linked.map(|one| (one["name"].as_str().unwrap().to_owned(), one["version"].as_str().unwrap().to_owned())).collect()
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn it_lists_every_crate_that_is_linked_into_a_program_and_each_is_in_the_lock_file() {
    let sbom = shipped();
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    assert_eq!(sbom["specVersion"], "1.6");
    let listed = listed(&sbom);
    let mut linked = BTreeSet::new();
    for program in [
        "usr/bin/signerctl",
        "usr/sbin/signerd",
        "usr/sbin/signer-token",
        "usr/libexec/stellaops-signer/signer-keyless",
    ] {
        let embedded = embedded(program);
        assert!(embedded.len() > 20, "{program}: {embedded:?}");
        let missing: Vec<_> = embedded.difference(&listed).collect();
        assert!(missing.is_empty(), "{program} is linked with what the SBOM does not list: {missing:?}");
        linked.extend(embedded);
    }
    // What the SBOM has beyond is for another platform; none of it is unknown to the lock file.
    let lock = fs::read_to_string(source("Cargo.lock")).unwrap();
    for (name, version) in &listed {
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{name} {version}");
    }
    assert!(linked.contains(&("rustls".to_owned(), listed.iter().find(|one| one.0 == "rustls").unwrap().1.clone())));
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn it_has_the_digest_of_each_program() {
    let sbom = shipped();
    let files: Vec<&Value> =
        sbom["components"].as_array().unwrap().iter().filter(|one| one["type"] == "file").collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        let name = file["name"].as_str().unwrap();
        let said = output(program("sha256sum", ["--binary"]).arg(unpacked().join(name.trim_start_matches('/'))));
        assert_eq!(said.split_whitespace().next(), file["hashes"][0]["content"].as_str(), "{name}");
    }
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn licences_of_what_is_linked_are_passed_on() {
    let file = unpacked().join("usr/share/doc/stellaops-signer/THIRD-PARTY-LICENSES.gz");
    let texts = output(program("gzip", ["--decompress", "--stdout"]).arg(file));
    for (name, version) in listed(&shipped()) {
        if name != "signer-keyless" {
            assert!(texts.contains(&format!("\n{name} {version} (")), "{name} {version}");
        }
    }
    assert!(texts.contains("Permission is hereby granted, free of charge"));
}
