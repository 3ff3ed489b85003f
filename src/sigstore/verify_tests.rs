#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use testkit::sigstore::fulcio::template;
use testkit::sigstore::tsa::Answer;
use testkit::sigstore::x509::SigningKey;
use testkit::sigstore::{CtLog, Fulcio, Tsa, trusted_root};

use super::*;
use crate::dsse::{PAYLOAD_TYPE, pae};
use crate::sigstore::Bundle;
use crate::sigstore::bundle::Signer;

const NOW: i64 = 1_800_000_000;
const LATER: i64 = NOW + 3 * 365 * 86_400;
const SAN: &str = "spiffe://example.org/signer";
const OIDC: &str = "https://authority.example";

struct Scene {
    fulcio: Fulcio,
    log: CtLog,
    tsa: Tsa,
    root: TrustedRoot,
    key: SigningKey,
    public: PublicKey,
    identity: Identity,
    statement: String,
}

impl Scene {
    fn new() -> Self {
        let (fulcio, log, tsa) = (Fulcio::new(NOW), CtLog::new(), Tsa::new(NOW));
        let json = trusted_root(Some(&fulcio), &[&log], &[&tsa], NOW).to_string();
        let root = TrustedRoot::from_json(json.as_bytes()).unwrap();
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": "a", "digest": { "sha256": "ab".repeat(32) } }],
            "predicateType": "stella.ops/sbom@v1",
            "predicate": {},
        });
        let key = SigningKey::p256();
        let public = PublicKey::from_sec1(key.public()).unwrap();
        let identity = Identity { san: SAN.to_owned(), issuer: OIDC.to_owned() };
        Self { fulcio, log, tsa, root, key, public, identity, statement: statement.to_string() }
    }

    fn signature(&self) -> Vec<u8> {
        self.key.sign(&pae(PAYLOAD_TYPE, self.statement.as_bytes()))
    }

    fn bundle(&self, signature: &[u8], keyless: bool, stamped: Option<i64>) -> Value {
        let mut material = if keyless {
            let leaf = self.fulcio.issue_logged(&template(self.key.spki(), SAN, OIDC, NOW), &self.log);
            json!({ "certificate": { "rawBytes": BASE64_STANDARD.encode(leaf) } })
        } else {
            json!({ "publicKey": { "hint": self.public.keyid() } })
        };
        material["tlogEntries"] = json!([]);
        if let Some(time) = stamped {
            let stamp = BASE64_STANDARD.encode(self.tsa.stamp(signature, &Answer::at(time)));
            material["timestampVerificationData"] = json!({ "rfc3161Timestamps": [{ "signedTimestamp": stamp }] });
        }
        let keyid = if keyless { "" } else { self.public.keyid() };
        json!({
            "mediaType": crate::sigstore::bundle::MEDIA_TYPE,
            "verificationMaterial": material,
            "dsseEnvelope": {
                "payloadType": PAYLOAD_TYPE,
                "payload": BASE64_STANDARD.encode(&self.statement),
                "signatures": [{ "keyid": keyid, "sig": BASE64_STANDARD.encode(signature) }],
            },
        })
    }

    fn judge<'d>(&'d self, bundle: &Value, change: impl FnOnce(&mut Demands<'d>)) -> Result<Verified, &'static str> {
        let bundle = Bundle::from_json(Bytes::from(bundle.to_string())).unwrap();
        let chain: Vec<CertificateDer<'static>> = match &bundle.material.signer {
            Signer::Certificate(leaf) => vec![leaf.clone()],
            Signer::Key(_) => Vec::new(),
        };
        let signer = match chain.is_empty() {
            true => Trusted::Key(&self.public),
            false => Trusted::Identity(&self.identity, SctPolicy::default()),
        };
        let evidence = Evidence { envelope: &bundle.envelope, chain: &chain, timestamps: &bundle.material.timestamps };
        let mut demands = Demands {
            signer,
            root: Some(&self.root),
            require_timestamp: false,
            asserted_time: None,
            max_certificate_lifetime: CertificatePolicy::OFFLINE.max_lifetime,
            now: UnixTime(LATER),
            digests: &[],
        };
        change(&mut demands);
        verify(&evidence, &demands).map_err(|error| error.reason())
    }
}

#[test]
fn a_stamped_keyless_bundle_verifies_years_later() {
    let scene = Scene::new();
    let verified = scene.judge(&scene.bundle(&scene.signature(), true, Some(NOW + 5)), |_| {}).unwrap();
    assert_eq!(verified.time, TimeSource::Timestamp(UnixTime(NOW + 5)));
    assert_eq!((verified.scts.len(), verified.timestamps.len()), (1, 1));
    assert_eq!(verified.certificate.unwrap().san.value(), SAN);
    assert_eq!(verified.statement.predicate_type, "stella.ops/sbom@v1");
}

