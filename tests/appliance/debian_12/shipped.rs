//! The files that are shipped: what they are, whose, and what systemd says of the units.

use std::collections::BTreeMap;

use super::IMAGE;
use crate::site::{Site, package};

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn every_file_of_the_package_has_the_owner_and_the_mode_that_it_should() {
    let site = Site::installed(IMAGE);
    let listed = site.machine.sh("dpkg-query --listfiles stellaops-signer").unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in listed.lines().filter(|path| *path != "/.") {
        let said = site.machine.run(&["stat", "--printf=%F|%U:%G|%a", path]).unwrap();
        let mut fields = said.split('|');
        let (kind, owner, mode) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        let expected = match (kind, path) {
            ("directory", _) => "755",
            ("symbolic link", _) => continue,
            (_, "/usr/bin/signerctl" | "/usr/sbin/signerd" | "/usr/sbin/signer-token") => "755",
            (_, "/usr/libexec/stellaops-signer/signer-keyless") => "755",
            _ => "644",
        };
        seen += 1;
        if owner != "root:root" || mode != expected {
            wrong.push(format!("{path}: {owner} {mode}, expected root:root {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 40, "{seen} files");
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn what_init_and_the_units_make_is_open_to_those_who_need_it_and_to_nobody_else() {
    let site = Site::ready(IMAGE);
    let expected = BTreeMap::from([
        ("/etc/stellaops-signer", "root:root 755"),
        ("/etc/stellaops-signer/signer.toml", "root:root 644"),
        ("/etc/stellaops-signer/tls/server.crt", "root:root 644"),
        ("/etc/stellaops-signer/keys/acme-1.pub", "root:root 644"),
        ("/etc/stellaops-signer/softhsm2-main.conf", "root:root 644"),
        ("/etc/credstore.encrypted", "root:root 700"),
        ("/etc/credstore.encrypted/signerd.server.key", "root:root 600"),
        ("/etc/credstore.encrypted/signerd.licensing-client.key", "root:root 600"),
        ("/etc/credstore.encrypted/signer-token@main.pin", "root:root 600"),
        ("/etc/systemd/system/signer-token@main.service.d/10-device.conf", "root:root 644"),
        ("/var/lib/stellaops-signer", "stellaops-signer:stellaops-signer 750"),
        ("/var/lib/stellaops-signer/audit", "stellaops-signer:stellaops-signer 750"),
        ("/var/lib/stellaops-signer/audit/audit.jsonl", "stellaops-signer:stellaops-signer 600"),
        ("/var/lib/stellaops-signer-token/main", "stellaops-signer-token:stellaops-signer-token 700"),
        ("/run/stellaops-signer", "root:root 755"),
        ("/run/stellaops-signer/local.sock", "stellaops-signer:stellaops-signer 660"),
        ("/run/stellaops-signer/token-main.sock", "root:stellaops-signer 660"),
    ]);
    let wrong: Vec<String> = expected
        .iter()
        .filter_map(|(path, expected)| {
            let found = site.machine.run(&["stat", "--printf=%U:%G %a", path]).unwrap_or_else(|error| error.0);
            (found != *expected).then(|| format!("{path}: {found}, expected {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Others find nothing to write to, and no secret to read.
    let open = "find /etc/stellaops-signer /var/lib/stellaops-signer /var/lib/stellaops-signer-token /run/stellaops-signer \
                -not -type l -perm /002";
    assert_eq!(site.machine.sh(open).unwrap(), "");
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn systemd_252_has_nothing_to_say_about_the_units() {
    let site = Site::installed(IMAGE);
    assert_eq!(verify(&site), "");
}

/// What `systemd-analyze verify` prints about every unit that the package has.
pub(crate) fn verify(site: &Site) -> String {
    let units = site.machine.sh("dpkg-query --listfiles stellaops-signer | grep '/systemd/system/[^/]*$'").unwrap();
    let units: Vec<String> = units.lines().map(|unit| unit.replace("@.", "@main.")).collect();
    assert!(units.len() >= 5, "{units:?}");
    let mut line = vec!["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"];
    line.extend(units.iter().map(String::as_str));
    let output = site.machine.output(&line).unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    if output.status.success() { said } else { format!("{said}\n{}", output.status) }
}

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn the_package_installs_where_nothing_else_was_fetched() {
    let site = Site::bare(IMAGE);
    let before = site.machine.sh("dpkg-query --show --showformat='${Package}\\n'").unwrap();
    site.install(&package("now"));
    let after = site.machine.sh("dpkg-query --show --showformat='${Package}\\n'").unwrap();
    let new: Vec<&str> = after.lines().filter(|package| !before.lines().any(|known| known == *package)).collect();
    assert_eq!(new, ["stellaops-signer"]);
    let failed = site.machine.sh("systemctl list-units --failed --no-legend --plain").unwrap();
    assert_eq!(failed, "");
    // Nothing of it runs or listens before init, and nothing will after the next boot.
    let active = "systemctl list-units --no-legend --plain --state=active,activating,reloading 'signer*' 'stellaops*'";
    assert_eq!(site.machine.sh(active).unwrap(), "");
    let wanted = "systemctl list-dependencies --plain default.target multi-user.target sockets.target timers.target";
    let wanted = site.machine.sh(wanted).unwrap();
    assert!(wanted.contains("sockets.target"), "{wanted}");
    let ours: Vec<&str> = wanted.lines().filter(|unit| unit.contains("signer") || unit.contains("stellaops")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert_eq!(site.machine.sh("ls /run/stellaops-signer").unwrap(), "", "no socket is there");
}
