//! The example, every key of the schema in it, and every rule of the loader.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::de::Kind;
use super::load::Loaded;
use super::tree::{Step, Value, dotted, parse};
use super::*;

const EXAMPLE: &str = include_str!("../../docs/signer.example.toml");

fn sources(texts: &[&str]) -> Result<Loaded, ConfigErrors> {
    let name = |i| if i == 0 { PathBuf::from("signer.toml") } else { PathBuf::from(format!("signer.toml.d/{i}.toml")) };
    Loaded::from_sources(&texts.iter().enumerate().map(|(i, text)| (name(i), (*text).to_owned())).collect::<Vec<_>>())
}

fn refusals(drop_in: &str) -> Vec<String> {
    sources(&[EXAMPLE, drop_in]).unwrap_err().0.iter().map(ToString::to_string).collect()
}

fn is_optional(line: &str) -> bool {
    line.starts_with('#') && line.len() > 1 && !line[1..].starts_with([' ', '-'])
}

fn everything_uncommented() -> String {
    EXAMPLE.lines().map(|line| if is_optional(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_loads_as_shipped_and_with_everything_uncommented() {
    sources(&[EXAMPLE]).unwrap();
    sources(&[&everything_uncommented()]).unwrap();
}

/// Plants a key that no table knows into each table of the example: the refusal lists what the schema allows there.
#[test]
fn every_key_of_the_schema_is_in_the_example() {
    fn tables(node: &tree::Node, path: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
        match &node.value {
            Value::Table(table) => {
                found.push(path.clone());
                for (name, entry) in &table.entries {
                    path.push(Step::Key(name.clone()));
                    tables(&entry.node, path, found);
                    path.pop();
                }
            }
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    path.push(Step::Index(i));
                    tables(item, path, found);
                    path.pop();
                }
            }
            _ => {}
        }
    }
    let tree = parse(Path::new("signer.toml"), &everything_uncommented()).unwrap();
    let mut found = Vec::new();
    tables(&tree, &mut Vec::new(), &mut found);
    let mut structs = 0;
    for path in found {
        let mut planted = tree.clone();
        planted.plant(&path, "no such key", parse(Path::new("x"), "x = 1").unwrap());
        let Err(refusal) = Config::deserialize(&planted) else { panic!("{} takes any key", dotted(&path)) };
        // Elsewhere: a map of names (`tokens`), which takes any, or a choice (`jwks`), which takes one.
        let Kind::UnknownKey { allowed, .. } = refusal.kind else { continue };
        if refusal.path.len() != path.len() + 1 {
            continue;
        }
        structs += 1;
        for key in allowed {
            let mut whole = path.clone();
            whole.push(Step::Key((*key).to_owned()));
            assert!(tree.has(&whole), "{} is not in docs/signer.example.toml", dotted(&whole));
        }
    }
    assert_eq!(structs, 17, "a struct of the schema is not reached; give the example a section for it");
}

#[test]
fn the_example_shows_the_true_defaults() {
    let shipped = format!("{:?}", sources(&[EXAMPLE]).unwrap().config);
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let mut shown = 0;
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| is_optional(line)) {
        let above = lines[..i].iter().rev().take_while(|line| line.starts_with("# ")).copied().collect::<String>();
        let in_block = lines[..i].iter().rev().take_while(|line| !line.is_empty()).any(|line| line.starts_with("#["));
        if line.starts_with("#[") || in_block {
            continue;
        }
        let mut changed = lines.clone();
        changed[i] = &line[1..];
        let loaded = sources(&[&changed.join("\n")]).unwrap_or_else(|e| panic!("{line}: {e}"));
        let same = format!("{:?}", loaded.config) == shipped;
        assert_eq!(same, !above.contains("No default"), "{line}");
        shown += usize::from(same);
    }
    assert!(shown > 30, "only {shown} defaults are shown");
}

