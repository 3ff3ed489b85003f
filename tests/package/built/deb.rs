//! The `.deb`: what dpkg knows of it, and what its scripts do.

use std::fs;

use super::{package, unpacked};
use crate::{named, only, output, program, source};

fn field(name: &str) -> String {
    let query = program("dpkg-deb", ["--field".as_ref(), package(".deb").as_os_str(), name.as_ref()]);
    output(query).trim().to_owned()
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn configuration_is_kept_by_upgrades_and_nothing_else_is() {
    let conffiles = fs::read_to_string(unpacked().join("DEBIAN/conffiles")).unwrap();
    let mut conffiles: Vec<&str> = conffiles.lines().filter(|line| !line.is_empty()).collect();
    conffiles.sort_unstable();
    assert_eq!(
        conffiles,
        [
            "/etc/apparmor.d/usr.sbin.signer-token",
            "/etc/apparmor.d/usr.sbin.signerd",
            "/etc/stellaops-signer/signer.toml.d/50-site.toml",
        ]
    );
    // Written by `signerctl init`: dpkg would ask about it at every upgrade that changed an example.
    assert!(!unpacked().join("etc/stellaops-signer/signer.toml").exists());
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn what_it_needs_is_known_to_apt() {
    let depends = field("Depends");
    for needed in ["libc6 (>= 2.", "systemd (>= 252)"] {
        assert!(depends.contains(needed), "{depends}");
    }
    // A software token comes to an appliance when somebody asks for it.
    assert_eq!(field("Recommends"), "ca-certificates, opensc");
    assert!(field("Suggests").contains("softhsm2"));
    assert_eq!(field("Version"), format!("{}-1", env!("CARGO_PKG_VERSION")));
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn the_package_before_is_replaced_by_this_one() {
    let before = only(&named("SIGNER_PACKAGES").join("before"), ".deb");
    let before = output(program("dpkg-deb", ["--field".as_ref(), before.as_os_str(), "Version".as_ref()]));
    output(program("dpkg", ["--compare-versions", before.trim(), "lt", &field("Version")]));
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn its_scripts_are_those_of_the_repository_and_clean_posix_shell() {
    for script in ["postinst", "prerm", "postrm"] {
        let packaged = unpacked().join("DEBIAN").join(script);
        assert_eq!(fs::read(&packaged).unwrap(), fs::read(source("packaging/deb").join(script)).unwrap(), "{script}");
        output(program("shellcheck", ["--shell=sh".as_ref(), packaged.as_os_str()]));
    }
    assert!(!unpacked().join("DEBIAN/preinst").exists(), "a script that this test does not read");
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn no_script_starts_what_is_not_configured_or_removes_what_proves_something() {
    for (folder, scripts) in
        [("packaging/deb", &["postinst", "prerm", "postrm"][..]), ("packaging/rpm", &["post", "preun", "postun"])]
    {
        for script in scripts {
            let text = fs::read_to_string(source(folder).join(script)).unwrap();
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
            for line in lines {
                let words: Vec<&str> = line.split_whitespace().collect();
                let says = |word: &str| words.contains(&word);
                assert!(!["userdel", "deluser", "groupdel", "delgroup"].into_iter().any(says), "{script}: {line}");
                let manages = says("systemctl") || says("deb-systemd-invoke") || says("deb-systemd-helper");
                assert!(
                    !manages || !["start", "enable", "reenable", "preset"].into_iter().any(says),
                    "{script}: {line}"
                );
                // Links that `systemctl enable` made are all that is removed with content.
                let removes = words.first() == Some(&"rm");
                let of_systemd = words
                    .iter()
                    .skip(2)
                    .all(|path| path.starts_with("/etc/systemd/system/") && path.contains(".wants"));
                assert!(!removes || of_systemd, "{script}: {line}");
                assert!(!says("shred") && !line.contains("-delete"), "{script}: {line}");
            }
        }
    }
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn lintian_has_nothing_to_say_that_is_not_answered() {
    let mut lintian = program("lintian", ["--allow-root", "--pedantic", "--fail-on=error,warning,info,pedantic"]);
    let said = output(lintian.arg(package(".deb")));
    assert_eq!(said.trim(), "");
    let overrides = fs::read_to_string(source("packaging/deb/lintian-overrides")).unwrap();
    let mut reason = false;
    for line in overrides.lines().filter(|line| !line.is_empty()) {
        assert!(line.starts_with('#') || reason, "an override without a reason: {line}");
        reason = line.starts_with('#');
    }
}
