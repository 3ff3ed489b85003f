//! The example, every key of the schema in it, and every rule of the loader.

mod example;
mod files;
mod mistakes;

use std::fs;
use std::path::{Path, PathBuf};

use super::load::Loaded;
use super::*;

const EXAMPLE: &str = include_str!("../../../docs/signer.example.toml");

fn sources(texts: &[&str]) -> Result<Loaded, ConfigErrors> {
    let name = |i| if i == 0 { PathBuf::from("signer.toml") } else { PathBuf::from(format!("signer.toml.d/{i}.toml")) };
    Loaded::from_sources(&texts.iter().enumerate().map(|(i, text)| (name(i), (*text).to_owned())).collect::<Vec<_>>())
}

fn refusals(drop_in: &str) -> Vec<String> {
    sources(&[EXAMPLE, drop_in]).unwrap_err().0.iter().map(ToString::to_string).collect()
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
    assert_eq!(config.token("main").unwrap().uri.as_deref(), Some("pkcs11:token=signer"));
    assert_eq!(config.token("mian").unwrap_err().to_string(), "the configuration has no token `mian`; it has `main`");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_configuration_is_refused_or_loads_and_never_more(
        at in 0..EXAMPLE.len(), length in 0usize..200, planted in "[\\[\\]{}=\"'.#\n a-z0-9é-]{0,12}",
    ) {
        let boundary = |mut i: usize| { while !EXAMPLE.is_char_boundary(i) { i -= 1; } i };
        let (from, to) = (boundary(at), boundary((at + length).min(EXAMPLE.len())));
        let damaged = format!("{}{planted}{}", &EXAMPLE[..from], &EXAMPLE[to..]);
        if let Err(errors) = sources(&[&damaged]) {
            proptest::prop_assert!(!errors.0.is_empty());
            for error in errors.0 {
                proptest::prop_assert!(error.origin.line >= 1 && !error.message.is_empty(), "{error}");
            }
        }
    }
}
