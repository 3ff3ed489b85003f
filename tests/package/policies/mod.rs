//! The AppArmor profiles and the SELinux module: their compilers take them, and they say what they should.

use std::collections::BTreeSet;
use std::fs;

use crate::{named, output, program, source};

const PROFILES: [&str; 2] = ["usr.sbin.signerd", "usr.sbin.signer-token"];

#[test]
fn apparmor_compiles_the_profiles() {
    for profile in PROFILES {
        let file = source("packaging/apparmor").join(profile);
        // Without the kernel's own features, which a machine without AppArmor has not.
        let mut parser = program("apparmor_parser", ["--skip-kernel-load", "--skip-cache", "--quiet"]);
        parser.args(["--features-file", "/etc/apparmor.d/abi/3.0", "--stdout"]);
        let compiled = parser.arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{profile}: {said}");
        assert!(compiled.stdout.len() > 1000, "{profile} compiles to nothing: {said}");
    }
}

/// Whether a line of a profile with these permissions covers `path`; AppArmor's `*`, `**`, `{a,b}`.
fn allows(profile: &str, path: &str, permission: char) -> bool {
    profile.lines().map(str::trim).filter(|line| line.starts_with('/')).any(|line| {
        let (pattern, permissions) = line.trim_end_matches(',').rsplit_once(' ').unwrap();
        permissions.contains(permission) && alternatives(pattern).iter().any(|pattern| covers(pattern, path))
    })
}

fn alternatives(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (inner, after) = rest.split_once('}').unwrap();
    inner.split(',').flat_map(|one| alternatives(&format!("{before}{one}{after}"))).collect()
}

fn covers(pattern: &str, path: &str) -> bool {
    let Some((before, after)) = pattern.split_once("**") else { return crate::matches(pattern, path) };
    let ends = |from: usize| (from..=path.len()).filter(|at| path.is_char_boundary(*at));
    ends(0).filter(|at| crate::matches(before, &path[..*at])).any(|at| ends(at).any(|at| covers(after, &path[at..])))
}

#[test]
fn a_worker_may_load_every_module_that_a_profile_of_a_device_names() {
    let profile = fs::read_to_string(source("packaging/apparmor/usr.sbin.signer-token")).unwrap();
    let mut modules = BTreeSet::new();
    for device in fs::read_dir(source("hsm-profiles")).unwrap() {
        let text = fs::read_to_string(device.unwrap().path().join("profile.toml")).unwrap();
        let paths =
            text.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"').map(str::to_owned));
        modules.extend(paths);
    }
    assert!(modules.len() > 10, "{modules:?}");
    for module in &modules {
        assert!(allows(&profile, module, 'm'), "the profile lets no worker load {module}");
    }
    assert!(!allows(&profile, "/home/mallory/module.so", 'm') && !allows(&profile, "/tmp/module.so", 'm'));
}

#[test]
fn a_worker_may_read_what_init_lends_it_and_ask_for_its_pin_as_operations_says() {
    let profile = fs::read_to_string(source("packaging/apparmor/usr.sbin.signer-token")).unwrap();
    // AppArmor's `[0-9]` is one character; this reader knows none of it.
    let profile = profile.replace("[0-9]", "1");
    for (path, permission) in [
        ("/run/stellaops-signer-init.1234/", 'r'),
        ("/run/stellaops-signer-init.1234/signer.toml", 'r'),
        ("/run/stellaops-signer-init.1234/pin", 'r'),
        ("/usr/bin/systemd-ask-password", 'x'),
        ("/bin/systemd-ask-password", 'x'),
        ("/run/systemd/ask-password/ask.a1b2c3", 'w'),
        ("/run/credentials/signer-token@main.service/pin", 'r'),
        ("/run/credentials/run-u7.service/pin", 'r'),
        // Where docs/operations.md says that the file of --pin-file may lie.
        ("/run/stellaops-signer/pin", 'r'),
        ("/etc/stellaops-signer/pin", 'r'),
    ] {
        assert!(allows(&profile, path, permission), "{path} {permission}");
    }
    assert!(!allows(&profile, "/run/stellaops-signer-init.1234/pin", 'w'));
    assert!(!allows(&profile, "/run/credentials/signerd.service/server.key", 'r'));
    assert!(!allows(&profile, "/srv/pin", 'r') && !allows(&profile, "/usr/bin/sh", 'x'));
    assert!(profile.contains("include <abstractions/consoles>"), "a PIN cannot be typed");
}

