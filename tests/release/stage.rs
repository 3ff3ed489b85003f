//! What the tests have in common: identities that sign, a registry to put it into, and the releases that judge it.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};
use stellaops_signer::config::{Release, ReleaseIdentity, Repository};
use stellaops_signer::release::{ReleaseError, TrustedRelease, TrustedReleases};
use stellaops_signer::telemetry::ReleaseMetrics;
use testkit::ct_log::LogKey;
use testkit::registry::{BUNDLE, Descriptor, Registry, SIMPLE_SIGNING, descriptor, manifest};
use testkit::{base64, hex, pem, runtime, sha256};

/// A registry, a release key, an image.
pub(crate) struct Stage {
    pub(crate) registry: Registry,
    pub(crate) key: KeyPair,
    /// `sha256:…`.
    pub(crate) image: String,
    pub(crate) dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("release.pub"), key.public_key_pem()).unwrap();
        let image = format!("sha256:{}", hex(sha256(testkit::random_id())));
        let registry = Registry::start().unwrap();
        registry.referrers(&image, &[]);
        Self { registry, key, image, dir }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `[release]` with one key and one repository.
    pub(crate) fn config(&self) -> Release {
        Release {
            identity: vec![key_identity("release team", self.file("release.pub"))],
            repository: vec![repository(&self.registry.repository())],
            ..Release::default()
        }
    }

    pub(crate) fn releases(&self) -> TrustedReleases {
        releases(&self.config())
    }

    pub(crate) fn check(&self) -> Result<TrustedRelease, ReleaseError> {
        check(&self.releases(), &self.image)
    }

    /// The reason why the image is not trusted.
    #[track_caller]
    pub(crate) fn refusal(&self) -> &'static str {
        let error = self.check().expect_err("it must not be trusted");
        assert_eq!(error.code(), "release_untrusted", "{error}");
        error.reason()
    }

    /// A statement about `image`, signed, in a bundle.
    pub(crate) fn bundle(&self, image: &str, predicate_type: &str) -> Value {
        let payload = statement(image, predicate_type);
        bundle(&payload, &sign_dsse(&self.key, &payload), &json!({ "publicKey": { "hint": "x" } }))
    }

    /// A good bundle.
    pub(crate) fn good(&self) -> Value {
        self.bundle(&self.image, SIGN)
    }

    /// Puts a bundle into the registry, attached to the image; returns the descriptor of its manifest.
    pub(crate) fn attach(&self, bundle: &Value) -> Descriptor {
        let layer = self.registry.blob(BUNDLE, bundle.to_string().as_bytes());
        let manifest = manifest(BUNDLE, Some(&self.image), &[layer]).to_string();
        self.registry.manifest(manifest.as_bytes()).with("artifactType", BUNDLE)
    }

    /// Attaches these bundles, and nothing else.
    pub(crate) fn attach_all(&self, bundles: &[Value]) {
        let manifests: Vec<Descriptor> = bundles.iter().map(|bundle| self.attach(bundle)).collect();
        self.registry.referrers(&self.image, &manifests);
    }

    /// A layer of simple signing.
    pub(crate) fn simple(&self, payload: &str, signature: &[u8]) -> Descriptor {
        let layer = self.registry.blob(SIMPLE_SIGNING, payload.as_bytes());
        layer.annotated("dev.cosignproject.cosign/signature", &base64(signature))
    }

    /// Puts layers under cosign's tag.
    pub(crate) fn tag(&self, layers: &[Descriptor]) {
        let tag = format!("{}.sig", self.image.replace(':', "-"));
        let text = manifest("application/vnd.oci.image.config.v1+json", None, layers).to_string();
        self.registry.tag(&tag, testkit::registry::MANIFEST, text.as_bytes());
    }
}

pub(crate) fn releases(config: &Release) -> TrustedReleases {
    TrustedReleases::new(config, runtime().handle(), ReleaseMetrics::unseen()).unwrap()
}

pub(crate) fn check(releases: &TrustedReleases, image: &str) -> Result<TrustedRelease, ReleaseError> {
    runtime().block_on(releases.check(image, &Arc::from("acme")))
}

pub(crate) fn key_identity(name: &str, public_key: PathBuf) -> ReleaseIdentity {
    ReleaseIdentity {
        name: name.to_owned(),
        public_key: Some(public_key),
        san: None,
        issuer: None,
        notation: None,
        trusted_root: None,
        require_time: false,
        require_sct: true,
        not_before: None,
        not_after: None,
    }
}

pub(crate) fn repository(url: &str) -> Repository {
    Repository {
        url: url.to_owned(),
        ca: None,
        certificate: None,
        private_key: None,
        credentials: None,
        token_service: None,
        redirects: Vec::new(),
    }
}

pub(crate) fn statement(image: &str, predicate_type: &str) -> String {
    let hex = image.strip_prefix("sha256:").unwrap();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": hex } }],
        "predicateType": predicate_type,
        "predicate": {},
    })
    .to_string()
}

