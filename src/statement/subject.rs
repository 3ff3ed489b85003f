//! The subjects of a statement: artifacts by name and digest.

use std::sync::Arc;

use super::json::{Kind, Node};

/// One artifact (in-toto attestation framework, `ResourceDescriptor`, of which `name` and `digest` are accepted).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What it is called.
    pub name: Option<Arc<str>>,
    /// Digests by algorithm, in lowercase hex, in the order in which they came.
    pub digest: Vec<(Arc<str>, Arc<str>)>,
}

/// What is wrong with a subject, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {want}")]
pub struct SubjectError {
    /// Where, as a JSON path.
    pub path: String,
    /// What would be right.
    pub want: String,
}

/// Reads `subject`: 1 to 1,024 artifacts with 1 to 32 digests each, as much as verifiers read.
///
/// # Errors
/// [`SubjectError`] names the first place that is wrong.
pub(crate) fn read_all(node: Node<'_>) -> Result<Vec<Subject>, SubjectError> {
    let wrong = |path: String, want: &str| SubjectError { path, want: want.to_owned() };
    if node.kind() != Kind::Array {
        return Err(wrong("subject".into(), "must be an array of artifacts"));
    }
    let mut subjects = Vec::new();
    for (index, element) in node.elements().enumerate() {
        if index == MAX_SUBJECTS {
            return Err(wrong("subject".into(), "must hold at most 1024 artifacts"));
        }
        subjects.push(read(element, index)?);
    }
    if subjects.is_empty() {
        return Err(wrong("subject".into(), "must name at least one artifact"));
    }
    Ok(subjects)
}

fn read(node: Node<'_>, index: usize) -> Result<Subject, SubjectError> {
    let wrong = |member: &str, want: String| Err(SubjectError { path: format!("subject[{index}]{member}"), want });
    if !node.is_object() {
        return wrong("", "must be an object with `digest` and, if it has one, `name`".into());
    }
    let (mut name, mut digests) = (None, None);
    for (key, value) in node.members() {
        match &*key.as_str().unwrap_or_default() {
            "name" => match value.as_str() {
                Some(text) if !text.is_empty() && text.len() <= MAX_NAME => name = Some(text.as_ref().into()),
                _ => return wrong(".name", format!("must be a string of 1 to {MAX_NAME} bytes")),
            },
            "digest" if value.is_object() => digests = Some(value),
            "digest" => return wrong(".digest", "must be an object of digests by algorithm".into()),
            unknown => return wrong("", format!("has no member `{}`; it has name and digest", shown(unknown))),
        }
    }
    let Some(digests) = digests else { return wrong(".digest", "is missing".into()) };
    let mut digest = Vec::new();
    for (key, value) in digests.members() {
        let algorithm = key.as_str().unwrap_or_default();
        let Some((_, length)) = ALGORITHMS.iter().find(|(known, _)| *known == algorithm) else {
            let known: Vec<_> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
            return wrong(
                ".digest",
                format!("`{}` is no digest algorithm here; use {}", shown(&algorithm), known.join(", ")),
            );
        };
        let hex = value.as_str().unwrap_or_default();
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != *length || !is_hex {
            return wrong(&format!(".digest.{algorithm}"), format!("must be {length} lowercase hex digits"));
        }
        digest.push((algorithm.as_ref().into(), hex.as_ref().into()));
    }
    if digest.is_empty() || digest.len() > MAX_DIGESTS {
        return wrong(".digest", format!("must hold 1 to {MAX_DIGESTS} digests"));
    }
    Ok(Subject { name, digest })
}

/// Text from outside, cut to what an error message needs.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

const MAX_SUBJECTS: usize = 1024;
const MAX_DIGESTS: usize = 32;
const MAX_NAME: usize = 2048;

/// Algorithms and lengths in hex digits (in-toto `digest_set.md`: the cryptographic ones, and git's object names).
const ALGORITHMS: [(&str, usize); 12] = [
    ("sha256", 64),
    ("sha512", 128),
    ("sha384", 96),
    ("sha224", 56),
    ("sha512_256", 64),
    ("sha512_224", 56),
    ("sha3_256", 64),
    ("sha3_384", 96),
    ("sha3_512", 128),
    ("sha3_224", 56),
    ("gitCommit", 40),
    ("gitTree", 40),
];
