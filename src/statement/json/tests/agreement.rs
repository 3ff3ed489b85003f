//! Against serde_json: whatever is read means the same there, and whatever is refused breaks a rule of ours.

use proptest::prelude::*;

use super::parse;
use crate::statement::json::{Node, Problem};

/// JSON texts and things that are nearly JSON.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\"",
        "\\",
        "\\u",
        "d83d",
        "\\ude00",
        "null",
        "true",
        "false",
        "0",
        "-",
        "1",
        ".",
        "e",
        "E",
        "+",
        "\"a\"",
        "\"b\":",
        "\"a\":1",
        "12",
        "1.5",
        "1e5",
        "\u{e9}",
        "\u{1f600}",
        "\t",
        "\"\\u0061\"",
        "[]",
        "{}",
        "\u{1}",
        "/",
    ]);
    let soup = prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat().into_bytes());
    let mutated = (
        crate::statement::canonical::tests::json_text(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..3),
    )
        .prop_map(|(text, mutations)| {
            let mut text = text.into_bytes();
            for (index, byte, how) in mutations {
                let at = index.index(text.len() + 1);
                match how {
                    0 if at < text.len() => text[at] = byte,
                    1 if at < text.len() => drop(text.remove(at)),
                    2 => text.insert(at, byte),
                    _ => text.truncate(at),
                }
            }
            text
        });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..64), soup, mutated]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_read_serde_json_reads_too_and_what_is_refused_breaks_a_rule_of_ours(text in nearly_json()) {
        let reference = serde_json::from_slice::<serde_json::Value>(&text);
        match (parse(&text), reference) {
            (Ok(document), Ok(value)) => prop_assert!(equal(document.root(), &value)),
            (Ok(_), Err(error)) => prop_assert!(false, "read, but serde_json says: {}", error),
            (Err(error), Ok(_)) => prop_assert!(
                matches!(error.problem, Problem::DuplicateKey | Problem::IntegerRange | Problem::NumberLoss),
                "{}", error
            ),
            (Err(error), Err(_)) => prop_assert!(error.offset <= text.len()),
        }
    }
}

fn equal(node: Node<'_>, value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Null => node.is_null(),
        Value::Bool(value) => node.as_bool() == Some(*value),
        Value::Number(value) => node.as_f64() == value.as_f64(),
        Value::String(value) => node.is_str(value),
        Value::Array(values) => {
            node.elements().count() == values.len()
                && node.elements().zip(values).all(|(node, value)| equal(node, value))
        }
        Value::Object(values) => {
            node.members().count() == values.len()
                && values.iter().all(|(key, value)| node.get(key).is_some_and(|node| equal(node, value)))
        }
    }
}
