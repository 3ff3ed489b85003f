//! `verify` of identities and timestamps, and the trust that it rests on.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::sigstore::fulcio::template;
use testkit::sigstore::tsa::Answer;
use testkit::sigstore::x509::SigningKey;
use testkit::sigstore::{CtLog, Fulcio, Tsa, trusted_root};
use testkit::{base64, now};

use crate::signing::{PAYLOAD_TYPE, Signer, pae, sigstore, statement};
use crate::{Run, signerctl};

const SAN: &str = "spiffe://example.org/signer";
const ISSUER: &str = "https://authority.example";

/// A folder with a trusted root, and everything that signed in it.
struct Desk {
    directory: TempDir,
    fulcio: Fulcio,
    log: CtLog,
    tsa: Tsa,
    key: SigningKey,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (fulcio, log, tsa) = (Fulcio::new(now()), CtLog::new(), Tsa::new(now()));
        let root = trusted_root(Some(&fulcio), &[&log], &[&tsa], now());
        fs::write(directory.path().join("root.json"), root.to_string()).unwrap();
        fs::write(directory.path().join("app.tar"), "artifact").unwrap();
        Self { directory, fulcio, log, tsa, key: SigningKey::p256() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn envelope(&self) -> Value {
        let payload = statement().to_string();
        let signature = self.key.sign(&pae(PAYLOAD_TYPE, payload.as_bytes()));
        json!({
            "payloadType": PAYLOAD_TYPE,
            "payload": base64(payload),
            "signatures": [{ "keyid": "", "sig": base64(signature) }],
        })
    }

    fn leaf(&self, issued: i64) -> Vec<u8> {
        self.fulcio.issue_logged(&template(self.key.spki(), SAN, ISSUER, issued), &self.log)
    }

    /// A keyless bundle whose certificate was issued at one time, and which was stamped at another.
    fn bundle(&self, issued: i64, stamped: Option<i64>) -> Value {
        let mut bundle = sigstore(&self.envelope());
        bundle["verificationMaterial"] = json!({ "certificate": { "rawBytes": base64(self.leaf(issued)) } });
        if let Some(at) = stamped {
            self.stamp(&mut bundle, at);
        }
        bundle
    }

    fn stamp(&self, bundle: &mut Value, at: i64) {
        let signature = bundle["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap();
        let stamp = self.tsa.stamp(&testkit::from_base64(signature).unwrap(), &Answer::at(at));
        bundle["verificationMaterial"]["timestampVerificationData"] =
            json!({ "rfc3161Timestamps": [{ "signedTimestamp": base64(stamp) }] });
    }

    fn verify(&self, content: &Value, more: &[&str]) -> Run {
        fs::write(self.path().join("b.json"), content.to_string()).unwrap();
        signerctl(self.path(), &[&["verify", "b.json"], more].concat())
    }

    fn identity(&self, content: &Value, more: &[&str]) -> Run {
        self.verify(content, &[&WHO[..], more].concat())
    }

    #[track_caller]
    fn rejects(&self, content: &Value, code: &str, more: &[&str]) {
        self.identity(content, more).fails(1, &["error: b.json: "]);
        let answer = self.identity(content, &[more, &["--json"]].concat()).json();
        assert_eq!((&answer["verified"], &answer["error"]["code"]), (&json!(false), &json!(code)), "{answer}");
    }
}

const WHO: [&str; 6] =
    ["--trusted-root", "root.json", "--certificate-identity", SAN, "--certificate-oidc-issuer", ISSUER];

#[test]
fn a_stamped_keyless_bundle_verifies_long_after_its_certificate_and_every_check_is_named() {
    let desk = Desk::new();
    let yesterday = now() - 86_400;
    let bundle = desk.bundle(yesterday, Some(yesterday + 2));
    let demands = ["--require-timestamp", "--subject-file", "app.tar", "--type", "sbom"];
    desk.identity(&bundle, &demands).succeeds(&[
        "verified b.json",
        "identity    spiffe://example.org/signer",
        "checked     validity: when it was stamped",
        "checked     sct: by the pinned CT log",
        "checked     timestamp: ",
    ]);
    let answer = desk.identity(&bundle, &[&demands[..], &["--json"]].concat()).json();
    let checks: Vec<&str> =
        answer["checks"].as_array().unwrap().iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(
        checks,
        [
            "payload type",
            "timestamp",
            "certificate",
            "validity",
            "identity",
            "oidc issuer",
            "sct",
            "signature",
            "statement",
            "type",
            "subject"
        ]
    );
    assert_eq!(answer["notChecked"], json!([]));
    assert_eq!(answer["time"]["source"], "timestamp");
    assert_eq!(answer["certificate"]["identity"], SAN);
}

#[test]
fn without_a_time_stamp_it_verifies_while_the_certificate_lives_or_by_a_persons_word_which_proves_nothing() {
    let desk = Desk::new();
    let live = desk.bundle(now() - 5, None);
    desk.identity(&live, &[]).succeeds(&["without a timestamp not for long"]);
    desk.rejects(&live, "timestamp_missing", &["--require-timestamp"]);
    let dead = desk.bundle(now() - 3600, None);
    desk.rejects(&dead, "certificate_expired_without_timestamp", &[]);
    desk.identity(&dead, &[]).fails(1, &["no timestamp proves that it was signed before", "--at"]);
    let said = |seconds: i64| testkit::sigstore::der::rfc3339(now() - 3600 + seconds);
    let run = desk.identity(&dead, &["--at", &said(60)]);
    run.succeeds(&["NOT PROVEN", "not checked that it was signed at the time of --at"]);
    let answer = desk.identity(&dead, &["--at", &said(60), "--json"]).json();
    assert_eq!((&answer["time"]["source"], &answer["time"]["proven"]), (&json!("asserted"), &json!(false)));
    desk.rejects(&dead, "certificate_expired", &["--at", &said(700)]);
}

#[test]
fn an_answer_with_a_certificate_chain_verifies_like_a_bundle() {
    let desk = Desk::new();
    let pem = |der: &[u8]| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(der));
    let chain = |issued: i64| json!([pem(&desk.leaf(issued)), pem(&desk.fulcio.intermediate.certificate)]);
    let answer = |chain: Value| json!({ "bundle": { "dsse": desk.envelope(), "certificateChain": chain, "mode": "keyless" }, "auditId": "a" });
    desk.identity(&answer(chain(now() - 5)), &[]).succeeds(&["verified", SAN]);
    desk.rejects(&answer(chain(now() - 3600)), "certificate_expired_without_timestamp", &[]);
    desk.rejects(&answer(json!([])), "no_certificate", &[]);
    desk.rejects(&answer(json!(["nothing"])), "not_an_envelope", &[]);
    // Two certificates: which of them counts is not said.
    let mut both = answer(chain(now() - 5));
    both["bundle"]["sigstore"] = desk.bundle(now() - 6, None);
    both["bundle"]["dsse"] = both["bundle"]["sigstore"]["dsseEnvelope"].clone();
    desk.rejects(&both, "ambiguous", &[]);
}

#[test]
fn no_other_identity_root_log_or_time_passes() {
    let desk = Desk::new();
    let good = desk.bundle(now() - 60, Some(now() - 55));
    for (option, value, code) in [
        ("--certificate-identity", "spiffe://example.org/other", "certificate_san_mismatch"),
        ("--certificate-oidc-issuer", "https://other.example", "certificate_oidc_issuer_mismatch"),
    ] {
        let mut arguments = WHO;
        let at = arguments.iter().position(|argument| *argument == option).unwrap();
        arguments[at + 1] = value;
        let answer = desk.verify(&good, &[&arguments[..], &["--json"]].concat()).json();
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    let stranger = Desk::new();
    desk.rejects(&stranger.bundle(now() - 60, None), "certificate_untrusted", &[]);
    let mut stamped_by_stranger = desk.bundle(now() - 60, None);
    stranger.stamp(&mut stamped_by_stranger, now() - 55);
    desk.rejects(&stamped_by_stranger, "timestamp_untrusted", &["--require-timestamp"]);
    let mut late = desk.bundle(now() - 3600, None);
    desk.stamp(&mut late, now() - 60);
    desk.rejects(&late, "certificate_expired", &[]);

    let unlogged = desk.fulcio.issue(&template(desk.key.spki(), SAN, ISSUER, now() - 60));
    let mut bundle = desk.bundle(now() - 60, None);
    bundle["verificationMaterial"] = json!({ "certificate": { "rawBytes": base64(unlogged) } });
    desk.rejects(&bundle, "sct_missing", &[]);
    desk.identity(&bundle, &["--insecure-ignore-sct"]).succeeds(&["not checked the promise of a CT log"]);
}

#[test]
fn a_key_can_be_demanded_with_a_time_stamp_and_a_certificate_beside_it_must_be_its_own() {
    let desk = Desk::new();
    let signer = Signer::new();
    signer.write_pem(desk.path(), "key.pem");
    let mut bundle = sigstore(&signer.envelope(&statement()));
    let key = ["--key", "key.pem"];
    let timed = ["--key", "key.pem", "--trusted-root", "root.json", "--require-timestamp"];
    desk.verify(&bundle, &timed).fails(1, &["it has no timestamp"]);
    desk.stamp(&mut bundle, now() - 86_400);
    desk.verify(&bundle, &timed).succeeds(&["checked     timestamp: "]);
    desk.verify(&bundle, &key).succeeds(&["not checked the RFC 3161 timestamp"]);
    let other = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(desk.leaf(now())));
    let answer = json!({ "bundle": { "dsse": signer.envelope(&statement()), "certificateChain": [other] } });
    desk.verify(&answer, &key).fails(1, &["a certificate for another key"]);
    desk.verify(&bundle, &WHO).fails(1, &["carries no certificate", "--key"]);
}

#[test]
fn half_an_identity_or_a_root_that_is_none_is_a_usage_error_or_named() {
    let desk = Desk::new();
    let bundle = desk.bundle(now(), None);
    for arguments in [
        &[][..],
        &["--certificate-identity", SAN],
        &["--certificate-identity", SAN, "--certificate-oidc-issuer", ISSUER],
        &["--certificate-identity", SAN, "--trusted-root", "root.json"],
        &["--key", "k.pem", "--require-timestamp"],
        &["--key", "k.pem", "--at", "2026-01-01T00:00:00Z"],
        &[&WHO[..], &["--key", "k.pem"]].concat(),
        &[&WHO[..], &["--at", "yesterday"]].concat(),
    ] {
        assert_eq!(desk.verify(&bundle, arguments).code, 2, "{arguments:?}");
    }
    fs::write(desk.path().join("root.json"), "{}").unwrap();
    desk.identity(&bundle, &[]).fails(6, &["root.json", "no trusted root"]);
}

fn write_pem(path: &Path, kind: &str, ders: &[&[u8]]) {
    let one = |der: &&[u8]| format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", base64(der));
    fs::write(path, ders.iter().map(one).collect::<String>()).unwrap();
}

#[test]
fn a_trusted_root_is_made_of_pem_files_and_verifies() {
    let desk = Desk::new();
    let at = desk.path();
    let (intermediate, root) = (&desk.fulcio.intermediate.certificate, &desk.fulcio.root.certificate);
    write_pem(&at.join("fulcio.pem"), "CERTIFICATE", &[intermediate, root]);
    write_pem(&at.join("tsa.pem"), "CERTIFICATE", &[&desk.tsa.signer.certificate, &desk.tsa.root.certificate]);
    write_pem(&at.join("ct.pem"), "PUBLIC KEY", &[&desk.log.key.spki()]);
    let make = [
        "trust",
        "make",
        "--fulcio-chain",
        "https://fulcio.example=fulcio.pem",
        "--ct-key",
        "ct.pem",
        "--tsa-chain",
        "tsa.pem",
        "--output",
        "made.json",
    ];
    signerctl(at, &make).succeeds(&["wrote made.json", "fulcio     https://fulcio.example", "tsa        (no URL)"]);
    signerctl(at, &make).fails(6, &["--force"]);
    let bundle = desk.bundle(now() - 60, Some(now() - 55));
    let mut who = WHO;
    who[1] = "made.json";
    desk.verify(&bundle, &[&who[..], &["--require-timestamp"]].concat()).succeeds(&["verified"]);
    // Added to what there is, nothing is there twice.
    let again = ["trust", "make", "--from", "made.json", "--from", "made.json", "--output", "-", "--json"];
    assert_eq!(signerctl(at, &again).json()["certificateAuthorities"], 1);

    write_pem(&at.join("wrong.pem"), "CERTIFICATE", &[root, intermediate]);
    let wrong = ["trust", "make", "--fulcio-chain", "wrong.pem", "--output", "wrong.json"];
    signerctl(at, &wrong).fails(6, &["wrong.pem", "is not signed by the next one"]);
    signerctl(at, &["trust", "make", "--output", "x.json"]).fails(2, &["nothing to trust"]);
}

#[test]
fn the_commands_in_a_kit_verify_what_it_is_for() {
    let desk = Desk::new();
    let at = desk.path();
    let signer = Signer::new();
    fs::write(at.join("jwks"), json!({ "keys": [signer.jwk()] }).to_string()).unwrap();
    let export = ["trust", "export", "--out", "kit", "--keys", "jwks", "--trusted-root", "root.json"];
    signerctl(at, &export).succeeds(&["trusted_root.json", "fulcio.pem", "tsa.pem", "keys/release.pem", "README.txt"]);
    signerctl(at, &export).fails(6, &["is not empty"]);
    let kit = at.join("kit");
    let readme = fs::read_to_string(kit.join("README.txt")).unwrap();
    assert!(readme.contains(&signer.keyid()), "{readme}");

    let yesterday = now() - 86_400;
    fs::write(kit.join("app.tar"), "artifact").unwrap();
    let mut keyful = sigstore(&signer.envelope(&statement()));
    desk.stamp(&mut keyful, yesterday);
    fs::write(kit.join("keyful.json"), keyful.to_string()).unwrap();
    fs::write(kit.join("keyless.json"), desk.bundle(yesterday, Some(yesterday + 1)).to_string()).unwrap();

    let mut ran = 0;
    for line in readme.lines().filter_map(|line| line.strip_prefix("    signerctl ")) {
        let file = if line.contains("certificate-identity") { "keyless.json" } else { "keyful.json" };
        let words: Vec<&str> = line
            .split(' ')
            .map(|word| match word {
                "ENVELOPE" => file,
                "ARTIFACT" => "app.tar",
                "TYPE" => "stella.ops/sbom@v1",
                "SAN" => SAN,
                "ISSUER" => ISSUER,
                word => word,
            })
            .collect();
        signerctl(&kit, &words).succeeds(&["verified"]);
        ran += 1;
    }
    assert_eq!(ran, 3, "{readme}");

    let shell = |commands: &[&str], bundle: &str, key: &str| {
        let script: String = commands.iter().map(|line| format!("{line}\n")).collect();
        let script = script.replace("BUNDLE", bundle).replace("KEY.pem", key);
        let ran = Command::new("sh").arg("-euc").arg(&script).current_dir(&kit).output().unwrap();
        assert!(ran.status.success(), "{script}\n{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    let commands: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| ["jq ", "openssl ", "(printf "].iter().any(|start| line.starts_with(start)))
        .collect();
    assert_eq!(commands.len(), 12, "{commands:#?}");
    let (signature, rest) = commands.split_at(5);
    let (certificate, stamp) = rest.split_at(4);
    let digest = crate::signing::sha256_hex(b"artifact");
    let said = shell(signature, "keyful.json", "keys/release.pem");
    assert!(said.contains("Verified OK") && said.contains(&digest), "{said}");
    shell(stamp, "keyful.json", "");
    shell(certificate, "keyless.json", "leaf.pem");
    let said = shell(signature, "keyless.json", "leaf.pem");
    assert!(said.contains("Verified OK") && said.contains(&digest), "{said}");
    shell(stamp, "keyless.json", "");
}

#[test]
fn the_kit_of_an_appliance_has_what_its_configuration_names() {
    let desk = Desk::new();
    let at = desk.path();
    let signer = Signer::new();
    signer.write_pem(at, "key.pem");
    let (fulcio, tsa, then) = (Fulcio::new(now()), Tsa::new(now()), now());
    let (other_fulcio, other_tsa) = (Fulcio::new(now()), Tsa::new(now()));
    // Each file has more than the appliance looks at in it.
    for (name, root) in [
        ("fulcio.json", trusted_root(Some(&fulcio), &[], &[&other_tsa], then)),
        ("tsa.json", trusted_root(Some(&other_fulcio), &[&CtLog::new()], &[&tsa], then)),
    ] {
        fs::write(at.join(name), root.to_string()).unwrap();
    }
    fs::write(at.join("signer.toml"), include_str!("../../docs/signer.example.toml")).unwrap();
    fs::create_dir(at.join("signer.toml.d")).unwrap();
    let here = at.display();
    let drop_in = format!(
        r#"
            keys.acme-2026.public_key = "{here}/key.pem"
            custody.history = "{here}/history.jsonl"
            tenants.acme.keyless = {{ identity = "workload", san = "{SAN}" }}
            [keyless]
            fulcio_url = "https://fulcio.example"
            ca = "{here}/ca.pem"
            trusted_root = "{here}/fulcio.json"
            max_certificate_lifetime = "20m"
            identity.workload = {{ source = {{ file = "/run/token" }}, issuer = "{ISSUER}" }}
            [timestamps]
            trusted_root = "{here}/tsa.json"
            authority.main.url = "https://tsa.example"
        "#
    );
    fs::write(at.join("signer.toml.d/50-test.toml"), drop_in).unwrap();
    let run = signerctl(at, &["trust", "export", "--config", "signer.toml", "--out", "kit"]);
    run.succeeds(&["keys/acme-2026.pem", "fulcio     https://fulcio.example", "tsa        https://tsa.example"]);
    let kit = |name: &str| fs::read_to_string(at.join("kit").join(name)).unwrap();
    let exported: Value = serde_json::from_str(&kit("trusted_root.json")).unwrap();
    assert_eq!(exported, trusted_root(Some(&fulcio), &[], &[&tsa], then));
    assert!(kit("keys.json").contains(&signer.keyid()));
    let readme = kit("README.txt");
    for words in [
        format!("SAN={SAN}"),
        format!("ISSUER={ISSUER}"),
        "--insecure-ignore-sct".to_owned(),
        "--max-certificate-lifetime 1230s --require-timestamp".to_owned(),
    ] {
        assert!(readme.contains(&words), "{readme}");
    }
}

#[test]
fn a_kit_without_a_timestamp_authority_demands_no_timestamp() {
    let desk = Desk::new();
    let at = desk.path();
    let root = trusted_root(Some(&desk.fulcio), &[&desk.log], &[], now());
    fs::write(at.join("untimed.json"), root.to_string()).unwrap();
    fs::write(at.join("jwks"), json!({ "keys": [] }).to_string()).unwrap();
    let export = ["trust", "export", "--out", "kit", "--keys", "jwks", "--trusted-root", "untimed.json"];
    signerctl(at, &export).succeeds(&["fulcio.pem"]);
    let readme = fs::read_to_string(at.join("kit/README.txt")).unwrap();
    for words in ["--require-timestamp", "--use-signed-timestamps", "cosign verify-blob"] {
        assert!(!readme.contains(words), "{readme}");
    }
    assert!(readme.contains("by --at TIME"), "{readme}");
}

#[test]
fn a_certificate_that_lives_longer_verifies_where_the_verifier_allows_it() {
    let desk = Desk::new();
    let issued = now() - 60;
    let mut long = template(desk.key.spki(), SAN, ISSUER, issued);
    long.not_after = issued + 1200;
    let mut bundle = desk.bundle(issued, Some(now() - 55));
    let leaf = desk.fulcio.issue_logged(&long, &desk.log);
    bundle["verificationMaterial"]["certificate"]["rawBytes"] = base64(leaf).into();
    desk.rejects(&bundle, "certificate_lifetime", &[]);
    desk.rejects(&bundle, "certificate_lifetime", &["--max-certificate-lifetime", "19m"]);
    desk.identity(&bundle, &["--max-certificate-lifetime", "20m"]).succeeds(&["verified"]);
    assert_eq!(desk.identity(&bundle, &["--max-certificate-lifetime", "long"]).code, 2);
}

#[test]
fn a_key_counts_while_its_publisher_says_that_it_signs() {
    let desk = Desk::new();
    let signer = Signer::new();
    let stamped = now() - 3600;
    let mut bundle = sigstore(&signer.envelope(&statement()));
    let unstamped = bundle.clone();
    desk.stamp(&mut bundle, stamped);
    let verify = |bundle: &Value, about: Value, root: bool| {
        let mut jwk = signer.jwk();
        for (member, value) in about.as_object().unwrap() {
            jwk[member] = value.clone();
        }
        fs::write(desk.path().join("jwks"), json!({ "keys": [jwk] }).to_string()).unwrap();
        let more: &[&str] = if root { &["--trusted-root", "root.json"] } else { &[] };
        desk.verify(bundle, &[&["--keys", "jwks"], more].concat())
    };
    let at = testkit::sigstore::der::rfc3339;
    let window = json!({ "state": "retired", "notBefore": at(stamped - 10), "notAfter": at(stamped + 10) });
    verify(&bundle, window.clone(), true).succeeds(&["verified"]);
    for about in [json!({ "notBefore": at(stamped + 61) }), json!({ "state": "retired", "notAfter": at(stamped - 61) })]
    {
        verify(&bundle, about, true).fails(1, &["when its key was not in use"]);
    }
    verify(&bundle, json!({ "state": "next" }), true).fails(1, &["does not sign with it yet"]);
    verify(&bundle, json!({ "notAfter": "soon" }), true).fails(6, &["`notAfter` is no time of RFC 3339"]);
    // Without a timestamp nothing says when it was signed, and the report does.
    verify(&unstamped, window, false).succeeds(&["not checked that the key was in use when it signed"]);
}

#[test]
fn a_pinned_issuer_of_timestamp_authorities_for_other_purposes_is_warned_of() {
    use testkit::sigstore::x509::{CODE_SIGNING, TIME_STAMPING, Template, ca_extensions, extended_key_usage};
    let desk = Desk::new();
    for (purposes, warned) in [(&[TIME_STAMPING][..], false), (&[TIME_STAMPING, CODE_SIGNING], true)] {
        let key = SigningKey::p256();
        let template = Template::new("tsa intermediate", key.spki(), now())
            .with(ca_extensions(None))
            .with(vec![extended_key_usage(purposes, false)]);
        let intermediate = desk.tsa.root.below(template, key);
        let chain = [&*intermediate.certificate, &desk.tsa.root.certificate];
        write_pem(&desk.path().join("tsa.pem"), "CERTIFICATE", &chain);
        let make = ["trust", "make", "--tsa-chain", "tsa.pem", "--output", "tsa.json", "--force", "--json"];
        let warnings = signerctl(desk.path(), &make).json()["warnings"].to_string();
        assert_eq!(warnings.contains("certificate 1 has an extended key usage other than timeStamping"), warned);
    }
}
