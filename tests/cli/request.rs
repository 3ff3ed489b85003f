//! `sign` and `keys list` before anything is sent: what is wrong here is said here.

use std::fs;
use std::net::TcpListener;

use serde_json::json;

use crate::peer::Pki;
use crate::{Run, signerctl, signerctl_with};

const SCANNER: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A complete `sign` against a port where nobody listens: it must fail before it finds that out.
fn sign(pki: &Pki, more: &[&str]) -> Run {
    sign_file(pki, "sbom.json", more)
}

fn sign_file(pki: &Pki, file: &str, more: &[&str]) -> Run {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("https://127.0.0.1:{port}");
    let mut arguments = vec!["sign", file, "--type", "sbom", "--subject-file", "sbom.json", "--url", &url];
    arguments.extend(["--ca", "ca.pem", "--cert", "cert.pem", "--key", "key.pem", "--poe-file", "poe.jwt"]);
    arguments.extend(["--scanner-digest", SCANNER]);
    arguments.extend(more);
    signerctl(pki.path(), &arguments)
}

#[test]
fn an_appliance_that_is_not_there_is_unavailable() {
    let pki = Pki::new();
    pki.write_token(&json!({ "cnf": { "x5t#S256": pki.certificate_thumbprint } }));
    sign(&pki, &["--token-file", "optok.jwt"]).fails(4, &["no answer from https://127.0.0.1", "check the URL"]);
    assert!(!pki.path().join("sbom.json.dsse.json").exists());
    let run = sign(&pki, &["--token-file", "optok.jwt", "--json"]);
    assert_eq!((run.code, run.json()["error"]["code"].as_str()), (4, Some("unreachable")));
}

