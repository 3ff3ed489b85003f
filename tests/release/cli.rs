//! `signerctl release`: what the operator types.

use std::process::{Command, Output};

use rcgen::KeyPair;
use serde_json::Value;
use testkit::appliance::{Appliance, Binaries, Settings};
use testkit::registry::{Reply, referrers_path};

use crate::stage::Stage;

/// A configuration with the stage's key and registry, of an appliance that is never started.
fn configured(stage: &Stage) -> Appliance {
    let example = include_str!("../../docs/signer.example.toml");
    let mut settings = Settings::parse(example);
    let table = |text: String| toml::Value::Table(text.parse().unwrap());
    let key = stage.file("release.pub");
    let identity = table(format!("name = \"release team\"\npublic_key = \"{}\"", key.display()));
    settings.set("release.identity", toml::Value::Array(vec![identity]));
    let repository = table(format!("url = \"{}\"", stage.registry.repository()));
    settings.set("release.repository", toml::Value::Array(vec![repository]));
    Appliance::prepare(Binaries::locate().unwrap(), stage.dir.path(), settings, &[]).unwrap()
}

fn signerctl(appliance: &Appliance, arguments: &[&str]) -> Output {
    let mut signerctl = Command::new(Binaries::locate().unwrap().signerctl());
    signerctl.arg("release").args(arguments).arg("--config").arg(appliance.config_file());
    signerctl.output().unwrap()
}

#[test]
fn a_verdict_is_explained_step_by_step() {
    let stage = Stage::new();
    stage.attach_all(&[stage.bundle(&stage.image, "https://slsa.dev/provenance/v1"), stage.good()]);
    let appliance = configured(&stage);
    let output = signerctl(&appliance, &["check", &stage.image]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in ["asking 127.0.0.1", "the referrers API lists 2 entries", "is trusted: signed by `release team`"] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    stage.attach_all(&[stage.bundle(&stage.image, "https://slsa.dev/provenance/v1")]);
    let output = signerctl(&appliance, &["check", &stage.image, "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{json}");
    assert_eq!((&json["trusted"], &json["reason"]), (&false.into(), &"release_predicate_type".into()));
    let steps = json["steps"].as_array().unwrap();
    let bad = steps.iter().filter(|step| step["result"] == "bad").collect::<Vec<_>>();
    assert_eq!(bad.len(), 1, "{json}");
    assert!(bad[0]["text"].as_str().unwrap().contains("https://slsa.dev/provenance/v1"), "{json}");

    stage.registry.answer(&referrers_path(&stage.image), Reply::status(503));
    assert_eq!(signerctl(&appliance, &["check", &stage.image]).status.code(), Some(4));
    assert_eq!(signerctl(&appliance, &["check", "latest"]).status.code(), Some(2));
}

#[test]
fn a_snapshot_is_made_once_and_not_without_a_signature() {
    let stage = Stage::new();
    stage.attach_all(&[stage.good()]);
    let appliance = configured(&stage);
    let key = stage.file("snapshot.key");
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let (key, file) = (key.display().to_string(), stage.file("snapshot.json").display().to_string());
    let take = |image: &str| signerctl(&appliance, &["snapshot", image, "--key", &key, "--output", &file]);
    let output = take(&stage.image);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("holds 1 signatures of 1 images\n"), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let before = std::fs::read(&file).unwrap();
    assert_eq!(take(&stage.image).status.code(), Some(6), "it exists");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(take(&format!("sha256:{}", "ab".repeat(32))).status.code(), Some(1));
    assert!(!std::path::Path::new(&file).exists());
    assert!(!before.is_empty());
}
