//! This test binary runs itself again, as a process that can be killed or starved.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::*;
use super::{lines, numbered, numbers, open, runtime, wait};

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
    assert!(log.trouble().is_some());
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while log.trouble().is_some() {
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
    let arguments = ["--exact", "audit::tests::crash::child_process", "--nocapture", "--test-threads=1"];
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
