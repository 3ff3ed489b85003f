//! What documents say about the tree, held against the tree.

use std::fs;
use std::path::Path;

use crate::cargo;

/// All Rust sources below a directory, as one text.
fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let mut text = String::new();
    ["src", "tests"].iter().for_each(|dir| sources(&cargo::root().join(dir), &mut text));
    let page = include_str!("../../docs/threat-model.md");
    // Names of tests are the only words in code type that are so long and have no other sign in them.
    let is_name = |word: &&str| word.len() > 20 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let named: Vec<&str> = page.split('`').filter(is_name).collect();
    assert!(named.len() > 60, "{named:?}");
    let missing: Vec<_> = named.into_iter().filter(|name| !text.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}