#[test]
fn neither_process_has_a_rule_for_the_others_state() {
    for (profile, own, other) in [
        ("usr.sbin.signerd", "/var/lib/stellaops-signer/audit/1", "/var/lib/stellaops-signer-token/main/pin"),
        ("usr.sbin.signer-token", "/var/lib/stellaops-signer-token/main/pin", "/var/lib/stellaops-signer/audit/1"),
    ] {
        let text = fs::read_to_string(source("packaging/apparmor").join(profile)).unwrap();
        assert!(allows(&text, own, 'w') && !allows(&text, other, 'r'), "{profile}");
        assert!(!allows(&text, "/etc/credstore.encrypted/signer-token@main.pin", 'r'), "{profile}");
        let denied = text.lines().filter(|line| line.trim().starts_with("deny ")).count();
        assert!(denied >= 5, "{profile}");
    }
}

#[test]
fn every_program_and_every_directory_has_a_selinux_label_that_the_module_defines() {
    let contexts = fs::read_to_string(source("packaging/selinux/stellaops-signer.fc")).unwrap();
    let module = fs::read_to_string(source("packaging/selinux/stellaops-signer.te")).unwrap();
    for path in [
        "/usr/bin/signerctl",
        "/usr/sbin/signerd",
        "/usr/sbin/signer-token",
        "/usr/libexec/stellaops-signer/signer-keyless",
        "/etc/stellaops-signer(/.*)?",
        "/var/lib/stellaops-signer(/.*)?",
        "/var/lib/stellaops-signer-token(/.*)?",
        "/run/stellaops-signer(/.*)?",
    ] {
        let line = contexts.lines().find(|line| line.split_whitespace().next() == Some(path));
        let label = line.unwrap_or_else(|| panic!("{path} has no label")).rsplit('\t').next().unwrap();
        let kind = label.split(':').nth(2).unwrap();
        assert!(module.contains(&format!("type {kind},")) || kind == "bin_t", "{path}: {kind} is defined nowhere");
    }
}

#[test]
#[ignore = "needs the reference policy: cargo xtask test package"]
fn the_selinux_module_links_and_expands_with_the_reference_policy() {
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    let compressed = named("SIGNER_PEER_SELINUX_POLICY");
    let base = output(
        program("sh", ["-c", "bzip2 --decompress --stdout \"$1\" > \"$2\"", "sh"])
            .args([compressed.as_os_str(), at("base.pp").as_os_str()]),
    );
    assert_eq!(base, "");
    output(
        program("checkmodule", ["-M", "-m", "-c", "19", "-o"])
            .arg(at("stellaops-signer.mod"))
            .arg(source("packaging/selinux/stellaops-signer.te")),
    );
    output(
        program("semodule_package", ["-o"])
            .arg(at("stellaops-signer.pp"))
            .arg("-m")
            .arg(at("stellaops-signer.mod"))
            .arg("-f")
            .arg(source("packaging/selinux/stellaops-signer.fc")),
    );
    // Linking finds a type that the policy has not; expanding, an allow that a neverallow forbids.
    output(program("semodule_link", ["-o"]).args([at("linked.lnk"), at("base.pp"), at("stellaops-signer.pp")]));
    output(program("semodule_expand", [at("linked.lnk"), at("policy")]));
    assert!(fs::metadata(at("policy")).unwrap().len() > 100_000);
}
