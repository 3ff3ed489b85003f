//! What the suites came to: a table, what failed and what was skipped by name, and one plain line.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use xtask::ui;

use crate::suites::Suite;

/// All suites so far.
pub(crate) struct Report {
    rows: Vec<(&'static str, Result)>,
    left_out: &'static [(&'static str, &'static str)],
}

/// What one suite came to.
#[derive(Debug)]
pub(crate) struct Result {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed, by name.
    pub(crate) failed: Vec<String>,
    /// Tests that did not run.
    pub(crate) skipped: Vec<Skipped>,
    /// What was skipped cannot run in such a place, and fails no run.
    pub(crate) excused: bool,
    /// Whether cargo itself was content.
    pub(crate) clean: bool,
    /// Tests that failed, as cargo counts them; some die without their name being printed.
    pub(crate) counted_failures: u64,
}

/// A test that did not run, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) test: String,
    pub(crate) reason: String,
}

impl Default for Result {
    fn default() -> Self {
        Self { passed: 0, failed: Vec::new(), skipped: Vec::new(), excused: false, clean: true, counted_failures: 0 }
    }
}

impl Result {
    /// Takes in one line of what `cargo test` prints.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |what: &str| {
                let field = counts.split([';', '.']).map(str::trim).find_map(|field| field.strip_suffix(what));
                field.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
            };
            self.passed += count("passed");
            self.counted_failures += count("failed");
        } else if let Some((test, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            match outcome.split_once(", ").unwrap_or((outcome, "")) {
                ("FAILED", _) => self.failed.push(test.to_owned()),
                ("ignored", reason) => {
                    let reason = if reason.is_empty() { "ignored, no reason given" } else { reason }.to_owned();
                    self.skipped.push(Skipped { test: test.to_owned(), reason });
                }
                _ => {}
            }
        }
    }

    /// Adds what no line named: tests that died without a word, suites that ran nothing.
    fn settle(&mut self) {
        let named = u64::try_from(self.failed.len()).unwrap_or(u64::MAX);
        let unnamed = self.counted_failures.saturating_sub(named);
        self.failed.extend((0..unnamed).map(|_| "a test that its output does not name".to_owned()));
        if !self.clean && self.failed.is_empty() {
            self.failed.push("the run itself: cargo test failed".to_owned());
        }
        if self.clean && self.passed == 0 && self.failed.is_empty() && self.skipped.is_empty() {
            self.failed.push("the suite itself: it ran no test".to_owned());
        }
    }
}

impl Report {
    /// Of a run that leaves these suites out, each for a reason.
    pub(crate) fn new(left_out: &'static [(&'static str, &'static str)]) -> Self {
        Self { rows: Vec::new(), left_out }
    }

    pub(crate) fn add(&mut self, suite: &Suite, mut result: Result) {
        result.settle();
        self.rows.push((suite.name, result));
    }

    /// Prints it all. With `strict`, a test that did not run is a failure.
    pub(crate) fn finish(&self, strict: bool) -> ExitCode {
        ui::heading("suites");
        println!("  {:<12} {:>7} {:>7} {:>8}", "", "passed", "failed", "skipped");
        for (name, result) in &self.rows {
            let mark = if result.failed.is_empty() { ui::green("✓") } else { ui::red("✗") };
            let (failed, skipped) = (result.failed.len(), result.skipped.len());
            println!("{mark} {name:<12} {:>7} {failed:>7} {skipped:>8}", result.passed);
        }
        for (name, result) in &self.rows {
            for test in &result.failed {
                println!("{} {name}: {test}", ui::red("failed "));
            }
            for Skipped { test, reason } in &result.skipped {
                println!("{} {name}: {test} ({reason})", ui::dim("skipped"));
            }
        }
        for (name, reason) in self.left_out {
            println!("{} {name}: only by `cargo xtask test {name}` ({reason})", ui::dim("not run"));
        }
        let passed: u64 = self.rows.iter().map(|(_, result)| result.passed).sum();
        let failed: usize = self.rows.iter().map(|(_, result)| result.failed.len()).sum();
        let skipped: usize = self.rows.iter().map(|(_, result)| result.skipped.len()).sum();
        let missed = self.missed();
        if strict && missed > 0 {
            println!("{}", ui::red("CI=true: what was skipped counts as failed"));
        }
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed > 0 || (strict && missed > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    /// How many tests were skipped that could have run here.
    fn missed(&self) -> usize {
        self.rows.iter().filter(|(_, result)| !result.excused).map(|(_, result)| result.skipped.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result {
        let mut result = Result::default();
        text.lines().for_each(|line| result.read(line));
        result.settle();
        result
    }

    #[test]
    fn passed_failed_and_ignored_tests_are_counted_over_all_binaries_and_named() {
        let result = read(
            "running 3 tests\n\
             test a::b ... ok\n\
             test c ... FAILED\n\
             test d ... ignored, needs cosign\n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.70s\n\
             test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.70s\n",
        );
        assert_eq!((result.passed, result.failed), (13, vec!["c".to_owned()]));
        assert_eq!(result.skipped, [Skipped { test: "d".to_owned(), reason: "needs cosign".to_owned() }]);
    }

    #[test]
    fn a_suite_that_ran_nothing_has_failed() {
        assert_eq!(read("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured;").failed.len(), 1);
    }

    #[test]
    fn what_cannot_run_in_such_a_place_is_named_and_nobody_misses_it() {
        let skipped = || vec![Skipped { test: "boots".to_owned(), reason: "no root".to_owned() }];
        let of = |excused| Result { skipped: skipped(), excused, ..Result::default() };
        let report = Report { left_out: &[], rows: vec![("a", of(true)), ("b", of(false)), ("c", of(true))] };
        assert_eq!(report.missed(), 1);
    }

    #[test]
    fn a_run_that_broke_off_has_failed() {
        let mut result = Result { clean: false, passed: 5, ..Result::default() };
        result.settle();
        assert_eq!(result.failed.len(), 1);
    }
}
