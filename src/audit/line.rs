//! One JSON object of an audit line, written member by member.

use std::fmt::Write as _;

/// Appends members to an object whose first member is already there: each begins with a comma.
pub(super) struct Line<'a>(pub(super) &'a mut Vec<u8>);

impl Line<'_> {
    /// A text of ours.
    pub(super) fn word(&mut self, name: &'static str, value: &'static str) {
        self.name(name);
        self.quoted(value);
    }

    /// A text from outside: bounded, escaped.
    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.quoted(value);
    }

    pub(super) fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        push_number(self.0, value);
    }

    /// Lowercase hex.
    pub(super) fn hex(&mut self, name: &'static str, bytes: &[u8]) {
        self.name(name);
        self.0.push(b'"');
        for byte in bytes {
            self.0.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        self.0.push(b'"');
    }

    /// Anything that prints plain ASCII without quotes and backslashes.
    pub(super) fn plain(&mut self, name: &'static str, value: impl std::fmt::Display) {
        self.name(name);
        self.0.push(b'"');
        let start = self.0.len();
        // Writing to memory cannot fail.
        let _ = write!(Ascii(self.0), "{value}");
        debug_assert!(self.0[start..].iter().all(|c| (b' '..0x7f).contains(c) && !matches!(c, b'"' | b'\\')));
        self.0.push(b'"');
    }

    /// A list of `a:b` texts.
    pub(super) fn pairs<'t>(&mut self, name: &'static str, pairs: impl Iterator<Item = (&'t str, &'t str)>) {
        self.name(name);
        self.0.push(b'[');
        for (i, (a, b)) in pairs.enumerate() {
            if i > 0 {
                self.0.push(b',');
            }
            self.0.push(b'"');
            escape(self.0, bounded(a, MAX_TEXT_BYTES));
            self.0.push(b':');
            escape(self.0, bounded(b, MAX_TEXT_BYTES));
            self.0.push(b'"');
        }
        self.0.push(b']');
    }

    pub(super) fn list<'t>(&mut self, name: &'static str, texts: impl Iterator<Item = &'t String>) {
        self.name(name);
        self.0.push(b'[');
        for (i, text) in texts.enumerate() {
            if i > 0 {
                self.0.push(b',');
            }
            self.quoted(text);
        }
        self.0.push(b']');
    }

    fn name(&mut self, name: &'static str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn quoted(&mut self, value: &str) {
        let short = bounded(value, MAX_TEXT_BYTES);
        self.0.push(b'"');
        escape(self.0, short);
        if short.len() < value.len() {
            self.0.extend_from_slice("…".as_bytes());
        }
        self.0.push(b'"');
    }
}

pub(super) fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        // A remainder of ten is one digit.
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// The longest prefix of at most `max` bytes that ends between characters.
fn bounded(value: &str, max: usize) -> &str {
    if value.len() <= max {
        return value;
    }
    let mut end = max;
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// JSON escapes (RFC 8259, section 7), and also what could play tricks on a terminal or a reader: C1 controls, line
/// separators, directional and invisible formatting characters.
fn escape(out: &mut Vec<u8>, value: &str) {
    // Without a way out of the loop the compiler takes many bytes at once.
    if value.bytes().fold(true, |plain, c| plain & (b' '..0x7f).contains(&c) & (c != b'"') & (c != b'\\')) {
        return out.extend_from_slice(value.as_bytes());
    }
    for c in value.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}') =>
            {
                // All of these lie in the basic plane: one escape each.
                let _ = write!(Ascii(out), "\\u{:04x}", u32::from(c));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

struct Ascii<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Ascii<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Of one text from outside, before escaping.
const MAX_TEXT_BYTES: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(write: impl FnOnce(&mut Line<'_>)) -> String {
        let mut out = b"{\"seq\":1".to_vec();
        write(&mut Line(&mut out));
        out.push(b'}');
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_that_could_forge_a_line_or_fool_a_terminal_are_escaped() {
        for (text, expected) in [
            ("plain", "plain"),
            ("é 漢 😀", "é 漢 😀"),
            ("a\"b\\c", "a\\\"b\\\\c"),
            ("a\nb\r\u{0}", "a\\nb\\u000d\\u0000"),
            ("\u{1b}[2J\u{7f}\u{9b}", "\\u001b[2J\\u007f\\u009b"),
            ("\u{202e}gpj\u{2028}\u{200b}\u{feff}", "\\u202egpj\\u2028\\u200b\\ufeff"),
        ] {
            assert_eq!(line(|l| l.text("t", text)), format!("{{\"seq\":1,\"t\":\"{expected}\"}}"));
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_marked() {
        let written = line(|l| l.text("t", &"é".repeat(300)));
        assert_eq!(written, format!("{{\"seq\":1,\"t\":\"{}…\"}}", "é".repeat(128)));
        let written = line(|l| l.text("t", &format!("a{}", "é".repeat(300))));
        assert_eq!(written, format!("{{\"seq\":1,\"t\":\"a{}…\"}}", "é".repeat(127)));
    }

    #[test]
    fn a_list_has_each_text_whole() {
        assert_eq!(line(|l| l.list("t", [].iter())), "{\"seq\":1,\"t\":[]}");
        let texts: Vec<String> = ["a".repeat(64), "b\"".to_owned()].into();
        let expected = format!("{{\"seq\":1,\"t\":[\"{}\",\"b\\\"\"]}}", texts[0]);
        assert_eq!(line(|l| l.list("t", texts.iter())), expected);
    }

    #[test]
    fn numbers_and_hex_are_written_in_full() {
        for number in [0, 9, 10, 1_234_567, u64::MAX] {
            assert_eq!(line(|l| l.number("n", number)), format!("{{\"seq\":1,\"n\":{number}}}"));
        }
        assert_eq!(line(|l| l.hex("h", &[0, 0x1f, 0xff])), "{\"seq\":1,\"h\":\"001fff\"}");
    }

    proptest! {
        #[test]
        fn any_text_reads_back_as_it_was(text in "\\PC{0,60}|[\\x00-\\x{ff}\"\\\\]{0,60}") {
            let written = line(|l| l.text("t", &text));
            prop_assert!(!written.contains('\n'));
            let read: serde_json::Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(read["t"].as_str().unwrap(), text);
        }
    }
}
