//! Bodies that are not exactly one JSON value as RFC 8785 can carry it.

#![forbid(unsafe_code)]

use testkit::sample;

use crate::case::{Case, Expect};
use crate::world::World;

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    let text = |&(name, naming, edit): &(&str, &str, fn(String) -> String)| {
        let call = move |world: &World| world.sign().body_text(edit);
        Case::call(format!("JSON: {name}"), not_json(naming), call)
    };
    let bytes = |&(name, naming, edit): &(&str, &str, fn(Vec<u8>) -> Vec<u8>)| {
        let call = move |world: &World| {
            let call = world.sign();
            let body = edit(call.body_bytes().to_vec());
            call.raw_body(body)
        };
        Case::call(format!("JSON: {name}"), not_json(naming), call)
    };
    let accepted = |&(name, edit): &(&str, fn(String) -> String)| {
        let call = move |world: &World| world.sign().body_text(edit);
        Case::call(format!("JSON: {name} (is right)"), Expect::Accepted, call)
    };
    let mut cases: Vec<Case> = TEXTS.iter().map(text).collect();
    cases.extend(BYTES.iter().map(bytes));
    cases.extend(ACCEPTED.iter().map(accepted));
    cases.push(Case::call("JSON: an empty body", Expect::problem(400, "invalid_request", "body_empty"), |world| {
        world.sign().raw_body(Vec::new()).header("content-type", "application/json")
    }));
    cases
}

fn not_json(naming: &str) -> Expect {
    Expect::Problem {
        status: 400,
        code: "invalid_request",
        reason: Some("json"),
        recorded: Some("json"),
        naming: Some(naming.to_owned()),
    }
}

