//! The `.rpm`: what rpm knows of it, what its scripts are, and an installation into an empty root.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::package;
use crate::{named, only, output, program, source};

fn query(format: &str) -> String {
    let arguments = ["--query", "--package", "--queryformat", format].map(AsRef::<OsStr>::as_ref);
    output(program("rpm", arguments).arg(package(".rpm")))
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn its_scripts_are_those_of_the_repository_and_clean_posix_shell() {
    let said = output(program("rpm", ["--query", "--package", "--scripts"]).arg(package(".rpm")));
    let mut expected = String::new();
    for (title, script) in [("postinstall", "post"), ("preuninstall", "preun"), ("postuninstall", "postun")] {
        let file = source("packaging/rpm").join(script);
        output(program("shellcheck", ["--shell=sh".as_ref(), file.as_os_str()]));
        let text = fs::read_to_string(&file).unwrap();
        expected.push_str(&format!("{title} scriptlet (using /bin/sh):\n{}\n", text.trim_end()));
    }
    // rpm puts empty lines between them.
    let lines =
        |text: &str| -> Vec<String> { text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect() };
    assert_eq!(lines(&said), lines(&expected));
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn configuration_is_kept_by_upgrades_and_documents_may_be_left_out() {
    let flags = query("[%{FILENAMES} %{FILEFLAGS:fflags}\\n]");
    for line in flags.lines() {
        let (path, flags) = line.split_once(' ').unwrap_or((line, ""));
        // c: configuration, n: noreplace, d: documentation.
        let expected = match path {
            "/etc/stellaops-signer/signer.toml.d/50-site.toml" => "cn",
            path if path.starts_with("/usr/share/doc/") || path.starts_with("/usr/share/man/") => "d",
            _ => "",
        };
        assert_eq!(flags, expected, "{path}");
    }
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn it_needs_what_rhel_9_has_and_is_newer_than_the_one_before() {
    let requires = query("[%{REQUIRENAME} %{REQUIREFLAGS:depflags} %{REQUIREVERSION}\\n]");
    assert!(requires.lines().any(|line| line.trim() == "systemd >= 252"), "{requires}");
    assert!(requires.contains("libc.so.6()(64bit)"), "{requires}");
    let before = only(&named("SIGNER_PACKAGES").join("before"), ".rpm");
    let versions =
        program("rpm", ["--query", "--package", "--queryformat", "%{EVR} "]).arg(before).arg(package(".rpm")).output();
    let versions = String::from_utf8(versions.unwrap().stdout).unwrap();
    let (before, now) = versions.trim().split_once(' ').unwrap();
    let newer = output(program("rpm", ["--eval", &format!("%{{lua: print(rpm.vercmp('{before}', '{now}'))}}")]));
    assert_eq!(newer.trim(), "-1", "{before} against {now}");
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn it_installs_into_an_empty_root_verifies_and_leaves_changed_configuration() {
    let root = tempfile::tempdir().unwrap();
    let rpm = |arguments: &[&str]| -> Command {
        let mut rpm = program("rpm", ["--root".as_ref(), root.path().as_os_str()]);
        rpm.args(arguments);
        rpm
    };
    // An empty root has no shell for the scripts and no systemd to depend on.
    output(rpm(&["--install", "--nodeps", "--noscripts"]).arg(package(".rpm")));
    assert_eq!(output(rpm(&["--verify", "--nodeps", "--noscripts", "stellaops-signer"])), "");
    let help = output(Command::new(root.path().join("usr/bin/signerctl")).arg("--help"));
    assert!(help.contains("signerctl"), "{help}");

    let config = root.path().join("etc/stellaops-signer/signer.toml.d/50-site.toml");
    fs::write(&config, "[server.limits]\nmax_connections = 100\n").unwrap();
    let audit = root.path().join("var/lib/stellaops-signer/audit");
    fs::create_dir_all(&audit).unwrap();
    output(rpm(&["--upgrade", "--force", "--nodeps", "--noscripts"]).arg(package(".rpm")));
    assert!(fs::read_to_string(&config).unwrap().contains("100"), "an upgrade replaced the configuration");

    output(rpm(&["--erase", "--noscripts", "stellaops-signer"]));
    assert!(!config.exists() && config.with_extension("toml.rpmsave").exists());
    assert!(audit.exists());
    let mut left = Vec::new();
    files_below(root.path(), &mut left);
    // Its database: where Fedora's rpm has it, and where Debian's.
    left.retain(|path| !path.starts_with("/var/lib/rpm/") && !path.starts_with("/root/.rpmdb/"));
    assert_eq!(left, ["/etc/stellaops-signer/signer.toml.d/50-site.toml.rpmsave"]);
}

fn files_below(root: &Path, found: &mut Vec<String>) {
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else {
                found.push(format!("/{}", entry.strip_prefix(root).unwrap().display()));
            }
        }
    }
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn rpmlint_has_nothing_to_say_that_is_not_answered() {
    let config = source("packaging/rpm/rpmlint.toml");
    let said = program("rpmlint", ["--config".as_ref(), config.as_os_str()]).arg(package(".rpm")).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("; 0 errors, 0 warnings, "), "{said}");
}