#[test]
fn without_a_time_stamp_a_certificate_counts_while_it_lives_or_as_a_person_says() {
    let scene = Scene::new();
    let bundle = scene.bundle(&scene.signature(), true, None);
    assert_eq!(scene.judge(&bundle, |_| {}).unwrap_err(), "certificate_expired_without_timestamp");
    let live = scene.judge(&bundle, |demands| demands.now = UnixTime(NOW + 10)).unwrap();
    assert_eq!(live.time, TimeSource::Clock(UnixTime(NOW + 10)));
    let said = scene.judge(&bundle, |demands| demands.asserted_time = Some(UnixTime(NOW + 20))).unwrap();
    assert_eq!(said.time, TimeSource::Asserted(UnixTime(NOW + 20)));
    let wrong = scene.judge(&bundle, |demands| demands.asserted_time = Some(UnixTime(NOW + 700)));
    assert_eq!(wrong.unwrap_err(), "certificate_expired");
    let demanded = scene.judge(&bundle, |demands| {
        demands.now = UnixTime(NOW + 10);
        demands.require_timestamp = true;
    });
    assert_eq!(demanded.unwrap_err(), "timestamp_missing");
}

#[test]
fn a_stamp_outside_of_the_ten_minutes_or_of_other_bytes_does_not_help() {
    let scene = Scene::new();
    let signature = scene.signature();
    let late = scene.bundle(&signature, true, Some(NOW + 601));
    assert_eq!(scene.judge(&late, |_| {}).unwrap_err(), "certificate_expired");
    let early = scene.bundle(&signature, true, Some(NOW - 1));
    assert_eq!(scene.judge(&early, |_| {}).unwrap_err(), "certificate_not_yet_valid");
    // A person's word does not overrule a timestamp.
    let overruled = scene.judge(&late, |demands| demands.asserted_time = Some(UnixTime(NOW)));
    assert_eq!(overruled.unwrap_err(), "certificate_expired");
    let mut other = scene.bundle(&signature, true, Some(NOW));
    other["dsseEnvelope"]["signatures"][0]["sig"] = BASE64_STANDARD.encode(scene.signature()).into();
    assert_eq!(scene.judge(&other, |_| {}).unwrap_err(), "timestamp_imprint");
}

#[test]
fn a_certificate_may_live_as_long_as_the_verifier_allows() {
    let scene = Scene::new();
    let bundle = scene.bundle(&scene.signature(), true, Some(NOW));
    let of = |seconds| scene.judge(&bundle, |demands| demands.max_certificate_lifetime = Duration::from_secs(seconds));
    assert_eq!(of(599).unwrap_err(), "certificate_lifetime");
    assert!(of(600).is_ok());
}

#[test]
fn every_timestamp_is_one_at_which_the_pinned_fulcio_counts() {
    let scene = Scene::new();
    let signature = scene.signature();
    let mut bundle = scene.bundle(&signature, true, Some(NOW));
    let other = BASE64_STANDARD.encode(scene.tsa.stamp(&signature, &Answer::at(NOW + 300)));
    let stamps = &mut bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"];
    stamps.as_array_mut().unwrap().push(json!({ "signedTimestamp": other }));
    assert_eq!(scene.judge(&bundle, |_| {}).unwrap().timestamps.len(), 2);
    let mut ends = scene.root.clone();
    ends.certificate_authorities[0].valid_for.end = Some(UnixTime(NOW + 299));
    let judged = scene.judge(&bundle, |demands| demands.root = Some(&ends));
    assert_eq!(judged.unwrap_err(), "certificate_issuer_not_valid");
}

#[test]
fn the_same_timestamp_twice_is_refused() {
    let scene = Scene::new();
    let mut bundle = scene.bundle(&scene.signature(), true, Some(NOW));
    let stamps = &mut bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"];
    let again = stamps[0].clone();
    stamps.as_array_mut().unwrap().push(again);
    assert_eq!(scene.judge(&bundle, |_| {}).unwrap_err(), "timestamp_duplicate");
}

#[test]
fn a_fraction_of_a_second_after_the_certificate_is_after_it() {
    let scene = Scene::new();
    let signature = scene.signature();
    let fraction = |time| Answer { fraction: Some("9"), ..Answer::at(time) };
    for (time, reason) in [(NOW + 599, None), (NOW + 600, Some("certificate_expired"))] {
        let mut bundle = scene.bundle(&signature, true, Some(NOW));
        let stamp = BASE64_STANDARD.encode(scene.tsa.stamp(&signature, &fraction(time)));
        bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] =
            json!([{ "signedTimestamp": stamp }]);
        assert_eq!(scene.judge(&bundle, |_| {}).err(), reason);
    }
}

