//! Against the vectors of RFC 8785, and against an independent implementation.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::statement::json::{Document, JsonLimits, Problem};

fn canonical(text: &str) -> String {
    let document = Document::parse(Bytes::copy_from_slice(text.as_bytes()), &JsonLimits::default()).unwrap();
    let mut out = Vec::new();
    write(document.root(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_sample_of_section_3_2_is_written_as_published() {
    let published = r#"{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"#;
    // Its first number has a digit more than a double keeps. To sign another number than was sent is what the
    // ingress rules are there to prevent, so it is refused in this spelling.
    let error = Document::parse(Bytes::from(published), &JsonLimits::default()).unwrap_err();
    assert_eq!((error.problem, error.path.as_str()), (Problem::NumberLoss, "$.numbers[0]"));
    assert_eq!(
        canonical(&published.replace("333333333.33333329", "333333333.3333333")),
        "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
         \"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
    );
}

#[test]
fn the_keys_of_section_3_2_3_sort_as_published() {
    let text = r#"{
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\ud83d\ude00": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis"
    }"#;
    let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
        \"\u{f6}\":\"Latin Small Letter O With Diaeresis\",\"\u{20ac}\":\"Euro Sign\",\
        \"\u{1f600}\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
    assert_eq!(canonical(text), expected);
    // The same keys without escapes, and behind equal first bytes.
    assert_eq!(canonical(&expected.replace('\u{1f600}', "\\ud83d\\ude00")), expected);
    let behind = |text: &str| {
        text.replace("\"\u{20ac}\"", "\"12345678\u{20ac}\"")
            .replace("\"\u{1f600}\"", "\"12345678\u{1f600}\"")
            .replace("\"\u{fb33}\"", "\"12345678\u{fb33}\"")
    };
    let plain = behind("{\"\u{fb33}\":3,\"\u{1f600}\":2,\"\u{20ac}\":1}");
    assert_eq!(canonical(&plain), behind("{\"\u{20ac}\":1,\"\u{1f600}\":2,\"\u{fb33}\":3}"));
}

#[test]
fn the_numbers_of_appendix_b_print_as_published() {
    for (bits, expected) in [
        (0x0000_0000_0000_0000_u64, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0xc340_0000_0000_0000, "-9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
        (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
        (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5553, "333333333.3333332"),
        (0x41b3_de43_5555_5554, "333333333.33333325"),
        (0x41b3_de43_5555_5555, "333333333.3333333"),
        (0x41b3_de43_5555_5556, "333333333.3333334"),
        (0x41b3_de43_5555_5557, "333333333.33333343"),
        (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
    ] {
        let value = f64::from_bits(bits);
        let text = format!("{value:e}");
        let mut buffer = ryu_js::Buffer::new();
        assert_eq!(number::canonical(text.as_bytes(), &mut buffer), Some(expected));
        // All but the integers that are refused at ingress also go the whole way.
        if value.abs() < 9e15 || value.abs() >= 1e21 {
            assert_eq!(canonical(expected), expected);
        }
    }
}

#[test]
fn spellings_of_one_value_become_one_text() {
    for (text, expected) in [
        (" { } ", "{}"),
        ("[ ]", "[]"),
        ("[1.0, 1e0, 10e-1, 0.1e1, 1]", "[1,1,1,1,1]"),
        ("[-0, -0.0, 0e9, 0]", "[0,0,0,0]"),
        ("[100e-2,1.50,15e-1]", "[1,1.5,1.5]"),
        (r#""\u0041\/\u00e9\u001F\u001f\u000a\b""#, "\"A/\u{e9}\\u001f\\u001f\\n\\b\""),
        (r#""\u2028\u007f\ud83d\ude00""#, "\"\u{2028}\u{7f}\u{1f600}\""),
        (r#""\"\\\t\u0022\u005c""#, r#""\"\\\t\"\\""#),
        (r#"{"b":1,"a":{"d":[],"c":{"f":null,"e":true}}}"#, r#"{"a":{"c":{"e":true,"f":null},"d":[]},"b":1}"#),
        (r#"{"b":[1, 2],"a":"x\/y","c":3.0}"#, r#"{"a":"x/y","b":[1,2],"c":3}"#),
        (r#"[{"a":1,"b":2},{"a" :1,"b":2},{"b":2,"a":1}]"#, r#"[{"a":1,"b":2},{"a":1,"b":2},{"a":1,"b":2}]"#),
        ("{\"\\u0062\":1,\n\"a\"\n:\n2\n}", r#"{"a":2,"b":1}"#),
        (r#"{"10":1,"1":2,"":3,"2":4,"A":5,"a":6,"aa":7}"#, r#"{"":3,"1":2,"10":1,"2":4,"A":5,"a":6,"aa":7}"#),
        (r#"{"aaaaaaaab":1,"aaaaaaaaa":2,"aaaaaaaa":3}"#, r#"{"aaaaaaaa":3,"aaaaaaaaa":2,"aaaaaaaab":1}"#),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
        assert_eq!(canonical(expected), expected);
    }
}

#[test]
fn a_part_of_a_document_is_written_alone_and_appended() {
    let document =
        Document::parse(Bytes::from_static(b"{\"z\":{\"b\": 1,\"a\":2},\"y\":[1,2]}"), &JsonLimits::default()).unwrap();
    let mut out = b"before ".to_vec();
    write(document.root().get("z").unwrap(), &mut out);
    write(document.root().get("y").unwrap(), &mut out);
    assert_eq!(out, b"before {\"a\":2,\"b\":1}[1,2]");
}

#[test]
fn an_object_with_thousands_of_keys_is_sorted() {
    let keys: Vec<String> = (0..5_000).map(|n| format!("common prefix {}", n * 7_919 % 5_000)).collect();
    let text = format!("{{{}}}", keys.iter().map(|key| format!("\"{key}\":0")).collect::<Vec<_>>().join(","));
    let oracle = serde_json_canonicalizer::to_string(&serde_json::from_str::<Value>(&text).unwrap()).unwrap();
    assert_eq!(canonical(&text), oracle);
}

/// Numbers that RFC 8785 carries without loss.
fn number() -> impl Strategy<Value = Value> {
    let kept = |value: &f64| value.is_finite() && !(9_007_199_254_740_992.0..1e21).contains(&value.abs());
    prop_oneof![
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
        (-1_000_i64..1_000).prop_map(Value::from),
        any::<f64>().prop_filter("kept", kept).prop_map(Value::from),
        any::<u64>().prop_map(f64::from_bits).prop_filter("kept", kept).prop_map(Value::from),
        (-100_000_i32..100_000, 0..8_i32)
            .prop_map(|(digits, scale)| Value::from(f64::from(digits) / 10_f64.powi(scale))),
    ]
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-d]{0,3}",
        "[a-z]{6,10}",
        any::<String>(),
        "[\u{e000}-\u{ffff}\u{10000}-\u{10ffff}a\"\\\\/\u{0}-\u{1f}]{0,12}"
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number(), string().prop_map(Value::from)];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map(string(), inner, 0..40)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A JSON text in one of its many spellings: whitespace, member order and escapes as `choices` has them.
fn spell(value: &Value, choices: &mut impl FnMut(u32) -> u32, out: &mut String) {
    let mut space =
        |out: &mut String| out.push_str(["", "", "", " ", "\n  ", "\t\r\n", "          "][choices(7) as usize]);
    space(out);
    match value {
        Value::Array(elements) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                spell(element, choices, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            let mut members: Vec<_> = members.iter().collect();
            if choices(3) > 0 && !members.is_empty() {
                let by = choices(u32::try_from(members.len()).unwrap()) as usize;
                members.rotate_left(by);
            }
            for (at, (key, member)) in members.into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                spell(&Value::from(key.as_str()), choices, out);
                out.push(':');
                spell(member, choices, out);
            }
            out.push('}');
        }
        Value::String(text) => {
            out.push('"');
            for character in text.chars() {
                match (character, choices(12)) {
                    ('\0'..='\u{1f}' | '"' | '\\', 0..8) => {
                        let quoted = serde_json::to_string(&character).unwrap();
                        out.push_str(&quoted[1..quoted.len() - 1]);
                    }
                    ('/', 0..6) => out.push_str("\\/"),
                    (_, 11) | ('\0'..='\u{1f}' | '"' | '\\', _) => {
                        for unit in character.encode_utf16(&mut [0; 2]) {
                            out.push_str(&if *unit % 2 == 0 {
                                format!("\\u{unit:04x}")
                            } else {
                                format!("\\u{unit:04X}")
                            });
                        }
                    }
                    (plain, _) => out.push(plain),
                }
            }
            out.push('"');
        }
        // Beyond 2^50 two decimals can be equally near, and Rust chooses another one than ECMAScript.
        Value::Number(number) if number.is_f64() && number.as_f64().unwrap().abs() < 1e15 && choices(2) == 0 => {
            out.push_str(&format!("{:E}", number.as_f64().unwrap()));
        }
        other => out.push_str(&other.to_string()),
    }
    out.push_str(["", "", " ", "\n"][choices(4) as usize]);
}

fn spelled() -> impl Strategy<Value = (Value, String)> {
    (value(), any::<u64>()).prop_map(|(value, seed)| {
        let mut state = seed | 1;
        let mut choices = |below: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(state >> 33).unwrap() % below
        };
        let mut text = String::new();
        spell(&value, &mut choices, &mut text);
        (value, text)
    })
}

/// Valid texts, for the parser's tests.
pub(in crate::statement) fn json_text() -> impl Strategy<Value = String> {
    spelled().prop_map(|(_, text)| text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_spelling_is_written_as_the_oracle_writes_the_value((value, text) in spelled()) {
        let written = canonical(&text);
        prop_assert_eq!(&written, &serde_json_canonicalizer::to_string(&value).unwrap());
        prop_assert_eq!(canonical(&written), written);
    }
}
