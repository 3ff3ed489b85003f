//! The promises of the audit log, against real files, killed processes and full disks.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::auth::{Caller, PeerCertificate, SenderKey};
use crate::clock::UnixTime;
use crate::config::{SigningMode, Span};
use crate::entitlement::{Entitlement, Limits};

fn config(path: &Path) -> config::Audit {
    config::Audit {
        path: path.to_owned(),
        group_commit: Span::micros(500),
        max_noise_records_per_second: std::num::NonZeroU32::new(3).unwrap(),
    }
}

fn open(path: &Path) -> (AuditLog, Recovery) {
    AuditLog::open(&config(path)).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn wait(append: Append) -> Result<(), AuditError> {
    runtime().block_on(append)
}

fn numbered(log: &AuditLog, n: u64) -> Append {
    log.append(&Record::Event { event: "numbered", details: &[("n", Detail::Number(n))] })
}

/// Every line of the log, after checking that it is JSON and that `seq` has no gap.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], i as u64 + 1, "{line}");
    }
    lines
}

fn numbers(path: &Path) -> BTreeSet<u64> {
    lines(path).iter().filter_map(|line| line["n"].as_u64()).collect()
}

#[test]
fn each_kind_of_record_says_what_an_auditor_needs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let audit_id = AuditId::new();
    let peer = PeerCertificate { thumbprint: [1; 32], subject: "CN=scanner \"7\"".into() };
    let caller = Caller {
        tenant: "acme".into(),
        subject: "scanner-7".into(),
        client_id: Some("client".into()),
        token_id: "jti-1".into(),
        installation: None,
        sender: SenderKey::Dpop([2; 32]),
        expires_at: UnixTime(0),
    };
    let entitlement = Entitlement {
        license_id: "lic-1".into(),
        customer_id: "cust-1".into(),
        plan: "pro".into(),
        limits: Limits { qps: 1, burst: 1, concurrency: 1, max_artifact_bytes: 1 },
        expires_at: UnixTime(0),
    };
    let subjects = [("sha256", "aa"); 20];
    let facts = Facts {
        remote: Some("192.0.2.1:4711".parse().unwrap()),
        peer: Some(&peer),
        caller: Some(&caller),
        entitlement: Some(&entitlement),
        release: Some(ReleaseFacts { image_digest: "sha256:bb", signed_by: "release@stella-ops.org" }),
        statement: Some(StatementFacts {
            predicate_type: "stella.ops/sbom@v1",
            subjects: &subjects,
            subject_count: 20,
            payload_sha256: &[3; 32],
            pae_sha256: &[4; 32],
        }),
        key: Some(KeyFacts { name: "acme-2026", keyid: "SHA256:x", token: "main" }),
        mode: Some(SigningMode::Kms),
        ..Facts::new(audit_id, "sign")
    };
    let refused =
        Refused { status: 503, code: "signing_unavailable", reason: "token_lost", detail: Some("no session") };
    let latency = Duration::from_micros(1234);
    let (log, recovery) = open(&path);
    assert_eq!(recovery, Recovery { next_seq: 1, torn: None });
    for record in [
        Record::Intent(&facts),
        Record::Outcome { facts: &facts, refused: None, latency },
        Record::Outcome { facts: &facts, refused: Some(refused), latency },
        Record::Refusal { facts: &Facts::new(audit_id, "sign"), refused, latency },
        Record::ConnectionRefused {
            remote: "[2001:db8::1]:1".parse().unwrap(),
            reason: "no_certificate",
            detail: None,
        },
        Record::Event { event: "started", details: &[("version", Detail::Text("0.1.0")), ("pid", Detail::Number(7))] },
    ] {
        wait(log.append(&record)).unwrap();
    }
    let mut written = lines(&path);
    for line in &mut written {
        let time: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        assert!(jiff::Timestamp::now().duration_since(time).abs() < jiff::SignedDuration::from_mins(5));
        assert_eq!(line["time"].as_str().unwrap().len(), "2026-01-01T00:00:00.000000Z".len());
        line.as_object_mut().unwrap().remove("time");
    }
    let id = audit_id.to_string();
    let two = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";
    assert_eq!(
        written[0],
        json!({
            "seq": 1, "kind": "intent", "auditId": id, "operation": "sign", "remote": "192.0.2.1:4711",
            "peer": "CN=scanner \"7\"", "peerThumbprint": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
            "tenant": "acme", "subject": "scanner-7", "clientId": "client", "tokenId": "jti-1", "senderJkt": two,
            "license": "lic-1", "customer": "cust-1", "plan": "pro",
            "imageDigest": "sha256:bb", "releaseSignedBy": "release@stella-ops.org",
            "predicateType": "stella.ops/sbom@v1", "subjects": vec!["sha256:aa"; 16], "subjectCount": 20,
            "payloadSha256": "03".repeat(32), "paeSha256": "04".repeat(32),
            "key": "acme-2026", "keyid": "SHA256:x", "token": "main", "mode": "kms",
        })
    );
    let outcome = json!({
        "seq": 2, "kind": "outcome", "auditId": id, "operation": "sign", "tenant": "acme", "subject": "scanner-7",
        "license": "lic-1", "customer": "cust-1", "plan": "pro", "key": "acme-2026", "keyid": "SHA256:x",
        "token": "main", "mode": "kms", "payloadSha256": "03".repeat(32), "outcome": "signed", "latencyMicros": 1234,
    });
    assert_eq!(written[1], outcome);
    assert_eq!(written[2]["outcome"], "failed");
    assert_eq!(written[2]["reason"], "token_lost");
    assert_eq!(
        written[3],
        json!({
            "seq": 4, "kind": "refusal", "auditId": id, "operation": "sign", "outcome": "refused", "status": 503,
            "code": "signing_unavailable", "reason": "token_lost", "detail": "no session", "latencyMicros": 1234,
        })
    );
    assert_eq!(
        written[4],
        json!({ "seq": 5, "kind": "connection_refused", "remote": "[2001:db8::1]:1", "reason": "no_certificate" })
    );
    assert_eq!(written[5], json!({ "seq": 6, "kind": "event", "event": "started", "version": "0.1.0", "pid": 7 }));
}

