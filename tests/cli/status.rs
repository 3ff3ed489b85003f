//! `status` against a local listener that a thread of the test serves.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::json;

use crate::signerctl;

/// Answers `/livez` and `/readyz` until the test's process ends.
fn listen(socket: &Path, ready_status: &'static str, readiness: String) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
            let mut first = String::new();
            stream.read_line(&mut first).unwrap();
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let (status, body) = if first.starts_with("GET /livez ") {
                ("200 OK", "live\n".to_owned())
            } else {
                (ready_status, readiness.clone())
            };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
}

#[test]
fn a_ready_appliance_is_told_with_its_tokens_and_keys() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("local.sock");
    let readiness = json!({
        "ready": true, "audit": "ok", "authority": "ok",
        "tokens": [{ "name": "main", "state": "ready", "sessions": 4 }],
        "keys": [{ "name": "release-2026", "state": "active", "inService": true }],
    });
    listen(&socket, "200 OK", readiness.to_string());
    let local = format!("unix:{}", socket.display());
    signerctl(directory.path(), &["status", "--local", &local]).succeeds(&["ready      yes", "main", "release-2026"]);
    let run = signerctl(directory.path(), &["status", "--local", &local, "--json"]);
    assert_eq!(run.code, 0);
    assert_eq!((run.json()["live"].clone(), run.json()["keys"].clone()), (json!(true), readiness["keys"].clone()));
}

#[test]
fn an_appliance_that_is_not_ready_is_a_failure_that_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("local.sock");
    // A body that contradicts its status does not make the appliance ready.
    let readiness = json!({ "ready": true, "audit": "failed", "tokens": [{ "name": "main", "state": "lost" }] });
    listen(&socket, "503 Service Unavailable", readiness.to_string());
    let local = format!("unix:{}", socket.display());
    let run = signerctl(directory.path(), &["status", "--local", &local]);
    assert_eq!(run.code, 1, "{run:?}");
    for words in ["live   yes", "ready  no", "audit  failed", "main  lost"] {
        assert!(run.stdout.contains(words), "`{words}` is not in:\n{}", run.stdout);
    }
    let run = signerctl(directory.path(), &["status", "--local", &local, "--json"]);
    assert_eq!((run.code, run.json()["ready"].clone()), (1, json!(false)));
}

#[test]
fn an_appliance_that_does_not_run_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let local = format!("unix:{}", directory.path().join("absent.sock").display());
    signerctl(directory.path(), &["status", "--local", &local]).fails(4, &["absent.sock", "check that signerd runs"]);
    fs::write(directory.path().join("signer.toml"), "[server]\n").unwrap();
    signerctl(directory.path(), &["status", "--config", "signer.toml"]).fails(5, &["signer.toml"]);
}
