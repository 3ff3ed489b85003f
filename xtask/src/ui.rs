//! Lines for a person: short, coloured only where a terminal shows it.

#![forbid(unsafe_code)]

use std::env;
use std::fmt::Display;
use std::io::IsTerminal as _;
use std::sync::LazyLock;
use std::time::Duration;

/// A heading with a line to its right.
pub fn heading(title: &str) {
    let line = "─".repeat(WIDTH.saturating_sub(title.chars().count() + 4));
    println!("\n{} {} {}", paint(DIM, "──"), paint(BOLD, title), paint(DIM, &line));
}

/// Something that went well.
pub fn done(what: impl Display) {
    println!("{} {what}", paint(GREEN, "✓"));
}

/// Something that is refused or went wrong, as it should or should not.
pub fn refused(what: impl Display) {
    println!("{} {what}", paint(RED, "✗"));
}

/// A remark.
pub fn note(what: impl Display) {
    println!("  {}", paint(DIM, &what.to_string()));
}

/// A command that the reader can repeat.
pub fn command(line: &str) {
    println!("{} {}", paint(CYAN, "$"), paint(BOLD, line));
}

/// Text in bold.
#[must_use]
pub fn bold(text: &str) -> String {
    paint(BOLD, text)
}

/// Text that matters less.
#[must_use]
pub fn dim(text: &str) -> String {
    paint(DIM, text)
}

/// Text that is good news.
#[must_use]
pub fn green(text: &str) -> String {
    paint(GREEN, text)
}

/// Text that is bad news.
#[must_use]
pub fn red(text: &str) -> String {
    paint(RED, text)
}

/// A duration as people say it: `0.4 s`, `12 s`, `3 m 05 s`.
#[must_use]
pub fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds => format!("{} m {:02} s", seconds / 60, seconds % 60),
    }
}

fn paint(style: &str, text: &str) -> String {
    if *COLOURED { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

static COLOURED: LazyLock<bool> =
    LazyLock::new(|| std::io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none());

const WIDTH: usize = 96;
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";
