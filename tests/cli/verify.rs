//! `verify`: what is good is told, what is not is never called verified.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::signing::{PAYLOAD_TYPE, Signer, pae, sha256_hex, sigstore, statement};
use crate::{Run, signerctl};

struct Bench {
    directory: TempDir,
    signer: Signer,
    key: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::new();
        let key = signer.write_pem(directory.path(), "key.pem");
        fs::write(directory.path().join("app.tar"), "artifact").unwrap();
        fs::write(directory.path().join("other.tar"), "other").unwrap();
        Self { directory, signer, key }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn verify(&self, content: &str, more: &[&str]) -> Run {
        fs::write(self.path().join("envelope.json"), content).unwrap();
        let mut arguments = vec!["verify", "envelope.json", "--key", self.key.to_str().unwrap()];
        arguments.extend(more);
        signerctl(self.path(), &arguments)
    }

    /// Not verified for the reason `code`, and nothing on standard output says otherwise.
    #[track_caller]
    fn rejects(&self, name: &str, content: &str, code: &str, more: &[&str]) {
        self.verify(content, more).fails(1, &["error: envelope.json: "]);
        let run = self.verify(content, &[more, &["--json"]].concat());
        let answer = run.json();
        assert_eq!((run.code, &answer["verified"]), (1, &json!(false)), "{name}: {run:?}");
        assert_eq!(answer["error"]["code"], code, "{name}: {run:?}");
    }
}

