//! Signatures that are not what was asked for.

use faulty_token::{Corruption, Fault, Function};

use crate::support::{Application, as_application, is_good, is_of, private, sign, sign_with};

/// A signature over `hello` that is spoilt, after one over `before` that is not.
fn spoilt(application: &Application, how: Corruption) -> (cryptoki::session::Session, Vec<u8>) {
    let session = application.logged_in();
    assert!(is_good(&session, b"before", &sign(&session, b"before").unwrap()));
    application.control.inject(Fault::on(Function::C_Sign).corrupts(how).once()).unwrap();
    let signature = sign(&session, b"hello").unwrap();
    let after = sign(&session, b"after").unwrap();
    assert!(is_good(&session, b"after", &after), "the fault is not gone");
    let seen = application.control.counters().unwrap();
    assert_eq!(seen.misuse, []);
    (session, signature)
}

fn order() -> Vec<u8> {
    (0..32).map(|n| u8::from_str_radix(&ORDER[2 * n..2 * n + 2], 16).unwrap()).collect()
}

// SEC 2, section 2.4.2.
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

#[test]
fn a_flipped_bit_spoils_a_signature_of_the_right_length() {
    as_application!(|application| {
        let (session, signature) = spoilt(application, Corruption::FlipBit);
        assert_eq!(signature.len(), 64);
        assert!(!is_good(&session, b"hello", &signature));
        assert_eq!(application.control.counters().unwrap().corrupted, 1);
    });
}

#[test]
fn a_signature_is_cut_to_any_length() {
    as_application!(|application| {
        for length in [63, 32, 1, 0] {
            let (session, signature) = spoilt(application, Corruption::Resize(length));
            assert_eq!(signature.len(), length);
            assert!(!is_good(&session, b"hello", &signature));
        }
    });
}

#[test]
fn a_signature_over_another_digest_is_by_the_right_key() {
    as_application!(|application| {
        let (session, signature) = spoilt(application, Corruption::OtherDigest);
        assert_eq!(signature.len(), 64);
        assert!(!is_good(&session, b"hello", &signature));
    });
}

#[test]
fn a_signature_by_another_key_of_the_token_is_good_for_that_key() {
    as_application!(|application| {
        let (session, signature) = spoilt(application, Corruption::OtherKey);
        assert!(!is_good(&session, b"hello", &signature));
        assert!(is_of(&session, "other", b"hello", &signature));
    });
}

#[test]
fn the_signature_of_another_request_is_given_out() {
    as_application!(|application| {
        let (session, signature) = spoilt(application, Corruption::Previous);
        assert!(!is_good(&session, b"hello", &signature));
        assert!(is_good(&session, b"before", &signature));
    });
}

#[test]
fn numbers_out_of_range_are_what_they_are_called() {
    as_application!(|application| {
        let (session, zero) = spoilt(application, Corruption::AllZero);
        assert_eq!(zero, [0; 64]);
        let (_, r) = spoilt(application, Corruption::ROutOfRange);
        assert_eq!((r.len(), &r[..32]), (64, &order()[..]));
        let (_, s) = spoilt(application, Corruption::SOutOfRange);
        assert_eq!((s.len(), &s[32..]), (64, &order()[..]));
        for signature in [zero, r, s] {
            assert!(!is_good(&session, b"hello", &signature));
        }
    });
}

#[test]
fn good_signatures_come_in_their_rare_shapes() {
    as_application!(|application| {
        let (session, high) = spoilt(application, Corruption::HighBits);
        assert!(high[0] >= 0x80 && high[32] >= 0x80);
        assert!(is_good(&session, b"hello", &high));
        let (_, short) = spoilt(application, Corruption::ShortR);
        assert_eq!(short[0], 0);
        assert!(is_good(&session, b"hello", &short));
        assert_eq!(application.control.counters().unwrap().corrupted, 0);
    });
}

#[test]
fn a_corruption_by_chance_spoils_some_and_leaves_the_others_good() {
    as_application!(|application| {
        let session = application.logged_in();
        let key = private(&session);
        let fault = Fault::on(Function::C_Sign).corrupts(Corruption::FlipBit).with_chance(0.3, 5);
        application.control.inject(fault).unwrap();
        let good =
            (0..100).filter(|_| is_good(&session, b"x", &sign_with(&session, key, b"x").unwrap())).count() as u64;
        let seen = application.control.counters().unwrap();
        assert_eq!((seen.signatures, seen.corrupted), (good, 100 - good));
        assert!((50..90).contains(&good), "{good} of 100");
    });
}
