//! The predicate types that may be signed at all: what each one is, as data.
//!
//! Sources: the StellaOps attestation catalog; the predicates of the in-toto attestation framework
//! (`spec/predicates` there); SLSA provenance and verification summary; CycloneDX, SPDX and OpenVEX by their own
//! specifications; the vulnerability predicate of cosign.
//!
//! Left out on purpose: `https://sigstore.dev/cosign/sign/v1`, because a statement of that type *is* an image
//! signature, and `https://cosign.sigstore.dev/attestation/v1`, because it says nothing about what it holds.

use std::collections::HashSet;

use super::json::{Kind, Node};

/// One predicate type.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PredicateType {
    /// As it stands in a statement.
    pub uri: &'static str,
    /// What a person types for it, where it has such a name.
    pub short_name: Option<&'static str>,
    /// What it is about.
    pub topic: Topic,
    /// What it is, in a few words.
    pub title: &'static str,
}

/// What a predicate is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// What an artifact is made of.
    Bom,
    /// Whether a vulnerability matters.
    Vex,
    /// Which code reaches which.
    Reachability,
    /// Anything else.
    Other,
}

/// A tenant's predicate types.
#[derive(Clone, Debug)]
pub struct Allowed(HashSet<&'static str>);

/// A configured predicate type that the catalog does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not in the catalog of predicate types; write its URI as docs/api.md lists it, or \"*\" for all")]
pub struct UnknownPredicateType(pub String);

/// The whole catalog, in the order in which it is listed to people.
#[must_use]
pub fn list() -> &'static [PredicateType] {
    CATALOG
}

/// The type with this URI, spelled exactly so.
#[must_use]
pub fn find(uri: &str) -> Option<&'static PredicateType> {
    CATALOG.iter().find(|known| known.uri == uri)
}

/// The type that a person means by a short name or a URI.
#[must_use]
pub fn named(name: &str) -> Option<&'static PredicateType> {
    find(name).or_else(|| CATALOG.iter().find(|known| known.short_name == Some(name)))
}

impl PredicateType {
    /// Whether it says if a vulnerability matters: `vex`, `vexDecision`, OpenVEX.
    #[must_use]
    pub fn is_vex(&self) -> bool {
        self.topic == Topic::Vex
    }

    /// Whether it says which code reaches which: `graph`, `replay`, and a `vex` whose predicate, or one of its
    /// `statements`, has a `reachability` that is not null.
    #[must_use]
    pub fn is_reachability(&self, predicate: Node<'_>) -> bool {
        let says = |node: Node<'_>| node.get("reachability").is_some_and(|value| !value.is_null());
        match self.topic {
            Topic::Reachability => true,
            Topic::Vex if self.uri == "stella.ops/vex@v1" => {
                says(predicate)
                    || predicate
                        .get("statements")
                        .filter(|statements| statements.kind() == Kind::Array)
                        .is_some_and(|statements| statements.elements().any(says))
            }
            Topic::Vex | Topic::Bom | Topic::Other => false,
        }
    }
}

impl Allowed {
    /// Reads a tenant's list: URIs of the catalog, or `"*"` for all of it.
    ///
    /// # Errors
    /// The first that the catalog does not know.
    pub fn new(configured: &[String]) -> Result<Self, UnknownPredicateType> {
        let mut allowed = HashSet::new();
        for name in configured {
            if name == "*" {
                allowed.extend(CATALOG.iter().map(|known| known.uri));
            } else {
                allowed.insert(find(name).ok_or_else(|| UnknownPredicateType(name.clone()))?.uri);
            }
        }
        Ok(Self(allowed))
    }

    /// Whether this type is among them.
    #[must_use]
    pub fn contains(&self, predicate_type: &PredicateType) -> bool {
        self.0.contains(predicate_type.uri)
    }
}

const fn stella(uri: &'static str, short: &'static str, topic: Topic, title: &'static str) -> PredicateType {
    PredicateType { uri, short_name: Some(short), topic, title }
}

const fn public(uri: &'static str, topic: Topic, title: &'static str) -> PredicateType {
    PredicateType { uri, short_name: None, topic, title }
}

