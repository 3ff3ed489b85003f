//! `token doctor`: each broken set-up, and the line that mends it.

use std::fs;

use serde_json::Value;
use testkit::softhsm::find_module;

use crate::desk::Desk;

/// The doctor finds exactly this problem: its check, the line and key to mend, and words of detail or remedy. What is
/// said of the worker is left out: none runs here.
#[track_caller]
pub(crate) fn finds(desk: &Desk, more: &[&str], check: &str, line: &str, key: &str, words: &[&str]) -> Value {
    let run = desk.signerctl(&[&["token", "doctor", "main", "--json"], more].concat());
    assert_eq!(run.code, 1, "{run:?}");
    let report = run.json();
    let problems: Vec<&Value> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["state"] == "problem" && finding["check"] != "worker")
        .collect();
    let [problem] = problems[..] else { panic!("not one problem: {problems:#?}") };
    assert_eq!((&problem["check"], &problem["key"]), (&check.into(), &key.into()), "{problem:#}");
    assert_eq!(problem["line"], desk.line(line), "{problem:#}");
    assert!(problem["file"].as_str().unwrap().ends_with("signer.toml"));
    let said = format!("{} {}", problem["detail"], problem["remedy"]);
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
    problem.clone()
}

#[track_caller]
fn finds_in_file(desk: &Desk, check: &str, line: &str, key: &str, words: &[&str]) {
    finds(desk, &[], check, line, key, words);
}

/// A copy of the SoftHSM2 module, changed.
fn changed_module(desk: &Desk, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(find_module().unwrap()).unwrap();
    change(&mut bytes);
    desk.write("module.so", bytes, 0o755);
    let module = fs::canonicalize(find_module().unwrap()).unwrap().display().to_string();
    desk.change(&module, &desk.path("module.so").display().to_string());
}

#[test]
fn a_set_up_that_is_whole_is_called_so_and_a_running_worker_is_found() {
    let desk = Desk::furnished();
    let log = fs::File::create(desk.path("log")).unwrap();
    let mut worker = desk.command(env!("CARGO_BIN_EXE_signer-token"));
    worker.args(["--config", "signer.toml", "--name", "main"]).stderr(log);
    let mut worker = worker.spawn().unwrap();
    let began = std::time::Instant::now();
    while std::os::unix::net::UnixStream::connect(desk.path("run/t.sock")).is_err() {
        assert!(began.elapsed().as_secs() < 30, "{}", desk.read("log"));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    desk.change(
        "state = \"active\"",
        &format!("state = \"active\"\npublic_key = \"{}\"", desk.path("release.pub").display()),
    );
    let run = desk.signerctl(&["token", "doctor", "main", "--login"]);
    worker.kill().unwrap();
    worker.wait().unwrap();
    run.succeeds();
    for line in
        ["ok       PIN file", "ok       login", "ok       key attributes", "ok       public key", "nothing is wrong"]
    {
        assert!(run.stdout.contains(line), "`{line}` is not in:\n{}", run.stdout);
    }
    assert!(!run.stdout.contains("problem"), "{}", run.stdout);

    // And once it is gone, that is the one problem.
    let run = desk.signerctl(&["token", "doctor", "main", "--login"]);
    assert_eq!(run.code, 1);
    for words in ["nobody listens on", "systemctl start signer-token@main", "1 problem"] {
        assert!(run.stdout.contains(words), "`{words}` is not in:\n{}", run.stdout);
    }
}

#[test]
fn the_pin_is_not_tried_unless_it_is_asked_for() {
    let desk = Desk::furnished();
    desk.write("pin", "wrong-and-not-tried\n", 0o400);
    let run = desk.signerctl(&["token", "doctor", "main"]);
    assert!(run.stdout.contains("the PIN was not tried"), "{}", run.stdout);
    assert!(run.stdout.contains("its public key is there; the private one is invisible without --login"));
    finds(
        &desk,
        &["--login"],
        "login",
        "pin_file",
        "tokens.main.pin_file",
        &["refused the PIN", "make sure of the PIN"],
    );
}

#[test]
fn users_that_do_not_exist() {
    let desk = Desk::furnished();
    let worker = desk.config().lines().find(|line| line.starts_with("worker_user")).unwrap().to_owned();
    desk.change(&worker, "worker_user = \"nobody-at-all\"");
    finds_in_file(&desk, "worker user", "worker_user", "tokens.main.worker_user", &["useradd --system nobody-at-all"]);
}

#[test]
fn a_module_that_is_not_there() {
    let desk = Desk::furnished();
    let module = fs::canonicalize(find_module().unwrap()).unwrap().display().to_string();
    desk.change(&module, "/opt/vendor/lib/absent.so");
    finds_in_file(
        &desk,
        "module file",
        "module",
        "tokens.main.module",
        &["No such file", "install the vendor's package"],
    );
}

#[test]
fn a_module_that_is_no_library() {
    let desk = Desk::furnished();
    changed_module(&desk, |bytes| *bytes = b"#!/bin/sh\n".to_vec());
    finds_in_file(&desk, "module format", "module", "tokens.main.module", &["no ELF shared library"]);
}

#[test]
fn a_module_for_another_machine() {
    let desk = Desk::furnished();
    // e_machine of elf(5): S390.
    changed_module(&desk, |bytes| bytes[18] = 22);
    finds_in_file(&desk, "module format", "module", "tokens.main.module", &["not a shared library for this machine"]);
}

#[test]
fn a_module_that_misses_a_library() {
    let desk = Desk::furnished();
    changed_module(&desk, |bytes| {
        let name = b"libcrypto.so.";
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        bytes[at + 8] = b'x';
    });
    let words = ["libcryptx.so.", "cannot open shared object file", "install the package that has libcryptx.so."];
    finds_in_file(&desk, "module", "module", "tokens.main.module", &words);
}

#[test]
fn a_library_that_is_no_pkcs11_module() {
    let desk = Desk::furnished();
    let module = fs::canonicalize(find_module().unwrap()).unwrap().display().to_string();
    let libm = ["/usr/lib/x86_64-linux-gnu/libm.so.6", "/usr/lib/aarch64-linux-gnu/libm.so.6", "/usr/lib64/libm.so.6"];
    let libm = libm.into_iter().find(|path| fs::metadata(path).is_ok()).unwrap();
    desk.change(&module, libm);
    finds_in_file(&desk, "module", "module", "tokens.main.module", &["C_GetFunctionList", "PKCS#11 module"]);
}

#[test]
fn a_module_with_an_executable_stack() {
    let desk = Desk::furnished();
    changed_module(&desk, |bytes| {
        let word = |at: usize, bytes: &[u8]| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (table, size) = (usize::try_from(word(32, bytes)).unwrap(), usize::from(bytes[54]));
        // PT_GNU_STACK; its flags follow its type.
        let at = (0..usize::from(bytes[56]))
            .map(|n| table + n * size)
            .find(|at| bytes[*at..*at + 4] == 0x6474_e551_u32.to_le_bytes())
            .unwrap();
        bytes[at + 4] |= 1;
    });
    let run = desk.signerctl(&["token", "doctor", "main", "--json"]);
    let report = run.json();
    // A loader of today may refuse it as well, which is a second problem with the same remedy.
    let problem = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "module format");
    let problem = problem.unwrap();
    assert_eq!((&problem["state"], &problem["line"]), (&"problem".into(), &desk.line("module").into()), "{report:#}");
    assert!(problem["remedy"].as_str().unwrap().contains("patchelf --clear-execstack"), "{problem:#}");
}