#[test]
fn identity_logs_signature_statement_and_artifact_are_each_demanded() {
    let scene = Scene::new();
    let bundle = scene.bundle(&scene.signature(), true, Some(NOW));
    let somebody = Identity { san: "spiffe://example.org/other".to_owned(), issuer: OIDC.to_owned() };
    let judged = scene.judge(&bundle, |demands| demands.signer = Trusted::Identity(&somebody, SctPolicy::default()));
    assert_eq!(judged.unwrap_err(), "certificate_san_mismatch");
    let mut unlogged = scene.root.clone();
    unlogged.ct_logs.clear();
    let judged = scene.judge(&bundle, |demands| demands.root = Some(&unlogged));
    assert_eq!(judged.unwrap_err(), "sct_unknown_log");
    assert_eq!(scene.judge(&bundle, |demands| demands.root = None).unwrap_err(), "no_trusted_root");
    let mut changed = bundle.clone();
    changed["dsseEnvelope"]["payload"] = BASE64_STANDARD.encode(scene.statement.replace("\"a\"", "\"b\"")).into();
    assert_eq!(scene.judge(&changed, |_| {}).unwrap_err(), "signature_invalid");
    let right = "ab".repeat(32);
    let digests = [("sha256", &*right), ("sha512", &*right)];
    assert!(scene.judge(&bundle, |demands| demands.digests = &digests[..1]).is_ok());
    let judged = scene.judge(&bundle, |demands| demands.digests = &digests);
    assert_eq!(judged.unwrap_err(), "subject_mismatch");
    let other = Scene { statement: scene.statement.replace("Statement/v1", "Statement/v0.1"), ..Scene::new() };
    let bundle = other.bundle(&other.signature(), true, Some(NOW));
    assert_eq!(other.judge(&bundle, |_| {}).unwrap_err(), "statement_invalid");
}

#[test]
fn a_key_needs_no_time_unless_one_is_demanded_and_a_false_stamp_is_never_passed_over() {
    let scene = Scene::new();
    let signature = scene.signature();
    let plain = scene.bundle(&signature, false, None);
    assert_eq!(scene.judge(&plain, |demands| demands.root = None).unwrap().time, TimeSource::None);
    assert_eq!(scene.judge(&plain, |demands| demands.require_timestamp = true).unwrap_err(), "timestamp_missing");
    let stamped = scene.bundle(&signature, false, Some(NOW));
    assert_eq!(scene.judge(&stamped, |demands| demands.require_timestamp = true).unwrap().timestamps.len(), 1);
    let other = scene.bundle(&scene.signature(), false, Some(NOW));
    let mut swapped = stamped.clone();
    swapped["verificationMaterial"] = other["verificationMaterial"].clone();
    assert_eq!(scene.judge(&swapped, |_| {}).unwrap_err(), "timestamp_imprint");
    // Of an authority that is not pinned: told, and no help.
    let mut unpinned = scene.root.clone();
    unpinned.timestamp_authorities.clear();
    assert_eq!(scene.judge(&stamped, |demands| demands.root = Some(&unpinned)).unwrap().foreign_timestamps, 1);
    let judged = scene.judge(&stamped, |demands| {
        demands.root = Some(&unpinned);
        demands.require_timestamp = true;
    });
    assert_eq!(judged.unwrap_err(), "timestamp_untrusted");
    let stranger = PublicKey::from_sec1(SigningKey::p256().public()).unwrap();
    let judged = scene.judge(&plain, |demands| demands.signer = Trusted::Key(&stranger));
    assert_eq!(judged.unwrap_err(), "key_mismatch");
}

#[test]
fn a_bundle_of_another_version_or_with_other_members_is_none() {
    let scene = Scene::new();
    let good = scene.bundle(&scene.signature(), true, Some(NOW));
    let read = |bundle: &Value| Bundle::from_json(Bytes::from(bundle.to_string())).map_err(|error| error.to_string());
    read(&good).unwrap();
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 8] = [
        (|b| b["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2".into(), "mediaType"),
        (|b| b["more"] = 1.into(), "$.more"),
        (|b| b["verificationMaterial"]["publicKey"] = json!({ "hint": "a" }), "and not both"),
        (|b| b["verificationMaterial"]["x509CertificateChain"] = json!({}), "x509CertificateChain"),
        (|b| b["verificationMaterial"]["certificate"]["rawBytes"] = "A".into(), "rawBytes"),
        (|b| b["dsseEnvelope"]["signatures"] = json!([]), "array of 1 signature"),
        (|b| b["dsseEnvelope"]["payloadType"] = "text/plain".into(), "payloadType"),
        (
            |b| b["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] = json!([{}]),
            "signedTimestamp",
        ),
    ];
    for (change, place) in changes {
        let mut bundle = good.clone();
        change(&mut bundle);
        let error = read(&bundle).unwrap_err();
        assert!(error.contains(place), "{error}");
    }
}
