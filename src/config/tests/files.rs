//! Files that the configuration names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::*;
use super::{EXAMPLE, sources};

#[test]
fn a_sound_installation_passes_for_everyone() {
    let installed = installed(|_| {});
    for viewer in [Viewer::Front, Viewer::Worker("main"), Viewer::Operator] {
        installed.loaded.check_files(viewer).unwrap();
    }
}

#[test]
fn files_that_are_absent_wrong_or_open_to_strangers_are_named() {
    type Change = fn(&Path);
    let cases: [(&str, Change, &str, &str); 11] = [
        (
            "a key for all",
            |r| chmod(r, "key", 0o644),
            "server.tls.private_key",
            "mode 0644 opens this secret to others; run ",
        ),
        ("a key the group may write", |r| chmod(r, "key", 0o660), "server.tls.private_key", "mode 0660 opens"),
        ("a PIN for all", |r| chmod(r, "pin", 0o644), "tokens.main.pin_file", "mode 0644 opens this secret"),
        (
            "a module anyone replaces",
            |r| chmod(r, "module.so", 0o666),
            "tokens.main.module",
            "lets anyone write it; run ",
        ),
        (
            "a CA anyone replaces",
            |r| chmod(r, "server.crt", 0o666),
            "server.tls.client_ca",
            "lets anyone write it; run ",
        ),
        (
            "no list",
            |r| fs::remove_file(r.join("list.jwt")).unwrap(),
            "licensing.offline.revocation_list",
            "there is no such file; create ",
        ),
        ("no key in it", |r| put(r, "key", "x"), "server.tls.private_key", "it holds no private key; write "),
        (
            "no certificate in it",
            |r| put(r, "server.crt", "x"),
            "server.tls.certificate",
            "it holds no certificate; write ",
        ),
        (
            "an empty key set",
            |r| put(r, "jwks.json", "{\"keys\":[]}"),
            "authority.jwks.file",
            "its JWK set is empty; add ",
        ),
        ("no key set", |r| put(r, "jwks.json", "[]"), "licensing.offline.keys", "it is no JWK set; write "),
        ("a log directory for all", |r| chmod(r, "audit", 0o777), "audit.path", "anyone can write to its directory"),
    ];
    for (name, change, key, message) in cases {
        let installed = installed(change);
        let errors = installed.loaded.check_files(Viewer::Operator).unwrap_err();
        let named = errors.0.iter().any(|error| error.key == key && error.message.contains(message));
        assert!(named, "{name}: {errors}");
    }
}

fn chmod(root: &Path, name: &str, mode: u32) {
    fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn put(root: &Path, name: &str, text: &str) {
    fs::write(root.join(name), text).unwrap();
}

#[test]
fn the_front_does_not_need_a_workers_files_and_a_worker_not_the_fronts() {
    let installed = installed(|root| {
        fs::remove_file(root.join("pin")).unwrap();
        fs::remove_file(root.join("module.so")).unwrap();
    });
    installed.loaded.check_files(Viewer::Front).unwrap();
    let errors = installed.loaded.check_files(Viewer::Operator).unwrap_err();
    assert_eq!(
        errors.0.iter().map(|error| error.key.as_str()).collect::<Vec<_>>(),
        ["tokens.main.module", "tokens.main.pin_file"]
    );

    let key = installed.directory.path().join("key");
    fs::remove_file(key).unwrap();
    let errors = installed.loaded.check_files(Viewer::Worker("main")).unwrap_err();
    assert!(errors.0.iter().all(|error| error.key.starts_with("tokens.main.")), "{errors}");
}

/// Files of a small installation, laid out in a directory of its own.
struct Installed {
    directory: tempfile::TempDir,
    loaded: Loaded,
}

fn installed(change: impl Fn(&Path)) -> Installed {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let issued = rcgen::generate_simple_self_signed(["signer.example".to_owned()]).unwrap();
    let write = |name: &str, mode: u32, text: &str| {
        fs::write(root.join(name), text).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("server.crt", 0o644, &issued.cert.pem());
    write("key", 0o600, &issued.signing_key.serialize_pem());
    write("jwks.json", 0o644, "{\"keys\":[{}]}");
    write("list.jwt", 0o644, "x");
    write("module.so", 0o644, "x");
    write("pin", 0o400, "1234\n");
    fs::create_dir(root.join("audit")).unwrap();
    change(root);
    let text = EXAMPLE
        .lines()
        .filter(|line| {
            !line.starts_with("revocation_list") && !line.starts_with("pin_file") && !line.starts_with("module")
        })
        .collect::<Vec<_>>()
        .join("\n");
    let at = |name: &str| root.join(name).display().to_string();
    let (crt, key, jwks) = (at("server.crt"), at("key"), at("jwks.json"));
    let drop_in = format!(
        "[server.tls]\ncertificate = '{crt}'\nprivate_key = '{key}'\nclient_ca = '{crt}'\n\
         [authority]\nca = '{crt}'\njwks = {{ file = '{jwks}' }}\n\
         [licensing.offline]\nkeys = '{jwks}'\nrevocation_list = '{}'\n\
         [licensing.online]\nca = '{crt}'\ncertificate = '{crt}'\nprivate_key = '{key}'\n\
         [tokens.main]\nmodule = '{}'\npin_file = '{}'\n[audit]\npath = '{}'\n",
        at("list.jwt"),
        at("module.so"),
        at("pin"),
        at("audit/audit.jsonl")
    );
    Installed { loaded: sources(&[&text, &drop_in]).unwrap(), directory }
}

#[test]
fn a_token_that_chooses_as_whom_we_sign_is_written_by_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    put(directory.path(), "token", "x");
    let drop_in = format!(
        "[keyless]\nfulcio_url = 'http://127.0.0.1:5555'\ntrusted_root = '/nonexistent'\n\
         [keyless.identity.workload]\nsource = {{ file = '{}' }}\nissuer = 'https://oidc.example'\n\
         audience = 'sigstore'\n",
        token.display()
    );
    let loaded = sources(&[EXAMPLE, &drop_in]).unwrap();
    for (mode, named) in [(0o644, false), (0o664, true), (0o646, true)] {
        chmod(directory.path(), "token", mode);
        let errors = loaded.check_files(Viewer::Operator).unwrap_err();
        let key = "keyless.identity.workload.source.file";
        let found =
            errors.0.iter().any(|error| error.key == key && error.message.contains("lets others than its owner"));
        assert_eq!(found, named, "{mode:o}: {errors}");
    }
}
