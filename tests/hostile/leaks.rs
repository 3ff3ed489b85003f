//! What must turn up nowhere: credentials, secrets, the inside of the appliance.

#![forbid(unsafe_code)]

use crate::case::Sent;
use crate::world::World;

/// An answer tells a stranger nothing about the machine and gives no credential back.
pub(crate) fn in_answer(world: &World, sent: &Sent) -> Result<(), String> {
    let text = match sent {
        // A signature's payload is the caller's own; what may leak is in what surrounds refusals.
        Sent::Answer(answer) if answer.status == 200 => return Ok(()),
        Sent::Answer(answer) => format!("{:?} {}", answer.headers, answer.text()),
        Sent::Wire(wire) => {
            let refusals = wire.answers().into_iter().filter(|answer| answer.status != 200);
            refusals.map(|answer| format!("{:?} {}", answer.headers, answer.text())).collect()
        }
    };
    let dir = world.fixture.dir().display().to_string();
    let inside = [dir.as_str()].into_iter().chain(INSIDE.iter().copied());
    inside.chain(ALARMS.iter().copied()).try_for_each(|word| lacks(&text, word))?;
    lacks_credentials(world, &text)
}

/// The programs' own logs may name files and devices, and hold neither credentials nor panics.
pub(crate) fn in_logs(world: &World) -> Result<(), String> {
    let text = world.fixture.appliance.logs();
    ALARMS.iter().try_for_each(|word| lacks(&text, word))?;
    lacks_credentials(world, &text)
}

/// The audit log names callers by their identifiers, never by their credentials or payloads.
pub(crate) fn in_audit(world: &World) -> Result<(), String> {
    let records = world.fixture.appliance.audit().map_err(|error| error.to_string())?;
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    lacks(&text, PAYLOAD)?;
    lacks_credentials(world, &text)
}

fn lacks_credentials(world: &World, text: &str) -> Result<(), String> {
    world.secrets().iter().try_for_each(|secret| lacks(text, secret))?;
    match find_jwt(text) {
        None => Ok(()),
        Some(at) => Err(format!("a token in …{}…", around(text, at))),
    }
}

fn lacks(text: &str, word: &str) -> Result<(), String> {
    text.find(word).map_or(Ok(()), |at| Err(format!("`{word}` in …{}…", around(text, at))))
}

/// Where a JWT begins: base64url of `{"` at the beginning of a word, and a dot behind it.
fn find_jwt(text: &str) -> Option<usize> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
    text.match_indices("eyJ").map(|(at, _)| at).find(|&at| {
        let begins = !text[..at].chars().next_back().is_some_and(is_word);
        let word = text[at..].find(|character| !is_word(character)).map_or(&text[at..], |end| &text[at..at + end]);
        begins && word.len() > 8 && text[at + word.len()..].starts_with('.')
    })
}

fn around(text: &str, at: usize) -> String {
    let skip = text[..at].chars().count().saturating_sub(60);
    text.chars().skip(skip).take(200).collect()
}

/// What only the machine's keeper may read of.
const INSIDE: [&str; 8] = ["/tmp/", "/usr/", "/home/", "/proc/", "/root/", "SoftHSM", "softhsm", "pkcs11"];

/// What a program that fell over says.
const ALARMS: [&str; 5] = ["panicked", "RUST_BACKTRACE", ".rs:", "stack backtrace", "internal error: entered"];

/// Of the sample that most rows want signed.
const PAYLOAD: &str = "component-000000";

#[test]
fn a_token_in_a_text_is_found() {
    assert_eq!(find_jwt("detail: eyJhbGciOiJFUzI1NiJ9.e30.c2ln"), Some(8));
    assert_eq!(find_jwt("Bearer eyJhbGciOiJFUzI1NiJ9.e30"), Some(7));
    for harmless in ["", "eyJ", "thumbprint eyJhbGciOiJFUzI1NiJ9abc", "xeyJhbGciOiJFUzI1NiJ9.e30"] {
        assert_eq!(find_jwt(harmless), None, "{harmless}");
    }
}
