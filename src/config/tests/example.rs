//! The example loads, has every key of the schema, and shows the true defaults.

use std::path::Path;

use serde::Deserialize;

use super::super::de::Kind;
use super::super::tree::{Node, Step, Value, dotted, parse};
use super::super::*;
use super::{EXAMPLE, sources};

#[test]
fn the_example_loads_as_shipped_and_with_everything_uncommented() {
    sources(&[EXAMPLE]).unwrap();
    sources(&[&everything_uncommented()]).unwrap();
}

/// Plants a key that no table knows into each table of the example: the refusal lists what the schema allows there.
#[test]
fn every_key_of_the_schema_is_in_the_example() {
    fn tables(node: &Node, path: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
        match &node.value {
            Value::Table(table) => {
                found.push(path.clone());
                for (name, entry) in &table.entries {
                    path.push(Step::Key(name.clone()));
                    tables(&entry.node, path, found);
                    path.pop();
                }
            }
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    path.push(Step::Index(i));
                    tables(item, path, found);
                    path.pop();
                }
            }
            _ => {}
        }
    }
    let tree = parse(Path::new("signer.toml"), &everything_uncommented()).unwrap();
    let mut found = Vec::new();
    tables(&tree, &mut Vec::new(), &mut found);
    let mut structs = 0;
    for path in found {
        let mut planted = tree.clone();
        planted.plant(&path, "no such key", parse(Path::new("x"), "x = 1").unwrap());
        let Err(refusal) = Config::deserialize(&planted) else { panic!("{} takes any key", dotted(&path)) };
        // Elsewhere: a map of names (`tokens`), which takes any, or a choice (`jwks`), which takes one.
        let Kind::UnknownKey { allowed, .. } = refusal.kind else { continue };
        if refusal.path.len() != path.len() + 1 {
            continue;
        }
        structs += 1;
        for key in allowed {
            let mut whole = path.clone();
            whole.push(Step::Key((*key).to_owned()));
            // Another spelling of a key that is there; both at once would be refused.
            let alternative = *key == "object_id" && EXAMPLE.contains("`object_id = ");
            // A table among named ones (`tokens`) may leave out what goes with others only; another one shows it.
            let shown = alternative
                || tree.has(&whole)
                || siblings(&tree, &path).any(|mut sibling| {
                    sibling.push(Step::Key((*key).to_owned()));
                    tree.has(&sibling)
                });
            assert!(shown, "{} is not in docs/signer.example.toml", dotted(&whole));
        }
    }
    assert_eq!(structs, 44, "a struct of the schema is not reached; give the example a section for it");
}

/// The tables of the same map of names or the same array, this one included: for `tokens.a` also `tokens.b`.
fn siblings(tree: &Node, path: &[Step]) -> impl Iterator<Item = Vec<Step>> {
    let elements = path.split_last().filter(|(last, _)| matches!(last, Step::Index(_))).map(|(_, list)| list.to_vec());
    let elements = elements
        .into_iter()
        .flat_map(|list| (0..8).map(move |index| list.iter().cloned().chain([Step::Index(index)]).collect::<Vec<_>>()));
    let elements: Vec<_> = elements.filter(|path| tree.has(path)).collect();
    let names: Vec<String> = match (&tree.value, path) {
        (Value::Table(root), [Step::Key(map), Step::Key(_)]) => {
            match root.entries.get(map).map(|entry| &entry.node.value) {
                Some(Value::Table(table)) => table.entries.keys().cloned().collect(),
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    let map = path.first().cloned();
    elements.into_iter().chain(names.into_iter().filter_map(move |name| Some(vec![map.clone()?, Step::Key(name)])))
}

#[test]
fn the_example_shows_the_true_defaults() {
    let shipped = format!("{:?}", sources(&[EXAMPLE]).unwrap().config);
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let mut shown = 0;
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| is_optional(line)) {
        let above = lines[..i].iter().rev().take_while(|line| line.starts_with("# ")).copied().collect::<String>();
        let in_block = lines[..i].iter().rev().take_while(|line| !line.is_empty()).any(|line| line.starts_with("#["));
        if line.starts_with("#[") || in_block {
            continue;
        }
        let mut changed = lines.clone();
        changed[i] = &line[1..];
        let loaded = sources(&[&changed.join("\n")]).unwrap_or_else(|e| panic!("{line}: {e}"));
        let same = format!("{:?}", loaded.config) == shipped;
        assert_eq!(same, !above.contains("No default"), "{line}");
        shown += usize::from(same);
    }
    assert!(shown > 30, "only {shown} defaults are shown");
}

fn is_optional(line: &str) -> bool {
    line.starts_with('#') && line.len() > 1 && !line[1..].starts_with([' ', '-'])
}

fn everything_uncommented() -> String {
    EXAMPLE.lines().map(|line| if is_optional(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}
