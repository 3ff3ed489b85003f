//! JSON whose errors may be logged.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Why JSON was not understood: where, and what kind of thing is wrong. Unlike the parser's own error it never quotes
/// a value, which may be part of a credential or echo one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at line {line}, column {column}")]
pub struct JsonFault {
    what: String,
    line: usize,
    column: usize,
}

/// Reads `json`.
///
/// # Errors
/// [`JsonFault`].
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, JsonFault> {
    serde_json::from_slice(json).map_err(|error| JsonFault {
        what: what(&error),
        line: error.line(),
        column: error.column(),
    })
}

fn what(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Syntax | Category::Io => "no JSON".to_owned(),
        Category::Eof => "JSON that breaks off".to_owned(),
        // These name a member that we asked for; everything else may quote what was found instead.
        Category::Data => {
            let text = error.to_string();
            let ours = ["duplicate field `", "missing field `"]
                .into_iter()
                .find_map(|kind| text.strip_prefix(kind).and_then(|rest| Some((kind, rest.split_once('`')?.0))));
            ours.map_or_else(
                || "a member or value that is not expected".to_owned(),
                |(kind, name)| format!("{kind}{name}`"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Form {
        active: bool,
    }

    #[test]
    fn a_fault_says_where_and_what_and_quotes_nothing() {
        for (json, said) in [
            ("", "JSON that breaks off at line 1, column 0"),
            ("\n s3cret", "no JSON at line 2, column 2"),
            (r#"{"active":tr"#, "JSON that breaks off at line 1, column 12"),
            (r#""s3cret""#, "a member or value that is not expected at line 1, column 8"),
            (r#"{"active":"s3cret"}"#, "a member or value that is not expected at line 1, column 18"),
            (r#"{"s3cret":1}"#, "a member or value that is not expected at line 1, column 9"),
            (r#"{"active":true,"active":false}"#, "duplicate field `active` at line 1, column 23"),
            ("{}", "missing field `active` at line 1, column 2"),
        ] {
            let fault = parse::<Form>(json.as_bytes()).unwrap_err();
            assert_eq!(fault.to_string(), said, "{json}");
            assert!(!format!("{fault:?}").contains("s3cret"));
        }
    }
}