#[test]
fn the_longest_record_a_stranger_can_cause_fits_an_entry_of_64_kib() {
    // The worst of 256 bytes: each becomes an escape of six.
    let long: Arc<str> = "\u{1}".repeat(5000).into();
    let peer = PeerCertificate { thumbprint: [1; 32], subject: Arc::clone(&long) };
    let caller = Caller {
        tenant: Arc::clone(&long),
        subject: Arc::clone(&long),
        client_id: Some(Arc::clone(&long)),
        token_id: Arc::clone(&long),
        installation: Some(Arc::clone(&long)),
        sender: SenderKey::Certificate([2; 32]),
        expires_at: UnixTime(0),
    };
    let entitlement = Entitlement {
        license_id: Arc::clone(&long),
        customer_id: Arc::clone(&long),
        plan: Arc::clone(&long),
        limits: Limits { qps: 1, burst: 1, concurrency: 1, max_artifact_bytes: 1 },
        expires_at: UnixTime(0),
    };
    let digest = "f".repeat(128);
    let subjects = vec![("sha512_256", digest.as_str()); 1024];
    let facts = Facts {
        remote: Some("[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap()),
        peer: Some(&peer),
        caller: Some(&caller),
        entitlement: Some(&entitlement),
        release: Some(ReleaseFacts { image_digest: &long, signed_by: &long }),
        statement: Some(StatementFacts {
            predicate_type: &long,
            subjects: &subjects,
            subject_count: 1024,
            payload_sha256: &[3; 32],
            pae_sha256: &[4; 32],
        }),
        key: Some(KeyFacts { name: &long, keyid: &long, token: &long }),
        mode: Some(SigningMode::Keyless),
        ..Facts::new(AuditId::new(), "sign")
    };
    let refused = Refused { status: 503, code: "x", reason: "x", detail: Some(&long) };
    let mut line = Vec::new();
    file::push(&mut line, u64::MAX, &Record::Refusal { facts: &facts, refused, latency: Duration::MAX });
    assert!(line.len() < 65_535, "{}", line.len());
    assert!(line.len() > 20_000, "the test has lost its teeth: {}", line.len());
}

#[test]
fn the_sequence_goes_on_over_restarts_and_the_file_ends_with_its_last_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    for round in 0..3 {
        let (log, recovery) = open(&path);
        assert_eq!(recovery, Recovery { next_seq: round * 2 + 1, torn: None });
        wait(numbered(&log, round * 2)).unwrap();
        // Nobody waits for this one; closing writes it all the same.
        drop(numbered(&log, round * 2 + 1));
    }
    assert_eq!(numbers(&path), (0..6).collect());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_log_that_must_not_be_used_is_refused_in_words_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let refused = |path: &Path| AuditLog::open(&config(path)).map(drop).unwrap_err().to_string();

    let (log, _) = open(&path("held"));
    assert!(refused(&path("held")).contains("is held by another process; stop that one"));
    drop(log);
    open(&path("held"));

    fs::write(path("passwd"), "root:x:0:0\n").unwrap();
    fs::set_permissions(path("passwd"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(refused(&path("passwd")).contains("is not an audit log of this program: it begins with something else"));
    assert_eq!(fs::read_to_string(path("passwd")).unwrap(), "root:x:0:0\n");

    for mode in [0o604, 0o620, 0o700, 0o666] {
        fs::set_permissions(path("held"), fs::Permissions::from_mode(mode)).unwrap();
        assert!(refused(&path("held")).contains(&format!("has mode {mode:04o}; run `chmod 0600` on it")), "{mode:o}");
    }
    fs::set_permissions(path("held"), fs::Permissions::from_mode(0o640)).unwrap();
    open(&path("held"));

    std::os::unix::fs::symlink(path("held"), path("link")).unwrap();
    assert!(refused(&path("link")).contains("cannot be used"));
    assert!(refused(Path::new("/dev/full")).contains("it is not a regular file"));
    assert!(refused(&path("absent/audit.jsonl")).contains("its directory must exist"));
}

#[test]
fn cut_at_every_byte_a_log_opens_with_its_whole_lines_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let (log, _) = open(&path);
    for n in 0..3 {
        wait(numbered(&log, n)).unwrap();
    }
    drop(log);
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        for zeros in [0, 100] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("audit.jsonl");
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(cut + zeros, 0);
            fs::write(&path, &bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

            let kept = whole[..cut].iter().filter(|&&byte| byte == b'\n').count() as u64;
            let torn = &whole[whole[..cut].iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1)..cut];
            let (log, recovery) = open(&path);
            drop(log);
            let lines = lines(&path);
            assert_eq!(recovery.next_seq, lines.len() as u64 + 1);
            assert_eq!(numbers(&path), (0..kept).collect(), "cut at {cut}");
            match recovery.torn {
                None => assert!(torn.is_empty() && lines.len() as u64 == kept, "cut at {cut}"),
                Some(kept_apart) => {
                    assert_eq!(fs::read(&kept_apart.kept_in).unwrap(), torn, "cut at {cut}");
                    let note = lines.last().unwrap();
                    assert_eq!(note["event"], "recovered");
                    assert_eq!(note["bytes"], torn.len() as u64);
                    assert_eq!(note["keptIn"].as_str().unwrap(), kept_apart.kept_in.to_str().unwrap());
                    let mode = fs::metadata(&kept_apart.kept_in).unwrap().permissions().mode();
                    assert_eq!(mode & 0o777, 0o600);
                }
            }
        }
    }
}

