//! Digests and subjects as they are written on the command line.

use std::path::Path;

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use serde_json::{Value, json};

use super::error::CtlError;
use super::files;

/// An algorithm and a lowercase hex value, as in-toto writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    /// `sha256`, `sha384` or `sha512`.
    pub(crate) algorithm: &'static str,
    /// Lowercase hex.
    pub(crate) hex: String,
}

/// One thing that a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// What it is called.
    pub(crate) name: String,
    /// What it is.
    pub(crate) digest: Digest,
}

impl Digest {
    /// Reads `ALG:HEX`; `option` names where it was written.
    pub(crate) fn parse(text: &str, option: &str) -> Result<Self, CtlError> {
        let wrong = |why: String| CtlError::Usage(format!("--{option}: `{text}` {why}"));
        let (name, hex) = text
            .split_once(':')
            .ok_or_else(|| wrong("is no digest; write it as in sha256:<64 hex digits>".to_owned()))?;
        let Some((algorithm, bytes, _)) = ALGORITHMS.iter().find(|(known, ..)| *known == name) else {
            return Err(wrong("names an algorithm that is none of sha256, sha384, sha512".to_owned()));
        };
        if hex.len() != bytes * 2 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong(format!("is no {algorithm} digest; it needs {} lowercase hex digits", bytes * 2)));
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }

    /// The digest of a file under a named algorithm; none where the algorithm is not known here.
    pub(crate) fn of_file(path: &Path, algorithm: &str) -> Option<Result<Self, CtlError>> {
        let (name, _, function) = ALGORITHMS.iter().find(|(known, ..)| *known == algorithm)?;
        Some(files::hash(path, function).map(|hex| Self { algorithm: name, hex }))
    }
}

impl Subject {
    /// Reads `NAME@ALG:HEX`. The name may hold an `@`: the last one counts.
    pub(crate) fn parse(text: &str) -> Result<Self, CtlError> {
        match text.rsplit_once('@') {
            Some((name, digest)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), digest: Digest::parse(digest, "subject")? })
            }
            _ => Err(CtlError::Usage(format!(
                "--subject: `{text}` has no name before an `@`; write NAME@sha256:<hex>, or name a file with --subject-file"
            ))),
        }
    }

    /// The subject that a file is: its name without directories, and its SHA-256.
    pub(crate) fn of_file(path: &Path) -> Result<Self, CtlError> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            CtlError::Usage(format!("--subject-file: {} has no UTF-8 file name; use --subject", path.display()))
        })?;
        let digest = Digest { algorithm: "sha256", hex: files::hash(path, &SHA256)? };
        Ok(Self { name: name.to_owned(), digest })
    }

    /// As the request carries it (in-toto `ResourceDescriptor`).
    pub(crate) fn to_json(&self) -> Value {
        json!({ "name": self.name, "digest": { (self.digest.algorithm): self.digest.hex } })
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

/// Name, bytes, and the function.
const ALGORITHMS: [(&str, usize, &digest::Algorithm); 3] =
    [("sha256", 32, &SHA256), ("sha384", 48, &SHA384), ("sha512", 64, &SHA512)];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_subject_is_a_name_and_a_digest_of_the_right_form() {
        let subject = Subject::parse(&format!("pkg:npm/@scope/x@1.0@sha256:{HEX}")).unwrap();
        assert_eq!((subject.name.as_str(), subject.digest.hex.as_str()), ("pkg:npm/@scope/x@1.0", HEX));
        for wrong in [
            HEX.to_owned(),
            format!("sha256:{HEX}"),
            format!("@sha256:{HEX}"),
            format!("a@sha256:{}", &HEX[1..]),
            format!("a@sha256:{}", HEX.to_uppercase()),
            format!("a@sha512:{HEX}"),
            format!("a@md5:{HEX}"),
            format!("a@SHA256:{HEX}"),
            "a@".to_owned(),
            String::new(),
        ] {
            assert!(matches!(Subject::parse(&wrong), Err(CtlError::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn a_file_becomes_a_subject_by_its_name_and_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.tar");
        std::fs::write(&path, b"").unwrap();
        let subject = Subject::of_file(&path).unwrap();
        assert_eq!((subject.name.as_str(), subject.digest.hex.as_str()), ("app.tar", HEX));
    }
}