const CATALOG: &[PredicateType] = &[
    stella("stella.ops/promotion@v1", "promotion", Topic::Other, "promotion of an artifact between stages"),
    stella("stella.ops/sbom@v1", "sbom", Topic::Bom, "software bill of materials"),
    stella("stella.ops/vex@v1", "vex", Topic::Vex, "vulnerability exploitability exchange"),
    stella("stella.ops/vexDecision@v1", "vexDecision", Topic::Vex, "decision on a vulnerability"),
    stella("stella.ops/graph@v1", "graph", Topic::Reachability, "reachability graph"),
    stella("stella.ops/replay@v1", "replay", Topic::Reachability, "replay of a scan"),
    stella("stella.ops/policy@v1", "policy", Topic::Other, "policy evaluation"),
    stella("stella.ops/evidence@v1", "evidence", Topic::Other, "bundle of evidence"),
    stella("stella.ops/report@v1", "report", Topic::Other, "scan report"),
    public("https://stella-ops.org/attestations/sbom/1", Topic::Bom, "software bill of materials, public form"),
    public("https://stella-ops.org/attestations/report/1", Topic::Other, "scan report, public form"),
    public("https://slsa.dev/provenance/v0.2", Topic::Other, "SLSA provenance v0.2"),
    public("https://slsa.dev/provenance/v1", Topic::Other, "SLSA provenance v1"),
    public("https://slsa.dev/verification_summary/v1", Topic::Other, "SLSA verification summary"),
    public("https://cyclonedx.org/bom", Topic::Bom, "CycloneDX"),
    public("https://cyclonedx.org/bom/v1.4", Topic::Bom, "CycloneDX 1.4"),
    public("https://cyclonedx.org/bom/v1.5", Topic::Bom, "CycloneDX 1.5"),
    public("https://cyclonedx.org/bom/v1.6", Topic::Bom, "CycloneDX 1.6"),
    public("https://cyclonedx.org/bom/v1.7", Topic::Bom, "CycloneDX 1.7"),
    public("https://spdx.dev/Document", Topic::Bom, "SPDX"),
    public("https://spdx.dev/Document/v2.3", Topic::Bom, "SPDX 2.3"),
    public("https://spdx.dev/Document/v3", Topic::Bom, "SPDX 3"),
    public("https://openvex.dev/ns", Topic::Vex, "OpenVEX"),
    public("https://openvex.dev/ns/v0.2.0", Topic::Vex, "OpenVEX 0.2.0"),
    public("https://in-toto.io/attestation/test-result/v0.1", Topic::Other, "test result"),
    public("https://in-toto.io/attestation/vulns/v0.1", Topic::Other, "vulnerability scan v0.1"),
    public("https://in-toto.io/attestation/vulns/v0.2", Topic::Other, "vulnerability scan v0.2"),
    public("https://cosign.sigstore.dev/attestation/vuln/v1", Topic::Other, "vulnerability scan of cosign"),
    public("https://in-toto.io/attestation/link/v0.3", Topic::Other, "in-toto link"),
    public("https://in-toto.io/attestation/release/v0.1", Topic::Other, "release"),
    public("https://in-toto.io/attestation/reference/v0.1", Topic::Other, "references to other documents"),
    public("https://in-toto.io/attestation/runtime-trace/v0.1", Topic::Other, "runtime trace"),
    public("https://in-toto.io/attestation/scai/v0.3", Topic::Other, "SCAI attribute report v0.3"),
    public("https://in-toto.io/attestation/scai/attribute-report/v0.2", Topic::Other, "SCAI attribute report v0.2"),
    public("https://in-toto.io/attestation/svr/v0.2", Topic::Other, "simple verification result"),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::statement::json::{Document, JsonLimits};

    fn is_reachability(uri: &str, predicate: &'static str) -> bool {
        let document = Document::parse(predicate.into(), &JsonLimits::default()).unwrap();
        find(uri).unwrap().is_reachability(document.root())
    }

    #[test]
    fn every_type_of_the_contract_is_known_and_none_twice() {
        for short in ["promotion", "sbom", "vex", "vexDecision", "graph", "replay", "policy", "evidence", "report"] {
            assert_eq!(named(short).unwrap().uri, format!("stella.ops/{short}@v1"));
        }
        let uris: HashSet<_> = list().iter().map(|known| known.uri).collect();
        assert_eq!(uris.len(), list().len());
    }

    #[test]
    fn a_statement_cannot_be_made_that_is_an_image_signature() {
        assert_eq!(find("https://sigstore.dev/cosign/sign/v1"), None);
    }

    #[test]
    fn a_type_is_found_by_its_exact_spelling_alone() {
        for wrong in
            ["", "sbom", "stella.ops/sbom", "stella.ops/SBOM@v1", "stella.ops/sbom@v1 ", "https://slsa.dev/provenance"]
        {
            assert_eq!(find(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn vex_is_about_vulnerabilities_and_reachability_when_it_says_so() {
        let vex: Vec<_> = list().iter().filter(|known| known.is_vex()).map(|known| known.uri).collect();
        assert_eq!(
            vex,
            [
                "stella.ops/vex@v1",
                "stella.ops/vexDecision@v1",
                "https://openvex.dev/ns",
                "https://openvex.dev/ns/v0.2.0"
            ]
        );
        assert!(is_reachability("stella.ops/graph@v1", "{}"));
        assert!(is_reachability("stella.ops/replay@v1", "{}"));
        assert!(!is_reachability("stella.ops/vex@v1", r#"{"statements":[{"reachability":null}]}"#));
        assert!(is_reachability("stella.ops/vex@v1", r#"{"reachability":{"state":"reachable"}}"#));
        assert!(is_reachability("stella.ops/vex@v1", r#"{"statements":[{},{"reachability":[]}]}"#));
        assert!(!is_reachability("stella.ops/vexDecision@v1", r#"{"reachability":{}}"#));
    }

    #[test]
    fn a_tenant_has_what_is_listed_and_a_star_is_all() {
        let some = Allowed::new(&["stella.ops/sbom@v1".to_owned()]).unwrap();
        assert!(some.contains(find("stella.ops/sbom@v1").unwrap()));
        assert!(!some.contains(find("stella.ops/vex@v1").unwrap()));
        let all = Allowed::new(&["*".to_owned()]).unwrap();
        assert!(list().iter().all(|known| all.contains(known)));
        assert_eq!(Allowed::new(&["sbom".to_owned()]).unwrap_err(), UnknownPredicateType("sbom".to_owned()));
    }
}
