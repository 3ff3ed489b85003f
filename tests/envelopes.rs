//! Verifiers that are not ours accept what the signer returns, and refuse it once a byte of it is changed.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use testkit::{Fixture, base64, envelope, sample};

/// A fixture, one signed SBOM, and files that verifiers read.
struct Signed {
    fixture: Fixture,
    envelope: Value,
    sigstore: Value,
}

impl Signed {
    fn start() -> Self {
        let fixture = Fixture::start();
        let sign = |form: &str| {
            let call =
                fixture.client().sign(&sample::request()).body(|body| body["options"] = json!({"returnBundle": form}));
            call.send().expect(200)
        };
        let (envelope, sigstore) =
            (sign("dsse").envelope_json(), sign("sigstore").json()["bundle"]["sigstore"].clone());
        Self { fixture, envelope, sigstore }
    }

    fn public_key(&self) -> &Path {
        &self.fixture.keys.acme.public_key
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.fixture.dir().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// The envelope with another payload: one digit of the subject's digest differs.
    fn tampered(&self) -> Value {
        let payload = envelope::Envelope::read(&self.envelope).unwrap().payload;
        let changed = String::from_utf8(payload).unwrap().replace(sample::SUBJECT_SHA256, OTHER_SHA256);
        let mut envelope = self.envelope.clone();
        envelope["payload"] = json!(base64(changed));
        envelope
    }
}

const OTHER_SHA256: &str = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn openssl_verifies_the_signature_over_the_pae_and_refuses_another_payload() {
    let signed = Signed::start();
    let verify = |json: &Value| {
        let envelope = envelope::Envelope::read(json).unwrap();
        let (pae, signature) = (signed.write("pae.bin", envelope.pae()), signed.write("sig.der", envelope.signature));
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-verify"]).arg(signed.public_key()).arg("-signature").arg(signature).arg(pae);
        openssl.output().unwrap()
    };
    assert!(succeeds(&verify(&signed.envelope)));
    assert!(!succeeds(&verify(&signed.tampered())));
}

#[test]
fn the_keyid_is_the_ssh_fingerprint_of_the_tokens_key() {
    let signed = Signed::start();
    let expected = envelope::keyid(&signed.fixture.keys.acme.point);
    assert_eq!(signed.envelope["signatures"][0]["keyid"], expected.as_str());
    assert_eq!(signed.sigstore["verificationMaterial"]["publicKey"]["hint"], expected.as_str());
}

mod securesystemslib {
    use super::*;

    #[test]
    #[ignore = "needs securesystemslib: cargo xtask test envelopes"]
    fn verifies_the_envelope_and_refuses_another_payload() {
        let signed = Signed::start();
        let keyid = signed.envelope["signatures"][0]["keyid"].as_str().unwrap();
        let verify = |envelope: &Value| {
            let file = signed.write("envelope.json", envelope.to_string());
            let script = testkit::peers::sources().join("python/verify_envelope.py");
            let mut python = Command::new(testkit::peers::python().unwrap());
            python.arg(script).arg(signed.public_key()).arg(keyid).arg(file).output().unwrap()
        };
        assert!(succeeds(&verify(&signed.envelope)));
        let refused = verify(&signed.tampered());
        assert!(String::from_utf8_lossy(&refused.stderr).starts_with("refused: "), "{refused:?}");
    }
}

mod cosign {
    use super::*;

    #[test]
    #[ignore = "needs cosign: cargo xtask test envelopes"]
    fn verifies_the_sigstore_bundle_by_the_tokens_key() {
        let signed = Signed::start();
        assert!(succeeds(&verify(&signed, &signed.sigstore, "stella.ops/sbom@v1", sample::SUBJECT_SHA256)));
    }

    #[test]
    #[ignore = "needs cosign: cargo xtask test envelopes"]
    fn refuses_another_payload_another_subject_and_another_type() {
        let signed = Signed::start();
        let mut tampered = signed.sigstore.clone();
        tampered["dsseEnvelope"]["payload"] = signed.tampered()["payload"].clone();
        assert!(!succeeds(&verify(&signed, &tampered, "stella.ops/sbom@v1", OTHER_SHA256)));
        assert!(!succeeds(&verify(&signed, &signed.sigstore, "stella.ops/sbom@v1", OTHER_SHA256)));
        assert!(!succeeds(&verify(&signed, &signed.sigstore, "stella.ops/vex@v1", sample::SUBJECT_SHA256)));
    }

    fn verify(signed: &Signed, bundle: &Value, predicate_type: &str, digest: &str) -> Output {
        let bundle = signed.write("bundle.sigstore.json", bundle.to_string());
        let mut cosign = Command::new(testkit::peers::cosign().unwrap());
        cosign
            .args(["verify-blob-attestation", "--insecure-ignore-tlog", "--key"])
            .arg(signed.public_key())
            .args(["--type", predicate_type, "--digest", digest, "--digestAlg", "sha256", "--bundle"])
            .arg(bundle)
            // cosign keeps a trust root in its home; it must neither find one there nor leave one.
            .env("HOME", signed.fixture.dir());
        cosign.output().unwrap()
    }
}

/// Whether a verifier said yes; what it printed is shown when the test fails.
fn succeeds(output: &Output) -> bool {
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output.status.success()
}
