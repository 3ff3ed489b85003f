//! Alert rules and dashboard: they are about metrics that the appliance exports, and the alerts go off when they should.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::Value;
use stellaops_signer::audit::Kind;
use stellaops_signer::custody::{GateAttribute, KeyFigures, KeyHealth};
use stellaops_signer::telemetry::{Metrics, Stage, TokenFigures};

use crate::{named, output, program, source};

/// Every series that the appliance can have, by name, with the labels of each.
fn exported() -> BTreeMap<String, BTreeSet<String>> {
    let metrics = Metrics::new();
    Stage::ALL.into_iter().for_each(|stage| metrics.observe(stage, Duration::ZERO));
    metrics.request("signed");
    metrics.auth_failure("reason");
    metrics.poe_failure("reason");
    metrics.release_verify_failure("reason");
    metrics.tls_handshake_failure("reason");
    metrics.plan_throttle("license", "plan");
    metrics.token("main", &TokenFigures::default());
    metrics.certificate_expiry("server", 1);
    metrics.client_crl_next_update(1);
    metrics.audit().records(Kind::Intent).inc();
    metrics.custody.key(&KeyFigures {
        key: "key".into(),
        token: "main".into(),
        state: KeyHealth::Live,
        canary: Some(Duration::ZERO),
        canary_failures: 0,
    });
    metrics.custody.exception("key", GateAttribute::Local);
    metrics.custody.token("main", 0, 0);
    metrics.release.looked_up("trusted", Duration::ZERO);
    metrics.keyless.failure("reason");
    metrics.keyless.helper_failure("step");
    metrics.keyless.refuted("reason");
    metrics.keyless.step("spawned", Duration::ZERO);
    metrics.keyless.circuit("open", &["closed", "open", "half_open"]);
    metrics.keyless.identity("identity", Some(1), false);
    metrics.timestamps.issued("authority");
    metrics.timestamps.failure("authority", "reason");

    let mut series: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in metrics.render().unwrap().lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once([' ', '{']).unwrap();
        let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
        let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        series.entry(name.to_owned()).or_default().extend(names);
    }
    // What Prometheus itself adds to whatever it reads, and its own series on that.
    series.values_mut().for_each(|labels| labels.extend(["instance", "job"].map(str::to_owned)));
    series.insert("up".to_owned(), ["instance", "job"].map(str::to_owned).into());
    series
}

/// The names in `text` that begin like ours, each with the matchers behind it.
fn used(text: &str) -> Vec<(String, Vec<String>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("signer_") {
        if text[..at].ends_with(word) {
            continue;
        }
        let end = text[at..].find(|c| !word(c)).map_or(text.len(), |length| at + length);
        let matchers =
            text[end..].strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inner, _)| inner);
        let labels =
            matchers.split(',').filter_map(|one| one.split_once(['=', '!'])).map(|(name, _)| name.trim().to_owned());
        found.push((text[at..end].to_owned(), labels.collect()));
    }
    found
}

#[track_caller]
fn is_exported(text: &str, exported: &BTreeMap<String, BTreeSet<String>>) -> usize {
    let used = used(text);
    for (name, labels) in &used {
        let known = exported.get(name).unwrap_or_else(|| panic!("the appliance exports no {name}: {text}"));
        for label in labels.iter().filter(|label| !label.is_empty()) {
            assert!(known.contains(label), "{name} has no label {label}, it has {known:?}: {text}");
        }
    }
    used.len()
}

#[test]
fn alerts_are_about_series_that_the_appliance_exports() {
    let rules = fs::read_to_string(source("packaging/monitoring/alerts.yml")).unwrap();
    let exported = exported();
    assert!(is_exported(&rules, &exported) >= 12);
    let count =
        |what: &str| rules.lines().filter(|line| line.trim().trim_start_matches("- ").starts_with(what)).count();
    let alerts = count("alert: ");
    assert!(alerts >= 8);
    for (field, each) in [
        ("expr: ", "an expression"),
        ("summary: ", "a summary"),
        ("runbook: ", "a runbook"),
        ("labels: { severity: page }", "the severity"),
    ] {
        assert_eq!(count(field), alerts, "an alert lacks {each}");
    }
}

#[test]
fn the_dashboard_shows_series_that_the_appliance_exports() {
    let dashboard = fs::read(source("packaging/monitoring/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_slice(&dashboard).unwrap();
    let exported = exported();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 10);
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            assert!(is_exported(target["expr"].as_str().unwrap(), &exported) >= 1, "{target}");
        }
    }
}

#[test]
#[ignore = "needs promtool: cargo xtask test package"]
fn promtool_takes_the_rules_and_each_alert_goes_off_when_it_should_and_not_before() {
    let promtool = named("SIGNER_PEER_PROMTOOL");
    let promtool = promtool.to_str().unwrap();
    let rules = source("packaging/monitoring/alerts.yml");
    output(program(promtool, ["check", "rules"]).arg(&rules));
    // Beside the rules, which its tests name by a relative path.
    let work = tempfile::tempdir().unwrap();
    fs::copy(&rules, work.path().join("alerts.yml")).unwrap();
    let cases = fs::read_to_string(source("tests/package/alerts.test.yml")).unwrap();
    fs::write(work.path().join("alerts.test.yml"), &cases).unwrap();
    output(program(promtool, ["test", "rules", "alerts.test.yml"]).current_dir(work.path()));

    let text = fs::read_to_string(&rules).unwrap();
    for name in text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(cases.contains(&format!("alertname=\"{name}\"")), "no case for {name}");
    }
}
