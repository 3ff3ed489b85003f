//! The token worker as a process, on a real PKCS#11 module (SoftHSM2), through its socket.

#![allow(clippy::unwrap_used)]

mod softhsm;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stellaops_signer::config::SigningMode;
use stellaops_signer::custody::{Custody, TenantKey};

use softhsm::{LONG, Rig, module, program, skipped, status, until};

const DIGEST: [u8; 32] = [0x42; 32];

#[tokio::test]
async fn a_digest_is_signed_in_the_token_and_verified() {
    let Some(rig) = Rig::new("worker signs") else { return };
    let worker = rig.start();
    let custody = rig.ready().await;
    let key = key(&custody);
    let signed = custody.sign(&key, &DIGEST, soon()).await.unwrap();
    assert!(key.verifies(&DIGEST, &signed.signature));
    assert_eq!(key.custody(), "generated on the device, never readable or extractable");
    for _ in 0..3 {
        custody.sign(&key, &DIGEST, soon()).await.unwrap();
    }
    custody.refresh().await;
    let report = status(&custody).report.unwrap();
    assert_eq!((report.label.as_str(), report.model.as_str()), ("main", "SoftHSM v2"));
    assert_eq!((report.sessions_open, report.sessions_configured), (3, 3));
    // Four, and the front's own test of the key.
    assert_eq!((report.counters.sign_requests, report.counters.signatures), (5, 5));
    assert_eq!((report.counters.logins, report.counters.sessions_opened), (1, 3));
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn many_signatures_are_in_flight_at_once() {
    let Some(rig) = Rig::new("many in flight") else { return };
    let worker = rig.start();
    let custody = rig.ready().await;
    let key = key(&custody);
    let mut signing = tokio::task::JoinSet::new();
    for n in 0..200u8 {
        let (custody, key) = (Arc::clone(&custody), key.clone());
        signing.spawn(async move { custody.sign(&key, &[n; 32], soon()).await });
    }
    for signed in signing.join_all().await {
        signed.unwrap();
    }
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_the_front_goes_on() {
    let Some(rig) = Rig::new("killed worker") else { return };
    let worker = rig.start();
    let custody = rig.ready().await;
    let key = key(&custody);
    custody.sign(&key, &DIGEST, soon()).await.unwrap();
    worker.kill();
    let error = custody.sign(&key, &DIGEST, soon()).await.unwrap_err();
    assert_eq!(error.code(), "signing_unavailable", "{error}");
    assert!(rig.path("t.sock").exists(), "the stale socket is there to be replaced");
    let next = rig.start();
    let began = Instant::now();
    while let Err(error) = custody.sign(&key, &DIGEST, soon()).await {
        assert!(began.elapsed() < LONG, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(next.terminate().success());
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_and_the_worker_stays_up_to_say_so() {
    let Some(rig) = Rig::new("wrong PIN") else { return };
    rig.write("pin", "9999\n", 0o400);
    let worker = rig.start();
    let custody = rig.custody();
    let status = until(&custody, |status| status.state == "pin_refused").await;
    assert!(status.detail.contains("it is not tried again"), "{}", status.detail);
    assert!(!status.detail.contains("9999"));
    assert!(worker.terminate().success());
    let log = fs::read_to_string(rig.path("log")).unwrap();
    assert_eq!(log.matches("the token refused the PIN").count(), 1, "{log}");
    assert!(!log.contains("9999"), "{log}");
}

#[tokio::test]
async fn an_extractable_key_is_not_used() {
    let Some(rig) = Rig::new("extractable key") else { return };
    rig.generate("leaky", "02", &["--extractable"]);
    rig.configure(&rig.config().replace("pkcs11:object=k;id=%01", "pkcs11:object=leaky"));
    let worker = rig.start();
    let custody = rig.custody();
    let status = until(&custody, |status| status.state == "ready").await;
    assert!(!status.ready && status.detail.contains("CKA_EXTRACTABLE"), "{}", status.detail);
    assert_eq!(custody.resolve("acme", SigningMode::Kms).unwrap_err().reason(), "key_out_of_service");
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn a_uri_must_name_exactly_one_key() {
    let Some(rig) = Rig::new("one key") else { return };
    rig.generate("k", "02", &[]);
    rig.configure(&rig.config().replace("pkcs11:object=k;id=%01", "pkcs11:object=k"));
    let worker = rig.start();
    let custody = rig.custody();
    let status = until(&custody, |status| status.state == "ready" && status.detail.contains("match")).await;
    assert!(status.detail.contains("2 private keys match"), "{}", status.detail);
    rig.configure(&rig.config().replace("pkcs11:object=k;id=%01", "pkcs11:object=k;id=%02"));
    let custody = rig.ready().await;
    custody.sign(&key(&custody), &DIGEST, soon()).await.unwrap();
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn the_process_is_hardened_and_its_socket_is_not_open_to_all() {
    let Some(rig) = Rig::new("hardened process") else { return };
    let worker = rig.start();
    rig.ready().await;
    assert_eq!(fs::metadata(rig.path("t.sock")).unwrap().permissions().mode() & 0o7777, 0o660);
    let proc = PathBuf::from(format!("/proc/{}", worker.child.id()));
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    if !nix::unistd::getuid().is_root() {
        // What is not dumpable belongs to root in /proc.
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(proc.join("mem")).unwrap());
        assert_eq!(owner, 0);
    }
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn one_token_has_one_worker() {
    let Some(rig) = Rig::new("one worker") else { return };
    let worker = rig.start();
    rig.ready().await;
    let output = rig.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("another worker is listening"), "{said}");
    assert!(worker.terminate().success());
}

#[test]
fn what_cannot_start_says_why_and_what_would_be_right() {
    let Some(rig) = Rig::new("start errors") else { return };
    let said = |from: &str, to: &str| {
        rig.configure(&rig.config().replace(from, to));
        let output = rig.command(&[]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{to}");
        String::from_utf8(output.stderr).unwrap()
    };
    let module = module().unwrap().display().to_string();
    assert!(said(&module, "/bin/true").contains("cannot load the PKCS#11 module /bin/true"));
    assert!(said("[tokens.main]\n", "[tokens.main]\nsessionz = 3\n").contains("sessionz"));
    assert!(said("front_user = \"", "front_user = \"nobody-at-all-").contains("tokens.main.front_user"));
    rig.write("pin", "1234", 0o644);
    assert!(said("", "").contains("chmod"));
}

#[tokio::test]
async fn a_socket_from_the_service_manager_is_taken() {
    let Some(rig) = Rig::new("socket activation") else { return };
    let Some(activate) = program("systemd-socket-activate") else {
        return skipped("socket activation", "systemd-socket-activate");
    };
    let socket = rig.path("t.sock");
    let listen = format!("--listen={}", socket.display());
    let conf = format!("--setenv=SOFTHSM2_CONF={}", rig.path("softhsm2.conf").display());
    let mut command = Command::new(activate);
    command.args([&listen, &conf]).arg(env!("CARGO_BIN_EXE_signer-token")).args(rig.arguments(&[]));
    let worker = rig.spawn(command);
    let custody = rig.ready().await;
    custody.sign(&key(&custody), &DIGEST, soon()).await.unwrap();
    assert!(!rig.path("t.sock.lock").exists(), "it did not bind one of its own");
    assert!(worker.terminate().success());
    assert!(socket.exists(), "the socket is the service manager's, and stays");
}

#[tokio::test]
async fn the_service_manager_hears_when_the_token_is_ready() {
    let Some(rig) = Rig::new("readiness") else { return };
    let manager = UnixDatagram::bind(rig.path("notify")).unwrap();
    manager.set_read_timeout(Some(LONG)).unwrap();
    let heard = || {
        let mut message = [0; 4096];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let started = || {
        let mut command = rig.command(&[]);
        command.env("NOTIFY_SOCKET", rig.path("notify"));
        rig.spawn(command)
    };
    let worker = started();
    let ready = heard();
    assert!(ready.contains("READY=1\n") && ready.contains("STATUS=ready: token `main`"), "{ready}");
    assert!(worker.terminate().success());
    assert!(heard().contains("STOPPING=1\n"));
    // Ready although it cannot sign: a restart by the service manager would present the same wrong PIN again.
    rig.write("pin", "9999\n", 0o400);
    let worker = started();
    let refused = heard();
    assert!(refused.contains("READY=1\n") && refused.contains("refused the PIN"), "{refused}");
    assert!(worker.terminate().success());
}

#[test]
fn the_bare_rate_of_the_token_is_measured_as_json() {
    let Some(rig) = Rig::new("bench") else { return };
    let output = rig.command(&["bench"]).args(["--seconds", "1", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(measured["sessions"], 3);
    assert!(measured["per_second"].as_f64().unwrap() > 10.0, "{measured}");
    assert!(measured["cpu_us_per_signature"].as_f64().unwrap() > 1.0, "{measured}");
}

fn soon() -> Instant {
    Instant::now() + LONG
}

fn key(custody: &Custody) -> TenantKey {
    custody.resolve("acme", SigningMode::Kms).unwrap()
}
