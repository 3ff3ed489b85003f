//! The table: fault, requests, refused, recovered after.

use std::io::Write as _;
use std::time::Duration;

/// A line of the table.
pub(crate) struct Row<'a> {
    pub(crate) fault: &'a str,
    pub(crate) requests: usize,
    pub(crate) refused: usize,
    pub(crate) recovered: Recovered,
}

pub(crate) enum Recovered {
    /// So long after the device's return.
    After(Duration),
    /// As above, by a new process of the worker.
    ByRestart(Duration),
    /// On purpose nobody but an operator ends it.
    ByOperator,
}

pub(crate) fn heading(group: &str) {
    say(&format!("\n{:<52} {:>8} {:>8}  {}\n{}", group, "requests", "refused", "recovered after", "-".repeat(100)));
}

impl Row<'_> {
    pub(crate) fn print(&self) {
        let recovered = match self.recovered {
            Recovered::After(time) => format!("{:>6.2} s", time.as_secs_f64()),
            Recovered::ByRestart(time) => format!("{:>6.2} s  by a new process", time.as_secs_f64()),
            Recovered::ByOperator => "operator  the key stays out of service".to_owned(),
        };
        let Self { fault, requests, refused, .. } = self;
        say(&format!("{fault:<52} {requests:>8} {refused:>8}  {recovered}"));
    }
}

/// Past the test harness, which would keep it to itself: the table is the point of the suite. Standard error, because
/// the harness's own lines on standard output are read by `cargo xtask test`.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