#[test]
fn a_document_that_could_change_the_request_is_not_sent() {
    let pki = Pki::new();
    pki.write_token(&json!({ "cnf": { "x5t#S256": pki.certificate_thumbprint } }));
    for (content, words) in [
        (r#"{}, "subject": []"#, "something follows"),
        (r#"{"a": 1} {"b": 2}"#, "something follows"),
        (r#"{"a": 1, "a": 2}"#, "line 1"),
        ("{\"a\": 1,\n  \"b\": 1e999}", "line 2"),
        (r#"{"a": 9007199254740993}"#, "line 1"),
        ("[1]", "no JSON object"),
        ("\"text\"", "no JSON object"),
        ("", "empty"),
        ("\u{feff}{}", "byte order mark"),
    ] {
        fs::write(pki.path().join("bad.json"), content).unwrap();
        sign_file(&pki, "bad.json", &["--token-file", "optok.jwt"]).fails(6, &["bad.json", words]);
    }
    sign_file(&pki, "absent.json", &["--token-file", "optok.jwt"]).fails(6, &["cannot read absent.json"]);
}

#[test]
fn a_token_that_the_appliance_must_refuse_is_not_sent() {
    let pki = Pki::new();
    let dpop = json!({ "cnf": { "jkt": pki.dpop_thumbprint } });
    let other = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    for (claims, more, words) in [
        (json!({}), &[] as &[&str], "bound to no key"),
        (dpop.clone(), &[], "give that key with --dpop-key"),
        (json!({ "cnf": { "jkt": other } }), &["--dpop-key", "dpop.pem"], "but --dpop-key is"),
        (json!({ "cnf": { "x5t#S256": other } }), &[], "but --cert is"),
        (json!({ "cnf": { "jkt": pki.dpop_thumbprint }, "exp": 1 }), &["--dpop-key", "dpop.pem"], "expired"),
        (json!({ "cnf": { "jkt": "\u{1b}[2K" } }), &[], "no thumbprint"),
    ] {
        pki.write_token(&claims);
        let run = sign(&pki, &[&["--token-file", "optok.jwt"], more].concat());
        run.fails(6, &["optok.jwt", words]);
        assert!(!run.stderr.contains('\u{1b}'), "{run:?}");
    }
    for content in ["", "opaque-secret", "a.b", "secret.!!!.c", "two\nlines"] {
        fs::write(pki.path().join("optok.jwt"), content).unwrap();
        let run = sign(&pki, &["--token-file", "optok.jwt"]);
        run.fails(6, &["optok.jwt"]);
        assert!(!run.stderr.contains("secret"), "{run:?}");
    }
    sign(&pki, &[]).fails(2, &["no OpTok", "--token-file", "--authority"]);
    sign(&pki, &["--token-file", "a", "--authority", "https://b"]).fails(2, &["drop the other"]);
    sign(&pki, &["--authority", "http://as.example", "--client-id", "c"]).fails(2, &["write https"]);
    sign(&pki, &["--authority", "https://127.0.0.1:9"]).fails(2, &["--client-id is missing"]);
}

#[test]
fn a_client_identity_that_is_none_is_named() {
    let pki = Pki::new();
    pki.write_token(&json!({ "cnf": { "x5t#S256": pki.certificate_thumbprint } }));
    fs::write(pki.path().join("empty.pem"), "").unwrap();
    for (option, file, code, words) in [
        ("--ca", "absent.pem", 6, "cannot read absent.pem"),
        ("--ca", "empty.pem", 6, "empty.pem: holds no certificate"),
        ("--cert", "key.pem", 6, "key.pem: holds no certificate"),
        ("--key", "cert.pem", 6, "cert.pem: holds no private key"),
        ("--key", "dpop.pem", 2, "the key must be the certificate's"),
        ("--dpop-key", "cert.pem", 6, "cert.pem: holds no usable key"),
        ("--poe-file", "empty.pem", 6, "empty.pem: holds no PoE"),
    ] {
        let mut files =
            vec![("--ca", "ca.pem"), ("--cert", "cert.pem"), ("--key", "key.pem"), ("--poe-file", "poe.jwt")];
        files.retain(|(name, _)| *name != option);
        files.push((option, file));
        let mut arguments = vec!["sign", "sbom.json", "--type", "sbom", "--subject-file", "sbom.json"];
        arguments.extend(["--url", "https://127.0.0.1:9", "--scanner-digest", SCANNER, "--token-file", "optok.jwt"]);
        arguments.extend(files.iter().flat_map(|(name, file)| [*name, *file]));
        signerctl(pki.path(), &arguments).fails(code, &[words]);
    }
}

#[test]
fn what_is_missing_or_wrong_on_the_command_line_is_said_before_files_are_read() {
    let pki = Pki::new();
    pki.write_token(&json!({ "cnf": { "x5t#S256": pki.certificate_thumbprint } }));
    let token = ["--token-file", "optok.jwt"];
    for (more, words) in [
        (["--type", "sbmo"], "sbom"),
        (["--subject", "no-digest"], "NAME@sha256:<hex>"),
        (["--url", "http://127.0.0.1:1"], "must be https"),
        (["--url", "signer.example"], "https://"),
        (["--scanner-digest", "sha256:12"], "64 lowercase hex digits"),
        (["--scanner-digest", "latest"], "is no digest"),
    ] {
        let mut arguments = vec!["sign", "sbom.json", "--subject-file", "sbom.json", "--ca", "ca.pem"];
        arguments.extend(["--cert", "cert.pem", "--key", "key.pem", "--poe-file", "poe.jwt"]);
        for default in [["--type", "sbom"], ["--url", "https://127.0.0.1:9"], ["--scanner-digest", SCANNER]] {
            if default[0] != more[0] {
                arguments.extend(default);
            }
        }
        arguments.extend(token);
        arguments.extend(more);
        signerctl(pki.path(), &arguments).fails(2, &[words]);
    }
    let bare = ["sign", "sbom.json", "--type", "sbom", "--subject-file", "sbom.json"];
    signerctl(pki.path(), &bare)
        .fails(2, &["--scanner-digest is missing", "SIGNER_SCANNER_DIGEST", "`scanner_digest = …`"]);
    signerctl(pki.path(), &["keys", "list"]).fails(2, &["--url is missing", "SIGNER_URL"]);
    let run = sign(&pki, &["--token-file", "optok.jwt", "--output", "-", "--json"]);
    assert_eq!((run.code, run.json()["error"]["code"].as_str()), (2, Some("usage")));
}

#[test]
fn an_existing_output_is_kept_and_no_signature_is_asked_for() {
    let pki = Pki::new();
    pki.write_token(&json!({ "cnf": { "x5t#S256": pki.certificate_thumbprint } }));
    let output = pki.path().join("sbom.json.dsse.json");
    fs::write(&output, "mine").unwrap();
    sign(&pki, &["--token-file", "optok.jwt"]).fails(6, &["sbom.json.dsse.json", "--force"]);
    sign(&pki, &["--token-file", "optok.jwt", "--output", "absent/dir/x"]).fails(6, &["is no directory"]);
    assert_eq!(fs::read(&output).unwrap(), b"mine");
}

#[test]
fn options_win_over_the_environment_and_that_over_the_profile() {
    let pki = Pki::new();
    pki.write_token(&json!({ "cnf": { "x5t#S256": pki.certificate_thumbprint } }));
    let profiles = pki.path().join(".config/stellaops-signer");
    fs::create_dir_all(&profiles).unwrap();
    let profile = format!(
        "url = \"https://127.0.0.1:1\"\nca = \"../../ca.pem\"\ncert = \"../../cert.pem\"\nkey = \"../../key.pem\"\n\
         poe_file = \"../../poe.jwt\"\ntoken_file = \"../../optok.jwt\"\nscanner_digest = \"{SCANNER}\"\n"
    );
    fs::write(profiles.join("client.toml"), &profile).unwrap();
    let sign = ["sign", "sbom.json", "--type", "sbom", "--subject-file", "sbom.json"];
    signerctl(pki.path(), &sign).fails(4, &["https://127.0.0.1:1/"]);
    let environment = [("SIGNER_URL", "https://127.0.0.1:2")];
    signerctl_with(pki.path(), &sign, &environment).fails(4, &["https://127.0.0.1:2/"]);
    let options = [&sign[..], &["--url", "https://127.0.0.1:3"]].concat();
    signerctl_with(pki.path(), &options, &environment).fails(4, &["https://127.0.0.1:3/"]);
    signerctl_with(pki.path(), &sign, &[("SIGNER_URL", "")]).fails(4, &["https://127.0.0.1:1/"]);
    signerctl_with(pki.path(), &sign, &[("SIGNER_BUNDLE", "zip")]).fails(2, &["SIGNER_BUNDLE", "dsse+cert"]);

    fs::write(pki.path().join("other.toml"), "urll = \"x\"\n").unwrap();
    let profile = [&sign[..], &["--profile", "other.toml"]].concat();
    signerctl(pki.path(), &profile).fails(5, &["other.toml:1:1: unknown key `urll`"]);
    let absent = [&sign[..], &["--profile", "absent.toml"]].concat();
    signerctl(pki.path(), &absent).fails(6, &["cannot read absent.toml"]);
}