#[test]
fn a_module_that_others_may_replace() {
    let desk = Desk::furnished();
    changed_module(&desk, |_| ());
    let module = desk.path("module.so");
    let widened = |mode| fs::set_permissions(&module, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    widened(0o777);
    let run = desk.signerctl(&["token", "doctor", "main", "--json"]);
    let report = run.json();
    let owner =
        report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "module owner").unwrap();
    assert_eq!((&owner["state"], &owner["line"]), (&"problem".into(), &desk.line("module").into()), "{owner:#}");
    assert_eq!(owner["remedy"], format!("chmod go-w {}", fs::canonicalize(&module).unwrap().display()));
}

#[test]
fn a_module_that_is_not_the_one_that_was_pinned() {
    let desk = Desk::furnished();
    let pin = format!("module_sha256 = \"{}\"\nsessions = 3", "0".repeat(64));
    desk.change("sessions = 3", &pin);
    let words = ["the configuration says 0000", "find out who changed the file"];
    finds_in_file(&desk, "module hash", "module_sha256", "tokens.main.module_sha256", &words);
    desk.signerctl(&["keys", "generate", "second", "--token", "main"]).fails(6, &["is not loaded: its SHA-256 is"]);
}

#[test]
fn a_module_without_its_own_configuration() {
    let desk = Desk::furnished();
    desk.set_env("SOFTHSM2_CONF", "/nonexistent/softhsm2.conf");
    finds_in_file(&desk, "module", "module", "tokens.main.module", &["Environment="]);
}

#[test]
fn a_pin_file_that_is_absent_open_or_empty() {
    let desk = Desk::furnished();
    let pin = desk.path("pin").display().to_string();
    let found = |words: &[&str]| finds_in_file(&desk, "PIN file", "pin_file", "tokens.main.pin_file", words);
    desk.write("pin", "1234", 0o644);
    found(&["open to others (mode 0644)", &format!("chmod 0400 {pin}")]);
    desk.write("pin", "\n", 0o400);
    found(&["is empty", "write the PIN into it"]);
    fs::remove_file(desk.path("pin")).unwrap();
    found(&["No such file", "mode 0400"]);
}

