//! AppArmor, by the profiles as the package installs and loads them.

use testkit::guest::Lsm;

use crate::site::Site;
use crate::steps;

#[test]
#[ignore = "boots an emulated machine: cargo xtask test confined"]
fn what_apparmor_confines_signs_with_nothing_denied_and_cannot_reach_what_is_not_its_own() {
    let site = Site::bare(Lsm::AppArmor);
    let guest = &site.guest;
    // What a profile denies by name is not logged otherwise, and would be missed all the same.
    guest.sh("printf noquiet >/sys/module/apparmor/parameters/audit").unwrap();
    site.install();
    steps::a_life(&site);

    let domains = guest.sh("ps -e -o label=,args= | grep '/usr/sbin/signer'").unwrap();
    for (program, domain) in [("signerd", "signerd (enforce)"), ("signer-token", "signer-token (enforce)")] {
        let confined = |line: &str| line.contains(&format!("/usr/sbin/{program} ")) && line.starts_with(domain);
        assert!(domains.lines().any(confined), "{program} is not confined:\n{domains}");
    }
    assert_eq!(denied(&site), "");

    // Another program in the place of ours, and with the right of the file's owner, has the profile and no more.
    let reach = |program: &str, owner: &str, file: &str| {
        let read = format!("setpriv --reuid {owner} --regid {owner} --clear-groups");
        guest.sh(&format!("{read} cat {file} >/dev/null")).expect("the owner may read it");
        guest.sh(&format!(
            "unshare --mount sh -c 'mount --bind /bin/cat /usr/sbin/{program} && exec {read} /usr/sbin/{program} {file}' \
             >/dev/null"
        ))
    };
    let (front, worker) = ("stellaops-signer", "stellaops-signer-token");
    let token = guest.sh("find /var/lib/stellaops-signer-token/main/softhsm2 -name '*.object' | head -n 1").unwrap();
    let audit = "/var/lib/stellaops-signer/audit/audit.jsonl";
    let key = "/run/credentials/signerd.service/server.key";
    reach("signerd", front, audit).unwrap();
    reach("signer-token", worker, token.trim()).unwrap();
    for (program, owner, file) in
        [("signer-token", front, audit), ("signer-token", front, key), ("signerd", worker, token.trim())]
    {
        let said = reach(program, owner, file).expect_err(&format!("{program} reads {file}")).to_string();
        assert!(said.contains("Permission denied"), "{program} does not fail of its profile:\n{said}");
    }
    assert_eq!(denied(&site).lines().count(), 3, "each is in the kernel's log:\n{}", denied(&site));
}

/// What the kernel has denied to our profiles, each once.
fn denied(site: &Site) -> String {
    let script = "journalctl --boot --no-pager --output=cat _TRANSPORT=kernel |
        sed -n 's/.*\\(apparmor=\"DENIED\".*profile=\"signer[^ ]*\\) \\(.*\\)pid=[0-9]* \\(.*\\)/\\1 \\2\\3/p' | sort -u";
    site.guest.sh(script).unwrap()
}