/// Puts a member in front of the predicate's own.
fn in_predicate(text: &str, member: &str) -> String {
    text.replacen(r#""predicate":{"#, &format!(r#""predicate":{{{member},"#), 1)
}

/// What is wrong, what the detail names, and the body that is wrong in just that.
const TEXTS: [(&str, &str, fn(String) -> String); 46] = [
    ("a member twice at the top", "twice", |t| t.replacen('{', r#"{"predicateType":"stella.ops/vex@v1","#, 1)),
    ("a member twice by an escape", "twice", |t| t.replacen('{', r#"{"pr\u0065dicateType":"stella.ops/vex@v1","#, 1)),
    ("a member twice in the predicate", "$.predicate", |t| in_predicate(&t, r#""specVersion":"1.5""#)),
    ("a member twice in the predicate by an escape", "twice", |t| in_predicate(&t, r#""spec\u0056ersion":"1.5""#)),
    ("a member twice, deep down", "$.predicate.a.b[2].c", |t| {
        in_predicate(&t, r#""a":{"b":[0,1,{"c":{"d":1,"d":1}}]}"#)
    }),
    ("the empty key twice", "twice", |t| in_predicate(&t, r#""":1,"":2"#)),
    ("a digest twice", "$.subject[0].digest", |t| {
        t.replacen(r#""digest":{"#, &format!(r#""digest":{{"sha256":"{}","#, "00".repeat(32)), 1)
    }),
    ("an option twice", "twice", |t| {
        t.replacen('{', r#"{"options":{"returnBundle":"dsse","returnBundle":"sigstore"},"#, 1)
    }),
    ("bytes behind the end", "follows", |t| t + "x"),
    ("a second document behind the end", "follows", |t| format!("{t}{t}")),
    ("a NUL behind the end", "follows", |t| t + "\0"),
    ("a comment", "$", |t| t.replacen('{', "{/* signed */", 1)),
    ("a comment behind the end", "follows", |t| t + " // signed"),
    ("a comma before the closing brace", "comma", |t| format!("{},}}", &t[..t.len() - 1])),
    ("a comma before the closing bracket", "comma", |t| in_predicate(&t, r#""a":[1,]"#)),
    ("a comma instead of a colon", "`:`", |t| in_predicate(&t, r#""a",1"#)),
    ("no comma between members", "`,`", |t| in_predicate(&t, r#""a":1 "b":2"#)),
    ("keys without quotes", "key", |t| in_predicate(&t, "a:1")),
    ("keys in single quotes", "key", |t| in_predicate(&t, "'a':1")),
    ("a number as a key", "key", |t| in_predicate(&t, "1:1")),
    ("the half of a body", "too early", |t| t[..t.len() / 2].to_owned()),
    ("a body without its last brace", "too early", |t| t[..t.len() - 1].to_owned()),
    ("whitespace alone", "empty", |_| " \n\t ".to_owned()),
    ("whitespace that is not JSON's", "$", |t| t.replacen('{', "{\u{a0}", 1)),
    ("a byte order mark", "byte order mark", |t| format!("\u{feff}{t}")),
    ("a high surrogate alone", "$.predicate.a", |t| in_predicate(&t, r#""a":"\ud800""#)),
    ("a low surrogate alone", "surrogate", |t| in_predicate(&t, r#""a":"\udc00""#)),
    ("two high surrogates", "surrogate", |t| in_predicate(&t, r#""a":"\ud800\ud800""#)),
    ("surrogates in the wrong order", "surrogate", |t| in_predicate(&t, r#""a":"\udc00\ud800""#)),
    ("a lone surrogate in a key", "surrogate", |t| in_predicate(&t, r#""\udfff":1"#)),
    ("an unknown escape", "escape", |t| in_predicate(&t, r#""a":"\x41""#)),
    ("an escape of three digits", "escape", |t| in_predicate(&t, r#""a":"\u041""#)),
    ("a line feed in a string", "control character", |t| in_predicate(&t, "\"a\":\"\n\"")),
    ("a NUL in a string", "control character", |t| in_predicate(&t, "\"a\":\"\0\"")),
    ("2^53", "9007199254740991", |t| in_predicate(&t, r#""a":9007199254740992"#)),
    ("-2^53", "$.predicate.a", |t| in_predicate(&t, r#""a":-9007199254740992"#)),
    ("an integer of 400 digits", "$.predicate.a", |t| in_predicate(&t, &format!(r#""a":{}"#, "9".repeat(400)))),
    ("1e400", "$.predicate.a", |t| in_predicate(&t, r#""a":1e400"#)),
    ("more digits than a double keeps", "$.predicate.a", |t| in_predicate(&t, r#""a":0.1000000000000000055"#)),
    ("NaN", "$.predicate.a", |t| in_predicate(&t, r#""a":NaN"#)),
    ("-Infinity", "$.predicate.a", |t| in_predicate(&t, r#""a":-Infinity"#)),
    ("a number with a leading zero", "number", |t| in_predicate(&t, r#""a":012"#)),
    ("a number with a leading plus", "$.predicate.a", |t| in_predicate(&t, r#""a":+1"#)),
    ("a number that ends in a point", "number", |t| in_predicate(&t, r#""a":1."#)),
    ("a hexadecimal number", "$.predicate", |t| in_predicate(&t, r#""a":0x10"#)),
    ("a hundred thousand open brackets", "nested", |t| in_predicate(&t, &format!(r#""a":{}"#, "[".repeat(100_000)))),
];

/// What no text can be.
const BYTES: [(&str, &str, fn(Vec<u8>) -> Vec<u8>); 8] = [
    ("UTF-16, little endian, with its mark", "UTF-8", |b| [vec![0xff, 0xfe], utf16(&b, u16::to_le_bytes)].concat()),
    ("UTF-16, little endian, without a mark", "byte 1", |b| utf16(&b, u16::to_le_bytes)),
    ("UTF-16, big endian", "byte 0", |b| utf16(&b, u16::to_be_bytes)),
    ("a byte that UTF-8 does not have", "UTF-8", |b| put(&b, &[0xff])),
    ("an overlong form", "UTF-8", |b| put(&b, &[0xc0, 0xaf])),
    ("a surrogate in UTF-8", "UTF-8", |b| put(&b, &[0xed, 0xa0, 0x80])),
    ("a code point beyond Unicode", "UTF-8", |b| put(&b, &[0xf4, 0x90, 0x80, 0x80])),
    ("a character that breaks off", "UTF-8", |b| put(&b, &[0xe2, 0x82])),
];

/// What is odd and must pass, so that the rows above fail for the reason they name.
const ACCEPTED: [(&str, fn(String) -> String); 9] = [
    ("2^53 - 1", |t| in_predicate(&t, r#""a":9007199254740991"#)),
    ("numbers in other spellings", |t| in_predicate(&t, r#""a":[1.0,1e2,1E+2,-0,0.1,5e-324,1.7976931348623157e308]"#)),
    ("a pair of surrogates", |t| in_predicate(&t, r#""a":"\ud83d\ude00""#)),
    ("every escape", |t| in_predicate(&t, r#""a":"\"\\\/\b\f\n\r\t\u0000\u001f\u007f""#)),
    ("whitespace all around", |t| format!("\r\n\t {t} \r\n\t")),
    ("keys that differ in case alone", |t| in_predicate(&t, r#""a":1,"A":2"#)),
    ("keys that differ in normalization alone", |t| in_predicate(&t, "\"\u{e9}\":1,\"e\u{301}\":2")),
    ("a hundred brackets", |t| in_predicate(&t, &format!(r#""a":{}{}"#, "[".repeat(100), "]".repeat(100)))),
    ("an empty key", |t| in_predicate(&t, r#""":1"#)),
];

fn utf16(text: &[u8], order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    String::from_utf8_lossy(text).encode_utf16().flat_map(order).collect()
}

/// Bytes inside a string of the predicate.
fn put(body: &[u8], bytes: &[u8]) -> Vec<u8> {
    let place = b"CycloneDX";
    let at = body.windows(place.len()).position(|window| window == place).expect("the sample is CycloneDX");
    [&body[..at], bytes, &body[at..]].concat()
}

#[test]
fn the_sample_has_what_these_rows_change() {
    let text = sample::request().to_string();
    for place in [r#""predicate":{"#, r#""digest":{"#, "CycloneDX", "specVersion"] {
        assert!(text.contains(place), "{place} in {text}");
    }
}