#[test]
fn a_socket_folder_that_is_absent_or_open() {
    let desk = Desk::furnished();
    let found = |words: &[&str]| finds_in_file(&desk, "socket folder", "socket", "tokens.main.socket", words);
    let folder = desk.path("run");
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    found(&["anyone can write", &format!("chmod o-w {}", folder.display())]);
    fs::remove_dir(&folder).unwrap();
    found(&["No such file", &format!("install -d -m 0755 {}", folder.display())]);
}

#[test]
fn a_token_that_is_not_there() {
    let desk = Desk::furnished();
    desk.change("pkcs11:token=main\"", "pkcs11:token=other\"");
    finds_in_file(&desk, "token", "uri = \"pkcs11:token", "tokens.main.uri", &["`main`", "signerctl token init"]);
}

#[test]
fn keys_that_are_absent_or_named_too_vaguely() {
    let desk = Desk::furnished();
    let found = |line: &str, words: &[&str]| {
        finds(&desk, &["--login"], "key", line, "keys.release.uri", words);
    };
    desk.foreign_key("twin", "01", &["--sensitive"]);
    desk.change("pkcs11:object=release;id=%01", "pkcs11:id=%01");
    found("uri = \"pkcs11:id", &["2 private keys match", "both `object` and `id`"]);
    desk.change("pkcs11:id=%01", "pkcs11:object=absent");
    found("uri = \"pkcs11:object", &["no private key matches", "signerctl token list main --objects --login"]);
}

#[test]
fn a_key_that_could_leave_the_token() {
    let desk = Desk::furnished();
    desk.foreign_key("leaky", "07", &["--extractable"]);
    desk.change("pkcs11:object=release;id=%01", "pkcs11:object=leaky;id=%07");
    let words = ["CKA_EXTRACTABLE is true, must be false", "signerctl keys generate"];
    finds(&desk, &["--login"], "key attributes", "uri = \"pkcs11:object", "keys.release.uri", &words);
}

#[test]
fn a_key_that_is_not_the_one_that_is_pinned() {
    let desk = Desk::furnished();
    desk.signerctl(&["keys", "generate", "other", "--token", "main", "--id", "07"]).succeeds();
    let pinned = format!("state = \"active\"\npublic_key = \"{}\"", desk.path("release.pub").display());
    desk.change("state = \"active\"", &pinned);
    desk.change("pkcs11:object=release;id=%01", "pkcs11:object=other;id=%07");
    let words = ["is pinned to SHA256:", "the token has SHA256:"];
    finds(&desk, &["--login"], "public key", "public_key", "keys.release.public_key", &words);
    desk.write("release.pub", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", 0o644);
    finds_in_file(
        &desk,
        "public key",
        "public_key",
        "keys.release.public_key",
        &["signerctl keys export --format pem"],
    );
}

#[test]
fn a_certificate_of_another_key_or_in_the_wrong_order() {
    let desk = Desk::furnished();
    desk.certificate_authority("ca");
    let pinned = format!(
        "state = \"active\"\npublic_key = \"{}\"\ncertificate_chain = \"{}\"",
        desk.path("release.pub").display(),
        desk.path("ca.pem").display()
    );
    desk.change("state = \"active\"", &pinned);
    let found = |words: &[&str]| {
        finds_in_file(&desk, "certificate chain", "certificate_chain", "keys.release.certificate_chain", words);
    };
    found(&["is a CA's; write the leaf first", "signerctl keys csr release"]);
    desk.run("openssl", &["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "stranger.key"]);
    desk.run("openssl", &["req", "-new", "-key", "stranger.key", "-subj", "/CN=stranger", "-out", "stranger.csr"]);
    desk.issue("ca", "stranger.csr", "stranger.pem", "30");
    desk.change(&desk.path("ca.pem").display().to_string(), &desk.path("stranger.pem").display().to_string());
    found(&["it is for SHA256:", "`release` is SHA256:"]);
}

#[test]
fn a_configuration_that_is_invalid_is_told_with_its_line() {
    let desk = Desk::furnished();
    desk.change("sessions = 3", "sesions = 3");
    let line = format!("signer.toml:{}:", desk.line("sesions"));
    desk.signerctl(&["token", "doctor", "main"]).fails(5, &[&line, "sesions", "sessions"]);
    desk.change("sesions = 3", "sessions = 3");
    desk.signerctl(&["token", "doctor", "mian"]).fails(2, &["no token `mian`", "`main`"]);
}
