//! Every file of both packages: nothing that is not expected, nothing missing, each with its owner and mode.

use super::package;
use crate::{matches, output, program};

/// What belongs to a package, with its mode. A `*` is any part of one name.
const FILES: &[(&str, &str)] = &[
    ("-rwxr-xr-x", "/usr/bin/signerctl"),
    ("-rwxr-xr-x", "/usr/sbin/signerd"),
    ("-rwxr-xr-x", "/usr/sbin/signer-token"),
    ("-rwxr-xr-x", "/usr/libexec/stellaops-signer/signer-keyless"),
    ("-rw-r--r--", "/usr/lib/systemd/system/stellaops-signer.target"),
    ("-rw-r--r--", "/usr/lib/systemd/system/signerd.service"),
    ("-rw-r--r--", "/usr/lib/systemd/system/signerd*.socket"),
    ("-rw-r--r--", "/usr/lib/systemd/system/signer-token@.service"),
    ("-rw-r--r--", "/usr/lib/systemd/system/signer-token@.socket"),
    ("-rw-r--r--", "/usr/lib/systemd/system/signer-token-pin@.service"),
    ("-rw-r--r--", "/usr/lib/systemd/system/signer-token-pin@.socket"),
    ("-rw-r--r--", "/usr/lib/systemd/catalog/stellaops-signer.catalog"),
    ("-rw-r--r--", "/usr/share/stellaops-signer/drop-ins/*.conf"),
    ("-rw-r--r--", "/usr/lib/sysusers.d/stellaops-signer.conf"),
    ("-rw-r--r--", "/usr/lib/tmpfiles.d/stellaops-signer.conf"),
    ("-rw-r--r--", "/usr/lib/systemd/system-preset/50-stellaops-signer.preset"),
    ("-rw-r--r--", "/etc/stellaops-signer/signer.toml.d/50-site.toml"),
    ("-rw-r--r--", "/usr/share/stellaops-signer/hsm-profiles/*/profile.toml"),
    ("-rw-r--r--", "/usr/share/stellaops-signer/hsm-profiles/*/signer-token.conf"),
    ("-rw-r--r--", "/usr/share/stellaops-signer/hsm-profiles/*/signer-token-usb.conf"),
    ("-rw-r--r--", "/usr/share/stellaops-signer/hsm-profiles/*/README.md"),
    ("-rw-r--r--", "/usr/share/stellaops-signer/monitoring/alerts.yml"),
    ("-rw-r--r--", "/usr/share/stellaops-signer/monitoring/prometheus.yml"),
    ("-rw-r--r--", "/usr/share/stellaops-signer/monitoring/dashboard.json"),
    ("-rw-r--r--", "/usr/share/stellaops-signer/sbom.cdx.json"),
    ("-rw-r--r--", "/usr/share/man/man1/signerctl*.1.gz"),
    ("-rw-r--r--", "/usr/share/man/man8/signerd.8.gz"),
    ("-rw-r--r--", "/usr/share/man/man8/signer-token.8.gz"),
    ("-rw-r--r--", "/usr/share/bash-completion/completions/signerctl"),
    ("-rw-r--r--", "/usr/share/fish/vendor_completions.d/signerctl.fish"),
    ("-rw-r--r--", "/usr/share/zsh/*/_signerctl"),
    ("-rw-r--r--", "/usr/share/doc/stellaops-signer/*.md"),
    ("-rw-r--r--", "/usr/share/doc/stellaops-signer/openapi.json"),
    ("-rw-r--r--", "/usr/share/doc/stellaops-signer/architecture.svg"),
    ("-rw-r--r--", "/usr/share/doc/stellaops-signer/examples/signer.example.toml"),
    ("-rw-r--r--", "/usr/share/doc/stellaops-signer/copyright"),
    ("-rw-r--r--", "/usr/share/doc/stellaops-signer/THIRD-PARTY-LICENSES.gz"),
];
const DEB_ALONE: &[(&str, &str)] = &[
    ("-rw-r--r--", "/etc/apparmor.d/usr.sbin.signerd"),
    ("-rw-r--r--", "/etc/apparmor.d/usr.sbin.signer-token"),
    ("-rw-r--r--", "/usr/share/doc/stellaops-signer/changelog.gz"),
    ("-rw-r--r--", "/usr/share/doc/stellaops-signer/changelog.Debian.gz"),
    ("-rw-r--r--", "/usr/share/lintian/overrides/stellaops-signer"),
];
const RPM_ALONE: &[(&str, &str)] = &[
    ("-rw-r--r--", "/usr/share/selinux/packages/stellaops-signer.pp"),
    ("-rw-r--r--", "/usr/share/selinux/packages/stellaops-signer.te"),
    ("-rw-r--r--", "/usr/share/selinux/packages/stellaops-signer.fc"),
];

/// Mode, owner and path of one file, or of one folder.
type Entry = (String, String, String);

#[track_caller]
fn is_what_is_expected(entries: &[Entry], expected: &[(&str, &str)]) {
    for (mode, owner, path) in entries {
        assert_eq!(owner, "root/root", "{path}");
        if mode.starts_with('d') {
            assert_eq!(mode, "drwxr-xr-x", "{path}");
            continue;
        }
        let rules: Vec<_> = expected.iter().filter(|(_, pattern)| matches(pattern, path)).collect();
        assert_eq!(rules.len(), 1, "{path} is expected by {rules:?}");
        assert_eq!(mode, rules[0].0, "{path}");
    }
    for (_, pattern) in expected {
        assert!(entries.iter().any(|(_, _, path)| matches(pattern, path)), "{pattern} is in no package");
    }
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn the_deb_has_what_it_should_and_every_file_its_owner_and_mode() {
    let listing = output(program("dpkg-deb", ["--contents".as_ref(), package(".deb").as_os_str()]));
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields.len(), 6, "a link, or a name with a blank: {line}");
        // The archive names owners by their numbers.
        let owner = fields[1].replace("0/0", "root/root");
        (fields[0].to_owned(), owner, fields[5].trim_start_matches('.').to_owned())
    };
    let entries: Vec<Entry> = listing.lines().map(entry).collect();
    is_what_is_expected(&entries, &[FILES, DEB_ALONE].concat());
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn the_rpm_has_what_it_should_and_every_file_its_owner_and_mode() {
    let format = "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\\n]";
    let query = ["--query", "--package", "--queryformat", format].map(AsRef::<std::ffi::OsStr>::as_ref);
    let listing = output(program("rpm", query).arg(package(".rpm")));
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields.len(), 3, "{line}");
        (fields[0].to_owned(), fields[1].to_owned(), fields[2].to_owned())
    };
    let entries: Vec<Entry> = listing.lines().map(entry).collect();
    is_what_is_expected(&entries, &[FILES, RPM_ALONE].concat());
}