#[test]
fn many_who_wait_on_several_event_loops_are_all_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let (log, _) = open(&path);
    let metrics = crate::telemetry::Metrics::new();
    log.observe(metrics.audit());
    let log = Arc::new(log);
    let loops: Vec<_> = (0..3u64)
        .map(|event_loop| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                runtime().block_on(async {
                    let mut waiting = tokio::task::JoinSet::new();
                    for n in 0..300 {
                        waiting.spawn(numbered(&log, event_loop * 1000 + n));
                        // Some give up, among them those that were to wake others.
                        let mut given_up = Box::pin(numbered(&log, 10_000));
                        assert!(futures_poll(&mut given_up).await.is_none());
                    }
                    while let Some(told) = waiting.join_next().await {
                        told.unwrap().unwrap();
                    }
                });
            })
        })
        .collect();
    for event_loop in loops {
        event_loop.join().unwrap();
    }
    drop(log);
    assert_eq!(lines(&path).len(), 1800);
    assert_eq!(numbers(&path).len(), 901);
    let text = metrics.render().unwrap();
    assert!(text.contains("signer_audit_records_total{kind=\"event\"} 1800"), "{text}");
    let flushes = text.lines().find_map(|line| line.strip_prefix("signer_audit_flush_seconds_count ")).unwrap();
    assert!(flushes.parse::<u32>().unwrap() < 900, "records are made durable together, not one by one: {flushes}");
}

