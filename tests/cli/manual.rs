//! Help, usage errors, completions, man pages, and `config check`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::json;

use crate::{signerctl, signerctl_with};

const COMMANDS: [&[&str]; 33] = [
    &[],
    &["sign"],
    &["verify"],
    &["keys"],
    &["keys", "list"],
    &["keys", "attest"],
    &["token"],
    &["token", "drain"],
    &["token", "undrain"],
    &["keys", "generate"],
    &["keys", "csr"],
    &["keys", "import-cert"],
    &["keys", "export"],
    &["keys", "rotate"],
    &["keys", "retire"],
    &["keys", "delete"],
    &["token", "list"],
    &["token", "init"],
    &["token", "doctor"],
    &["trust"],
    &["trust", "make"],
    &["trust", "export"],
    &["release"],
    &["release", "check"],
    &["release", "snapshot"],
    &["init"],
    &["config", "check"],
    &["status"],
    &["token", "profiles"],
    &["token", "profiles", "show"],
    &["token", "conformance"],
    &["completions"],
    &["man"],
];

#[test]
fn every_command_explains_itself_and_its_exit_codes() {
    let directory = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let run = signerctl(directory.path(), &[command, &["--help"]].concat());
        run.succeeds(&["Usage: signerctl", "Exit status:", "  3  refused by the appliance", "  5  the configuration"]);
    }
    signerctl(directory.path(), &["--version"]).succeeds(&["signerctl ", env!("CARGO_PKG_VERSION")]);
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &[] as &[&str],
        &["frobnicate"],
        &["sign"],
        &["sign", "x.json", "--type", "sbom"],
        &["sign", "x.json", "--subject-file", "x"],
        &["sign", "x.json", "--type", "sbom", "--subject-file", "x", "--bundle", "zip"],
        &["sign", "x.json", "--type", "sbom", "--subject-file", "x", "--mode", "fast"],
        &["sign", "x.json", "--type", "sbom", "--subject-file", "x", "--token", "eyJ"],
        &["sign", "x.json", "--type", "sbom", "--subject-file", "x", "--retry-for", "soon"],
        &["verify", "x.json"],
        &["verify", "x.json", "--key", "a", "--keys", "b"],
        &["keys", "list", "--pem", "--jwks"],
        &["keys", "attest"],
        &["keys", "attest", "--out", "a", "--verify", "b"],
        &["keys", "attest", "--out", "a", "--public-key", "b"],
        &["token", "drain"],
        &["token", "drain", "a/b", "--local", "unix:/x"],
        &["keys", "generate", "k"],
        &["keys", "csr", "k"],
        &["keys", "csr", "k", "--subject", "release"],
        &["keys", "import-cert", "k"],
        &["keys", "export", "--format", "der"],
        &["keys", "rotate", "k", "--at", "tomorrow"],
        &["token", "list"],
        &["token", "list", "main", "--login"],
        &["token", "init", "--module", "/m.so"],
        &["token", "doctor"],
        &["token", "doctor", "main", "--pin", "1234"],
        &["status", "--local", "10.0.0.1:80"],
        &["status", "--local", "unix:relative"],
        &["token"],
        &["token", "profiles", "frobnicate"],
        &["token", "profiles", "show"],
        &["token", "conformance", "--module", "/m", "--token", "t", "--pin-file", "p"],
        &["token", "conformance", "--module", "/m", "--token", "t", "--generate", "--sessions", "0"],
        &["completions", "tcsh"],
        &["man"],
    ] {
        let run = signerctl(directory.path(), arguments);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{arguments:?}: {run:?}");
        assert!(!run.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_page_on_the_command_line_names_every_command_and_option() {
    let directory = tempfile::tempdir().unwrap();
    let page = include_str!("../../docs/cli.md");
    let options = |text: &'static str| {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        words.filter(|word| word.starts_with("--") && word.len() > 3).collect::<BTreeSet<_>>()
    };
    let documented = options(page);
    for command in COMMANDS {
        let title = [&["signerctl"], command].concat().join(" ");
        assert!(page.contains(&title), "`{title}` is not in docs/cli.md");
        let help = signerctl(directory.path(), &[command, &["--help"]].concat()).stdout;
        let missing: Vec<_> = options(help.leak()).difference(&documented).copied().collect();
        assert!(missing.is_empty(), "{missing:?} of `{title}` is not in docs/cli.md");
    }
    let exit_codes = page.lines().filter(|line| line.starts_with("| `") && line.contains("exit code")).count();
    assert_eq!(exit_codes, 7, "docs/cli.md has one row for each exit code");
}

#[test]
fn completions_are_scripts_that_the_shell_can_read() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = signerctl(directory.path(), &["completions", shell]);
        run.succeeds(&["signerctl", "verify", "scanner-digest"]);
        fs::write(directory.path().join(shell), &run.stdout).unwrap();
    }
    let read = Command::new("bash").args(["-n", "bash"]).current_dir(directory.path()).output().unwrap();
    assert!(read.status.success() && read.stderr.is_empty(), "{read:?}");
}

