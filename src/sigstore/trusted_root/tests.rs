#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testkit::sigstore::x509::SigningKey;
use testkit::sigstore::{CtLog as MadeLog, Fulcio, Tsa};

use super::*;

const NOW: i64 = 1_800_000_000;

fn sample() -> Value {
    let (fulcio, log, tsa) = (Fulcio::new(NOW), MadeLog::new(), Tsa::new(NOW));
    testkit::sigstore::trusted_root(Some(&fulcio), &[&log], &[&tsa], NOW)
}

fn read(json: &Value) -> Result<TrustedRoot, TrustedRootError> {
    TrustedRoot::from_json(json.to_string().as_bytes())
}

#[test]
fn what_is_written_is_what_was_read() {
    let json = sample();
    let root = read(&json).unwrap();
    assert_eq!(root.certificate_authorities[0].chain.len(), 2);
    assert_eq!(serde_json::from_str::<Value>(&root.to_json()).unwrap(), json);
}

#[test]
fn members_of_the_specification_are_taken_and_others_are_errors() {
    let mut json = sample();
    json["tlogs"] = json!([{ "baseUrl": "https://rekor.example" }]);
    json["certificateAuthorities"][0]["subject"] = json!({ "organization": "a", "commonName": "b" });
    json["ctlogs"][0]["operator"] = json!("somebody");
    assert!(read(&json).is_ok());
    json["certificateAuthorites"] = json!([]);
    let error = read(&json).unwrap_err().to_string();
    assert!(error.contains("certificateAuthorites"), "{error}");
    let twice = sample().to_string().replacen('{', "{\"tlogs\":[],", 1);
    assert!(TrustedRoot::from_json(twice.as_bytes()).is_err());
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let spelled = "application/vnd.dev.sigstore.trustedroot.v0.1+json";
    let p384 = testkit::base64(SigningKey::p384().spki());
    let rsa = testkit::base64(SigningKey::rsa().spki());
    for (pointer, value, expected) in [
        ("/mediaType", json!(spelled), "it must be application/vnd.dev.sigstore.trustedroot+json;version=0.1"),
        ("/certificateAuthorities/0/certChain/certificates", json!([]), "certificateAuthorities[0].certChain"),
        ("/certificateAuthorities/0/certChain/certificates/0/rawBytes", json!("AA=="), "no DER X.509"),
        ("/certificateAuthorities/0/certChain/certificates/0/rawBytes", json!("AA"), "is not padded standard base64"),
        ("/certificateAuthorities/0/validFor/start", json!("yesterday"), "RFC 3339"),
        ("/timestampAuthorities/0/validFor/end", json!("2020-01-01T00:00:00Z"), "ends before it starts"),
        ("/ctlogs/0/logId/keyId", json!("AAAA"), "the SHA-256 of the public key"),
        ("/ctlogs/0/publicKey/rawBytes", json!(p384), "ctlogs[0].publicKey.rawBytes"),
        ("/ctlogs/0/publicKey/rawBytes", json!(rsa), "must be PKIX_RSA_PKCS1V15_2048_SHA256"),
        ("/ctlogs/0/hashAlgorithm", json!("SHA2_512"), "must be SHA2_256"),
    ] {
        let mut json = sample();
        *json.pointer_mut(pointer).unwrap() = value;
        let error = read(&json).unwrap_err().to_string();
        assert!(error.contains(expected), "{pointer}: {error}");
    }
}

#[test]
fn a_chain_is_in_order_or_no_chain() {
    let (fulcio, other) = (Fulcio::new(NOW), Fulcio::new(NOW));
    let valid_for = ValidFor { start: UnixTime(0), end: None };
    let chain = |chain: Vec<&Vec<u8>>| {
        let chain = chain.into_iter().cloned().map(CertificateDer::from).collect();
        Authority::new(String::new(), chain, valid_for).is_ok()
    };
    let (intermediate, root) = (&fulcio.intermediate.certificate, &fulcio.root.certificate);
    assert!(chain(vec![intermediate, root]));
    assert!(chain(vec![root]));
    assert!(chain(vec![intermediate]));
    assert!(!chain(vec![root, intermediate]));
    assert!(!chain(vec![intermediate, &other.root.certificate]));
    assert!(!chain(vec![]));
    let tsa = Tsa::new(NOW);
    assert!(chain(vec![&tsa.signer.certificate, &tsa.root.certificate]));
    assert!(!chain(vec![&tsa.signer.certificate]), "no CA in it");
}
