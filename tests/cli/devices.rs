//! `token profiles` and `token conformance`, without a device: what is known, and what becomes of a module that hangs,
//! crashes or lies. On devices: `tests/matrix`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Run, signerctl, signerctl_with};

#[test]
fn the_profiles_are_listed_with_what_they_rest_on() {
    let directory = tempfile::tempdir().unwrap();
    let run = signerctl(directory.path(), &["token", "profiles"]);
    run.succeeds(&[
        "softhsm2",
        "run here",
        "thales-luna",
        "from documents",
        "yubihsm2",
        "on a simulation",
        "needs none",
    ]);
    let json = signerctl(directory.path(), &["token", "profiles", "--json"]).json();
    let names: Vec<&str> = json["profiles"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-profiles");
    let mut on_disk: Vec<String> =
        fs::read_dir(folders).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    on_disk.sort();
    assert_eq!(names, on_disk);
}

#[test]
fn a_profile_shows_its_values_with_reason_and_source_and_its_drop_in_alone() {
    let directory = tempfile::tempdir().unwrap();
    let run = signerctl(directory.path(), &["token", "profiles", "show", "thales-luna"]);
    run.succeeds(&[
        "sessions: 8",
        "because",
        "unverified:",
        "CKR_TOKEN_NOT_PRESENT (0xe0): Reinitialize",
        "# Thales Luna",
    ]);
    let run = signerctl(directory.path(), &["token", "profiles", "show", "softhsm2", "--drop-in"]);
    assert_eq!(run.stdout, include_str!("../../hsm-profiles/softhsm2/signer-token.conf"));
    let json = signerctl(directory.path(), &["token", "profiles", "show", "nitrokey-nethsm", "--json"]).json();
    assert_eq!(json["retryCodes"][0]["code"], "CKR_DEVICE_ERROR");
    let run = signerctl(directory.path(), &["token", "profiles", "show", "frobnicator"]);
    run.fails(2, &["there is no profile `frobnicator`", "softhsm2, thales-luna"]);
}

#[test]
fn systemd_reads_every_drop_in() {
    let directory = tempfile::tempdir().unwrap();
    let mistakes = |name: &str, drop_in: &str| {
        let unit = directory.path().join(format!("signer-token-{name}.service"));
        let drop_ins = directory.path().join(format!("signer-token-{name}.service.d"));
        fs::create_dir(&drop_ins).unwrap();
        fs::write(&unit, "[Unit]\nDescription=a worker\n[Service]\nExecStart=/bin/true\n").unwrap();
        fs::write(drop_ins.join("10-device.conf"), drop_in).unwrap();
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().ok()?;
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        // Units of devices that are not on this machine are no mistake of the drop-in.
        Some(said.lines().filter(|line| line.contains("10-device.conf")).map(str::to_owned).collect::<Vec<_>>())
    };
    let Some(planted) = mistakes("planted", "[Service]\nDeviceAlow=/dev/tpmrm0 rw\n") else {
        eprintln!("SKIPPED: systemd-analyze is not installed");
        return;
    };
    assert_eq!(planted.len(), 1, "systemd tells a mistake: {planted:?}");
    for profile in signerctl(directory.path(), &["token", "profiles", "--json"]).json()["profiles"].as_array().unwrap()
    {
        let name = profile["name"].as_str().unwrap();
        let drop_in = signerctl(directory.path(), &["token", "profiles", "show", name, "--drop-in"]).stdout;
        assert_eq!(mistakes(name, &drop_in).as_deref(), Some(&[] as &[String]), "{name}");
    }
}

#[test]
fn a_module_that_is_not_there_or_is_none_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("pin"), "1234").unwrap();
    fs::set_permissions(directory.path().join("pin"), fs::Permissions::from_mode(0o600)).unwrap();
    let conformance = ["token", "conformance", "--token", "t", "--generate", "--module", "/nonexistent/module.so"];
    signerctl(directory.path(), &[&conformance[..], &["--pin-file", "pin"]].concat())
        .fails(1, &["cannot load the PKCS#11 module /nonexistent/module.so"]);
    signerctl(directory.path(), &conformance).fails(1, &["no PIN", "SIGNER_TEST_PIN"]);
    signerctl_with(directory.path(), &conformance, &[("SIGNER_TEST_PIN", "1234")])
        .fails(1, &["/nonexistent/module.so"]);
    let profile = [&conformance[..], &["--pin-file", "pin", "--profile", "luna"]].concat();
    signerctl(directory.path(), &profile).fails(1, &["there is no profile `luna`; known: aws-cloudhsm"]);
}

#[test]
fn a_module_that_hangs_is_killed_and_the_check_is_named() {
    let run = with_signer_token("echo '{\"begin\":\"signatures\"}'; exec sleep 600", &[]);
    assert_eq!(run.code, 1, "{run:?}");
    for words in ["FAIL  signatures", "did not return within 2s", "not conformant: signatures"] {
        assert!(run.stdout.contains(words), "{run:?}");
    }
}

#[test]
fn a_module_that_takes_the_process_with_it_is_told_with_the_check_it_was_in() {
    let script = "echo '{\"begin\":\"sessions\"}'; echo 'module: oh no' >&2; kill -SEGV $$";
    with_signer_token(script, &[]).fails(1, &["SIGSEGV", "`sessions`", "module: oh no"]);
    with_signer_token("echo 'libfoo 1.0 loaded'", &[]).fails(1, &["signer-token wrote what is no result"]);
}

#[test]
fn what_a_module_says_of_itself_cannot_move_the_cursor_and_json_is_one_document() {
    let finding = r#"{"finding":{"check":"token","outcome":"pass","detail":"\u001b[2Jx","meaning":""}}"#;
    let verdict = r#"{"verdict":{"conformant":true,"device":null,"figures":null}}"#;
    let script = format!("echo '{finding}'; echo '{verdict}'");
    let run = with_signer_token(&script, &[]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "ok    token           \\u{1b}[2Jx\nconformant\n"), "{run:?}");
    let run = with_signer_token(&script, &["--json"]);
    assert_eq!((run.code, &run.json()["conformant"]), (0, &true.into()), "{run:?}");
}

/// Runs `signerctl token conformance` with this shell script in the place of `signer-token`.
fn with_signer_token(script: &str, more: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("signerctl");
    let original = env!("CARGO_BIN_EXE_signerctl");
    if fs::hard_link(original, &program).is_err() {
        fs::copy(original, &program).unwrap();
    }
    let stand_in = directory.path().join("signer-token");
    fs::write(&stand_in, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(program)
        .args(["token", "conformance", "--module", "/m", "--token", "t", "--generate"])
        .args(["--patience", "1", "--seconds", "1"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
