//! A directive of the worker's unit that its module does not bear, and the doctor that finds it.

use std::time::Duration;

use serde_json::Value;

use super::IMAGE;
use crate::site::Site;

const WORKER: &str = "signer-token@main.service";
const DROP_IN: &str = "/etc/systemd/system/signer-token@main.service.d/90-closed.conf";
/// What is remembered of the PINs that were presented.
const MEMORY: &str = "/var/lib/stellaops-signer-token/main/main.pins.json";

#[test]
#[ignore = "boots machines: cargo xtask test appliance"]
fn the_doctor_names_the_line_of_the_unit_that_the_module_does_not_bear() {
    let site = Site::ready(IMAGE);
    for more in [&[][..], &["--login"]] {
        let report = doctor(&site, more);
        assert_eq!(report["healthy"], true, "{report:#}");
        let sandbox = finding(&report, "sandbox");
        assert!(
            sandbox["detail"].as_str().unwrap().contains("the module works inside signer-token@main"),
            "{report:#}"
        );
    }
    let (worker, _) = site.machine.main_process(WORKER).unwrap();
    let memory = site.machine.run(&["cat", MEMORY]).unwrap();

    // The line after each comment is the one that the module does not bear.
    for (drop_in, line, spelled, remedy) in [
        (
            "[Service]\n# Harmless.\nInaccessiblePaths=-/opt\n# The module.\nInaccessiblePaths=/usr/lib/x86_64-linux-gnu/softhsm\n",
            5,
            "InaccessiblePaths=/usr/lib/x86_64-linux-gnu/softhsm",
            "InaccessiblePaths= (empty)",
        ),
        (
            "[Service]\n# The token.\nInaccessiblePaths=/var/lib/stellaops-signer-token/main/softhsm2\n",
            3,
            "InaccessiblePaths=/var/lib/stellaops-signer-token/main/softhsm2",
            "InaccessiblePaths= (empty)",
        ),
        (
            "[Service]\nNice=1\n# Directories cannot be listed, so that no token is found.\nSystemCallFilter=~getdents64\n",
            4,
            "SystemCallFilter=~getdents64",
            "SystemCallFilter= with the calls that the module needs",
        ),
    ] {
        site.put(DROP_IN, drop_in, 0o644);
        site.machine.run(&["systemctl", "daemon-reload"]).unwrap();
        let report = doctor(&site, &[]);
        let found = finding(&report, "sandbox");
        assert_eq!((&found["state"], &found["file"]), (&"problem".into(), &DROP_IN.into()), "{report:#}");
        assert_eq!(found["line"], line, "{report:#}");
        let detail = found["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("{spelled} stands in the way: ")), "{report:#}");
        let said = found["remedy"].as_str().unwrap();
        assert!(said.contains(remedy) && said.contains("systemctl edit signer-token@main.service"), "{report:#}");
        let problems = report["findings"].as_array().unwrap().iter().filter(|one| one["state"] == "problem").count();
        assert_eq!(problems, 1, "nothing else is to blame: {report:#}");
        site.signs();
    }

    // No PIN was presented for all that, and the worker is the one from before.
    assert_eq!(site.machine.run(&["cat", MEMORY]).unwrap(), memory);
    assert_eq!(site.machine.main_process(WORKER).unwrap().0, worker);

    // With a wrong PIN sealed: it is presented once, in no look again, and the line is found all the same.
    site.put("/root/wrong", "not-the-pin", 0o400);
    site.machine
        .sh("cp /etc/credstore.encrypted/signer-token@main.pin /root/right
             systemd-creds encrypt --name=pin --with-key=host /root/wrong /etc/credstore.encrypted/signer-token@main.pin")
        .unwrap();
    for time in ["first", "second"] {
        let report = doctor(&site, &["--login"]);
        assert_eq!(finding(&report, "sandbox")["line"], 4, "{time}: {report:#}");
        assert_eq!(finding(&report, "login")["state"], "problem", "{time}: {report:#}");
        let book: Value = serde_json::from_str(&site.machine.run(&["cat", MEMORY]).unwrap()).unwrap();
        let refused = book["pins"].as_array().unwrap().iter().filter(|pin| pin["state"] == "refused").count();
        assert_eq!(refused, 1, "{time}: {book:#}");
    }
    site.signs();

    // What the doctor says mends it, for the worker as well.
    site.machine
        .sh(&format!(
            "mv /root/right /etc/credstore.encrypted/signer-token@main.pin; rm {DROP_IN}; systemctl daemon-reload
             systemctl restart {WORKER}"
        ))
        .unwrap();
    site.signs_within(Duration::from_secs(20));
    site.calls_itself_ready_within(Duration::from_secs(20));
    assert_eq!(doctor(&site, &["--login"])["healthy"], true);
}

/// What it says, in JSON, and that its exit code says the same.
fn doctor(site: &Site, more: &[&str]) -> Value {
    let mut line = vec!["signerctl", "--json", "token", "doctor", "main", "--in-unit"];
    line.extend(more);
    let output = site.machine.output(&line).unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let expected = if report["healthy"] == true { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(expected), "{report:#}");
    report
}

#[track_caller]
fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let mut findings = report["findings"].as_array().unwrap().iter();
    findings.find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("nothing of {check}: {report:#}"))
}