/// One look at a future, which registers its waker.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn noise_beyond_its_budget_is_counted_by_reason_in_one_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let (log, _) = open(&path);
    let remote = "192.0.2.1:1".parse().unwrap();
    for i in 0..40 {
        let reason = if i % 4 == 0 { "bad_certificate" } else { "no_certificate" };
        log.note(&Record::ConnectionRefused { remote, reason, detail: None });
    }
    wait(log.append_noise(&Record::ConnectionRefused { remote, reason: "no_certificate", detail: None })).unwrap();
    drop(log);
    let lines = lines(&path);
    let recorded = lines.iter().filter(|line| line["kind"] == "connection_refused").count() as u64;
    let left_out: u64 =
        lines.iter().filter(|line| line["event"] == "noise_left_out").map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!(recorded + left_out, 41);
    assert!(left_out > 0, "{lines:?}");
    let reasons = lines.iter().find_map(|line| line["reasons"].as_str()).unwrap();
    assert!(reasons.starts_with("bad_certificate=") && reasons.contains(" no_certificate="), "{reasons}");
}

#[test]
fn when_the_writer_is_gone_nobody_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let (file, _) = file::LogFile::open(&path).unwrap();
    let shared = Arc::new(writer::Shared::new(&config(&path), 1));
    let writer = writer::Writer::new(Arc::clone(&shared), file, Duration::from_micros(500));
    let record = Record::Event { event: "numbered", details: &[] };
    let waiting = shared.append(&record);
    drop(writer);
    assert!(wait(waiting).unwrap_err().to_string().contains("its writer has ended"));
    assert!(matches!(wait(shared.append(&record)), Err(AuditError::Failed(_))));
}

#[test]
fn a_backlog_is_refused_rather_than_kept_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let shared = writer::Shared::new(&config(&path), 1);
    let text = "x".repeat(256);
    let details = [("t", Detail::Text(text.as_str())); 200];
    let record = Record::Event { event: "long", details: &details };
    let refused = (0..1000).find_map(|_| {
        let mut append = shared.append(&record);
        match std::pin::Pin::new(&mut append).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(refused) => Some(refused),
            std::task::Poll::Pending => None,
        }
    });
    assert!(matches!(refused, Some(Err(AuditError::Backlog))), "{refused:?}");
}

// What follows runs this test binary again, as a process that can be killed or starved.

/// The child's part: nothing, unless it is told what to play.
#[test]
fn child_process() {
    let (Ok(role), Ok(path)) = (std::env::var("AUDIT_TEST_ROLE"), std::env::var("AUDIT_TEST_LOG")) else { return };
    let (log, _) = open(Path::new(&path));
    match role.as_str() {
        "append" => append_for_ever(&Arc::new(log)),
        "starve" => starve(&log),
        "starve and die" => {
            append_until_refused(&log, 0);
            std::process::abort();
        }
        other => panic!("no such role: {other}"),
    }
}

fn say(word: &str, n: u64) {
    let mut out = io::stdout().lock();
    writeln!(out, "{word} {n}").unwrap();
    out.flush().unwrap();
}

fn append_for_ever(log: &Arc<AuditLog>) {
    let start: u64 = std::env::var("AUDIT_TEST_START").unwrap().parse().unwrap();
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8 {
            let log = Arc::clone(log);
            tasks.spawn(async move {
                for n in (start + task..).step_by(8) {
                    numbered(&log, n).await.unwrap();
                    say("durable", n);
                }
            });
        }
        tasks.join_next().await;
    });
}

fn append_until_refused(log: &AuditLog, start: u64) -> u64 {
    (start..)
        .find(|&n| match wait(numbered(log, n)) {
            Ok(()) => {
                say("durable", n);
                false
            }
            Err(error) => {
                assert!(matches!(error, AuditError::Failed(_)), "{error}");
                assert!(error.to_string().contains("File too large"), "{error}");
                true
            }
        })
        .unwrap()
}

