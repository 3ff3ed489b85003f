//! What stays when the package is removed, and what when it is purged.

use super::IMAGE;
use crate::site::{Site, package};

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn removal_keeps_the_keys_and_the_records_and_purging_says_what_it_keeps() {
    let site = Site::ready(IMAGE);
    let there = |path: &str| site.machine.path(path).exists();
    site.machine.sh("apt-get remove --yes stellaops-signer >/root/remove.log 2>&1").unwrap();
    for gone in ["/usr/sbin/signerd", "/usr/bin/signerctl", "/usr/lib/systemd/system/signerd.service"] {
        assert!(!there(gone), "{gone} is still there");
    }
    for stays in STAY {
        assert!(there(stays), "{stays} is gone");
    }
    let running = site.machine.sh("cat /proc/[0-9]*/comm | grep -c '^signer' || true").unwrap();
    assert_eq!(running.trim(), "0", "nothing of it runs");

    // Installed again, it is what it was.
    site.install(&package("now"));
    site.machine.sh("systemctl start stellaops-signer.target").unwrap();
    site.signs_within(std::time::Duration::from_secs(30));
    site.signs();

    let said = site.machine.sh("apt-get purge --yes stellaops-signer 2>&1").unwrap();
    // Whoever purges a signer by mistake has lost nothing that cannot be made again.
    for stays in ["/var/lib/stellaops-signer/audit/audit.jsonl", "/var/lib/stellaops-signer-token/main/softhsm2"] {
        assert!(there(stays), "{stays} is gone");
        let root = stays.split('/').take(4).collect::<Vec<_>>().join("/");
        assert!(said.contains(&root), "purging says that {root} stays:\n{said}");
    }
    let left = site.machine.sh("systemctl list-units --all --no-legend 'signer*' 'stellaops*' || true").unwrap();
    assert!(!left.contains("running") && !left.contains("listening"), "{left}");
}

const STAY: [&str; 6] = [
    "/etc/stellaops-signer/signer.toml",
    "/etc/stellaops-signer/keys/acme-1.pub",
    "/etc/credstore.encrypted/signer-token@main.pin",
    "/var/lib/stellaops-signer/audit/audit.jsonl",
    "/var/lib/stellaops-signer/audit/key-history.jsonl",
    "/var/lib/stellaops-signer-token/main/softhsm2",
];
