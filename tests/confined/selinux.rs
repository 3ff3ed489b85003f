//! SELinux: the module with Debian's reference policy. Fedora's and RHEL's own policies are not to be had here.

use testkit::guest::Lsm;

use crate::site::Site;
use crate::steps;

#[test]
#[ignore = "boots an emulated machine: cargo xtask test confined"]
fn what_selinux_confines_signs_with_nothing_denied_and_cannot_reach_what_is_not_its_own() {
    let site = Site::bare(Lsm::SeLinux);
    let guest = &site.guest;
    assert_eq!(guest.sh("getenforce").unwrap().trim(), "Enforcing");
    site.install();
    for (name, text) in [
        ("te", include_str!("../../packaging/selinux/stellaops-signer.te")),
        ("fc", include_str!("../../packaging/selinux/stellaops-signer.fc")),
    ] {
        guest.put(&format!("/usr/share/selinux/packages/stellaops-signer.{name}"), text, 0o644).unwrap();
    }
    // As docs/install.md says how to enforce it; then the labels, as the script of the `.rpm` makes them.
    guest
        .sh("cd \"$(mktemp -d)\" && cp /usr/share/selinux/packages/stellaops-signer.* .
             sed -i '/^permissive /d' stellaops-signer.te
             checkmodule -M -m -c 19 -o stellaops-signer.mod stellaops-signer.te
             semodule_package -o stellaops-signer.pp -m stellaops-signer.mod -f stellaops-signer.fc
             semodule -X 400 -i stellaops-signer.pp
             restorecon -R /usr/bin/signerctl /usr/sbin/signerd /usr/sbin/signer-token /usr/libexec/stellaops-signer \
                 /etc/stellaops-signer /var/lib/stellaops-signer /var/lib/stellaops-signer-token /run/stellaops-signer")
        .unwrap();
    steps::a_life(&site);

    let domains = guest.sh("ps -e -o label=,args= | grep '/usr/sbin/signer'").unwrap();
    for (program, domain) in [("signerd", ":signerd_t:"), ("signer-token", ":signer_token_t:")] {
        let confined = |line: &str| line.contains(&format!("/usr/sbin/{program} ")) && line.contains(domain);
        assert!(domains.lines().any(confined), "{program} is not confined:\n{domains}");
    }
    assert_eq!(denied(&site), "");

    // Another program with the label of ours, started by systemd as ours are, is in the same domain and has no more.
    let reach = |program: &str, owner: &str, file: &str| {
        guest.sh(&format!(
            "cp /usr/bin/head /usr/local/sbin/probe && chcon -t {program}_exec_t /usr/local/sbin/probe
             setpriv --reuid {owner} --regid {owner} --clear-groups head -c 1 {file} >/dev/null
             systemd-run --quiet --wait --uid={owner} /usr/local/sbin/probe -c 1 {file} </dev/null"
        ))
    };
    let (front, worker) = ("stellaops-signer", "stellaops-signer-token");
    let token = guest.sh("find /var/lib/stellaops-signer-token/main/softhsm2 -name '*.object' | head -n 1").unwrap();
    let audit = "/var/lib/stellaops-signer/audit/audit.jsonl";
    reach("signerd", front, audit).unwrap();
    reach("signer_token", worker, token.trim()).unwrap();
    reach("signer_token", front, audit).expect_err("a worker reads the audit log");
    reach("signerd", worker, token.trim()).expect_err("the front reads a worker's token");
    let denied = denied(&site);
    for (domain, kept) in [("signer_token_t", "signerd_var_lib_t"), ("signerd_t", "signer_token_var_lib_t")] {
        let said = |line: &str| line.contains(&format!(":{domain}:")) && line.contains(&format!(":{kept}:"));
        assert!(denied.lines().any(said), "{domain} fails of something else:\n{denied}");
    }
}

/// What the kernel has denied to our domains, or to others on what is ours; each once.
fn denied(site: &Site) -> String {
    let script = "journalctl --boot --no-pager --output=cat _TRANSPORT=kernel |
        sed -n 's/.*avc: *\\(denied.*\\) pid=[0-9]* \\(.*signer.*\\)/\\1 \\2/p' | sort -u";
    site.guest.sh(script).unwrap()
}
