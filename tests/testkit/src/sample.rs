//! Subjects and predicates to be signed.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

/// The scanner image that the fixture's configuration trusts.
pub const SCANNER_IMAGE: &str = "sha256:5ca22e55ca22e55ca22e55ca22e55ca22e55ca22e55ca22e55ca22e55ca22e55";

/// Sha-256 of an image that was scanned.
pub const SUBJECT_SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A whole request body but for the PoE: a small SBOM about one image.
#[must_use]
pub fn request() -> Value {
    request_about("stella.ops/sbom@v1", &sbom(3))
}

/// A request body for a predicate of any type.
#[must_use]
pub fn request_about(predicate_type: &str, predicate: &Value) -> Value {
    json!({
        "subject": [{"name": "registry.example/app", "digest": {"sha256": SUBJECT_SHA256}}],
        "predicateType": predicate_type,
        "predicate": predicate,
        "scannerImageDigest": SCANNER_IMAGE,
    })
}

/// A CycloneDX SBOM with that many components.
#[must_use]
pub fn sbom(components: usize) -> Value {
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "app", "version": "1.0.0"}},
        "components": (0..components).map(component).collect::<Vec<_>>(),
    })
}

/// A request body of about that many bytes once serialized (never fewer).
#[must_use]
pub fn request_of(bytes: usize) -> Value {
    let overhead = request_about("stella.ops/sbom@v1", &sbom(0)).to_string().len();
    let each = component(0).to_string().len() + 1;
    request_about("stella.ops/sbom@v1", &sbom(bytes.saturating_sub(overhead).div_ceil(each)))
}

fn component(number: usize) -> Value {
    let digest = crate::hex(crate::sha256(number.to_be_bytes()));
    json!({
        "type": "library",
        "bom-ref": format!("pkg:cargo/component-{number:06}@1.{}.0", number % 10),
        "name": format!("component-{number:06}"),
        "version": format!("1.{}.0", number % 10),
        "purl": format!("pkg:cargo/component-{number:06}@1.{}.0", number % 10),
        "hashes": [{"alg": "SHA-256", "content": digest}],
    })
}
