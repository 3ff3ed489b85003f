//! The token worker as a process, on a real PKCS#11 module (SoftHSM2), through its socket.

#![allow(clippy::unwrap_used)]

mod softhsm;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stellaops_signer::config::SigningMode;
use stellaops_signer::custody::{Custody, TenantKey};

use nix::sys::signal::Signal;
use softhsm::{LONG, Rig, Worker, module, program, skipped, status, until};

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
    rig.write("pin", WRONG, 0o400);
    let worker = rig.start();
    let custody = rig.custody();
    let status = until(&custody, |status| status.state == "pin_refused").await;
    assert!(status.detail.contains("it is not tried again"), "{}", status.detail);
    assert!(!status.detail.contains(WRONG));
    assert!(worker.terminate().success());
    let log = fs::read_to_string(rig.path("log")).unwrap();
    assert_eq!(log.matches("the token refused the PIN").count(), 1, "{log}");
    assert!(!log.contains(WRONG), "{log}");
}

#[tokio::test]
async fn a_refused_pin_is_remembered_by_the_next_worker_and_a_corrected_one_needs_no_restart() {
    let Some(rig) = Rig::new("PIN memory") else { return };
    rig.write("pin", WRONG, 0o400);
    let first = rig.start();
    until(&rig.custody(), |status| status.state == "pin_refused").await;
    assert!(first.terminate().success());
    let second = rig.start();
    let custody = rig.custody();
    let status = until(&custody, |status| status.state == "pin_refused").await;
    assert!(status.detail.contains("has refused the PIN"), "from memory, not from the token: {}", status.detail);
    rig.write("pin", "1234\n", 0o440);
    until(&custody, |status| status.ready).await;
    custody.sign(&key(&custody), &DIGEST, soon()).await.unwrap();
    assert!(second.terminate().success());
    for file in fs::read_dir(rig.path("state")).unwrap() {
        let content = fs::read(file.unwrap().path()).unwrap();
        // The right one is too short to look for: among salts and digests its digits come up by themselves.
        let found = content.windows(WRONG.len()).any(|bytes| bytes == WRONG.as_bytes());
        assert!(!found, "{}", String::from_utf8_lossy(&content));
    }
}

