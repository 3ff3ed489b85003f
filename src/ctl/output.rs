//! The only place that prints: a report or an error, for people or as JSON.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use super::error::{CtlError, Exit};

/// What a command has to say when it did its work.
#[derive(Debug)]
pub(crate) struct Report {
    /// For people.
    pub(crate) text: String,
    /// For `--json`.
    pub(crate) json: Value,
    /// Not always success: a status can be read and be bad.
    pub(crate) exit: Exit,
    /// Standard output already carries the result itself, so the text goes to standard error.
    pub(crate) aside: bool,
}

impl Report {
    /// A success.
    pub(crate) fn new(text: String, json: Value) -> Self {
        Self { text, json, exit: Exit::Success, aside: false }
    }
}

/// Prints and returns the process's exit code. With `json`, standard output gets exactly one JSON document.
pub(crate) fn finish(result: Result<Report, CtlError>, json: bool) -> ExitCode {
    let printed = match &result {
        Ok(report) if json => print(&format!("{:#}\n", report.json)),
        Ok(report) if report.aside => {
            eprint_all(&report.text);
            Ok(())
        }
        Ok(report) => print(&report.text),
        Err(error) if json => print(&format!("{:#}\n", error.to_json())),
        Err(error) => {
            eprint_all(&for_people(error));
            Ok(())
        }
    };
    let exit = match (printed, result) {
        (Err(error), _) => {
            eprint_all(&for_people(&error));
            error.exit()
        }
        (Ok(()), Ok(report)) => report.exit,
        (Ok(()), Err(error)) => error.exit(),
    };
    ExitCode::from(exit as u8)
}

/// Writes to standard output. A reader that went away (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), CtlError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CtlError::Stdout(error)),
        _ => Ok(()),
    }
}

/// `text` as a terminal may show it: characters that move the cursor, colour the screen or turn the direction of
/// reading come out as `\u{…}`. Whatever others wrote (envelopes, answers, certificates) goes through here.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Rows of left-aligned columns, two spaces apart, no trailing blanks.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn for_people(error: &CtlError) -> String {
    let mut text = String::new();
    for line in error.to_string().lines() {
        let prefix = if text.is_empty() { "error: " } else { "       " };
        text.push_str(&format!("{prefix}{line}\n"));
    }
    if let CtlError::Refused(refusal) = error {
        for (name, value) in refusal.facts() {
            text.push_str(&format!("  {name:<10} {value}\n"));
        }
    }
    if let Some(remedy) = error.remedy() {
        text.push_str(&format!("  what to do {remedy}\n"));
    }
    text
}

fn eprint_all(text: &str) {
    // Nobody is left to hear that standard error is gone.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_move_the_cursor_or_turn_the_text() {
        for (hostile, shown) in [
            ("\u{1b}[2Kverified", "\\u{1b}[2Kverified"),
            ("a\r\nb", "a\\u{d}\\u{a}b"),
            ("gpj\u{202e}.exe", "gpj\\u{202e}.exe"),
            ("zero\u{200b}width", "zero\\u{200b}width"),
            ("Grüße 署名", "Grüße 署名"),
        ] {
            assert_eq!(plain(hostile), shown);
        }
    }

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), String::new()]];
        assert_eq!(table(&rows), "a    bb\nccc\n");
    }
}
