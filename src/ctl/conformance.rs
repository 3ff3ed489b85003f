//! `signerctl token conformance`: starts `signer-token conformance` and makes a table of its lines.

use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use super::cli::ConformanceArgs;
use super::error::{CtlError, Exit};
use super::output::{Report, plain, print};
use crate::custody::conformance::{Finding, Line, Outcome, Verdict};

pub(crate) fn run(args: &ConformanceArgs, json: bool) -> Result<Report, CtlError> {
    let mut child = Worker::start(args)?;
    let patience = Duration::from_secs(args.patience + args.run.seconds);
    let mut findings = Vec::new();
    let mut under_way = "load".to_owned();
    let verdict = loop {
        match child.lines.recv_timeout(patience) {
            Ok(Ok(Line::Begin(check))) => under_way = check,
            Ok(Ok(Line::Finding(finding))) => {
                if !json {
                    print(&row(&finding))?;
                }
                findings.push(finding);
            }
            Ok(Ok(Line::Verdict(verdict))) => break Some(verdict),
            Ok(Err(why)) => return Err(CtlError::Unexpected(format!("signer-token wrote what is no result: {why}"))),
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                child.kill();
                let finding = hang(&under_way, patience);
                if !json {
                    print(&row(&finding))?;
                }
                findings.push(finding);
                break Some(Verdict { conformant: false, device: None, figures: None });
            }
        }
    };
    match verdict {
        Some(verdict) => {
            child.finish();
            Ok(report(&findings, &verdict))
        }
        None => Err(child.early_end(&under_way, findings.is_empty())),
    }
}

fn hang(check: &str, patience: Duration) -> Finding {
    Finding {
        check: check.to_owned(),
        outcome: Outcome::Fail,
        detail: format!("a call into the module did not return within {patience:?}; its process was killed"),
        meaning: "the worker kills itself in such a case and begins anew; look at the device and the way to it"
            .to_owned(),
    }
}

fn report(findings: &[Finding], verdict: &Verdict) -> Report {
    let failed: Vec<&str> =
        findings.iter().filter(|finding| finding.outcome == Outcome::Fail).map(|finding| &*finding.check).collect();
    let text = match (verdict.conformant, failed.is_empty()) {
        (true, _) => "conformant\n".to_owned(),
        (false, true) => "not conformant: nothing was signed\n".to_owned(),
        (false, false) => format!("not conformant: {}\n", failed.join(", ")),
    };
    let json = json!({
        "conformant": verdict.conformant,
        "device": verdict.device,
        "figures": verdict.figures,
        "findings": findings,
    });
    Report { exit: if verdict.conformant { Exit::Success } else { Exit::Failed }, ..Report::new(text, json) }
}

/// One finding for people; what a module or a token says of itself may hold anything.
fn row(finding: &Finding) -> String {
    let mark = match finding.outcome {
        Outcome::Pass => "ok",
        Outcome::Note => "note",
        Outcome::Fail => "FAIL",
        Outcome::Skip => "skip",
    };
    let mut row = format!("{mark:<5} {:<15} {}\n", plain(&finding.check), plain(&finding.detail));
    if !finding.meaning.is_empty() {
        row.push_str(&format!("{:21} {}\n", "", plain(&finding.meaning)));
    }
    row
}

/// The running `signer-token`.
struct Worker {
    child: Child,
    lines: mpsc::Receiver<Result<Line, String>>,
    /// The last line that the program or the module wrote to standard error.
    complaint: Option<JoinHandle<String>>,
}

impl Worker {
    fn start(args: &ConformanceArgs) -> Result<Self, CtlError> {
        let program = signer_token();
        let run = &args.run;
        let mut command = Command::new(&program);
        command.arg("conformance").arg("--module").arg(&run.module).args(["--token", &run.token]);
        command.args(run.pin_file.iter().flat_map(|file| ["--pin-file".as_ref(), file.as_os_str()]));
        command.args(run.config.iter().flat_map(|file| ["--config".as_ref(), file.as_os_str()]));
        command.args(run.key.iter().flat_map(|key| ["--key", key]));
        command.args(run.generate.then_some("--generate"));
        command.args(run.profile.iter().flat_map(|profile| ["--profile", profile]));
        command.args(run.sessions.map(|n| format!("--sessions={n}")));
        command.arg(format!("--signatures={}", run.signatures)).arg(format!("--seconds={}", run.seconds));
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.map_err(|source| CtlError::File { doing: "run", path: program, source })?;
        let (send, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(output).lines() {
                    let line = line.and_then(|line| serde_json::from_str(&line).map_err(io::Error::other));
                    if send.send(line.map_err(|error| error.to_string())).is_err() {
                        break;
                    }
                }
            });
        }
        // Modules log to standard error as they like; a pipe that nobody reads would stop them.
        let complaint = child.stderr.take().map(|errors| {
            thread::spawn(move || {
                let lines = BufReader::new(errors).split(b'\n').map_while(Result::ok);
                let last = lines.filter(|line| !line.is_empty()).last().unwrap_or_default();
                String::from_utf8_lossy(&last[..last.len().min(MAX_COMPLAINT)]).into_owned()
            })
        });
        Ok(Self { child, lines, complaint })
    }

    /// Lets the module finalise: one that is killed may leave what it loaded in the device. One that does not return from
    /// that, either, is killed.
    fn finish(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
    }

    /// Standard output ended without a verdict: it could not begin, or the module took the process with it.
    fn early_end(&mut self, under_way: &str, nothing_yet: bool) -> CtlError {
        let said = self.complaint.take().and_then(|said| said.join().ok()).unwrap_or_default();
        let said = plain(said.trim_start_matches("signer-token: "));
        match self.child.wait() {
            Ok(status) if status.code() == Some(1) && nothing_yet => CtlError::Unexpected(said),
            Ok(status) if status.code() == Some(2) => CtlError::Usage(said),
            Ok(status) => CtlError::Unexpected(format!(
                "signer-token ended ({status}) during `{under_way}`; the module took the process with it. {said}"
            )),
            Err(error) => CtlError::Unexpected(format!("signer-token cannot be waited for: {error}")),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// Beside this program, else in the `sbin` beside its folder, where the package has it, else wherever `PATH` has it.
pub(crate) fn signer_token() -> PathBuf {
    let own = std::env::current_exe().ok();
    let folder = own.as_deref().and_then(Path::parent);
    let places = folder.map(|folder| [folder.join(PROGRAM), folder.join("../sbin").join(PROGRAM)]);
    places.into_iter().flatten().find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}

const FAREWELL: Duration = Duration::from_secs(10);
const MAX_COMPLAINT: usize = 1024;
const PROGRAM: &str = "signer-token";