#[tokio::test]
async fn sighup_changes_nothing_and_says_so() {
    let Some(rig) = Rig::new("SIGHUP") else { return };
    let worker = rig.start();
    let custody = rig.ready().await;
    worker.signal(Signal::SIGHUP);
    let began = Instant::now();
    while !fs::read_to_string(rig.path("log")).unwrap().contains("SIGHUP changes nothing") {
        assert!(began.elapsed() < LONG, "nothing is logged");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    custody.sign(&key(&custody), &DIGEST, soon()).await.unwrap();
    assert!(worker.terminate().success());
}

#[tokio::test]
async fn idle_sessions_are_used_now_and_then() {
    let Some(rig) = Rig::new("keep-alive") else { return };
    rig.configure(&rig.config().replace("sessions = 3", "sessions = 3\nkeep_alive = \"50ms\""));
    let worker = rig.start();
    let custody = rig.ready().await;
    until(&custody, |status| status.report.as_ref().is_some_and(|report| report.counters.kept_alive >= 6)).await;
    custody.sign(&key(&custody), &DIGEST, soon()).await.unwrap();
    assert_eq!(status(&custody).report.unwrap().counters.sessions_lost, 0);
    assert!(worker.terminate().success());
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
    assert!(worker.terminate().success());
    rig.configure(&rig.config().replace("pkcs11:object=k;id=%01", "pkcs11:object=k;id=%02"));
    let worker = rig.start();
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
        let owner = fs::metadata(proc.join("mem")).unwrap().uid();
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
    assert!(said(&module, "/bin/true").contains("cannot load the PKCS#11 module /"));
    assert!(said("[tokens.main]\n", "[tokens.main]\nsessionz = 3\n").contains("sessionz"));
    assert!(said("front_user = \"", "front_user = \"nobody-at-all-").contains("tokens.main.front_user"));
    let hash = "0".repeat(64);
    let pinned = said("sessions = 3", &format!("sessions = 3\nmodule_sha256 = \"{hash}\""));
    assert!(pinned.contains("module_sha256") && pinned.contains(&hash), "{pinned}");
    let state = rig.path("state").display().to_string();
    assert!(said(&state, "/dev/null/state").contains("memory of PINs"));
    assert!(said(&format!("state_dir = \"{state}\""), "").contains("StateDirectory="));
    rig.write("pin", "1234", 0o644);
    assert!(said("", "").contains("chmod"));
}

#[test]
fn the_state_directory_of_the_service_manager_is_taken_where_none_is_configured() {
    let Some(rig) = Rig::new("state directory") else { return };
    let configured = format!("state_dir = \"{}\"\n", rig.path("state").display());
    rig.configure(&rig.config().replace(&configured, ""));
    let managed = format!("{}:/another", rig.path("managed").display());
    let output = rig.command(&["bench"]).args(["--seconds", "1"]).env("STATE_DIRECTORY", managed).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(rig.path("managed/main.pins.json").exists());
}

#[test]
fn a_module_that_wants_an_executable_stack_or_that_others_may_write_is_not_loaded() {
    let Some(rig) = Rig::new("module pinning") else { return };
    let library = fs::read(module().unwrap()).unwrap();
    let copied = rig.path("copy.so");
    rig.configure(&rig.config().replace(module().unwrap().to_str().unwrap(), copied.to_str().unwrap()));
    let said = |content: &[u8], mode: u32| {
        let _ = fs::remove_file(&copied);
        fs::write(&copied, content).unwrap();
        fs::set_permissions(&copied, fs::Permissions::from_mode(mode)).unwrap();
        let output = rig.command(&["bench"]).args(["--seconds", "1"]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, text) = said(&library, 0o755);
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = said(&library, 0o775);
    assert!(status == Some(1) && text.contains("chmod go-w"), "{text}");
    let mut executable = library.clone();
    // PT_GNU_STACK, and in a 64-bit file the flags behind it: read and write become read, write and execute.
    let header = [&0x6474_e551_u32.to_le_bytes()[..], &6u32.to_le_bytes()].concat();
    let at = library.windows(8).position(|eight| eight == header).expect("SoftHSM2 says that its stack is plain");
    executable[at + 4] = 7;
    let (status, text) = said(&executable, 0o755);
    assert!(status == Some(1) && text.contains("executable stack"), "{text}");
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
async fn behind_a_socket_on_which_root_listens_the_worker_s_own_user_answers() {
    let Some(rig) = Rig::new("socket of root's") else { return };
    if !nix::unistd::getuid().is_root() {
        return skipped("socket of root's", "root");
    }
    let listener = UnixListener::bind(rig.path("t.sock")).unwrap();
    fs::set_permissions(rig.path("t.sock"), fs::Permissions::from_mode(0o660)).unwrap();
    // Where cargo leaves it, the other user may not reach it.
    fs::copy(env!("CARGO_BIN_EXE_signer-token"), rig.path("signer-token")).unwrap();
    rig.configure(&rig.config().replace("worker_user = \"0\"", &format!("worker_user = \"{NOBODY}\"")));
    give_away(&rig.path(""));
    let activate = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 </dev/null";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", activate]).arg(rig.path("signer-token")).args(rig.arguments(&[]));
    command.env("SOFTHSM2_CONF", rig.path("softhsm2.conf")).stdin(OwnedFd::from(listener)).uid(NOBODY).gid(NOBODY);
    let worker = Worker { child: command.spawn().unwrap() };
    let custody = rig.ready().await;
    custody.sign(&key(&custody), &DIGEST, soon()).await.unwrap();
    assert_eq!(fs::metadata(format!("/proc/{}", worker.child.id())).unwrap().uid(), NOBODY);
    assert!(worker.terminate().success());

    // The same, served by a user that is not the worker's.
    rig.configure(&rig.config().replace(&format!("worker_user = \"{NOBODY}\""), "worker_user = \"1\""));
    give_away(&rig.path("signer.toml"));
    let custody = rig.custody();
    fs::remove_file(rig.path("t.sock")).unwrap();
    let mut command = Command::new(rig.path("signer-token"));
    command.args(rig.arguments(&[])).env("SOFTHSM2_CONF", rig.path("softhsm2.conf")).uid(NOBODY).gid(NOBODY);
    let _stranger = rig.spawn(command);
    let status = until(&custody, |status| status.detail.contains("is served by user")).await;
    assert!(status.detail.contains("65534") && status.detail.contains("worker_user"), "{}", status.detail);
}

/// A PIN that the token refuses.
const WRONG: &str = "no-such-pin";

const NOBODY: u32 = 65_534;

/// Everything below a folder, and the folder.
fn give_away(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    for inner in path.is_dir().then(|| fs::read_dir(path).unwrap()).into_iter().flatten() {
        give_away(&inner.unwrap().path());
    }
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
    assert!(ready.contains("READY=1\n") && ready.contains("STATUS=signing: token `main`"), "{ready}");
    assert!(worker.terminate().success());
    assert!(heard().contains("STOPPING=1\n"));
    // Ready although it cannot sign: a restart by the service manager would present the same wrong PIN again.
    rig.write("pin", WRONG, 0o400);
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