#[test]
fn around_an_envelope_the_json_is_strict_and_bounded_as_well() {
    let bench = Bench::new();
    let envelope = bench.signer.envelope(&statement());
    let answer = |policy: &str| format!(r#"{{"bundle":{{"dsse":{envelope}}},"policy":{policy}}}"#);
    bench.verify(&answer(r#"{"a":1}"#), &[]).succeeds(&["verified"]);
    bench.rejects("a member twice", &answer(r#"{"a":1,"a":2}"#), "not_an_envelope", &[]);
    let many = json!({ "dsse": envelope, "certificateChain": vec!["x"; 9] });
    let run = bench.verify(&many.to_string(), &[]);
    run.fails(1, &["its `certificateChain` has more than 8 certificates, or one of more than 32 KiB"]);
}

#[test]
fn an_envelope_verifies_in_each_of_its_forms() {
    let bench = Bench::new();
    let envelope = bench.signer.envelope(&statement());
    let bundle =
        json!({ "dsse": envelope, "mode": "kms", "certificateChain": [], "signingIdentity": { "keyId": "k" } });
    let both = json!({ "dsse": envelope, "sigstore": sigstore(&envelope), "mode": "kms" });
    for (form, content) in [
        ("envelope", envelope.clone()),
        ("answer", bundle.clone()),
        ("answer", json!({ "bundle": bundle, "policy": { "plan": "pro" }, "auditId": "a" })),
        ("answer", json!({ "bundle": { "sigstore": sigstore(&envelope) }, "auditId": "a" })),
        ("answer", json!({ "bundle": both, "auditId": "a" })),
        ("sigstore", sigstore(&envelope)),
    ] {
        let content = content.to_string();
        bench.verify(&content, &[]).succeeds(&["verified envelope.json", &bench.signer.keyid(), "stella.ops/sbom@v1"]);
        let answer = bench.verify(&content, &["--json"]).json();
        assert_eq!((&answer["verified"], &answer["form"]), (&json!(true), &json!(form)));
        assert_eq!(answer["subject"], statement()["subject"]);
        assert_eq!(answer["payloadSha256"], sha256_hex(statement().to_string().as_bytes()));
    }
}

#[test]
fn what_openssl_signed_verifies() {
    let bench = Bench::new();
    let payload = statement().to_string();
    fs::write(bench.path().join("pae"), pae(PAYLOAD_TYPE, payload.as_bytes())).unwrap();
    for arguments in [
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out private.pem",
        "pkey -in private.pem -pubout -out public.pem",
        "dgst -sha256 -sign private.pem -out signature pae",
        "base64 -A -in signature -out signature.b64",
    ] {
        let ran = Command::new("openssl").args(arguments.split(' ')).current_dir(bench.path()).output().unwrap();
        assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    let mut envelope = bench.signer.envelope(&statement());
    envelope["signatures"][0]["sig"] = fs::read_to_string(bench.path().join("signature.b64")).unwrap().trim().into();
    // The program itself says the keyid of this key.
    fs::write(bench.path().join("envelope.json"), envelope.to_string()).unwrap();
    let mismatch = signerctl(bench.path(), &["verify", "envelope.json", "--key", "public.pem"]);
    mismatch.fails(1, &["this key is SHA256:"]);
    let keyid = mismatch.stderr.split("this key is ").nth(1).unwrap().lines().next().unwrap().to_owned();
    envelope["signatures"][0]["keyid"] = keyid.into();
    fs::write(bench.path().join("envelope.json"), envelope.to_string()).unwrap();
    signerctl(bench.path(), &["verify", "envelope.json", "--key", "public.pem"]).succeeds(&["verified"]);
}

#[test]
fn demands_on_type_and_subject_are_met_or_refused() {
    let bench = Bench::new();
    let good = bench.signer.envelope(&statement()).to_string();
    let digest = format!("sha256:{}", sha256_hex(b"artifact"));
    let other = format!("sha256:{}", sha256_hex(b"other"));
    for demand in [
        ["--type", "sbom"],
        ["--type", "stella.ops/sbom@v1"],
        ["--subject-file", "app.tar"],
        ["--digest", digest.as_str()],
    ] {
        bench.verify(&good, &demand).succeeds(&["verified"]);
    }
    let compared = bench.verify(&good, &["--subject-file", "app.tar"]);
    compared.succeeds(&["compared", "app.tar"]);
    assert!(!compared.stdout.contains("not checked"), "{compared:?}");
    bench.verify(&good, &[]).succeeds(&["not checked", "--subject-file"]);
    for (demand, code) in [
        (["--type", "vex"], "type_mismatch"),
        (["--type", "https://example.org/other"], "type_mismatch"),
        (["--subject-file", "other.tar"], "subject_mismatch"),
        (["--digest", other.as_str()], "subject_mismatch"),
    ] {
        bench.rejects(demand[1], &good, code, &demand);
    }
    // One met demand does not cover for one that is not.
    bench.rejects("both", &good, "subject_mismatch", &["--subject-file", "app.tar", "--subject-file", "other.tar"]);
    bench.verify(&good, &["--subject-file", "absent.tar"]).fails(6, &["absent.tar"]);
    bench.verify(&good, &["--digest", "sha256:00"]).fails(2, &["64 lowercase hex digits"]);
}

#[test]
fn no_hostile_envelope_is_called_verified() {
    let bench = Bench::new();
    let signer = &bench.signer;
    let stranger = Signer::new();
    let good = signer.envelope(&statement());
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut envelope = good.clone();
        change(&mut envelope);
        envelope.to_string()
    };
    let mut impostor = stranger.envelope(&statement());
    impostor["signatures"][0]["keyid"] = signer.keyid().into();
    let mut two = good.clone();
    two["signatures"].as_array_mut().unwrap().push(impostor["signatures"][0].clone());
    let mut raw = good.clone();
    raw["signatures"][0]["sig"] = "A".repeat(86).into();
    let with_member = |name: &str| good.to_string().replacen('{', &format!("{{\"{name}\":1,"), 1);
    let mut mixed = sigstore(&good);
    mixed["payloadType"] = PAYLOAD_TYPE.into();
    let mut hint = sigstore(&good);
    hint["verificationMaterial"]["publicKey"]["hint"] = stranger.keyid().into();
    let mut certificate = sigstore(&good);
    certificate["verificationMaterial"] = json!({ "certificate": { "rawBytes": "AA==" }, "tlogEntries": [] });
    let mut media = sigstore(&good);
    media["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1".into();
    let two_in_answer = json!({ "bundle": { "dsse": good, "sigstore": sigstore(&stranger.envelope(&statement())) } });

    for (name, content, code) in [
        ("empty", String::new(), "not_an_envelope"),
        ("not json", "verified".to_owned(), "not_an_envelope"),
        ("array", "[]".to_owned(), "not_an_envelope"),
        ("null", "null".to_owned(), "not_an_envelope"),
        ("no known member", "{}".to_owned(), "not_an_envelope"),
        ("trailing bytes", format!("{good} {good}"), "not_an_envelope"),
        ("deep nesting", format!("{{\"payloadType\":{}", "[".repeat(200_000)), "not_an_envelope"),
        ("unknown member", with_member("verified"), "not_an_envelope"),
        ("payload twice", with_member("payload"), "not_an_envelope"),
        ("payloadType twice", with_member("payloadType"), "not_an_envelope"),
        ("payload changed", changed(&|e| e["payload"] = "e30=".into()), "signature_invalid"),
        ("payload empty", changed(&|e| e["payload"] = "".into()), "signature_invalid"),
        ("payload no base64", changed(&|e| e["payload"] = "%%%".into()), "not_an_envelope"),
        ("payload a number", changed(&|e| e["payload"] = 1.into()), "not_an_envelope"),
        ("payload type changed", changed(&|e| e["payloadType"] = "text/plain".into()), "payload_type"),
        (
            "payload type in other case",
            changed(&|e| e["payloadType"] = "Application/vnd.in-toto+json".into()),
            "payload_type",
        ),
        ("no signature", changed(&|e| e["signatures"] = json!([])), "signature_count"),
        ("signatures null", changed(&|e| e["signatures"] = Value::Null), "not_an_envelope"),
        ("two signatures, one good", two.to_string(), "signature_count"),
        ("no keyid", changed(&|e| e["signatures"][0] = json!({ "sig": e["signatures"][0]["sig"] })), "keyid_missing"),
        ("another keyid", changed(&|e| e["signatures"][0]["keyid"] = stranger.keyid().into()), "key_mismatch"),
        ("keyid with escapes", changed(&|e| e["signatures"][0]["keyid"] = "\u{1b}[2Kverified".into()), "key_mismatch"),
        ("another key under our keyid", impostor.to_string(), "signature_invalid"),
        ("signature empty", changed(&|e| e["signatures"][0]["sig"] = "".into()), "signature_form"),
        ("signature no DER", raw.to_string(), "not_an_envelope"),
        ("signature of zeros", changed(&|e| e["signatures"][0]["sig"] = "MAYCAQACAQA=".into()), "signature_form"),
        ("a form mixed with another", mixed.to_string(), "ambiguous"),
        ("two envelopes in one answer", two_in_answer.to_string(), "ambiguous"),
        ("an answer without an envelope", json!({ "bundle": {} }).to_string(), "not_an_envelope"),
        ("hint of another key", hint.to_string(), "hint_mismatch"),
        ("keyless bundle", certificate.to_string(), "keyless_bundle"),
        ("older bundle", media.to_string(), "media_type"),
        ("another payload type, well signed", signer.seal("text/plain", b"hello").to_string(), "payload_type"),
    ] {
        bench.rejects(name, &content, code, &[]);
    }
    let shown = bench.verify(&changed(&|e| e["signatures"][0]["keyid"] = "\u{1b}[2K".into()), &[]);
    assert!(!shown.stderr.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn a_good_signature_does_not_make_a_statement_of_what_is_none() {
    let bench = Bench::new();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut statement = statement();
        change(&mut statement);
        statement.to_string()
    };
    let text = statement().to_string();
    for (name, payload) in [
        ("no json", "hello".to_owned()),
        ("array", "[]".to_owned()),
        ("empty", String::new()),
        ("byte order mark", format!("\u{feff}{text}")),
        ("trailing", format!("{text}{text}")),
        ("duplicate predicate", text.replacen('{', "{\"predicate\":{},", 1)),
        ("duplicate by escape", text.replacen('{', "{\"predic\\u0061te\":{},", 1)),
        ("v0.1", changed(&|s| s["_type"] = "https://in-toto.io/Statement/v0.1".into())),
        ("no type", changed(&|s| s["_type"] = Value::Null)),
        ("unknown member", changed(&|s| s["extra"] = 1.into())),
        ("predicate an array", changed(&|s| s["predicate"] = json!([]))),
        ("predicate null", changed(&|s| s["predicate"] = Value::Null)),
        ("no predicate type", changed(&|s| s["predicateType"] = "".into())),
        ("no subject", changed(&|s| s["subject"] = json!([]))),
        ("subject an object", changed(&|s| s["subject"] = json!({}))),
        ("subject without digest", changed(&|s| s["subject"] = json!([{ "name": "a" }]))),
        ("digest empty", changed(&|s| s["subject"][0]["digest"] = json!({}))),
        ("digest in capitals", changed(&|s| s["subject"][0]["digest"]["sha256"] = "AA".into())),
        ("digest odd", changed(&|s| s["subject"][0]["digest"]["sha256"] = "aaa".into())),
        ("digest a number", changed(&|s| s["subject"][0]["digest"]["sha256"] = 1.into())),
        ("name a number", changed(&|s| s["subject"][0]["name"] = 1.into())),
        ("too many subjects", changed(&|s| s["subject"] = vec![s["subject"][0].clone(); 1025].into())),
    ] {
        let envelope = bench.signer.seal(PAYLOAD_TYPE, payload.as_bytes()).to_string();
        bench.rejects(name, &envelope, "statement_invalid", &[]);
    }
}

#[test]
fn a_key_set_gives_the_key_that_the_envelope_names() {
    let bench = Bench::new();
    let stranger = Signer::new();
    let set = bench.path().join("keys.json");
    let verify = |keys: Value| {
        fs::write(&set, keys.to_string()).unwrap();
        fs::write(bench.path().join("e.json"), bench.signer.envelope(&statement()).to_string()).unwrap();
        signerctl(bench.path(), &["verify", "e.json", "--keys", "keys.json"])
    };
    let rsa = json!({ "kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw", "e": "AQAB" });
    verify(json!({ "keys": [rsa, stranger.jwk(), bench.signer.jwk()] })).succeeds(&["verified", "(active)"]);
    verify(json!({ "keys": [stranger.jwk()] })).fails(1, &["none of the 1 usable keys"]);
    verify(json!({ "keys": [] })).fails(1, &["none of the 0 usable keys"]);

    let mut liar = stranger.jwk();
    liar["kid"] = bench.signer.keyid().into();
    verify(json!({ "keys": [liar] })).fails(6, &["keys.json", "its fingerprint is"]);
    let mut private = bench.signer.jwk();
    private["d"] = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA".into();
    let refused = verify(json!({ "keys": [private] }));
    refused.fails(6, &["keys.json", "private"]);
    assert!(!refused.stderr.contains("c2VjcmV0"), "{refused:?}");
    let mut off_curve = bench.signer.jwk();
    off_curve["y"] = off_curve["x"].clone();
    verify(json!({ "keys": [off_curve] })).fails(6, &["curve"]);
    verify(json!([])).fails(6, &["keys.json", "no JWK set"]);
}

#[test]
fn a_key_file_that_is_none_is_named() {
    let bench = Bench::new();
    let good = bench.signer.envelope(&statement()).to_string();
    fs::write(bench.path().join("e.json"), good).unwrap();
    let p384 = Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"])
        .output()
        .unwrap();
    fs::write(bench.path().join("p384-private.pem"), &p384.stdout).unwrap();
    let made = Command::new("openssl")
        .args(["pkey", "-in", "p384-private.pem", "-pubout", "-out", "p384.pem"])
        .current_dir(bench.path())
        .status()
        .unwrap();
    assert!(made.success());
    fs::write(bench.path().join("empty.pem"), "").unwrap();
    for (name, words) in [
        ("absent.pem", "cannot read absent.pem"),
        ("empty.pem", "no PUBLIC KEY block"),
        ("p384-private.pem", "no PUBLIC KEY block"),
        ("p384.pem", "P-256"),
    ] {
        signerctl(bench.path(), &["verify", "e.json", "--key", name]).fails(6, &[words]);
    }
    signerctl(bench.path(), &["verify", "absent.json", "--key", "key.pem"]).fails(6, &["cannot read absent.json"]);
}