#[test]
fn each_mistake_is_named_with_its_place_its_key_and_what_would_be_right() {
    let d = "signer.toml.d/1.toml";
    let mut wrong = Vec::new();
    for (drop_in, expected) in [
        (
            "[tokens.main]\nsesions = 8",
            format!(
                "{d}:2:1: tokens.main.sesions: `sesions` is not a key that is known here; did you mean `sessions`? allowed: `socket`, "
            ),
        ),
        (
            "tokens.main.sessions = 0",
            format!("{d}:1:24: tokens.main.sessions: found integer `0`; write a whole number from 1 to 4294967295"),
        ),
        (
            "tokens.main.sessions = \"8\"",
            format!("{d}:1:24: tokens.main.sessions: found text; write a whole number from 1"),
        ),
        (
            "[server]\nlisten = 'here'",
            format!("{d}:2:10: server.listen: this is no address; write an address and a port"),
        ),
        ("[sever]", format!("{d}:1:2: sever: `sever` is not a key that is known here; did you mean `server`?")),
        (
            "server.tls.min_version = '1.1'",
            format!(
                "{d}:1:26: server.tls.min_version: `1.1` is not among the values known here; did you mean `1.2`? allowed: `1.2`, `1.3`"
            ),
        ),
        (
            "server.local_listen = '0.0.0.0:9443'",
            format!("{d}:1:23: server.local_listen: `0.0.0.0:9443` is not loopback; "),
        ),
        (
            "server.local_listen = '127.0.0.1:1'\nserver.listen = '127.0.0.1:1'",
            format!("{d}:1:23: server.local_listen: 127.0.0.1:1 is the Signer API's own address; write "),
        ),
        (
            "server.limits.idle_timeout = '30'",
            format!("{d}:1:30: server.limits.idle_timeout: `30` is no duration; write "),
        ),
        (
            "server.limits.max_body_bytes = '1 GB'",
            format!("{d}:1:32: server.limits.max_body_bytes: `1 GB` is no size; write "),
        ),
        (
            "server.limits.max_body_bytes_in_flight = '1 MiB'",
            format!("{d}:1:42: server.limits.max_body_bytes_in_flight: 1 MiB for all bodies is less than the 32 MiB"),
        ),
        (
            "server.limits.max_header_bytes = '1 B'",
            format!("{d}:1:34: server.limits.max_header_bytes: 1 B is out of range; write between"),
        ),
        ("server.public_url = 'http://x'", format!("{d}:1:21: server.public_url: `http://x` is not https; write ")),
        ("server.threads = 1000", format!("{d}:1:18: server.threads: 1000 event loops")),
        (
            "authority.jwks = {}",
            format!("{d}:1:18: authority.jwks: exactly one is needed of `discovery`, `url`, `file`"),
        ),
        (
            "authority.jwks = { url = 'https://x', file = '/x' }",
            format!("{d}:1:18: authority.jwks: exactly one is needed of "),
        ),
        (
            "authority.jwks = { uri = 'https://x' }",
            format!("{d}:1:20: authority.jwks.uri: `uri` is not among the values known here; did you mean `url`?"),
        ),
        (
            "authority.jwks = { url = 'http://x.example' }",
            format!(
                "{d}:1:26: authority.jwks.url: `http://x.example` is not encrypted, which is accepted only to loopback; write "
            ),
        ),
        (
            "authority.jwks = { file = 'jwks.json' }",
            format!("{d}:1:27: authority.jwks.file: this is no absolute path; write "),
        ),
        ("authority.audience = '*'", format!("{d}:1:22: authority.audience: a wildcard would ")),
        ("authority.scope = 'a b'", format!("{d}:1:19: authority.scope: this is not one scope; write ")),
        (
            "authority.algorithms = ['ES256', 'none']",
            format!("{d}:1:34: authority.algorithms[1]: `none` is not among the values known here; "),
        ),
        ("authority.algorithms = []", format!("{d}:1:24: authority.algorithms: no signature would be accepted; list ")),
        (
            "authority.clock_skew = '1h'",
            format!("{d}:1:24: authority.clock_skew: 3600s is too long; write at most \"300s\""),
        ),
        (
            "authority.jwks_max_stale = '1m'",
            format!("{d}:1:28: authority.jwks_max_stale: 60s is shorter than `jwks_refresh` (300s); write "),
        ),
        (
            "authority.dpop.max_remembered_proofs = 5",
            format!("{d}:1:40: authority.dpop.max_remembered_proofs: a handful "),
        ),
        (
            "authority.dpop.nonce = 'never'",
            format!(
                "{d}:1:24: authority.dpop.nonce: `never` is not among the values known here; allowed: `always`, `after-restart`"
            ),
        ),
        (
            "plans.pro.max_artifact_bytes = '1 GiB'",
            format!(
                "{d}:1:32: plans.pro.max_artifact_bytes: 1 GiB can never be used, since server.limits.max_body_bytes is 32 MiB; write "
            ),
        ),
        (
            "[[release.trusted]]\ndigest = 'sha256:00'\nsigned_by = 'x'\nreason = 'y'",
            format!("{d}:2:10: release.trusted[0].digest: `sha256:00` is no image digest; write "),
        ),
        (
            "[[release.trusted]]\ndigest = 'x'\nsigned_by = 'x'",
            format!("{d}:1:1: release.trusted[0].reason: it is missing; write `reason = …` in [release.trusted[0]]"),
        ),
        (
            "tokens.main.uri = 'pkcs11:token=x?pin-value=1234'",
            format!("{d}:1:19: tokens.main.uri: the URI carries a PIN; move "),
        ),
        (
            "tokens.main.pin_file = '123456'",
            format!("{d}:1:24: tokens.main.pin_file: this is no absolute path; write "),
        ),
        (
            "tokens.main.sessions = 5000",
            format!("{d}:1:24: tokens.main.sessions: 5000 sessions are more than tokens have; write at most 1024"),
        ),
        (
            "tokens.second = { socket = '/run/s', front_user = 'a', worker_user = 'b', module = '/m', uri = 'pkcs11:' }",
            format!("{d}:1:17: tokens.second.pin_file: it is missing; write `pin_file = …` in [tokens.second]"),
        ),
        (
            "[tokens.second]\nsocket = '/run/stellaops-signer/token-main.sock'\nfront_user = 'a'\nworker_user = 'b'\nmodule = '/m'\nuri = 'pkcs11:'\npin_file = '/p'",
            format!("{d}:2:10: tokens.second.socket: token `main` has the same socket; "),
        ),
        (
            "keys.acme-2026.token = 'mian'",
            format!(
                "{d}:1:24: keys.acme-2026.token: there is no token `mian`; did you mean `main`? configured: `main`"
            ),
        ),
        (
            "keys.acme-2026.state = 'on'",
            format!(
                "{d}:1:24: keys.acme-2026.state: `on` is not among the values known here; allowed: `next`, `active`, `retired`"
            ),
        ),
        ("keys.acme-2026.state = 'retired'", "signer.toml:".to_owned()),
        (
            "keys.acme-2026.not_before = 2027-01-01T00:00:00Z\nkeys.acme-2026.not_after = 2026-01-01T00:00:00Z",
            format!("{d}:2:28: keys.acme-2026.not_after: the key ends (2026-01-01T00:00:00Z) before it begins"),
        ),
        (
            "keys.acme-2026.not_before = 'soon'",
            format!("{d}:1:29: keys.acme-2026.not_before: `soon` is no moment with a time zone; write "),
        ),
        (
            "tenants.acme.keys = ['acme-2025']",
            format!(
                "{d}:1:22: tenants.acme.keys[0]: there is no key `acme-2025`; did you mean `acme-2026`? configured: `acme-2026`"
            ),
        ),
        (
            "tenants.acme.keys = ['acme-2026', 'acme-2026']",
            format!("{d}:1:35: tenants.acme.keys[1]: `acme-2026` is listed twice"),
        ),
        ("tenants.acme.keys = []", format!("{d}:1:21: tenants.acme.keys: none of the tenant's keys signs; list ")),
        (
            "tenants.acme.predicate_types = []",
            format!("{d}:1:32: tenants.acme.predicate_types: the tenant may have nothing signed; list "),
        ),
        (
            "tenants.acme.default_mode = 'hsm'",
            format!(
                "{d}:1:29: tenants.acme.default_mode: `hsm` is not among the values known here; allowed: `kms`, `keyless`"
            ),
        ),
        ("audit.path = 'audit.jsonl'", format!("{d}:1:14: audit.path: this is no absolute path; write ")),
        ("audit.group_commit = '1s'", format!("{d}:1:22: audit.group_commit: 1s is too long; write at most \"100ms\"")),
        ("log.filter = 'loud=very'", format!("{d}:1:14: log.filter: this is no filter (")),
        ("tenants = 7", format!("{d}:1:11: tenants: found a whole number; write a table of names")),
        ("server = []", format!("{d}:1:10: server: found a list; write a table of keys")),
        ("a = 1\na = 2", format!("{d}:2:1: this is not TOML: duplicate key")),
        ("[server", format!("{d}:1:")),
    ] {
        let refusals = refusals(drop_in);
        if refusals.len() != 1 || !refusals[0].starts_with(&expected) {
            wrong.push(format!("{drop_in}\n   is {refusals:#?}\n   not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_section_that_is_missing_is_named() {
    assert_eq!(
        sources(&[""]).unwrap_err().to_string(),
        "signer.toml:1:1: server: the section is missing; add [server]"
    );
    let without = EXAMPLE.replace("[licensing.offline]", "[plans.a]").replace("[licensing.online]", "[plans.b]");
    let error = sources(&[&without]).unwrap_err().to_string();
    assert!(error.contains("plans.a.issuer: `issuer` is not a key that is known here"), "{error}");
}

#[test]
fn several_mistakes_are_reported_in_one_run() {
    let broken = EXAMPLE
        .replace("listen = \"0.0.0.0:8443\"", "listen = 8443")
        .replace("qps = 100", "qsp = 100")
        .replace("state = \"active\"", "state = \"on\"")
        .replace("#sessions = 4", "sessions = 0\nsesions = 4");
    let keys: Vec<String> = sources(&[&broken]).unwrap_err().0.into_iter().map(|error| error.key).collect();
    let expected = [
        "server.listen",
        "plans.pro.qps",
        "plans.pro.qsp",
        "tokens.main.sessions",
        "tokens.main.sesions",
        "keys.acme-2026.state",
    ];
    assert_eq!(keys, expected);

    let drop_in = "tenants.acme.keys = ['x']\nkeys.acme-2026.token = 'y'\naudit.path = 'z'\nserver.public_url = 'w'";
    let keys: Vec<String> = sources(&[EXAMPLE, drop_in]).unwrap_err().0.into_iter().map(|error| error.key).collect();
    assert_eq!(keys, ["tenants.acme.keys[0]", "keys.acme-2026.token", "audit.path", "server.public_url"]);
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for drop_in in [
        "tokens.main.pin = 'hunter2'",
        "tokens.main.pin_file = 'hunter2'",
        "tokens.main.sessions = 'hunter2'",
        "tokens.main.uri = 'pkcs11:token=x?pin-value=hunter2'",
        "authority.jwks = { url = 'https://a:hunter2@x.example' }",
        "pin = hunter2",
    ] {
        let refusals = refusals(drop_in).join("\n");
        assert!(!refusals.contains("hunter2"), "{refusals}");
    }
}

#[test]
fn keys_may_hand_over_to_each_other_but_not_overlap_or_leave_a_gap() {
    let second = |from: &str| {
        format!(
            "keys.acme-2026.not_after = 2028-01-01T00:00:00Z\ntenants.acme.keys = ['acme-2026', 'acme-2028']\n\
             keys.acme-2028 = {{ token = 'main', uri = 'pkcs11:object=b', state = 'active', not_before = {from} }}"
        )
    };
    sources(&[EXAMPLE, &second("2028-01-01T00:00:00Z")]).unwrap();
    let overlap = refusals(&second("2027-12-31T00:00:00Z"));
    assert!(overlap[0].contains("tenants.acme.keys: both `acme-2026` and `acme-2028` sign at once; "), "{overlap:?}");
    let gap = refusals(&second("2028-01-02T00:00:00Z"));
    assert!(
        gap[0].contains("tenants.acme.keys: nobody signs between the end of `acme-2026` (2028-01-01T00:00:00Z)"),
        "{gap:?}"
    );
}

#[test]
fn drop_ins_are_read_in_the_order_of_their_names_and_nothing_else_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("signer.toml");
    let drop_ins = directory.path().join("signer.toml.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(&file, EXAMPLE).unwrap();
    for (name, text) in [
        ("20-b.toml", "audit.path = '/b'"),
        ("10-a.toml", "audit.path = '/a'\naudit.group_commit = '1ms'\ntenants.acme.predicate_types = ['*']"),
        (".hidden.toml", "nonsense"),
        ("30-c.toml.disabled", "nonsense"),
        ("README", "nonsense"),
    ] {
        fs::write(drop_ins.join(name), text).unwrap();
    }
    let loaded = open(&file).unwrap();
    assert_eq!(loaded.config.audit.path, Path::new("/b"));
    assert_eq!(loaded.config.audit.group_commit, Span::micros(1000));
    assert_eq!(loaded.config.tenants["acme"].predicate_types, ["*"]);
    assert_eq!(loaded.files.len(), 3);
}

#[test]
fn a_file_that_cannot_be_configuration_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("signer.toml");
    let error = || Config::load(&file).unwrap_err().to_string();
    assert!(error().contains("signer.toml: it cannot be read: No such file"), "{}", error());
    fs::write(&file, b"a = 1\nb = '\xff'\n").unwrap();
    assert!(error().contains("line 2 is not UTF-8"), "{}", error());
    fs::write(&file, vec![b'\n'; (1 << 20) + 1]).unwrap();
    assert!(error().contains("longer than 1 MiB"), "{}", error());
}

#[test]
fn a_worker_finds_its_token_and_a_wrong_name_is_told_the_right_ones() {
    let config = sources(&[EXAMPLE]).unwrap().config;
    assert_eq!(config.token("main").unwrap().uri, "pkcs11:token=signer");
    assert_eq!(config.token("mian").unwrap_err().to_string(), "the configuration has no token `mian`; it has `main`");
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
