//! The promises of the audit log, against real files, killed processes and full disks.

mod crash;
mod records;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::config::Span;

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
    for n in 0..2 {
        wait(numbered(&log, n)).unwrap();
    }
    drop(log);
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        for zeros in if cut % 8 == 0 { 0..2 } else { 0..1 } {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("audit.jsonl");
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(cut + zeros * 100, 0);
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
                        // On a busy machine one is durable before it is looked at.
                        assert!(futures_poll(&mut given_up).await.is_none_or(|told| told.is_ok()));
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
fn what_was_left_out_is_told_though_nothing_else_happens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let (log, _) = open(&path);
    let remote = "192.0.2.1:1".parse().unwrap();
    let record = Record::ConnectionRefused { remote, reason: "no_certificate", detail: None };
    // Three a second are written; when they are durable, the writer goes to sleep.
    for _ in 0..3 {
        wait(log.append_noise(&record)).unwrap();
    }
    wait(log.append_noise(&record)).unwrap();
    let told = || lines(&path).iter().any(|line| line["event"] == "noise_left_out" && line["count"] == 1);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !told() {
        assert!(Instant::now() < deadline, "nobody was told of what was left out");
        std::thread::sleep(Duration::from_millis(20));
    }
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

#[test]
fn a_disk_that_does_not_answer_refuses_records_at_once_until_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let shared = writer::Shared::new(&config(&path), 1);
    let record = Record::Event { event: "numbered", details: &[] };
    shared.pretend_to_write_since(Some(Instant::now()));
    assert!(shared.trouble().is_none(), "every sync takes some time");
    shared.pretend_to_write_since(Some(Instant::now().checked_sub(Duration::from_secs(10)).unwrap()));
    let error = wait(shared.append(&record)).unwrap_err();
    assert_eq!(error.reason(), "audit_stalled");
    assert!(error.to_string().contains("waits 10 s for its disk"), "{error}");
    assert!(matches!(shared.trouble(), Some(AuditError::Stalled { .. })));
    shared.pretend_to_write_since(None);
    assert!(shared.trouble().is_none());
}
