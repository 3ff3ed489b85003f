//! The in-toto Statement v1 in a payload, read without trusting anybody.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Fault;
use crate::statement::json::{Document, JsonLimits, Node};

/// What a statement says, apart from its predicate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StatementHead {
    /// `predicateType`.
    pub(crate) predicate_type: String,
    /// `subject`.
    pub(crate) subjects: Vec<StatementSubject>,
}

/// One subject.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StatementSubject {
    /// `name`.
    pub(crate) name: Option<String>,
    /// `digest`: algorithm and lowercase hex, in document order.
    pub(crate) digests: Vec<(String, String)>,
}

impl StatementSubject {
    /// As in-toto writes it.
    pub(crate) fn to_json(&self) -> Value {
        let digests: Map<String, Value> =
            self.digests.iter().map(|(algorithm, hex)| (algorithm.clone(), hex.as_str().into())).collect();
        match &self.name {
            Some(name) => json!({ "name": name, "digest": digests }),
            None => json!({ "digest": digests }),
        }
    }
}

/// Parses a payload as strict JSON.
pub(crate) fn parse(payload: Vec<u8>) -> Result<Document, Fault> {
    Document::parse(Bytes::from(payload), &JsonLimits::default()).map_err(Fault::Json)
}

/// Checks the form of the statement (in-toto attestation framework, Statement layer v1) and reads its head. What is
/// returned besides is the predicate.
pub(crate) fn head(document: &Document) -> Result<(StatementHead, Node<'_>), Fault> {
    let wrong = |why: String| Fault::Statement(why);
    let root = document.root();
    if !root.is_object() {
        return Err(wrong("the payload is no JSON object".to_owned()));
    }
    for (key, _) in root.members() {
        if !MEMBERS.iter().any(|known| key.is_str(known)) {
            let key = key.as_str().unwrap_or_default();
            return Err(wrong(format!("unknown member `{key}`; there are only {}", MEMBERS.join(", "))));
        }
    }
    let member = |name: &str| root.get(name).ok_or_else(|| wrong(format!("`{name}` is missing")));
    if !member("_type")?.is_str(STATEMENT_TYPE) {
        return Err(wrong(format!("`_type` is not {STATEMENT_TYPE}")));
    }
    let predicate_type = match member("predicateType")?.as_str() {
        Some(text) if !text.is_empty() => text.into_owned(),
        _ => return Err(wrong("`predicateType` is no text".to_owned())),
    };
    let predicate = member("predicate")?;
    if !predicate.is_object() {
        return Err(wrong("`predicate` is no object".to_owned()));
    }
    let subjects: Vec<StatementSubject> =
        member("subject")?.elements().map(subject).collect::<Result<_, _>>().map_err(wrong)?;
    if subjects.is_empty() || subjects.len() > MAX_SUBJECTS {
        return Err(wrong(format!("`subject` must be a list of 1 to {MAX_SUBJECTS}")));
    }
    Ok((StatementHead { predicate_type, subjects }, predicate))
}

fn subject(node: Node<'_>) -> Result<StatementSubject, String> {
    if !node.is_object() {
        return Err("a subject is no object".to_owned());
    }
    let name = match node.get("name") {
        None => None,
        Some(name) => Some(name.as_str().ok_or("a subject's `name` is no text")?.into_owned()),
    };
    let digest = node.get("digest").filter(|digest| digest.is_object()).ok_or("a subject has no `digest` object")?;
    let mut digests = Vec::new();
    for (algorithm, value) in digest.members() {
        let (Some(algorithm), Some(hex)) = (algorithm.as_str(), value.as_str()) else {
            return Err("a subject's digest is no text".to_owned());
        };
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.is_empty() || hex.len() % 2 != 0 || !hex.bytes().all(is_hex) {
            return Err(format!("a subject's {algorithm} digest is not lowercase hex"));
        }
        digests.push((algorithm.into_owned(), hex.into_owned()));
    }
    if digests.is_empty() || digests.len() > MAX_DIGESTS {
        return Err(format!("a subject must have 1 to {MAX_DIGESTS} digests"));
    }
    Ok(StatementSubject { name, digests })
}

/// `_type` of a Statement v1.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const MEMBERS: [&str; 4] = ["_type", "subject", "predicateType", "predicate"];
/// What sigstore-go accepts at most; nothing larger is a statement of the appliance.
const MAX_SUBJECTS: usize = 1024;
const MAX_DIGESTS: usize = 32;
