//! What is read, what is refused, and where an error is said to be.

#![allow(clippy::unwrap_used)]

mod agreement;

use bytes::Bytes;

use super::*;

fn parse(text: impl AsRef<[u8]>) -> Result<Document, JsonError> {
    Document::parse(Bytes::copy_from_slice(text.as_ref()), &JsonLimits::default())
}

fn problem(text: impl AsRef<[u8]>) -> Problem {
    parse(text.as_ref()).err().unwrap_or_else(|| panic!("read: {}", String::from_utf8_lossy(text.as_ref()))).problem
}

#[test]
fn what_rfc_8259_allows_is_read() {
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "-1",
        "10",
        "1.5",
        "-1.5",
        "0.1",
        "1e1",
        "1E1",
        "1e+1",
        "1e-1",
        "1.0e0",
        "0e0",
        "0.0e5",
        "-0.0",
        "123456789",
        r#""""#,
        r#""a""#,
        "[]",
        "{}",
        "[1]",
        "[[]]",
        "[{}]",
        "[1,2]",
        r#"{"":0}"#,
        r#"{"a":{}}"#,
        r#"{"a":[]}"#,
        r#"{"a":1,"b":2}"#,
        r#"{"b":1,"a":2}"#,
        " \t\r\n1 \t\r\n",
        "[ ]",
        "{ }",
        "[ 1 , 2 ]",
        "{ \"a\" : 1 , \"b\" : 2 }",
        r#""\"\\\/\b\f\n\r\t""#,
        r#""\u0000""#,
        r#""\u00e9\u00E9""#,
        r#""\ud83d\ude00""#,
        r#""\uDBFF\uDFFF""#,
        "\"\u{7f}\"",
        "\"\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}\"",
        r#""\uffff""#,
        r#"{"a\u0062":1,"\u0061":2}"#,
        "9007199254740991",
        "-9007199254740991",
        "1e21",
        "1e300",
        "5e-324",
        r#"{"aaaaaaaa1":1,"aaaaaaaa0":2,"aaaaaaaa":3}"#,
    ] {
        assert!(parse(text).is_ok(), "{text}: {}", parse(text).unwrap_err());
        // Around it, no byte is read beyond it.
        let padded = format!("[{text},{text}]                ");
        assert!(parse(&padded).is_ok(), "{padded}");
    }
}

