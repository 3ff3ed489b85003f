//! `cargo xtask test`: provides the peers, runs the suites, ends in a table.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::thread;

use clap::Args;
use serde_json::Value;
use xtask::ui;

use crate::cargo::{self, cargo};
use crate::peers::Peer;
use crate::report::{Report, Result, Skipped};
use crate::suites::{BY_NAME, PLACES, SUITES, Suite};
use crate::{Outcome, host};

/// `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// One suite; all without it.
    suite: Option<String>,
    /// List the suites and run none.
    #[arg(long)]
    list: bool,
}

/// Where each peer is, or why it is not to be had, by its variable: two versions of one program have the same name.
type Peers = BTreeMap<&'static str, Outcome<PathBuf>>;

pub(crate) fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    if arguments.list {
        for suite in SUITES {
            println!("{:<12} {}", suite.name, suite.proves);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let suites: Vec<&Suite> = match &arguments.suite {
        None => SUITES.iter().filter(|suite| BY_NAME.iter().all(|(name, _)| *name != suite.name)).collect(),
        Some(name) => vec![SUITES.iter().find(|suite| suite.name == name).ok_or_else(|| unknown(name))?],
    };
    every_test_file_has_a_suite(&cargo::metadata()?)?;

    let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
    for suite in suites {
        let place = PLACES.iter().find(|place| place.suite == suite.name);
        match place.map_or(Ok(()), |place| (place.look)()) {
            Ok(()) => here.push(suite),
            Err(reason) => elsewhere.push((suite, reason)),
        }
    }

    // System packages come first: the peers are built with some of them.
    let missing: BTreeMap<&str, Outcome> = here.iter().map(|suite| (suite.name, host::provide(suite.needs))).collect();
    let (built, peers) = build(&here)?;
    if !built {
        return Err("the tests do not compile; cargo says why above".to_owned());
    }

    let mut report = Report::new(if arguments.suite.is_none() { BY_NAME } else { &[] });
    for suite in here {
        ui::heading(&format!("{}: {}", suite.name, suite.proves));
        let result = match &missing[suite.name] {
            Ok(()) => run_suite(suite, &peers)?,
            Err(reason) => Result { skipped: skip_all(suite, reason)?, ..Result::default() },
        };
        report.add(suite, result);
    }
    for (suite, reason) in elsewhere {
        report.add(suite, Result { skipped: skip_all(suite, &reason)?, excused: true, ..Result::default() });
    }
    Ok(report.finish(std::env::var("CI").is_ok_and(|ci| ci == "true")))
}

fn unknown(name: &str) -> String {
    let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
    format!("there is no suite `{name}`; there are {}", names.join(", "))
}

/// Compiles the tests while the peers are built beside.
fn build(suites: &[&Suite]) -> Outcome<(bool, Peers)> {
    let wanted: BTreeMap<&str, &'static Peer> =
        suites.iter().flat_map(|suite| suite.peers).map(|peer| (peer.variable, *peer)).collect();
    thread::scope(|scope| {
        let building: Vec<_> = wanted.values().map(|peer| (*peer, scope.spawn(move || peer.provide()))).collect();
        // The sealed helper is a program of a package of its own, which no test of another package has built.
        let mut built = cargo::build_helper("dev").is_ok();
        for arguments in suites.iter().flat_map(|suite| suite.runs).filter(|run| !run.contains(&"--doc")) {
            let status = cargo().args(["test", "--locked", "--no-run"]).args(*arguments).status();
            built &= status.map_err(|error| format!("cannot run cargo: {error}"))?.success();
        }
        let peers = building.into_iter().map(|(peer, thread)| {
            if !thread.is_finished() {
                ui::note(format!("waiting for {} {} to be built, once", peer.name, peer.version));
            }
            let outcome = thread.join().unwrap_or_else(|_| Err(format!("building {} panicked", peer.name)));
            match &outcome {
                Ok(_) => ui::done(format!("{} {}", peer.name, peer.version)),
                Err(reason) if peer.optional => ui::note(format!("{}: {reason}", peer.name)),
                Err(reason) => ui::refused(format!("{} {}: {reason}", peer.name, peer.version)),
            }
            (peer.variable, outcome)
        });
        Ok((built, peers.collect()))
    })
}

fn run_suite(suite: &Suite, peers: &Peers) -> Outcome<Result> {
    let mut result = Result::default();
    for arguments in suite.runs {
        let mut command = cargo();
        command.args(["test", "--locked", "--no-fail-fast"]).args(*arguments).arg("--");
        for peer in suite.peers {
            match &peers[peer.variable] {
                Ok(path) => {
                    command.env(peer.variable, path);
                }
                Err(reason) => {
                    command.args(["--skip", peer.module]);
                    if peer.optional {
                        continue;
                    }
                    let without = list(arguments)?.into_iter().filter(|test| test.contains(peer.module));
                    result.skipped.extend(without.map(|test| Skipped { test, reason: reason.clone() }));
                }
            }
        }
        if !suite.peers.is_empty() {
            // Without this harness they are ignored, because their peer may not be there.
            command.arg("--include-ignored");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("cannot run cargo: {error}"))?;
        let output = child.stdout.take().ok_or("cargo has no standard output")?;
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|error| format!("cannot read from cargo: {error}"))?;
            println!("{line}");
            result.read(&line);
        }
        let status = child.wait().map_err(|error| format!("cannot wait for cargo: {error}"))?;
        result.clean &= status.success();
    }
    Ok(result)
}

fn skip_all(suite: &Suite, reason: &str) -> Outcome<Vec<Skipped>> {
    let mut skipped = Vec::new();
    for arguments in suite.runs.iter().filter(|run| !run.contains(&"--doc")) {
        skipped.extend(list(arguments)?.into_iter().map(|test| Skipped { test, reason: reason.to_owned() }));
    }
    Ok(skipped)
}

/// The names of the tests that a run holds.
fn list(arguments: &[&str]) -> Outcome<Vec<String>> {
    let output = cargo()
        .args(["test", "--locked", "--quiet"])
        .args(arguments)
        .args(["--", "--list", "--format=terse"])
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// A file in `tests/` that no suite runs would be a test that nobody runs.
fn every_test_file_has_a_suite(metadata: &Value) -> Outcome {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let members = metadata["workspace_members"].as_array().into_iter().flatten().collect::<Vec<_>>();
    for package in packages.filter(|package| members.contains(&&package["id"])) {
        let targets = package["targets"].as_array().into_iter().flatten();
        for target in targets.filter(|target| target["kind"][0] == "test") {
            let name = target["name"].as_str().unwrap_or_default();
            let runs = |run: &&[&str]| run.windows(2).any(|pair| pair == ["--test", name]);
            if !SUITES.iter().flat_map(|suite| suite.runs).any(runs) {
                return Err(format!("no suite runs {}; add a row to xtask/src/suites.rs", target["src_path"]));
            }
        }
    }
    Ok(())
}