#[test]
fn there_is_a_man_page_for_every_command_and_it_renders() {
    let directory = tempfile::tempdir().unwrap();
    let run = signerctl(directory.path(), &["man", "--dir", "pages/man1", "--json"]);
    assert_eq!(run.code, 0, "{run:?}");
    let pages: Vec<String> = serde_json::from_value(run.json()["pages"].clone()).unwrap();
    for command in COMMANDS {
        let name = format!("pages/man1/{}.1", [&["signerctl"], command].concat().join("-"));
        assert!(pages.contains(&name), "{name} is not in {pages:?}");
    }
    for page in pages {
        let source = fs::read_to_string(directory.path().join(&page)).unwrap();
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH \"EXIT STATUS\"", ".B 6"] {
            assert!(source.contains(section), "{section} is not in {page}");
        }
        if let Ok(shown) = Command::new("man")
            .args(["--warnings", "-l", &page])
            .current_dir(directory.path())
            // Wide enough for the title line of the longest command.
            .env("MANWIDTH", "100")
            .env("LC_ALL", "C.UTF-8")
            .output()
        {
            let text = String::from_utf8_lossy(&shown.stdout);
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(shown.status.success() && shown.stderr.is_empty(), "{page}: {shown:?}");
            for part in ["StellaOps Signer signerctl", "EXIT STATUS 0 done", "3 refused by the appliance"] {
                assert!(words.contains(part), "`{part}` is not in {page}:\n{text}");
            }
        }
    }
}

#[test]
fn config_check_names_file_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("signer.toml"), "[server]\nlisten = \"127.0.0.1:0\"\nlisten_backlog = 5\n")
        .unwrap();
    let arguments = ["config", "check", "--config", "signer.toml"];
    signerctl(directory.path(), &arguments).fails(5, &["signer.toml:3:1: ", "listen_backlog"]);

    let run = signerctl(directory.path(), &[&arguments[..], &["--json"]].concat());
    let problems = run.json()["error"]["problems"].clone();
    assert_eq!(run.code, 5);
    let unknown = problems.as_array().unwrap().iter().find(|problem| problem["line"] == json!(3)).unwrap();
    assert_eq!((&unknown["column"], &unknown["file"]), (&json!(1), &json!("signer.toml")));

    signerctl(directory.path(), &["config", "check", "--config", "absent.toml"]).fails(5, &["absent.toml"]);

    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/signer.example.toml");
    let check = ["config", "check", "--config", example];
    signerctl(directory.path(), &[&check[..], &["--no-files"]].concat()).succeeds(&["is valid", "1 token"]);
    // The files that the example names belong to an installation, which this machine is not.
    signerctl(directory.path(), &check).fails(5, &["signer.example.toml:", "server.tls.certificate"]);
    signerctl_with(directory.path(), &["config", "check"], &[("SIGNER_CONFIG", "absent.toml")])
        .fails(5, &["absent.toml"]);
}