pub(crate) fn sign_dsse(key: &KeyPair, payload: &str) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} {payload}", PAYLOAD_TYPE.len(), payload.len());
    key.sign(head.as_bytes()).unwrap()
}

pub(crate) fn bundle(payload: &str, signature: &[u8], material: &Value) -> Value {
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": material,
        "dsseEnvelope": {
            "payloadType": PAYLOAD_TYPE, "payload": base64(payload), "signatures": [{ "sig": base64(signature) }],
        },
    })
}

/// Of the signature in a bundle, in hexadecimal.
pub(crate) fn signature_sha256(bundle: &Value) -> String {
    let signature = bundle["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap();
    hex(sha256(testkit::from_base64(signature).unwrap()))
}

pub(crate) fn simple_payload(image: &str) -> String {
    json!({
        "critical": {
            "identity": { "docker-reference": "registry.example/team/scanner" },
            "image": { "docker-manifest-digest": image },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
}

/// An entry of a transparency log about a DSSE bundle, as the bundle has it.
pub(crate) fn log_entry(log: &KeyPair, payload: &str, signature: &[u8], certificate: &[u8], time: i64) -> Value {
    let body = json!({
        "apiVersion": "0.0.1", "kind": "dsse",
        "spec": {
            "envelopeHash": { "algorithm": "sha256", "value": "00".repeat(32) },
            "payloadHash": { "algorithm": "sha256", "value": hex(sha256(payload)) },
            "signatures": [{ "signature": base64(signature), "verifier": base64(pem("CERTIFICATE", certificate)) }],
        },
    });
    let (body, id) = (base64(body.to_string()), sha256(log.subject_public_key_info()));
    // A tree with this one leaf (RFC 6962, section 2.1); we do not look at it, and others do.
    let root = sha256([&[0], testkit::from_base64(&body).unwrap().as_slice()].concat());
    let checkpoint = format!("rekor.test - 1\n1\n{}\n", base64(root));
    let named = [&id[..4], &log.sign(checkpoint.as_bytes()).unwrap()].concat();
    let checkpoint = format!("{checkpoint}\n\u{2014} rekor.test {}\n", base64(named));
    let promised = format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"{}","logIndex":5}}"#, hex(id));
    json!({
        "logIndex": "5", "logId": { "keyId": base64(id) }, "kindVersion": { "kind": "dsse", "version": "0.0.1" },
        "integratedTime": time.to_string(),
        "inclusionPromise": { "signedEntryTimestamp": base64(log.sign(promised.as_bytes()).unwrap()) },
        "inclusionProof": {
            "logIndex": "0", "rootHash": base64(root), "treeSize": "1", "hashes": [], "checkpoint": { "envelope": checkpoint },
        },
        "canonicalizedBody": body,
    })
}

/// An entry about a simple signing payload, as cosign has it in an annotation.
pub(crate) fn log_annotation(log: &KeyPair, payload: &str, signature: &[u8], certificate: &[u8], time: i64) -> Value {
    let body = json!({
        "apiVersion": "0.0.1", "kind": "hashedrekord",
        "spec": {
            "data": { "hash": { "algorithm": "sha256", "value": hex(sha256(payload)) } },
            "signature": {
                "content": base64(signature),
                "publicKey": { "content": base64(pem("CERTIFICATE", certificate)) },
            },
        },
    });
    let (body, id) = (base64(body.to_string()), hex(sha256(log.subject_public_key_info())));
    let promised = format!(r#"{{"body":"{body}","integratedTime":{time},"logID":"{id}","logIndex":7}}"#);
    json!({
        "SignedEntryTimestamp": base64(log.sign(promised.as_bytes()).unwrap()),
        "Payload": { "body": body, "integratedTime": time, "logIndex": 7, "logID": id },
    })
}

/// A trusted root with a Fulcio, a CT log and a transparency log.
pub(crate) fn trusted_root(ca: &testkit::fulcio_ca::FulcioCa, ct: &LogKey, log: Option<&KeyPair>) -> Value {
    let mut root = testkit::trusted_root::TrustedRoot::new().certificate_authority(&ca.chain()).ct_log(ct).json();
    if let Some(log) = log {
        let spki = log.subject_public_key_info();
        root["tlogs"] = json!([{
            "baseUrl": "https://rekor.test", "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": base64(&spki), "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": { "start": "2024-01-01T00:00:00Z" },
            },
            "logId": { "keyId": base64(sha256(&spki)) },
        }]);
    }
    root
}

/// Something else that is in the registry and attached to the image.
pub(crate) fn stray(stage: &Stage, kind: &str, number: usize) -> Descriptor {
    let layer = stage.registry.blob("text/plain", format!("stray {number}").as_bytes());
    let text = manifest(kind, Some(&stage.image), &[layer]).to_string();
    stage.registry.manifest(text.as_bytes()).with("artifactType", kind)
}

pub(crate) fn named(kind: &str, number: usize) -> Descriptor {
    descriptor(testkit::registry::MANIFEST, format!("nothing {number}").as_bytes()).with("artifactType", kind)
}

/// What a release signature says.
pub(crate) const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