fn starve(log: &AuditLog) {
    let refused = append_until_refused(log, 0);
    for n in refused + 1..refused + 6 {
        assert!(wait(numbered(log, n)).is_err(), "once failed, it stays failed");
    }
    assert!(log.failure().is_some());
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while log.failure().is_some() {
        assert!(Instant::now() < deadline, "it does not recover");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    say("refused", refused);
    wait(numbered(log, 1_000_000)).unwrap();
    say("durable", 1_000_000);
}

struct Played {
    durable: BTreeSet<u64>,
    refused: Option<u64>,
    status: ExitStatus,
}

/// Plays `role` in a child until it ends or has said `enough` that records are durable; then it is killed.
fn play(role: &str, path: &Path, start: u64, enough: usize) -> Played {
    let this = std::env::current_exe().unwrap();
    let arguments = ["--exact", "audit::tests::child_process", "--nocapture", "--test-threads=1"];
    let mut command = if role.starts_with("starve") {
        // A file may grow to 4 KiB; the signal that would end the process is ignored, as it stays over exec.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -S -f 8; exec \"$0\" \"$@\""]).arg(this);
        command
    } else {
        Command::new(this)
    };
    command
        .args(arguments)
        .env("AUDIT_TEST_ROLE", role)
        .env("AUDIT_TEST_LOG", path)
        .env("AUDIT_TEST_START", start.to_string());
    let mut child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut played = Played { durable: BTreeSet::new(), refused: None, status: ExitStatus::default() };
    let mut line = String::new();
    let mut killed = false;
    // After the kill, what the child had said by then is still in the pipe.
    while said.read_line(&mut line).unwrap() > 0 {
        // libtest may have begun a line of its own.
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(at) = words.iter().position(|word| ["durable", "refused"].contains(word))
            && line.ends_with('\n')
            && let Some(Ok(n)) = words.get(at + 1).map(|n| n.parse())
        {
            if words[at] == "durable" {
                played.durable.insert(n);
            } else {
                played.refused = Some(n);
            }
        }
        line.clear();
        if played.durable.len() >= enough && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    played.status = child.wait().unwrap();
    if !killed && !played.status.success() && role != "starve and die" {
        let mut why = String::new();
        child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
        panic!("{role}: {}\n{why}", played.status);
    }
    played
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    (directory, path)
}

#[test]
fn a_process_killed_at_any_moment_leaves_every_acknowledged_record_behind() {
    let (_directory, path) = fresh();
    let mut durable = BTreeSet::new();
    for (round, enough) in [1, 2, 9, 40, 133, 301, 512, 77].into_iter().enumerate() {
        let played = play("append", &path, round as u64 * 1_000_000, enough);
        assert!(!played.status.success(), "it was killed");
        durable.extend(played.durable);
        let (log, _) = open(&path);
        drop(log);
        let written = numbers(&path);
        let lost: Vec<_> = durable.difference(&written).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
    }
    assert!(durable.len() > 1000);
}

#[test]
fn a_full_disk_acknowledges_nothing_and_when_it_has_room_again_no_record_is_missing() {
    let (_directory, path) = fresh();
    let played = play("starve", &path, 0, usize::MAX);
    let refused = played.refused.unwrap();
    assert!(refused > 3, "some records fit before");
    assert_eq!(played.durable, (0..refused).chain([1_000_000]).collect());

    let written = numbers(&path);
    // The one in the failed batch is written after all; those refused afterwards were never entered.
    assert_eq!(written, (0..=refused).chain([1_000_000]).collect());
    let lines = lines(&path);
    let note = lines.iter().find(|line| line["event"] == "resumed").unwrap();
    assert_eq!(note["refusedRecords"], 5);
    assert!(note["cause"].as_str().unwrap().contains("File too large"), "{note}");
    assert!(open(&path).1.torn.is_none());
}

#[test]
fn a_process_that_dies_on_a_full_disk_leaves_a_log_that_opens() {
    let (_directory, path) = fresh();
    let played = play("starve and die", &path, 0, usize::MAX);
    assert!(!played.status.success());
    let (log, recovery) = open(&path);
    drop(log);
    assert!(recovery.torn.is_some_and(|torn| torn.bytes > 0), "a part of the refused record reached the file");
    assert_eq!(numbers(&path), played.durable);
}