#[test]
fn what_rfc_8259_does_not_allow_is_refused() {
    use Problem::*;
    for (text, expected) in [
        ("", Empty),
        (" \n", Empty),
        ("\0", ExpectedValue),
        ("nul", Truncated),
        ("nulL", ExpectedValue),
        ("True", ExpectedValue),
        ("nullx", Trailing),
        ("true false", Trailing),
        ("1 2", Trailing),
        ("[] []", Trailing),
        ("{}}", Trailing),
        ("]", ExpectedValue),
        ("}", ExpectedValue),
        (",", ExpectedValue),
        (":", ExpectedValue),
        ("+1", ExpectedValue),
        (".5", ExpectedValue),
        ("NaN", ExpectedValue),
        ("Infinity", ExpectedValue),
        ("-Infinity", Number),
        ("'a'", ExpectedValue),
        ("/**/1", ExpectedValue),
        ("1//", Trailing),
        ("\u{a0}1", ExpectedValue),
        ("\u{b}1", ExpectedValue),
        ("\u{c}1", ExpectedValue),
        ("01", Number),
        ("-01", Number),
        ("00", Number),
        ("-", Truncated),
        ("-a", Number),
        ("1.", Truncated),
        ("[1.]", Number),
        ("1.e1", Number),
        ("1e", Truncated),
        ("[1e]", Number),
        ("1e+", Truncated),
        ("[1e+]", Number),
        ("1.5.5", Trailing),
        ("1e5.5", Trailing),
        ("0x10", Trailing),
        ("1_0", Trailing),
        ("[", Truncated),
        ("{", Truncated),
        ("[1", Truncated),
        ("[1,", Truncated),
        ("{\"a\"", Truncated),
        ("{\"a\":", Truncated),
        ("{\"a\":1", Truncated),
        ("{\"a\":1,", Truncated),
        ("\"", Truncated),
        ("\"a", Truncated),
        ("\"\\", Truncated),
        ("\"\\\"", Truncated),
        ("[1,]", TrailingComma),
        ("{\"a\":1,}", TrailingComma),
        ("[,]", ExpectedValue),
        ("[,1]", ExpectedValue),
        ("[1,,2]", ExpectedValue),
        ("[1 2]", ExpectedComma),
        ("[1}", ExpectedComma),
        ("{\"a\":1]", ExpectedComma),
        ("{\"a\":1 \"b\":2}", ExpectedComma),
        ("{,}", ExpectedKey),
        ("{1:1}", ExpectedKey),
        ("{a:1}", ExpectedKey),
        ("{'a':1}", ExpectedKey),
        ("{\"a\":1,,\"b\":2}", ExpectedKey),
        ("{[]:1}", ExpectedKey),
        ("{null:1}", ExpectedKey),
        ("{\"a\" 1}", ExpectedColon),
        ("{\"a\",1}", ExpectedColon),
        ("{\"a\"}", ExpectedColon),
        ("{\"a\"::1}", ExpectedValue),
        ("{\"a\":}", ExpectedValue),
        ("{\"a\":,}", ExpectedValue),
        ("[1:2]", ExpectedComma),
        ("\"\u{0}\"", ControlCharacter),
        ("\"\u{1f}\"", ControlCharacter),
        ("\"\n\"", ControlCharacter),
        ("\"a\tb\"", ControlCharacter),
        ("\"1234567\n\"", ControlCharacter),
        ("\"\\n\n\"", ControlCharacter),
        (r#""\a""#, Escape),
        (r#""\x41""#, Escape),
        (r#""\'""#, Escape),
        (r#""\U0041""#, Escape),
        (r#""\0""#, Escape),
        (r#""\u""#, Escape),
        (r#""\u00""#, Escape),
        (r#""\u00g0""#, Escape),
        (r#""\u 041""#, Escape),
        (r#""\u+041""#, Escape),
        (r#""\ud800""#, LoneSurrogate),
        (r#""\udfff""#, LoneSurrogate),
        (r#""\ud800\ud800""#, LoneSurrogate),
        (r#""\ud800\n""#, LoneSurrogate),
        (r#""\ud83dx\ude00""#, LoneSurrogate),
        (r#""\ude00\ud83d""#, LoneSurrogate),
        (r#""\ud83d\u00e9""#, LoneSurrogate),
        (r#""\ud83d\uzzzz""#, Escape),
        ("\u{feff}{}", ByteOrderMark),
        ("\u{feff}", ByteOrderMark),
    ] {
        assert_eq!(problem(text), expected, "{text}");
    }
}

#[test]
fn what_is_not_utf_8_is_refused_where_it_begins() {
    for (text, offset) in [
        (&b"\xff"[..], 0),
        (b"\"\xff\"", 1),
        (b"\"abcdefgh\xc3\"", 9),
        (b"\"\xc0\xaf\"", 1),
        (b"\"\xed\xa0\x80\"", 1),
        (b"\"\xf4\x90\x80\x80\"", 1),
        (b"{\"a\xe2\x82\":1}", 3),
        (b"{\"\\u0061\":1,\"\xfe\":1}", 13),
        (b"\xff\xfe{\0}\0", 0),
        (b"\"\xe9\\ud800\"", 1),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!((error.problem, error.offset), (Problem::Encoding, offset), "{text:02x?}");
    }
    // What is wrong before it is said first.
    assert_eq!(problem(b"[x, \"\xff\"]"), Problem::ExpectedValue);
}

#[test]
fn a_key_that_comes_twice_is_refused_however_it_is_spelled() {
    let long = "k".repeat(100);
    for text in [
        r#"{"a":1,"a":1}"#.to_owned(),
        r#"{"a":1,"b":2,"a":3}"#.to_owned(),
        r#"{"b":1,"a":2,"b":3}"#.to_owned(),
        r#"{"a":1,"\u0061":2}"#.to_owned(),
        r#"{"\u0061":1,"a":2}"#.to_owned(),
        r#"{"z":0,"\u0061":1,"\u0061":2}"#.to_owned(),
        r#"{"\/":1,"/":2}"#.to_owned(),
        "{\"\\u00e9\":1,\"\u{e9}\":2}".to_owned(),
        "{\"z\":0,\"\\ud83d\\ude00\":1,\"\u{1f600}\":2}".to_owned(),
        r#"{"":1,"":2}"#.to_owned(),
        r#"{"x":{"y":[{"a":1,"b":{},"a":2}]}}"#.to_owned(),
        format!(r#"{{"{long}":1,"b":2,"{long}":3}}"#),
        format!(r#"{{"z":1,"{long}":2,"{long}x":2,"{long}":3}}"#),
    ] {
        assert_eq!(problem(&text), Problem::DuplicateKey, "{text}");
    }
    let mut many: String = (0..100).rev().map(|n| format!("\"key number {n}\":{n},")).collect();
    many.push_str("\"key number 50\":0");
    assert_eq!(problem(format!("{{{many}}}")), Problem::DuplicateKey);
    let error = parse("{\"b\": 1,\n \"a\": 2,\n \"b\": 3}").unwrap_err();
    assert_eq!((error.line, error.column, error.path.as_str()), (3, 2, "$.b"));
}

#[test]
fn keys_that_only_look_alike_are_all_kept() {
    for text in [
        r#"{"a":1,"a\u0000":2}"#,
        r#"{"a\u0000":1,"a":2}"#,
        r#"{"aaaaaaaa\u0000":1,"aaaaaaaa":2}"#,
        "{\"\u{e9}\":1,\"e\u{301}\":2}",
        r#"{"A":1,"a":2}"#,
        r#"{"a":{"a":1},"b":{"a":1}}"#,
        r#"[{"a":1},{"a":1}]"#,
    ] {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn numbers_keep_their_value_or_are_refused() {
    for text in [
        "1.0",
        "1e2",
        "4.50",
        "0.1",
        "0.10",
        "1E30",
        "2e-3",
        "0.000000000000000000000000001",
        "123.456",
        "1e21",
        "1e22",
        "0.00043",
        "9.8",
        "1.7976931348623157e308",
        "2.2250738585072014e-308",
        "0e400",
        "-0.0",
        "-0",
        "0.000e-999",
        "333333333.3333333",
        "1424953923781206.2",
        "0.30000000000000004",
        "100000000000000.5",
        "9007199254740991.0",
        "9007199254740991e0",
        "1000000000000000000000e0",
        "99999999999999990000000",
        "0.1e1",
        "10e-1",
    ] {
        let bytes = text.as_bytes();
        // The largest integers without exponent are for the test below.
        if bytes.iter().all(u8::is_ascii_digit) && bytes.len() > 16 {
            continue;
        }
        assert!(parse(text).is_ok(), "{text}: {}", parse(text).unwrap_err());
    }
    for text in [
        "9007199254740992",
        "-9007199254740992",
        "10000000000000000",
        "18446744073709551616",
        "9007199254740992.0",
        "9007199254740994.0",
        "9.007199254740992e15",
        "1e16",
        "1e20",
        "-1e20",
        "123456789012345680000.0",
        "10000000000000000e0",
    ] {
        assert_eq!(problem(text), Problem::IntegerRange, "{text}");
    }
    for text in [
        "0.1000000000000000055",
        "333333333.33333329",
        "1e400",
        "-1e400",
        "1e-400",
        "1e99999999999999999999",
        "4.9e-324",
        "2.4703282292062327e-324",
        "9007199254740993.0",
        "0.10000000000000001",
        "1.00000000000000000001",
        "1.7976931348623159e308",
        "3.14159265358979323846",
        "1e-99999999999999999999",
        "0.1234567890123456789",
        // Halfway between two decimals; ECMAScript prints the even one, 1424953923781206.2.
        "1424953923781206.3",
    ] {
        assert_eq!(problem(text), Problem::NumberLoss, "{text}");
    }
}

#[test]
fn limits_hold_and_are_named() {
    let limits = JsonLimits { max_depth: 3, max_values: 8 };
    let parse =
        |text: &str| Document::parse(Bytes::copy_from_slice(text.as_bytes()), &limits).map_err(|error| error.problem);
    assert!(parse("[[[1]]]").is_ok());
    assert!(parse(r#"{"a":[{}]}"#).is_ok());
    assert_eq!(parse("[[[[]]]]").unwrap_err(), Problem::Depth(3));
    assert_eq!(parse(r#"[[{"a":{}}]]"#).unwrap_err(), Problem::Depth(3));
    assert!(parse("[1,2,3,4]").is_ok());
    assert_eq!(parse("[1,2,3,4,5,6,7,8,9]").unwrap_err(), Problem::Values(8));
    assert_eq!(parse("[[],[],[],[],[]]").unwrap_err(), Problem::Values(8));

    let deepest = "[".repeat(512) + &"]".repeat(512);
    let unlimited = JsonLimits { max_depth: u16::MAX, max_values: u32::MAX };
    assert!(Document::parse(Bytes::from(deepest.clone()), &unlimited).is_ok());
    let error = Document::parse(Bytes::from(format!("[{deepest}]")), &unlimited).unwrap_err();
    assert_eq!(error.problem, Problem::Depth(512));
    assert_eq!(problem("[".repeat(1_000_000)), Problem::Depth(128));
    assert_eq!(problem("{\"a\":".repeat(1_000_000)), Problem::Depth(128));
}

#[test]
fn an_error_says_where_it_is() {
    for (text, line, column, path) in [
        ("{\n  \"a\": 01\n}", 2, 8, "$.a"),
        ("[1, 2, x]", 1, 8, "$[2]"),
        ("{\"a\": [{\"b\": 1}, {\"c d\": [true, nope]}]}", 1, 33, "$.a[1][\"c d\"][1]"),
        ("{\"a\": 1, \"b\" 2}", 1, 14, "$.b"),
        ("{\"a\": 1; \"b\": 2}", 1, 8, "$"),
        ("{\"a\": {\"b\": 1,}}", 1, 14, "$.a"),
        ("{} x", 1, 4, "$"),
        ("[[1], [2, [3, 4], {\"k\": 5}, 1e999]]", 1, 29, "$[1][3]"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!((error.line, error.column, error.path.as_str()), (line, column, path), "{text}: {error}");
    }
    let error = parse(format!("{{\"{}\": x}}", "k\u{e9}".repeat(500))).unwrap_err();
    assert!(error.path.chars().count() < 60, "{}", error.path);
    let deep = format!("{}x", "{\"some key\":".repeat(100));
    assert!(parse(deep).unwrap_err().path.len() < 240);
}

#[test]
fn values_are_read_back() {
    let text = r#" {"s":"a\u00e9\n\"","n":12,"f":1.5,"t":true,"x":false,"z":null,
                    "a":[1,"two",[3],{"four":4}],"o":{"b":1,"a":[]},"":"","neg":-3,"big":9007199254740991} "#;
    let document = parse(text).unwrap();
    let root = document.root();
    assert_eq!(root.kind(), Kind::Object);
    assert_eq!(root.count(), 11);
    assert_eq!(root.get("s").unwrap().as_str().unwrap(), "a\u{e9}\n\"");
    assert!(root.get("s").unwrap().is_str("a\u{e9}\n\""));
    assert_eq!(root.get("n").unwrap().as_u64(), Some(12));
    assert_eq!(root.get("n").unwrap().as_str(), None);
    assert_eq!(root.get("f").unwrap().as_u64(), None);
    assert_eq!(root.get("f").unwrap().as_f64(), Some(1.5));
    assert_eq!(root.get("neg").unwrap().as_u64(), None);
    assert_eq!(root.get("big").unwrap().as_u64(), Some(9_007_199_254_740_991));
    assert_eq!(root.get("t").unwrap().as_bool(), Some(true));
    assert_eq!(root.get("x").unwrap().as_bool(), Some(false));
    assert!(root.get("z").unwrap().is_null());
    assert_eq!(root.get("").unwrap().as_str().unwrap(), "");
    assert!(root.get("four").is_none());
    let kinds: Vec<Kind> = root.get("a").unwrap().elements().map(Node::kind).collect();
    assert_eq!(kinds, [Kind::Number, Kind::String, Kind::Array, Kind::Object]);
    let keys: Vec<String> =
        root.get("o").unwrap().members().map(|(key, _)| key.as_str().unwrap().into_owned()).collect();
    assert_eq!(keys, ["b", "a"]);
    assert_eq!(root.get("n").unwrap().elements().count() + root.get("a").unwrap().members().count(), 0);
    assert_eq!(&text[root.get("s").unwrap().offset()..][..2], "\"a");
}

#[test]
fn strings_end_where_they_end_at_every_alignment() {
    for length in 0..200 {
        for tail in ["\"", "\\n\"", "\\\\\"", "\u{e9}\""] {
            let text = format!("[\"{}{tail}, 1]", "x".repeat(length));
            let document = parse(&text).unwrap();
            let value = document.root().elements().next().unwrap().as_str().unwrap();
            assert_eq!(value, serde_json::from_str::<(String, u8)>(&text).unwrap().0);
            assert_eq!(problem(format!("[\"{}\u{1}{tail}, 1]", "x".repeat(length))), Problem::ControlCharacter);
            let cut = &text[..text.len() - 4 - tail.len()];
            assert_eq!(problem(cut), Problem::Truncated, "{cut}");
        }
    }
}
