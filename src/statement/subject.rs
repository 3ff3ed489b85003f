//! The subjects of a statement: artifacts by name and digest.

use std::sync::Arc;

use super::json::{Field, FieldError};

/// One artifact (in-toto attestation framework v1, `resource_descriptor.md`, of which `name` and `digest` are
/// accepted): a name for people, and digests for machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What it is called.
    pub name: Option<Arc<str>>,
    /// Algorithms and digests in lowercase hex, sorted by algorithm.
    pub digest: Vec<(Arc<str>, Arc<str>)>,
}

/// Reads `subject`: 1 to 1,024 artifacts with 1 to 32 digests each, as much as verifiers read.
///
/// # Errors
/// The first place that is wrong, and what would be right.
pub(crate) fn read_all(field: &Field<'_>) -> Result<Vec<Subject>, FieldError> {
    field.elements(1..=MAX_SUBJECTS, "artifacts")?.map(|artifact| read(&artifact)).collect()
}

fn read(field: &Field<'_>) -> Result<Subject, FieldError> {
    let fields = field.object(&["name", "digest"])?;
    let name = fields.optional("name").map(|name| read_name(&name)).transpose()?;
    let digests = fields.required("digest", "an object of lowercase hex digests by algorithm")?;
    let mut digest = Vec::new();
    let mut identifies = false;
    for (algorithm, value) in digests.members(1..=MAX_DIGESTS, "digests by algorithm")? {
        let (known, hex) = read_digest(&algorithm, &value)?;
        identifies |= known.identifies;
        digest.push((known.name.into(), hex));
    }
    if !identifies {
        return Err(digests.wrong("md5, sha1 and ripemd160 do not identify an artifact; add sha256 or a stronger one"));
    }
    digest.sort_unstable();
    Ok(Subject { name, digest })
}

fn read_name(field: &Field<'_>) -> Result<Arc<str>, FieldError> {
    let name = field.text(MAX_NAME, "a string of 1 to 2048 bytes")?;
    if name.is_empty() {
        return Err(field.wrong("is empty; name the artifact, or leave the name out"));
    }
    // Names end up in logs and on terminals.
    if name.chars().any(char::is_control) {
        return Err(field.wrong("has a control character; remove it"));
    }
    Ok(name.into())
}

fn read_digest(algorithm: &str, field: &Field<'_>) -> Result<(&'static Algorithm, Arc<str>), FieldError> {
    let Some(known) = ALGORITHMS.iter().find(|known| known.name == algorithm) else {
        let names: Vec<&str> = ALGORITHMS.iter().map(|known| known.name).collect();
        return Err(field.wrong(format!("is no digest algorithm here; use {}", names.join(", "))));
    };
    let hex = field.text(MAX_HEX, "a string of lowercase hex digits")?;
    if !known.lengths.contains(&hex.len()) || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        let lengths: Vec<String> = known.lengths.iter().map(ToString::to_string).collect();
        return Err(field.wrong(format!("must be {} lowercase hex digits", lengths.join(" or "))));
    }
    Ok((known, hex.into()))
}

/// A digest algorithm of in-toto's `digest_set.md`.
struct Algorithm {
    name: &'static str,
    /// Hex digits.
    lengths: &'static [usize],
    /// Whether its digest names one artifact by itself. A broken one may only stand beside another.
    identifies: bool,
}

const fn strong(name: &'static str, lengths: &'static [usize]) -> Algorithm {
    Algorithm { name, lengths, identifies: true }
}

const fn broken(name: &'static str, lengths: &'static [usize]) -> Algorithm {
    Algorithm { name, lengths, identifies: false }
}

/// Those of fixed length. Git's object ids count as identifying although they may be SHA-1, because a commit has no
/// other name, and git detects the known attack.
const ALGORITHMS: &[Algorithm] = &[
    strong("sha256", &[64]),
    strong("sha384", &[96]),
    strong("sha512", &[128]),
    strong("sha224", &[56]),
    strong("sha512_224", &[56]),
    strong("sha512_256", &[64]),
    strong("sha3_224", &[56]),
    strong("sha3_256", &[64]),
    strong("sha3_384", &[96]),
    strong("sha3_512", &[128]),
    strong("blake2b", &[128]),
    strong("blake2s", &[64]),
    strong("sm3", &[64]),
    strong("dirHash", &[64]),
    strong("dirHash1", &[64]),
    strong("gitCommit", &[40, 64]),
    strong("gitTree", &[40, 64]),
    strong("gitBlob", &[40, 64]),
    strong("gitTag", &[40, 64]),
    broken("sha1", &[40]),
    broken("md5", &[32]),
    broken("ripemd160", &[40]),
];

/// These two as sigstore-go has them.
const MAX_SUBJECTS: usize = 1024;
const MAX_DIGESTS: usize = 32;

const MAX_NAME: usize = 2048;

const MAX_HEX: usize = 256;
